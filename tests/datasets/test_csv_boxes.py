"""Boxes in a CSV file, and in Hugging Face's metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from tests.datasets.builders import archived, image_64x48, images_of, ingest, the_finding
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.datasets.store import DatasetStore

IMAGES = {f"images/{number}.png": image_64x48(number) for number in range(6)}
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
ROWS = [f"{number}.png,64,48,{'cat' if number % 2 else 'dog'},10,5,30,{20 + number}" for number in range(6)]
TENSORFLOW = "\n".join([HEADER, *ROWS, "0.png,64,48,cat,40,20,60,40"])
HUGGING_FACE = "\n".join(
    json.dumps({"file_name": f"{n}.png", "objects": {"bbox": [[10, 5, 20, 15 + n]], "categories": [n % 2]}})
    for n in range(6)
)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def read(directory: Path, **tables: str) -> Reading:
    named = {f"{name}.csv": text.encode() for name, text in tables.items()}
    return read_files(archived(directory, {**IMAGES, **named}))


def test_boxes_of_tensorflow_become_objects(store: DatasetStore) -> None:
    version = ingest(store, {**IMAGES, "train_labels.csv": TENSORFLOW.encode()})

    assert (version.info.format, version.info.task) == ("csv_boxes", "detection")
    assert version.info.categories == ("cat", "dog")
    assert [(each.category, each.box) for each in images_of(store, version)["0.png"].objects] == [
        (1, (10, 5, 30, 20)),
        (0, (40, 20, 60, 40)),
    ]


def test_roboflow_has_one_table_per_split(store: DatasetStore) -> None:
    files = {f"train/{number}.png": image_64x48(number) for number in range(4)}
    files |= {f"valid/{number}.png": image_64x48(number + 10) for number in range(2)}
    files["train/_annotations.csv"] = "\n".join([HEADER, *ROWS[:4]]).encode()
    files["valid/_annotations.csv"] = "\n".join([HEADER, *ROWS[:2]]).encode()
    info = ingest(store, files).info

    assert (info.splits["train"].images, info.splits["val"].images) == (4, 2)


def test_columns_of_makesense_have_sides(tmp_path: Path) -> None:
    header = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height"
    reading = read(tmp_path, labels=f"{header}\ncat,10,5,20,15,0.png,64,48\n")

    assert reading.files[0].annotation is not None
    assert reading.files[0].annotation.objects[0].box == (10, 5, 30, 20)


def test_fractions_of_the_image_are_read(store: DatasetStore) -> None:
    rows = "\n".join(f"{number}.png,cat,0.25,0.25,0.5,0.75" for number in range(6))
    version = ingest(store, {**IMAGES, "boxes.csv": f"image,label,x_min,y_min,x_max,y_max\n{rows}".encode()})

    assert images_of(store, version)["0.png"].objects[0].box == (16, 12, 32, 36)


def test_row_without_a_box_is_an_image_of_background(tmp_path: Path) -> None:
    reading = read(tmp_path, boxes="\n".join([HEADER, *ROWS[:5], "5.png,64,48,,,,,"]))

    assert [len(each.annotation.objects) for each in reading.files if each.annotation] == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("row", ["0.png,64,48,cat,40,x,60,40", "0.png,64,48,,40,20,60,40", "0.png,64,48,cat,1,2,nan,4"])
def test_bad_row_is_counted_and_its_image_is_left_out(tmp_path: Path, row: str) -> None:
    reading = read(tmp_path, boxes="\n".join([HEADER, *ROWS, row]))

    assert the_finding(reading.findings, "bad_entries").files == ("boxes.csv:8",)
    assert the_finding(reading.findings, "images_with_bad_entries").files == ("images/0.png",)
    assert [each.file.name for each in reading.files] == [f"images/{number}.png" for number in range(1, 6)]


def test_numbers_as_floats_are_read(tmp_path: Path) -> None:
    reading = read(tmp_path, boxes=f"{HEADER}\n0.png,64.0,48.0,cat, 10.5 ,5,30.0,20\n")

    assert reading.files[0].annotation is not None
    assert reading.files[0].annotation.size == (64, 48)
    assert reading.files[0].annotation.objects[0].box == (10.5, 5, 30, 20)


def test_objects_of_hugging_face_are_boxes_with_sides(store: DatasetStore) -> None:
    version = ingest(store, {**IMAGES, "images/metadata.jsonl": HUGGING_FACE.encode()})

    assert (version.info.format, version.info.categories) == ("hugging_face", ("0", "1"))
    assert images_of(store, version)["1.png"].objects[0].box == (10, 5, 30, 21)


@many_examples
@given(damaged(TENSORFLOW.encode()))
def test_no_damage_of_a_table_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "labels.csv": content})

    if reading is not None and reading.format == "csv_boxes":
        assert accounted_images(reading) == len(IMAGES)


@many_examples
@given(damaged(HUGGING_FACE.encode()))
def test_no_damage_of_json_lines_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "images/metadata.jsonl": content})

    if reading is not None and reading.format == "hugging_face":
        assert accounted_images(reading) == len(IMAGES)
