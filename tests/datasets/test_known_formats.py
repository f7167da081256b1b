"""Formats that are not read are named with the way out."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest

from models.manifest import Task
from tests.datasets.builders import archived, folders, small_image, unpacked
from workers.datasets.formats.catalog import read_files
from workers.errors import BrokenArchive, UnusableDataset

IMAGES = {f"train/{number}.jpg": small_image(number) for number in range(4)} | {"valid/9.jpg": small_image(9)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("task", [None, "detection"])
@pytest.mark.parametrize(
    ("files", "name", "way_out"),
    [
        ({"train/cells.tfrecord": b"\0\1"}, "TFRecord", "COCO"),
        ({"train.tfrecord-00000-of-00010": b"\0\1"}, "TFRecord", "COCO"),
        ({"data/train-00000-of-00001.parquet": b"PAR1"}, "Parquet", "metadata.csv"),
        ({"meta.json": b"{}", "ds/ann/1.jpg.json": b'{"objects": [{"classTitle": "cat"}]}'}, "Supervisely", "COCO"),
        ({"via_region_data.json": b'{"1.jpg1": {"regions": [{"shape_attributes": {}}]}}'}, "VIA", "COCO"),
        ({"via.csv": b"filename,file_size,region_shape_attributes\n1.jpg,2,{}\n"}, "VIA", "COCO"),
        (
            {"annotations/default.json": b'{"categories": {}, "items": [{"annotations": [{"label_id": 0}]}]}'},
            "Datumaro",
            "datum convert",
        ),
        (
            {"train/_annotations.train.jsonl": b'{"image": "1.jpg", "prefix": "detect a", "suffix": "<loc1> a"}'},
            "JSONL",
            "COCO",
        ),
        ({"train/_annotations.txt": b"1.jpg 1,2,30,40,0\n2.jpg 1,2,30,40,1\n"}, "YOLO v4", "data.yaml"),
    ],
)
def test_format_that_is_not_read_is_named_with_the_way_out(
    tmp_path: Path, files: Mapping[str, bytes], name: str, way_out: str, task: Task | None
) -> None:
    with pytest.raises(UnusableDataset, match="which Fovea does not read") as caught:
        read_files(archived(tmp_path, {**IMAGES, **files}), task=task)

    assert name in str(caught.value)
    assert way_out in str(caught.value.hint)
    assert caught.value.problems[0]["code"] == "known_format"


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableDataset, match="pointers of Git LFS") as caught:
        read_files(archived(tmp_path, {f"{label}/{n}.jpg": POINTER for label in ("ants", "bees") for n in range(3)}))
    assert "git lfs pull" in str(caught.value.hint)


def test_folders_of_categories_stay_readable_beside_a_single_pointer(tmp_path: Path) -> None:
    reading = read_files(archived(tmp_path, {**folders(ants=2, bees=2), "ants/9.jpg": POINTER}))

    assert len(reading.files) == 5  # inspection reports the pointer


@pytest.mark.parametrize(
    ("content", "words", "way_out"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive", "as a zip"),
        (b"Rar!\x1a\x07\x00" + bytes(600), "a RAR archive", "as a zip"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page", "login"),
    ],
)
def test_file_that_is_no_zip_is_named_with_the_way_out(
    tmp_path: Path, content: bytes, words: str, way_out: str
) -> None:
    with pytest.raises(BrokenArchive, match=words) as caught:
        unpacked(BytesIO(content), tmp_path)
    assert way_out in str(caught.value.hint)
