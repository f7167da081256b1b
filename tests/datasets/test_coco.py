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


NUMBERS = range(6)


def boxes_of(store: DatasetStore, files: dict[str, bytes]) -> dict[str, list[tuple[float, ...]]]:
    images = images_of(store, ingest(store, files))
    return {name: [each.box for each in image.objects] for name, image in images.items()}


@pytest.mark.parametrize(
    ("of_image", "in_object"),
    [(int, float), (str, int), (int, str), (str, float), (str, str), (float, int), (str, "{}.0".format)],
)
def test_ids_may_be_texts_or_floats(store: DatasetStore, of_image: Any, in_object: Any) -> None:
    entries = [{**coco_image(number), "id": of_image(number)} for number in NUMBERS]
    objects = [
        {**coco_object(number), "image_id": in_object(number), "category_id": in_object(1)} for number in NUMBERS
    ]
    files = {**coco_archive(), "annotations.json": coco_json(entries, objects)}

    assert boxes_of(store, files) == {f"{number}.png": [(10, 5, 30, 20)] for number in NUMBERS}


def test_texts_that_differ_are_different_ids(store: DatasetStore) -> None:
    entries = [{**coco_image(number), "id": f"0{number}"} for number in range(3)]
    entries += [{**coco_image(number + 3), "id": number} for number in range(3)]
    objects = [coco_object(0) | {"image_id": "00"}, coco_object(1), coco_object(2), coco_object(0, (1, 1, 5, 5))]
    files = {**coco_archive(), "annotations.json": coco_json(entries, objects)}
    boxes = boxes_of(store, files)

    assert boxes["0.png"] == [(10, 5, 30, 20)]
    assert boxes["3.png"] == [(1, 1, 6, 6)]


@pytest.mark.parametrize("box", [["10", "5", "20", "15"], [10.0, "5.0", 20, 15], "[10, 5, 20, 15]"])
def test_numbers_may_be_texts(store: DatasetStore, box: Any) -> None:
    objects = [{**coco_object(number), "bbox": box} for number in NUMBERS]

    assert boxes_of(store, coco_archive(*objects))["0.png"] == [(10, 5, 30, 20)]


@pytest.mark.parametrize(
    "outline",
    [
        [[]],
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        "text",
        {"counts": "a"},
        {"size": [48, 64], "counts": "ooo"},
        {"size": [9, 9], "counts": [81]},
        [[90, 90, 95, 90, 95, 95]],
        [["a", "b", 1, 2, 3, 4]],
    ],
)
def test_useless_outline_leaves_its_box(store: DatasetStore, outline: Any) -> None:
    version = ingest(store, coco_archive(coco_object(0, segmentation=outline), *CATS))

    assert images_of(store, version)["0.png"].objects[0].box == (10, 5, 30, 20)
    assert the_finding(version.info.report, "outlines_ignored").count == 1


@pytest.mark.parametrize("box", [[1, 2, 3], "text", [0, 0, 0, 0], [9, 9, -5, 3], []])
def test_useless_box_is_derived_from_its_outline(store: DatasetStore, box: Any) -> None:
    entry = {**coco_object(0), "bbox": box, "segmentation": [[10, 5, 30, 5, 30, 20, 10, 20]]}

    assert boxes_of(store, coco_archive(entry, *CATS))["0.png"] == [(10, 5, 30, 20)]


def test_part_of_an_outline_without_area_is_ignored(store: DatasetStore) -> None:
    outline = [[10, 5, 30, 5, 30, 20, 10, 20], [1, 1, 2, 2]]
    objects = [coco_object(number, segmentation=outline) for number in NUMBERS]

    assert ingest(store, coco_archive(*objects)).info.has_masks


@pytest.mark.parametrize("flag", [1, "1", True, 1.0, "true"])
def test_crowd_may_be_written_in_many_ways(store: DatasetStore, flag: Any) -> None:
    version = ingest(store, coco_archive(coco_object(0, iscrowd=flag), *CATS))

    assert images_of(store, version)["0.png"].objects[0].is_crowd


@pytest.mark.parametrize("flag", [0, "0", False, 0.0, None, "false", ""])
def test_no_crowd_may_be_written_in_many_ways(store: DatasetStore, flag: Any) -> None:
    version = ingest(store, coco_archive(coco_object(0, iscrowd=flag, ignore=flag), *CATS))
    target = images_of(store, version)["0.png"].objects[0]

    assert (target.is_crowd, target.is_difficult) == (False, False)


def test_several_entries_for_one_image_are_put_together(store: DatasetStore) -> None:
    entries = [{**coco_image(number % 6), "id": number} for number in range(12)]
    objects = [coco_object(number, (10, 5, 20, 15 + number)) for number in range(12)]
    version = ingest(store, {**coco_archive(), "annotations.json": coco_json(entries, objects)})

    assert [each.box[3] for each in images_of(store, version)["0.png"].objects] == [20, 26]
    assert the_finding(version.info.report, "annotated_twice").count == 6


def test_repeated_entry_with_the_same_id_is_one_image(store: DatasetStore) -> None:
    entries = [coco_image(number % 6) for number in range(12)]
    version = ingest(store, {**coco_archive(), "annotations.json": coco_json(entries, CATS)})

    assert "bad_entries" not in codes(version.info.report)


def test_entry_for_a_missing_image_adds_nothing_to_another_of_its_name(store: DatasetStore) -> None:
    entries = [*(coco_image(number, folder="images/") for number in NUMBERS), {**coco_image(0, folder="b/"), "id": 9}]
    files = {
        **coco_archive(),
        "annotations.json": coco_json(entries, [*CATS, coco_object(0), coco_object(9, (1, 1, 9, 9))]),
    }
    version = ingest(store, files)

    assert [each.box for each in images_of(store, version)["0.png"].objects] == [(10, 5, 30, 20)]
    assert the_finding(version.info.report, "missing_images").files == ("b/0.png",)


@pytest.mark.parametrize(
    "entry",
    [
        coco_object(0, category=77),
        {**coco_object(0), "category_id": None},
        {**coco_object(0), "bbox": [1, 2, 3]},
        {**coco_object(0, None), "segmentation": {"size": [48, 64], "counts": "ooo"}},
    ],
)
def test_image_with_an_object_that_cannot_be_used_is_left_out(store: DatasetStore, entry: dict[str, Any]) -> None:
    version = ingest(store, coco_archive(entry, coco_object(0, (1, 1, 9, 9)), *CATS))

    assert "0.png" not in images_of(store, version)
    assert the_finding(version.info.report, "images_with_bad_entries").files == ("images/0.png",)


def test_entries_are_counted_although_the_file_has_one_line(store: DatasetStore) -> None:
    files = coco_archive(*(coco_object(number, category=77) for number in (0, 0, 1)), *CATS)
    files["annotations.json"] = files["annotations.json"].replace(b"\n", b" ")
    finding = the_finding(ingest(store, files).info.report, "unknown_categories")

    assert finding.count == 3
    assert finding.message.startswith("3 entries of annotations.json left out")
    assert finding.files == ("annotations.json:1",)


def test_image_that_two_files_put_into_different_splits_is_not_trained_on(store: DatasetStore) -> None:
    files = coco_archive()
    del files["annotations.json"]
    files["train.json"] = coco_json([coco_image(number) for number in range(5)], [coco_object(n) for n in range(5)])
    files["val.json"] = coco_json([coco_image(number) for number in (4, 5)], [coco_object(4), coco_object(5)])
    version = ingest(store, files)

    assert {image.name for image in store.images(version, "val")} == {"images/4.png", "images/5.png"}
    assert the_finding(version.info.report, "listed_in_several_splits").files == ("images/4.png",)
