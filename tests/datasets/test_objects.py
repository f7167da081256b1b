"""The rules that all detection datasets share, and archives that do not fit the requested task or format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.builders import exif_rotated
from tests.datasets.builders import (
    blocks,
    coco_archive,
    coco_image,
    coco_json,
    coco_object,
    codes,
    folders,
    image_64x48,
    images_of,
    ingest,
    png_of,
    small_image,
    the_finding,
    voc_archive,
    voc_xml,
    yolo_archive,
)
from workers.datasets.store import DatasetStore
from workers.datasets.validation.exif_orientation import box_to_upright
from workers.errors import UnusableDataset

CATS = [coco_object(number) for number in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def splits(train: list[int], val: list[int]) -> dict[str, bytes]:
    """COCO with two splits. Each number is one image and the category of its object; 0 means no object."""
    files: dict[str, bytes] = {}
    number = 0
    for split, categories in (("train", train), ("val", val)):
        images, objects = [], []
        for category in categories:
            files[f"{split}/{number}.png"] = image_64x48(number)
            images.append(coco_image(number))
            objects += [coco_object(number, category=category)] if category else []
            number += 1
        files[f"{split}/{split}.json"] = coco_json(images, objects)
    return files


def test_one_category_is_enough_for_detection(store: DatasetStore) -> None:
    assert ingest(store, voc_archive()).info.categories == ("cell",)


def test_generated_split_depends_only_on_the_seed(store: DatasetStore) -> None:
    first, again, other = (ingest(store, voc_archive(count=20), seed=seed) for seed in (0, 0, 1))

    def val(version: Any) -> set[str]:
        return {image.name for image in store.images(version, "val")}

    assert val(first) == val(again) != val(other)


def test_rare_category_is_in_both_generated_splits(store: DatasetStore) -> None:
    objects = [coco_object(number, category=2 if number in (3, 7) else 1) for number in range(40)]
    info = ingest(store, coco_archive(*objects, images=40)).info

    assert info.splits["train"].objects_by_category["dog"] == 1
    assert info.splits["val"].objects_by_category["dog"] == 1


def test_dataset_without_objects_is_refused(store: DatasetStore) -> None:
    empty = {f"Annotations/b{number}.xml": voc_xml() for number in range(6)}
    with pytest.raises(UnusableDataset, match="None of the 6 images has an object") as caught:
        ingest(store, voc_archive(empty))
    assert caught.value.problems[0]["code"] == "no_objects"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("train", "val", "code"),
    [
        ([0, 0], [1, 1], "no_train_objects"),
        ([1, 1], [0, 0], "no_val_objects"),
        ([1, 1], [2, 2], "val_categories_not_in_train"),
        ([], [1, 1], "no_train_images"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(
    store: DatasetStore, train: list[int], val: list[int], code: str
) -> None:
    with pytest.raises(UnusableDataset) as caught:
        ingest(store, splits(train, val))
    assert caught.value.problems[0]["code"] == code


def test_category_only_in_val_is_kept_with_a_warning(store: DatasetStore) -> None:
    info = ingest(store, splits([1, 1, 1], [1, 2])).info

    assert info.categories == ("cat", "dog")
    found = the_finding(info.report, "val_categories_not_in_train")
    assert (found.severity, found.files) == ("warning", ("val/4.png",))


def test_single_image_with_objects_is_refused(store: DatasetStore) -> None:
    with pytest.raises(UnusableDataset) as caught:
        ingest(store, coco_archive(coco_object(0)))
    assert caught.value.problems[0]["code"] == "no_val_objects"


def test_image_with_ten_thousand_boxes_is_left_out(store: DatasetStore) -> None:
    boxes = [("cell", (1.0, 1.0, 2.0 + number % 60, 2.0 + number // 60 % 40)) for number in range(10_000)]
    info = ingest(store, voc_archive({"Annotations/b0.xml": voc_xml(*boxes)})).info

    found = the_finding(info.report, "too_many_objects")
    assert found.files == ("BCCD/JPEGImages/b0.png",)
    assert "10,000" in found.message


def test_many_objects_are_kept_with_a_warning(store: DatasetStore) -> None:
    boxes = [("cell", (1.0 + number % 40, 1.0 + number // 40, 60.0, 45.0)) for number in range(1200)]
    info = ingest(store, voc_archive({"Annotations/b0.xml": voc_xml(*boxes)})).info

    assert the_finding(info.report, "many_objects").files == ("BCCD/JPEGImages/b0.png",)


def test_image_of_a_single_pixel_is_left_out(store: DatasetStore) -> None:
    dot = {
        "JPEGImages/b0.png": small_image(size=(1, 1)),
        "Annotations/b0.xml": voc_xml(("cell", (1, 1, 1, 1)), size=(1, 1)),
    }
    info = ingest(store, voc_archive(dot)).info

    assert the_finding(info.report, "tiny_image").files == ("BCCD/JPEGImages/b0.png",)


def test_copies_of_an_image_are_reported_and_stay_in_one_split(store: DatasetStore) -> None:
    copies = {f"JPEGImages/copy{number}.png": image_64x48(0) for number in range(3)}
    copies |= {f"Annotations/copy{number}.xml": voc_xml(("cell", (11, 6, 30, 20))) for number in range(3)}
    version = ingest(store, voc_archive(copies, count=12))

    assert the_finding(version.info.report, "duplicate_images").count == 3
    assert "cross_split_duplicates" not in codes(version.info.report)
    assert "conflicting_annotations" not in codes(version.info.report)


def test_same_image_with_other_objects_is_reported(store: DatasetStore) -> None:
    copy = {"JPEGImages/copy.png": image_64x48(0), "Annotations/copy.xml": voc_xml(("cell", (1, 1, 9, 9)))}

    assert the_finding(ingest(store, voc_archive(copy)).info.report, "conflicting_annotations").count == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotation_of_the_stored_size_is_turned_with_its_image(store: DatasetStore, orientation: int) -> None:
    stored = (40, 20) if orientation < 5 else (20, 40)
    upright_box = (0, 0, 20, 10)  # the red quarter
    turned_back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, 1)
    box = box_to_upright(upright_box, turned_back, width=stored[0], height=stored[1])
    entry = {**coco_image(0, size=stored), "file_name": "turned.jpg"}
    others = [coco_image(number) for number in range(1, 6)]
    first = coco_object(0, (box[0], box[1], box[2] - box[0], box[3] - box[1]))
    files = {f"images/{number}.png": image_64x48(number) for number in range(1, 6)}
    files |= {"images/turned.jpg": exif_rotated(orientation)}
    version = ingest(store, {**files, "a.json": coco_json([entry, *others], [first, *CATS[1:]])})

    image = images_of(store, version)["turned.jpg"]
    assert (image.width, image.height, image.objects[0].box) == (40, 20, upright_box)
    assert ("turned_images" in codes(version.info.report)) == (orientation != 1)


@pytest.mark.parametrize(
    ("files", "task", "found"),
    [
        (voc_archive(), "classification", "detection"),
        (coco_archive(), "classification", "detection"),
        (yolo_archive("0 0.5 0.5 0.2 0.2"), "classification", "detection"),
        (coco_archive(), "segmentation", "detection"),
        (folders(ants=3, bees=3), "detection", "classification"),
        (folders(train__ants=3, train__bees=3, val__ants=1), "segmentation", "classification"),
        (
            {
                f"{d}/{n}.png": image_64x48(n) if d == "images" else png_of(blocks((1, 0, 0, 9, 9)))
                for d in ("images", "labels")
                for n in range(4)
            },
            "detection",
            "segmentation",
        ),
    ],
)
def test_dataset_of_another_task_is_refused_with_the_formats_that_fit(
    store: DatasetStore, files: dict[str, bytes], task: Any, found: str
) -> None:
    with pytest.raises(UnusableDataset, match=f"This is a {found} dataset") as caught:
        ingest(store, files, task=task)
    assert caught.value.problems[0]["code"] == "other_task"
    assert f"task={found}" in str(caught.value.hint)
    assert f"For {task}, post one of these" in str(caught.value.hint)


def test_format_and_task_that_contradict_are_refused(store: DatasetStore) -> None:
    with pytest.raises(UnusableDataset, match="The format coco is for detection datasets"):
        ingest(store, coco_archive(), format="coco", task="classification")


@pytest.mark.parametrize(
    ("format_name", "code"),
    [
        ("coco", "no_annotations"),
        ("pascal_voc", "no_annotations"),
        ("yolo", "no_category_names"),
        ("instance_masks", "no_annotations"),
        ("label_masks", "no_annotations"),
    ],
)
def test_requested_format_that_does_not_fit_is_refused(store: DatasetStore, format_name: Any, code: str) -> None:
    with pytest.raises(UnusableDataset) as caught:
        ingest(store, folders(ants=3, bees=3), format=format_name)
    assert caught.value.problems[0]["code"] == code
    assert caught.value.hint


def turned_archive(*boxes: tuple[float, float, float, float], stated: tuple[int, int] | None) -> dict[str, bytes]:
    """One image per box (x, y, width, height): 48 x 64 px upright, stored as 64 x 48 px, with EXIF orientation 6."""
    entries, objects = [], []
    files: dict[str, bytes] = {}
    exif = Image.Exif()
    exif[0x112] = 6
    for number, box in enumerate(boxes):
        files[f"{number}.jpg"] = small_image(number * 20, size=(64, 48), format="JPEG", exif=exif.tobytes())
        sizes = {} if stated is None else {"width": stated[0], "height": stated[1]}
        entries.append({"id": number, "file_name": f"{number}.jpg", **sizes})
        objects.append(coco_object(number, box))
    return {**files, "a.json": coco_json(entries, objects)}


UPRIGHT_ONLY, STORED_ONLY, BOTH = (5, 50, 20, 12), (50, 5, 12, 20), (5, 6, 20, 10)


@pytest.mark.parametrize("stated", [(64, 48), (48, 64), None])
def test_boxes_that_fit_only_the_upright_image_are_on_it(store: DatasetStore, stated: tuple[int, int] | None) -> None:
    images = images_of(store, ingest(store, turned_archive(UPRIGHT_ONLY, BOTH, UPRIGHT_ONLY, stated=stated)))

    assert (images["0.jpg"].width, images["0.jpg"].height) == (48, 64)
    assert images["0.jpg"].objects[0].box == (5, 50, 25, 62)
    assert images["1.jpg"].objects[0].box == (5, 6, 25, 16)


@pytest.mark.parametrize("stated", [(64, 48), (48, 64), None])
def test_boxes_that_fit_only_the_stored_image_are_turned_with_it(
    store: DatasetStore, stated: tuple[int, int] | None
) -> None:
    images = images_of(store, ingest(store, turned_archive(STORED_ONLY, BOTH, STORED_ONLY, stated=stated)))

    # by hand: orientation 6 turns the stored image clockwise, so (x, y) becomes (48 - y, x)
    assert images["0.jpg"].objects[0].box == (23, 50, 43, 62)
    assert images["1.jpg"].objects[0].box == (32, 5, 42, 25)


@pytest.mark.parametrize(("stated", "box"), [((64, 48), (32, 5, 42, 25)), ((48, 64), (5, 6, 25, 16))])
def test_stated_size_decides_if_the_boxes_cannot(
    store: DatasetStore, stated: tuple[int, int], box: tuple[float, ...]
) -> None:
    images = images_of(store, ingest(store, turned_archive(BOTH, UPRIGHT_ONLY, STORED_ONLY, stated=stated)))

    assert images["0.jpg"].objects[0].box == box


def test_category_of_its_own_on_every_image_does_not_prevent_a_split(store: DatasetStore) -> None:
    objects = [coco_object(number, category=number + 2) for number in range(10)]
    objects += [coco_object(number, (1, 1, 9, 9), category=1) for number in range(10)]
    names = [(number, f"sku {number}") for number in range(1, 12)]
    info = ingest(store, coco_archive(*objects, images=10, categories=names)).info

    assert info.splits["val"].images == 2
    assert info.splits["val"].images_by_category["sku 1"] == 2


def test_images_that_share_no_category_cannot_be_split(store: DatasetStore) -> None:
    objects = [coco_object(number, category=number + 1) for number in range(6)]
    names = [(number, f"sku {number}") for number in range(1, 7)]

    with pytest.raises(UnusableDataset) as caught:
        ingest(store, coco_archive(*objects, categories=names))
    assert caught.value.problems[0]["code"] == "val_categories_not_in_train"
