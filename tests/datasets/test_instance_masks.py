"""Reading images with PNG masks of instances or of categories; run lengths and outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.masks.coco_masks import (
    BrokenMask,
    box_of_mask,
    checked_counts,
    decode_mask,
    encode_instances,
    encode_mask,
    joined_polygon,
    mask_of_polygons,
    polygons_of_mask,
)
from tests.builders import exif_rotated
from tests.datasets.builders import blocks, codes, image_64x48, images_of, ingest, png_of, the_finding
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import UnusableDataset

TWO = blocks((1, 5, 5, 15, 25), (2, 30, 10, 50, 40))
PASCAL = """# Compatible with PASCAL Annotation Version 1.00
Image filename : "PennFudanPed/PNGImages/P1.png"
Original label for object 1 "PASpersonWalking" : "PennFudanPed"
Original label for object 2 "PASpersonStanding" : "PennFudanPed"
"""


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def penn_fudan(count: int = 6, *, mask: bytes | None = None) -> dict[str, bytes]:
    """Images and masks of instances in the layout of Penn-Fudan."""
    files = {f"PennFudanPed/PNGImages/P{number}.png": image_64x48(number) for number in range(count)}
    return files | {f"PennFudanPed/PedMasks/P{number}_mask.png": mask or png_of(TWO) for number in range(count)}


def label_masks(*values: npt.NDArray[np.uint16], palette: bool = False) -> dict[str, bytes]:
    """Images and masks of categories."""
    files = {f"images/{number}.jpg": image_64x48(number) for number in range(len(values))}
    return files | {f"masks/{number}.png": png_of(each, palette=palette) for number, each in enumerate(values)}


def label_map(version: DatasetVersion, store: DatasetStore, name: str) -> npt.NDArray[np.uint8]:
    """The published label map of an image."""
    path = images_of(store, version)[name].label_map
    assert path is not None
    with Image.open(version.images_dir / path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_instances_become_objects_with_masks(store: DatasetStore) -> None:
    version = ingest(store, penn_fudan())

    assert (version.info.format, version.info.task, version.info.has_masks) == ("instance_masks", "detection", True)
    assert version.info.categories == ("object",)
    first, second = images_of(store, version)["P0.png"].objects
    assert (first.box, second.box) == ((5, 5, 15, 25), (30, 10, 50, 40))
    assert second.mask is not None
    np.testing.assert_array_equal(decode_mask(second.mask, 48, 64), TWO == 2)


def test_labels_come_from_the_text_files_of_pascal(store: DatasetStore) -> None:
    texts = {f"PennFudanPed/Annotation/P{number}.txt": PASCAL.encode() for number in range(6)}
    version = ingest(store, {**penn_fudan(), **texts})

    assert version.info.categories == ("PASpersonStanding", "PASpersonWalking")
    assert [target.category for target in images_of(store, version)["P0.png"].objects] == [1, 0]
    assert "ignored_files" not in codes(version.info.report)


def test_image_without_an_instance_is_kept_as_background(store: DatasetStore) -> None:
    files = {**penn_fudan(), "PennFudanPed/PedMasks/P0_mask.png": png_of(blocks())}

    assert images_of(store, ingest(store, files))["P0.png"].objects == ()


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (png_of(blocks((1, 0, 0, 9, 9), size=(128, 96))), "size_mismatch"),
        (b"\x89PNG\r\n\x1a\nnonsense", "broken_mask_file"),
        (png_of(np.arange(64 * 96).reshape(96, 64), dtype=np.uint16), "size_mismatch"),
        (png_of(np.random.default_rng(0).integers(0, 255, (48, 64, 3))), "broken_mask_file"),
    ],
    ids=["larger than its image", "damaged", "deep and larger", "colours"],
)
def test_unusable_mask_leaves_its_image_out(store: DatasetStore, mask: bytes, code: str) -> None:
    info = ingest(store, {**penn_fudan(), "PennFudanPed/PedMasks/P0_mask.png": mask}).info

    assert the_finding(info.report, code).files == ("PennFudanPed/PNGImages/P0.png",)
    assert sum(split.images for split in info.splits.values()) == 5


def test_mask_of_the_stored_pixels_is_turned_with_its_image(store: DatasetStore) -> None:
    stored = np.zeros(
        (40, 20), dtype=np.uint8
    )  # the stored pixels of an upright image of 40 x 20 px with EXIF orientation 6
    stored[20:, :10] = 1  # the upper left quarter of the upright image
    files = {**penn_fudan(), "PennFudanPed/PedMasks/turned_mask.png": png_of(stored)}
    files["PennFudanPed/PNGImages/turned.jpg"] = exif_rotated(6)
    version = ingest(store, files)

    image = images_of(store, version)["turned.jpg"]
    assert (image.width, image.height) == (40, 20)
    assert image.objects[0].box == (0, 0, 20, 10)
    assert "turned_images" in codes(version.info.report)


def test_masks_in_a_folder_of_a_general_name_that_count_objects_are_instances(store: DatasetStore) -> None:
    values = [blocks(*((n + 1, 12 * n, 2, 12 * n + 8, 30) for n in range(1 + number % 3))) for number in range(6)]

    info = ingest(store, label_masks(*values)).info
    assert info.format == "instance_masks"
    assert "masks_of_instances" in codes(info.report)
    assert ingest(store, label_masks(*values), format="label_masks").info.task == "segmentation"


def test_label_masks_are_segmentation_and_indices_have_no_gaps(store: DatasetStore) -> None:
    values = [blocks((7, 5, 5, 15, 25), (3, 30, 10, 50, 40), (255, 60, 0, 64, 48)) for _ in range(6)]
    version = ingest(store, label_masks(*values))

    assert (version.info.format, version.info.task) == ("label_masks", "segmentation")
    assert version.info.categories == ("background", "3", "7")
    expected = blocks((2, 5, 5, 15, 25), (1, 30, 10, 50, 40), (255, 60, 0, 64, 48))
    np.testing.assert_array_equal(label_map(version, store, "0.jpg"), expected)
    assert version.info.splits["train"].images_by_category == {"background": 5, "3": 5, "7": 5}


def test_palette_does_not_change_the_categories(store: DatasetStore) -> None:
    values = [blocks((1, 5, 5, 15, 25)) for _ in range(6)]
    version = ingest(store, {**label_masks(*values, palette=True), "classes.txt": b"road\ncar\n"})

    assert version.info.categories == ("road", "car")
    np.testing.assert_array_equal(label_map(version, store, "0.jpg"), values[0])


def test_masks_of_0_and_255_become_background_and_object(store: DatasetStore) -> None:
    version = ingest(store, label_masks(*[blocks((255, 5, 5, 15, 25))] * 6))

    assert version.info.categories == ("background", "object")
    np.testing.assert_array_equal(label_map(version, store, "0.jpg"), blocks((1, 5, 5, 15, 25)))
    assert "binary_masks" in codes(version.info.report)


def test_requested_segmentation_reads_the_mask_folders_of_voc(store: DatasetStore) -> None:
    values = blocks((1, 5, 5, 15, 25), (255, 4, 4, 5, 26))
    files = {f"VOC2012/JPEGImages/{n}.jpg": image_64x48(n) for n in range(8)}
    files |= {f"VOC2012/SegmentationClass/{n}.png": png_of(values, palette=True) for n in range(6)}
    files |= {f"VOC2012/SegmentationObject/{n}.png": png_of(values, palette=True) for n in range(6)}
    files["VOC2012/ImageSets/Segmentation/train.txt"] = b"0\n1\n2\n3\n"
    files["VOC2012/ImageSets/Segmentation/val.txt"] = b"4\n5\n"
    info = ingest(store, files, task="segmentation").info

    assert (info.format, info.splits["train"].images, info.splits["val"].images) == ("label_masks", 4, 2)
    assert the_finding(info.report, "missing_annotations").count == 2


def test_image_with_an_entirely_void_mask_is_left_out(store: DatasetStore) -> None:
    values = [blocks((255, 0, 0, 64, 48)), *[blocks((1, 5, 5, 15, 25))] * 6]
    info = ingest(store, label_masks(*values)).info

    assert the_finding(info.report, "void_masks").files == ("images/0.jpg",)


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (blocks(), "too_few_categories"),
        (blocks((255, 0, 0, 64, 48)), "too_few_categories"),
        (np.arange(64 * 48, dtype=np.uint16).reshape(48, 64), "too_many_categories"),
    ],
    ids=["background only", "void only", "too many"],
)
def test_masks_with_nothing_to_learn_are_refused(store: DatasetStore, mask: npt.NDArray[np.uint16], code: str) -> None:
    encoded = png_of(mask, dtype=np.uint16)
    files = {f"images/{n}.jpg": image_64x48(n) for n in range(4)} | {f"masks/{n}.png": encoded for n in range(4)}
    with pytest.raises(UnusableDataset) as caught:
        ingest(store, files, format="label_masks")
    assert caught.value.problems[0]["code"] == code


def test_fingerprint_depends_on_the_label_maps(store: DatasetStore) -> None:
    first = label_masks(*[blocks((1, 5, 5, 15, 25))] * 6)
    other = {**first, "masks/0.png": png_of(blocks((1, 5, 5, 15, 26)))}

    assert ingest(store, first).info.fingerprint == ingest(store, dict(reversed(first.items()))).info.fingerprint
    assert ingest(store, first).info.fingerprint != ingest(store, other).info.fingerprint


def test_category_called_mask_is_not_a_folder_of_masks(store: DatasetStore) -> None:
    files = {
        f"{label}/{n}.png": image_64x48(n + offset) for offset, label in ((0, "mask"), (20, "no")) for n in range(6)
    }

    assert ingest(store, files).info.task == "classification"


def test_outline_of_a_mask_gives_nearly_the_same_mask() -> None:
    mask = (TWO > 0).astype(np.uint8)
    polygons = polygons_of_mask(mask)
    assert len(polygons) == 2

    for outline in (polygons, [joined_polygon(polygons)]):
        back = decode_mask(mask_of_polygons(outline, 48, 64), 48, 64)
        assert int((back != mask).sum()) <= 2
        assert box_of_mask(encode_mask(back), 48, 64) == box_of_mask(encode_mask(mask), 48, 64)


@pytest.mark.parametrize("counts", ["", "ooooo", "\xff", "11", [], [5], [3073], [2**40, 0], [True, 3071]])
def test_broken_run_lengths_are_refused(counts: str | list[int]) -> None:
    with pytest.raises(BrokenMask):
        checked_counts(counts, 48, 64)


def test_polygon_outside_is_an_empty_mask_however_far() -> None:
    for far in (900.0, 1e300):
        polygon = [far, far, far + 50, far, far + 50, far + 50]
        assert box_of_mask(mask_of_polygons([polygon], 48, 64), 48, 64) is None


def test_outline_of_too_many_points_is_refused() -> None:
    zigzag = [value for _ in range(100_000) for value in (0.0, 0.0, 64.0, 48.0)]
    with pytest.raises(BrokenMask, match="longer than"):
        mask_of_polygons([zigzag], 48, 64)


def test_encoding_all_instances_equals_encoding_each() -> None:
    indices = np.random.default_rng(0).integers(0, 6, (48, 64)).astype(np.uint16)
    encoded = encode_instances(indices)

    assert list(encoded) == [1, 2, 3, 4, 5]
    assert all(counts == encode_mask(indices == value) for value, counts in encoded.items())


def test_void_borders_of_instances_are_not_objects(store: DatasetStore) -> None:
    files = penn_fudan(mask=png_of(blocks((1, 5, 5, 15, 25), (255, 15, 5, 17, 25))))

    assert len(images_of(store, ingest(store, files))["P0.png"].objects) == 1
