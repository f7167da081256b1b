"""An archive that no other format fits: when its folders are categories, and when it is refused instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from models.manifest import Task
from tests.datasets.builders import archived, codes, folders, small_image, the_finding
from workers.datasets.dataset import DatasetFormat
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.datasets.formats.structure_words import is_structural
from workers.errors import UnusableDataset


def read(
    directory: Path,
    files: Mapping[str, bytes],
    *,
    format: DatasetFormat | None = None,  # noqa: A002
    task: Task | None = None,
    has_group_folders: bool = False,
) -> Reading:
    return read_files(archived(directory, files), format=format, task=task, has_group_folders=has_group_folders)


def refused(directory: Path, files: Mapping[str, bytes], *, task: Task | None = None) -> UnusableDataset:
    with pytest.raises(UnusableDataset) as caught:
        read(directory, files, task=task)
    assert "format=image_folder" in str(caught.value.hint)
    return caught.value


def labels(reading: Reading) -> set[str]:
    return {each.label for each in reading.files}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid"),
        ("train", "test"),
        ("images", "masks"),
        ("image", "label"),
        ("JPEGImages", "SegmentationClassVisualization"),
        ("leftImg8bit", "gtFine"),
        ("train_images", "train_masks", "test_images"),
        ("trainA", "trainB", "testA", "testB"),
        ("fold_1", "fold_2"),
        ("training_set", "test_set"),
        ("images",),
    ],
)
def test_folders_named_after_splits_or_masks_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = {f"data/{name}/{name}{number}.png": small_image(number) for name in names for number in range(3)}
    files |= {"data/labels.bin": b"unknown"}
    error = refused(tmp_path, files)

    assert error.problems[0]["code"] == "folders_are_not_categories"
    assert "not categories" in str(error)


@pytest.mark.parametrize(
    "names",
    [("train", "car", "bus"), ("mask", "no_mask"), ("class_1", "class_2"), ("fine", "coarse"), ("valid", "invalid")],
)
def test_words_beside_other_categories_are_categories(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert labels(read(tmp_path, folders(**dict.fromkeys(names, 2)))) == set(names)


def test_category_train_with_a_folder_of_its_own_is_a_category(tmp_path: Path) -> None:
    reading = read(tmp_path, folders(train__side=2, car=2, bus=2))

    assert labels(reading) == {"train", "car", "bus"}
    assert len(reading.files) == 6


@pytest.mark.parametrize("word", ["ants", "train_station", "test tube", "class_1", "3", "a", "imaging", "Maske", "猫"])
def test_other_words_are_no_structure(word: str) -> None:
    assert not is_structural(word)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_images", "val_images"),
        ("train2017", "val2017"),
        ("Train/images", "Test/images"),
    ],
)
def test_folders_that_contain_a_word_for_a_split_are_splits(tmp_path: Path, train: str, test: str) -> None:
    files = folders(**{f"{train}/cats": 3, f"{train}/dogs": 3, f"{test}/cats": 1, f"{test}/dogs": 1})
    reading = read(tmp_path, files)

    assert labels(reading) == {"cats", "dogs"}
    assert [each.split for each in reading.files].count("train") == 6
    assert [each.split for each in reading.files].count("val") == 2


@pytest.mark.parametrize("folds", [("fold1", "fold2"), ("site_a", "site_b"), ("2019", "2020", "2021")])
def test_same_folders_below_several_are_refused(tmp_path: Path, folds: tuple[str, ...]) -> None:
    files = folders(**{f"{fold}/{label}": 2 for fold in folds for label in ("cats", "dogs")})
    if folds == ("2019", "2020", "2021"):
        del files["2021/dogs/0.png"], files["2021/dogs/1.png"]
    error = refused(tmp_path, files)

    assert error.problems[0]["code"] == "folders_are_not_categories"
    assert folds == ("fold1", "fold2") or "cats, dogs" in str(error)


def test_requested_folders_are_categories_whatever_they_contain(tmp_path: Path) -> None:
    files = folders(site_a__cats=2, site_a__dogs=2, site_b__cats=2, site_b__dogs=2)

    assert labels(read(tmp_path, files, format="image_folder")) == {"site_a", "site_b"}


def test_same_folders_that_are_groups_are_allowed(tmp_path: Path) -> None:
    files = folders(ants__nest1=2, ants__nest2=2, bees__nest1=2, bees__nest2=2)

    assert labels(read(tmp_path, files, has_group_folders=True)) == {"ants", "bees"}


def test_one_folder_of_images_in_every_category_is_allowed(tmp_path: Path) -> None:
    """As in Tiny ImageNet: train/n01443537/images/1.JPEG."""
    files = folders(train__n01443537__images=2, train__n01629819__images=2, val__n01443537__images=1)

    assert labels(read(tmp_path, files)) == {"n01443537", "n01629819"}


NAMES = ("a-0001.png", "a-0002.png", "b-0001.png", "b-0002.png")
TREE = {f"{name[0]}/{name}": small_image(number) for number, name in enumerate(NAMES)}
LISTS = {
    "labels.csv": ("x;y;z\n" + "\n".join(f"{name};1;2" for name in NAMES)).encode(),
    "boxes.json": json.dumps([{"what": name, "b": [1, 2]} for name in NAMES]).encode(),
    "all.xml": "".join(["<things>", *(f"<thing of='C:\\data\\{name}'/>" for name in NAMES), "</things>"]).encode(),
    "stems.txt": "\n".join(f"{name[:-4].upper()} 1 2 3" for name in NAMES).encode(),
    "utf16.csv": "\n".join(["q,r,s,t", *(f"{name},0.5,0.25,x" for name in NAMES)]).encode("utf-16"),
}


@pytest.mark.parametrize("name", LISTS)
def test_file_that_names_the_images_and_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, {**TREE, f"meta/{name}": LISTS[name]})

    assert error.problems[0]["code"] == "annotations_not_read"
    assert f"meta/{name}" in str(error)


@pytest.mark.parametrize("name", LISTS)
def test_requested_folders_are_read_with_a_warning_about_that_file(tmp_path: Path, name: str) -> None:
    reading = read(tmp_path, {**TREE, f"meta/{name}": LISTS[name]}, format="image_folder")
    finding = the_finding(reading.findings, "annotations_not_read")

    assert labels(reading) == {"a", "b"}
    assert finding.severity == "warning"
    assert finding.files == (f"meta/{name}",)
    assert "ignored_files" not in codes(reading.findings)


def test_unread_file_per_image_is_named(tmp_path: Path) -> None:
    files = {name.replace(".png", ".json"): b'{"version": 9}' for name in TREE}

    assert "a/a-0001.json" in str(refused(tmp_path, {**TREE, **files}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.txt", "\n".join(NAMES).encode()),
        ("classes.txt", b"a\nb\n"),
        ("notes.txt", b"Look at a-0001.png."),
        ("numbers.csv", b"one,two\n0001,0002\n"),
        (".hidden.csv", LISTS["labels.csv"]),
    ],
)
def test_text_that_does_not_name_the_images_is_left_out(tmp_path: Path, name: str, content: bytes) -> None:
    reading = read(tmp_path, {**TREE, name: content})

    assert labels(reading) == {"a", "b"}
    assert the_finding(reading.findings, "ignored_files").files == (name,)


@pytest.mark.parametrize(("task", "word"), [("segmentation", "masks"), ("detection", "boxes")])
def test_refusal_speaks_of_what_the_task_needs(tmp_path: Path, task: Task, word: str) -> None:
    files = {f"images/{number}.png": small_image(number) for number in range(4)}
    error = refused(tmp_path, files, task=task)

    assert word in str(error)
    assert word in str(error.hint)


@pytest.mark.parametrize(("task", "word"), [("segmentation", "masks"), ("detection", "boxes")])
def test_refusal_of_images_without_folders_speaks_of_the_task(tmp_path: Path, task: Task, word: str) -> None:
    with pytest.raises(UnusableDataset, match=word):
        read(tmp_path, {"1.png": small_image(1), "2.png": small_image(2)}, task=task)
