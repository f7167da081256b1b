"""Exports of Label Studio: shapes, brushes and choices, as JSON and as JSON-MIN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from models.masks.coco_masks import decode_mask
from tests.datasets.builders import archived, blocks, image_64x48, images_of, ingest, the_finding
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.label_studio_brush import BrokenBrush, decode_brush
from workers.datasets.store import DatasetStore

IMAGES = {f"images/{number}.png": image_64x48(number) for number in range(6)}
RECTANGLE = {"x": 25.0, "y": 25.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["cat"]}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def task(number: int, *values: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-{}.png") -> dict[str, Any]:
    results = [
        {"type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": value}
        for value in values or [RECTANGLE]
    ]
    return {"id": number, "data": {"image": image.format(number)}, "annotations": [{"id": 1, "result": results}]}


def export(*first: dict[str, Any]) -> bytes:
    """Six tasks; `first` are the values of the first, a rectangle by default."""
    return json.dumps([task(0, *first), *(task(number) for number in range(1, 6))], indent=1).encode()


def studio_archive(*first: dict[str, Any]) -> dict[str, bytes]:
    return {**IMAGES, "project-1-at-2026-11-30.json": export(*first)}


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-{}.png",
        "/data/local-files/?d=images/{}.png",
        "https://example.org/a%20b/{}.png",
        "s3://bucket/{}.png",
    ],
)
def test_percents_become_boxes_of_the_named_image(store: DatasetStore, image: str) -> None:
    tasks = json.dumps([task(number, image=image) for number in range(6)]).encode()
    version = ingest(store, {**IMAGES, "export.json": tasks})

    assert (version.info.format, version.info.categories) == ("label_studio", ("cat",))
    assert images_of(store, version)["3.png"].objects[0].box == (16, 12, 48, 36)


def test_images_with_the_prefix_of_an_upload_are_found(store: DatasetStore) -> None:
    files = {f"0a1b2c3d-{number}.png": image_64x48(number) for number in range(6)}

    assert ingest(store, {**files, "export.json": export()}).info.splits["train"].images == 5


def test_short_export_is_read_too(store: DatasetStore) -> None:
    shape = {**RECTANGLE, "original_width": 64, "original_height": 48}
    tasks = [{"image": f"/data/upload/1/{n}.png", "id": n, "label": [shape], "annotator": 1} for n in range(6)]
    version = ingest(store, {**IMAGES, "export.json": json.dumps(tasks).encode()})

    assert images_of(store, version)["0.png"].objects[0].box == (16, 12, 48, 36)


def test_polygons_and_ellipses_have_masks(store: DatasetStore) -> None:
    polygon = {"points": [[25, 25], [75, 25], [75, 75], [25, 75]], "polygonlabels": ["cat"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "ellipselabels": ["dog"]}
    first, second = images_of(store, ingest(store, studio_archive(polygon, ellipse)))["0.png"].objects

    assert (first.box, first.mask is not None) == ((16, 12, 48, 36), True)
    assert second.box == pytest.approx((16, 12, 48, 36), abs=1)


def test_rotated_rectangle_becomes_the_upright_box_around_it(store: DatasetStore) -> None:
    value = {**RECTANGLE, "x": 50, "y": 0, "width": 50, "height": 25, "rotation": 90}  # 32 x 12 px, turned about 32,0
    version = ingest(store, studio_archive(value))

    assert images_of(store, version)["0.png"].objects[0].box == pytest.approx((20, 0, 32, 32), abs=0.001)
    assert the_finding(version.info.report, "rotated_boxes").count == 1


def packed(values: np.ndarray[Any, Any]) -> list[int]:
    """The bytes of rle-pack for RGBA values of 8 bits: runs and single values, with lengths of 4 or 16 bits."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (4, 8, 12, 16))
    at = 0
    while at < len(values):
        end = at
        while end < len(values) and values[end] == values[at] and end - at < 65536:
            end += 1
        if end - at > 1:
            bits += "1" + "11" + f"{end - at - 1:016b}" + f"{values[at]:08b}"
        else:
            bits += "0" + "00" + f"{0:04b}" + f"{values[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_brush_becomes_a_mask(store: DatasetStore) -> None:
    inside = blocks((1, 5, 5, 15, 25), (1, 30, 10, 31, 11))
    colours = np.zeros((48, 64, 4), dtype=np.uint8)
    colours[inside == 1] = (250, 50, 83, 255)
    value = {"format": "rle", "rle": packed(colours.ravel()), "brushlabels": ["cat"]}
    (target,) = images_of(store, ingest(store, studio_archive(value)))["0.png"].objects

    assert target.mask is not None
    np.testing.assert_array_equal(decode_mask(target.mask, 48, 64), inside)


@pytest.mark.parametrize("written", [None, [], [1, 2, 3], [256], ["a"], packed(np.zeros(16, dtype=np.uint8))[:-2]])
def test_damaged_brush_is_refused(written: Any) -> None:
    with pytest.raises(BrokenBrush):
        decode_brush(written, width=2, height=2)


def test_image_that_nobody_annotated_is_left_out_and_one_without_objects_is_background(store: DatasetStore) -> None:
    tasks = [task(number) for number in range(6)]
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["result"] = []
    version = ingest(store, {**IMAGES, "export.json": json.dumps(tasks).encode()})

    assert the_finding(version.info.report, "missing_annotations").files == ("images/0.png",)
    assert images_of(store, version)["1.png"].objects == ()


def test_first_of_several_annotations_is_used_with_a_warning(store: DatasetStore) -> None:
    tasks = [task(number) for number in range(6)]
    tasks[0]["annotations"] *= 2
    version = ingest(store, {**IMAGES, "export.json": json.dumps(tasks).encode()})

    assert len(images_of(store, version)["0.png"].objects) == 1
    assert the_finding(version.info.report, "annotated_twice").count == 1


def test_bad_shape_is_counted_and_leaves_its_image_out(store: DatasetStore) -> None:
    report = ingest(store, studio_archive({**RECTANGLE, "x": "wide"})).info.report

    assert the_finding(report, "bad_entries").count == 1
    assert the_finding(report, "images_with_bad_entries").files == ("images/0.png",)


@pytest.mark.parametrize("is_short", [False, True])
def test_choices_are_categories(tmp_path: Path, is_short: bool) -> None:
    def entry(number: int) -> dict[str, Any]:
        label = ("cat", "dog")[number % 2]
        if is_short:
            return {"image": f"/data/upload/1/{number}.png", "choice": label, "annotator": 1}
        result = [{"type": "choices", "value": {"choices": [label]}}]
        return {"data": {"image": f"/data/upload/1/{number}.png"}, "annotations": [{"result": result}]}

    tasks = json.dumps([entry(number) for number in range(6)]).encode()
    reading = read_files(archived(tmp_path, {**IMAGES, "export.json": tasks}))

    assert reading.format == "label_studio_choices"
    assert [each.label for each in reading.files] == ["cat", "dog"] * 3
    assert reading.findings == ()


@many_examples
@given(damaged(export()))
def test_no_damage_of_an_export_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "export.json": content})

    if reading is not None and reading.format == "label_studio":
        assert accounted_images(reading) == len(IMAGES)
