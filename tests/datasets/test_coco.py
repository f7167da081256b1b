"""Reading COCO: from an archive to objects."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.masks.coco_masks import decode_mask, encode_mask
from tests.datasets.builders import (
    blocks,
    coco_archive,
    coco_image,
    coco_json,
    coco_object,
    codes,
    image_64x48,
    images_of,
    ingest,
    the_finding,
)
from workers.datasets.formats.json_stream import BadJson, JsonFile
from workers.datasets.store import DatasetStore
from workers.errors import UnusableDataset

SQUARE = blocks((1, 10, 5, 30, 20))
CATS = [coco_object(number) for number in range(1, 6)]


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def test_archive_is_recognised_and_boxes_become_corners(store: DatasetStore) -> None:
    version = ingest(store, coco_archive())

    assert (version.info.format, version.info.task, version.info.categories) == ("coco", "detection", ("cat",))
    assert images_of(store, version)["0.png"].objects[0].box == (10, 5, 30, 20)
    assert the_finding(version.info.report, "empty_categories").message.endswith("'dog'.")


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 5, 30, 5, 30, 20, 10, 20]],
        {"size": [48, 64], "counts": encode_mask(SQUARE)},
        {"size": [48, 64], "counts": [485, *([15, 33] * 20)[:-1], 48 * 64 - 485 - 20 * 15 - 19 * 33]},
    ],
    ids=["polygon", "compressed", "uncompressed"],
)
def test_outlines_and_run_lengths_become_the_same_mask(store: DatasetStore, segmentation: Any) -> None:
    objects = [coco_object(number, segmentation=segmentation) for number in range(6)]
    version = ingest(store, coco_archive(*objects))

    (target,) = images_of(store, version)["0.png"].objects
    assert target.mask is not None
    np.testing.assert_array_equal(decode_mask(target.mask, 48, 64), SQUARE)
    assert version.info.has_masks


def test_missing_box_is_derived_from_the_mask(store: DatasetStore) -> None:
    without_box = coco_object(0, None, segmentation=[[10, 5, 30, 5, 30, 20, 10, 20]])
    version = ingest(store, coco_archive(without_box, *CATS))

    assert images_of(store, version)["0.png"].objects[0].box == (10, 5, 30, 20)
    assert not version.info.has_masks
    assert "masks_incomplete" in codes(version.info.report)


def test_crowds_are_marked_and_are_not_enough_to_learn_a_category(store: DatasetStore) -> None:
    crowd = coco_object(0, iscrowd=1, segmentation={"size": [48, 64], "counts": encode_mask(SQUARE)})
    version = ingest(store, coco_archive(crowd, *CATS))
    assert images_of(store, version)["0.png"].objects[0].is_crowd

    with pytest.raises(UnusableDataset, match="None of the 6 images has an object"):
        ingest(store, coco_archive(crowd))


def test_category_ids_with_gaps_become_indices_in_order(store: DatasetStore) -> None:
    objects = [coco_object(number, category=90 if number % 2 else 7) for number in range(6)]
    version = ingest(store, coco_archive(*objects, categories=[(90, "dog"), (7, "cat")]))

    assert version.info.categories == ("dog", "cat")
    assert images_of(store, version)["0.png"].objects[0].category == 1
    assert "category_ids_with_gaps" in codes(version.info.report)


def test_several_files_are_the_splits(store: DatasetStore) -> None:
    files = {
        f"{split}2017/{number}.png": image_64x48(number)
        for number in range(6)
        for split in [("train", "val")[number > 3]]
    }
    files["annotations/instances_train2017.json"] = coco_json(
        [coco_image(n) for n in range(4)], [coco_object(n) for n in range(4)]
    )
    files["annotations/instances_val2017.json"] = coco_json(
        [coco_image(n) for n in (4, 5)], [coco_object(n) for n in (4, 5)]
    )
    files["annotations/captions_val2017.json"] = coco_json(
        [coco_image(n) for n in (4, 5)], [{"image_id": 4, "caption": "a"}]
    )
    info = ingest(store, files).info

    assert (info.splits["train"].images, info.splits["val"].images) == (4, 2)
    assert codes(info.report) <= {"few_images", "empty_categories"}


def test_equal_names_in_two_splits_are_distinguished_by_the_folder_of_the_list(store: DatasetStore) -> None:
    files: dict[str, bytes] = {}
    for offset, split in ((0, "train"), (10, "valid")):
        files |= {f"{split}/{number}.png": image_64x48(number + offset) for number in range(3)}
        files[f"{split}/_annotations.coco.json"] = coco_json(
            [coco_image(n) for n in range(3)], [coco_object(n) for n in range(3)]
        )
    info = ingest(store, files).info

    assert (info.splits["train"].images, info.splits["val"].images) == (3, 3)


def test_missing_and_unlisted_images_are_reported(store: DatasetStore) -> None:
    files = {**coco_archive(), "images/extra.png": image_64x48(50)}
    del files["images/0.png"]
    info = ingest(store, files).info

    assert the_finding(info.report, "missing_images").files == ("0.png",)
    assert the_finding(info.report, "missing_annotations").files == ("images/extra.png",)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]}, "unknown_images"),
        ({"image_id": 0, "category_id": 77, "bbox": [1, 1, 5, 5]}, "unknown_categories"),
        ({"image_id": 0, "category_id": 1}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 1, 5]}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "bbox": "text"}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 1, float("inf"), 5]}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 1, 10**400, 5]}, "bad_entries"),
        ({"image_id": [0], "category_id": {}, "bbox": [1, 1, 5, 5]}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "segmentation": [[1, 2, 3]]}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "segmentation": [1, "a"]}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"counts": "a"}}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [48, 64], "counts": 5}}, "bad_entries"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [48, 64], "counts": "ooo"}}, "broken_masks"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [48, 64], "counts": "\xff"}}, "broken_masks"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [48, 64], "counts": [1, 2]}}, "broken_masks"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [48, 64], "counts": [-1, 3073]}}, "broken_masks"),
        ({"image_id": 0, "category_id": 1, "segmentation": {"size": [10**6, 10**6], "counts": "0"}}, "broken_masks"),
        ({"image_id": 0, "category_id": 1, "segmentation": [[90, 90, 95, 90, 95, 95]]}, "empty_masks"),
        ({"image_id": 0, "category_id": 1, "bbox": [90, 90, 5, 5]}, "outside_boxes"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, 0, 5]}, "degenerate_boxes"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, -3, 5]}, "degenerate_boxes"),
        ({"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 15]}, "duplicate_boxes"),
        ({"image_id": 0, "category_id": 1, "bbox": [50, 5, 60, 15]}, "clipped_boxes"),
        ("no entry", "bad_entries"),
    ],
)
def test_unusable_entry_is_reported_with_its_line(store: DatasetStore, entry: Any, code: str) -> None:
    files = coco_archive(entry, *CATS)
    info = ingest(store, files).info

    line = next(n for n, text in enumerate(files["annotations.json"].split(b"\n"), 1) if b'"annotations"' in text) + 1
    line += 1 if code == "duplicate_boxes" else 0  # the second of the two is left out
    assert the_finding(info.report, code).files == (f"annotations.json:{line}",)
    assert info.splits["train"].objects_by_category["cat"] + info.splits["val"].objects_by_category["cat"] == (
        6 if code == "clipped_boxes" else 5
    )


def test_box_across_the_edge_is_clipped(store: DatasetStore) -> None:
    version = ingest(store, coco_archive(coco_object(0, (50, 40, 60, 15)), *CATS))

    assert images_of(store, version)["0.png"].objects[0].box == (50, 40, 64, 48)


@pytest.mark.parametrize(
    ("cut", "line"),
    [(lambda text: text[:-20], None), (lambda text: text.replace('"images": [', '"images": [,'), 2)],
    ids=["ends early", "comma"],
)
def test_broken_json_is_an_error_with_file_and_line(store: DatasetStore, cut: Any, line: int | None) -> None:
    files = coco_archive()
    broken = cut(files["annotations.json"].decode())
    line = line or broken.count("\n") + 1
    with pytest.raises(UnusableDataset, match=rf"annotations\.json:{line}: the JSON is broken") as caught:
        ingest(store, {**files, "annotations.json": broken.encode()})

    assert caught.value.problems[0]["code"] == "broken_json"
    assert caught.value.problems[0]["files"] == [f"annotations.json:{line}"]


def test_annotations_of_other_images_are_refused(store: DatasetStore) -> None:
    files = coco_archive()
    with pytest.raises(UnusableDataset, match="None of the images listed in annotations"):
        ingest(store, {"images/other.png": image_64x48(), "annotations.json": files["annotations.json"]})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]", 1),
        ('{"a": [1,\n2', 2),
        ('{"a": [1] "b"}', 1),
        ('{"a": [1],\n}', 2),
        ('{"a": nul}', 1),
        ('{"a": 1}\nx', 2),
        ('{"a": [' + "[" * 100_000 + "]}", 1),
        ('{"a": [' + "1" * 5000 + "]}", 1),
        ('{"a\n": 1}', 1),
    ],
)
def test_invalid_json_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadJson) as caught:
        list(JsonFile(path).items(("a",)))
    assert caught.value.line == line


def test_json_items_come_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"skipped": [[1], {"b": 2}], "a": [{"x": 1}, 2], "c": {}, "e": []}, indent=1), "utf-8-sig"
    )

    assert list(JsonFile(path).items(("a", "e"))) == [("a", {"x": 1}, 11), ("a", 2, 14)]


def test_json_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(BadJson, match="UTF-8") as caught:
        JsonFile(path)
    assert caught.value.line == 2


def test_large_json_is_never_in_memory_as_a_whole_tree(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(
        coco_json([], [coco_object(number, area=1.5, segmentation=[[0.5] * 40]) for number in range(8000)])
    )
    size = path.stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in JsonFile(path).items(("annotations",))) == 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2.5 * size  # the bytes and the text; a tree would take ten times the size of the file


@pytest.mark.parametrize(
    ("stated", "kept"),
    [(300, 300.0), (299.5, 299.5), ("299.5", 299.5), (0, None), (-1, None), ("large", None), (None, None), ([], None)],
)
def test_area_is_kept_as_the_file_states_it_if_it_can_be_one(
    store: DatasetStore, stated: object, kept: float | None
) -> None:
    version = ingest(store, coco_archive(coco_object(0, area=stated), *CATS))

    assert images_of(store, version)["0.png"].objects[0].area == kept
