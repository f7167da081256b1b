"""Reading YOLO: from an archive to objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.masks.coco_masks import box_of_mask
from tests.datasets.builders import codes, image_64x48, images_of, ingest, the_finding, yolo_archive
from workers.datasets.store import DatasetStore
from workers.errors import UnusableDataset


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def test_archive_is_recognised_and_fractions_become_pixels(store: DatasetStore) -> None:
    version = ingest(store, yolo_archive("1 0.5 0.5 0.25 0.5"))

    assert (version.info.format, version.info.task) == ("yolo", "detection")
    assert version.info.categories == ("cat", "dog")
    (target,) = images_of(store, version)["0.png"].objects
    assert (target.category, target.box) == (1, (24, 12, 40, 36))


def test_polygon_lines_become_masks(store: DatasetStore) -> None:
    version = ingest(store, yolo_archive("0 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"))

    (target,) = images_of(store, version)["0.png"].objects
    assert target.mask is not None
    assert target.box == box_of_mask(target.mask, 48, 64) == (16, 12, 32, 36)


@pytest.mark.parametrize(
    "yaml", ["names:\n  0: cat\n  1: dog\n", "nc: 2\nnames: ['cat', 'dog']\n", '"names": {"0": cat, "1": dog}\n']
)
def test_names_are_a_list_or_numbered(store: DatasetStore, yaml: str) -> None:
    assert ingest(store, yolo_archive("1 0.5 0.5 0.2 0.2", names=yaml)).info.categories == ("cat", "dog")


def test_names_that_look_like_booleans_or_numbers_stay_text(store: DatasetStore) -> None:
    names = "names: [no, 1]\n"

    assert ingest(store, yolo_archive("1 0.5 0.5 0.2 0.2", names=names)).info.categories == ("no", "1")


def test_gaps_in_the_category_numbers_are_reported(store: DatasetStore) -> None:
    info = ingest(store, yolo_archive("5 0.5 0.5 0.2 0.2", names="names: {0: cat, 5: dog}\n")).info

    assert info.categories == ("cat", "dog")
    assert "category_ids_with_gaps" in codes(info.report)


def test_list_of_names_replaces_the_yaml_file(store: DatasetStore) -> None:
    files = yolo_archive("1 0.5 0.5 0.2 0.2")
    del files["data.yaml"]
    info = ingest(store, {**files, "classes.txt": b"cat\ndog\n"}).info

    assert (info.format, info.categories) == ("yolo", ("cat", "dog"))


def test_labels_without_names_are_refused(store: DatasetStore) -> None:
    files = yolo_archive("1 0.5 0.5 0.2 0.2")
    del files["data.yaml"]
    with pytest.raises(UnusableDataset, match="Nothing names the categories"):
        ingest(store, files)


@pytest.mark.parametrize(
    "layout",
    [
        ("images/train/{}.png", "labels/train/{}.txt", "images/val/{}.png", "labels/val/{}.txt", "train: images/train"),
        (
            "train/images/{}.png",
            "train/labels/{}.txt",
            "valid/images/{}.png",
            "valid/labels/{}.txt",
            "val: ../valid/images",
        ),
        ("a/{}.png", "a/{}.txt", "b/{}.png", "b/{}.txt", "train: ./a\nval: [b]"),
    ],
    ids=["ultralytics", "roboflow", "darknet"],
)
def test_splits_are_folders(store: DatasetStore, layout: tuple[str, ...]) -> None:
    train_image, train_label, val_image, val_label, config = layout
    files = {"data.yaml": f"names: [cat]\n{config}\n".encode()}
    for number in range(4):  # the same names in both splits
        files |= {train_image.format(number): image_64x48(number), train_label.format(number): b"0 0.5 0.5 0.5 0.5"}
        files |= {val_image.format(number): image_64x48(number + 10), val_label.format(number): b"0 0.5 0.5 0.2 0.2"}
    info = ingest(store, files).info

    assert (info.splits["train"].objects_by_category, info.splits["val"].objects_by_category) == (
        {"cat": 4},
        {"cat": 4},
    )
    assert codes(info.report) == {"few_images"}


def test_splits_are_lists_of_images(store: DatasetStore) -> None:
    files = yolo_archive("0 0.5 0.5 0.2 0.2", names="names: [cat]\ntrain: train.txt\nval: val.txt\n")
    lists = {
        "train.txt": b"./images/0.png\n./images/1.png\n./images/2.png\n",
        "val.txt": b"images/3.png\nimages/4.png\n",
    }
    info = ingest(store, {**files, **lists}).info

    assert (info.splits["train"].images, info.splits["val"].images) == (3, 2)
    assert the_finding(info.report, "images_outside_splits").files == ("images/5.png",)


def test_image_without_a_label_file_is_kept_as_background(store: DatasetStore) -> None:
    files = {**yolo_archive("0 0.5 0.5 0.2 0.2"), "images/9.png": image_64x48(9)}
    version = ingest(store, files)

    assert images_of(store, version)["9.png"].objects == ()
    assert the_finding(version.info.report, "missing_annotations").files == ("images/9.png",)


def test_label_file_without_an_image_is_reported(store: DatasetStore) -> None:
    info = ingest(store, {**yolo_archive("0 0.5 0.5 0.2 0.2"), "labels/9.txt": b"0 0.5 0.5 0.2 0.2"}).info

    assert the_finding(info.report, "missing_images").files == ("labels/9.txt",)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("7 0.5 0.5 0.2 0.2", "unknown_categories"),
        ("cat 0.5 0.5 0.2 0.2", "bad_objects"),
        ("0 0.5 0.5 0.2", "bad_objects"),
        ("0 0.5 0.5 0.2 0.2 0.9", "bad_objects"),
        ("0 0.5 0.5 0.2 x", "bad_objects"),
        ("0 nan 0.5 0.2 0.2", "bad_objects"),
        ("0 320 240 30 30", "bad_objects"),
        ("1e400 0.5 0.5 0.2 0.2", "bad_objects"),
        ("0 0.5 0.5 0 0.2", "degenerate_boxes"),
        ("0 1.5 0.5 0.2 0.2", "outside_boxes"),
        ("0 0.95 0.5 0.4 0.2", "clipped_boxes"),
    ],
)
def test_unusable_line_is_reported_with_its_number(store: DatasetStore, line: str, code: str) -> None:
    info = ingest(store, yolo_archive("0 0.5 0.5 0.3 0.3", "", line)).info

    assert the_finding(info.report, code).files == ("labels/0.txt:3",)


def test_image_whose_objects_are_all_unusable_is_left_out(store: DatasetStore) -> None:
    version = ingest(store, yolo_archive("0 0.5 0.5 0 0.2"))

    (name,) = the_finding(version.info.report, "images_without_usable_objects").files
    assert name.endswith("0.png")
    assert "0.png" not in images_of(store, version)


@pytest.mark.parametrize(
    ("yaml", "match"),
    [
        ("names: [cat\nval: a: b\n", r"data\.yaml:2: the YAML is broken"),
        ("names: 5\n", "neither a list of names"),
        ("names: {a: cat}\n", "neither a list of names"),
        ("names: [[a]]\n", "neither a list of names"),
        ("names: " + "[" * 5000 + "\n", r"data\.yaml:\d+: the YAML is broken"),
        ("names: !!python/object/apply:os.system [ls]\n", ""),
    ],
)
def test_broken_yaml_is_refused_with_file_and_line(store: DatasetStore, yaml: str, match: str) -> None:
    if not match:  # BaseLoader ignores tags, so this is a list of one name
        assert ingest(store, yolo_archive("0 0.5 0.5 0.3 0.3", names=yaml)).info.categories == ("ls",)
        return
    with pytest.raises(UnusableDataset, match=match):
        ingest(store, yolo_archive("0 0.5 0.5 0.3 0.3", names=yaml))


def test_points_after_boxes_are_not_read(store: DatasetStore) -> None:
    names = "names: [cat]\nkpt_shape: [2, 3]\n"
    files = yolo_archive("0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.2 0.2 2", names=names)

    assert images_of(store, (ingest(store, files)))["0.png"].objects[0].box == (24, 12, 40, 36)


def test_suffixes_and_folders_may_be_in_capitals(store: DatasetStore) -> None:
    files = {f"Images/{number}.PNG": image_64x48(number) for number in range(6)}
    files |= {f"Labels/{number}.TXT": b"0 0.5 0.5 0.25 0.5\n" for number in range(6)}
    version = ingest(store, {**files, "data.yaml": b"names: [cat]\n"})

    assert all(len(image.objects) == 1 for image in images_of(store, version).values())


def test_names_that_differ_in_case_keep_their_own_labels(store: DatasetStore) -> None:
    files = yolo_archive("0 0.5 0.5 0.25 0.5")
    files |= {"images/A.png": image_64x48(20), "images/a.png": image_64x48(21)}
    version = ingest(store, {**files, "labels/a.txt": b"1 0.5 0.5 0.5 0.5\n"})

    images = images_of(store, version)
    assert (len(images["A.png"].objects), len(images["a.png"].objects)) == (0, 1)


def test_label_file_belongs_to_the_image_of_its_own_folder(store: DatasetStore) -> None:
    files = {f"{folder}/images/0.png": image_64x48(number) for number, folder in enumerate("abcdef")}
    files |= {f"{folder}/labels/0.txt": b"0 0.5 0.5 0.25 0.5\n" for folder in "bcdef"}
    version = ingest(store, {**files, "data.yaml": b"names: [cat]\n"})

    images = {image.name: image for split in version.info.splits for image in store.images(version, split)}
    assert [len(images[f"{folder}/images/0.png"].objects) for folder in "bcdef"] == [1] * 5


def test_lists_match_by_their_folders(store: DatasetStore) -> None:
    files = {}
    for index, split in enumerate(("first", "second")):
        for number in range(4):
            files[f"images/{split}/{number}.png"] = image_64x48(number + 50 * index)
            files[f"labels/{split}/{number}.txt"] = b"0 0.5 0.5 0.25 0.5\n"
    files["data.yaml"] = b"names: [cat]\ntrain: train.txt\nval: val.txt\n"
    files["train.txt"] = "".join(f"./images/first/{number}.png\n" for number in range(4)).encode()
    files["val.txt"] = "".join(f"C:\\data\\images\\second\\{number}.png\r\n" for number in range(4)).encode()
    version = ingest(store, files)

    assert {image.name for image in store.images(version, "val")} == {f"images/second/{n}.png" for n in range(4)}


def test_image_with_a_bad_line_is_left_out(store: DatasetStore) -> None:
    version = ingest(store, yolo_archive("0 0.5 0.5 0.3 0.3", "7 0.5 0.5 0.2 0.2"))

    assert "0.png" not in images_of(store, version)
    assert the_finding(version.info.report, "images_with_bad_entries").files == ("images/0.png",)


def test_keypoints_that_are_not_read_are_said(store: DatasetStore) -> None:
    names = "kpt_shape: [2, 3]\nnames: [cat]\n"
    files = yolo_archive("0 0.5 0.5 0.25 0.5 0.5 0.5 2 0.4 0.4 1", names=names)
    report = ingest(store, files).info.report

    assert the_finding(report, "keypoints_not_read").count == 6


@pytest.mark.parametrize(
    ("line", "is_said"), [("0 0.2 0.1 0.6 0.3 0.5 0.5 0.1 0.3", True), ("0 0.5 0.5 0.25 0.5", False)]
)
def test_oriented_boxes_are_said_to_lose_their_angle(store: DatasetStore, line: str, is_said: bool) -> None:
    files = {name: line.encode() if name.endswith("txt") else each for name, each in yolo_archive("").items()}
    version = ingest(store, files)

    assert ("rotated_boxes" in codes(version.info.report)) == is_said
    if is_said:
        box = images_of(store, version)["0.png"].objects[0].box
        assert box == pytest.approx((0.1 * 64, 0.1 * 48, 0.6 * 64, 0.5 * 48), abs=1)
