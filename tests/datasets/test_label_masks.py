"""Masks of categories and of objects, as people's tools write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from PIL import Image, ImageFilter

from tests.datasets.builders import blocks, coco_json, codes, image_64x48, images_of, ingest, png_of, the_finding
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from tests.datasets.test_instance_masks import label_map
from workers.datasets.store import DatasetStore
from workers.errors import UnusableDataset

RED, BLUE = (250, 50, 83), (0, 0, 255)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def encoded(values: npt.NDArray[np.uint16], format: str, **options: object) -> bytes:  # noqa: A002
    file = BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, format, **options)
    return file.getvalue()


def coloured(*boxes: tuple[tuple[int, int, int], int, int, int, int]) -> bytes:
    """A PNG of 64 x 48 px, black with rectangles of (colour, x_min, y_min, x_max, y_max)."""
    image = Image.new("RGB", (64, 48))
    for colour, *box in boxes:
        image.paste(colour, (box[0], box[1], box[2], box[3]))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def shifted(number: int, value: int = 255) -> npt.NDArray[np.uint16]:
    return blocks((value, 5 + number, 5, 30 + number, 25))


def archive(image: str, mask: str, masks: Mapping[int, bytes]) -> dict[str, bytes]:
    """Images and masks whose names have `{}` in place of a number."""
    files = {image.format(number): image_64x48(number) for number in masks}
    return files | {mask.format(number): content for number, content in masks.items()}


@pytest.mark.parametrize(
    ("format", "options", "suffix"),
    [
        ("JPEG", {"quality": 95}, "jpg"),
        ("JPEG", {"quality": 60}, "jpg"),
        ("BMP", {}, "bmp"),
        ("TIFF", {"compression": "tiff_lzw"}, "tif"),
        ("GIF", {}, "gif"),
        ("PNG", {}, "png"),
    ],
)
def test_masks_of_two_values_are_read_in_every_format(
    store: DatasetStore,
    format: str,  # noqa: A002
    options: dict[str, object],
    suffix: str,
) -> None:
    masks = {number: encoded(shifted(number), format, **options) for number in range(6)}
    version = ingest(store, archive("images/{}.jpg", f"masks/{{}}.{suffix}", masks))

    assert (version.info.format, version.info.categories) == ("label_masks", ("background", "object"))
    wrong = label_map(version, store, "3.jpg") != shifted(3, 1)
    assert wrong.sum() <= (12 if format == "JPEG" else 0)  # a few pixels at the edge of a strongly packed JPEG


@pytest.mark.parametrize(("format", "suffix"), [("BMP", "bmp"), ("TIFF", "tif"), ("GIF", "gif")])
def test_other_lossless_formats_keep_the_numbers(store: DatasetStore, format: str, suffix: str) -> None:  # noqa: A002
    masks = {number: encoded(blocks((1, 5, 5, 20, 20), (7, 30, 10, 50, 40)), format) for number in range(6)}
    version = ingest(store, archive("images/{}.jpg", f"masks/{{}}.{suffix}", masks))

    assert version.info.categories == ("background", "1", "7")
    expected = blocks((1, 5, 5, 20, 20), (2, 30, 10, 50, 40))
    np.testing.assert_array_equal(label_map(version, store, "0.jpg"), expected)


@pytest.mark.parametrize(
    "mask",
    [encoded(blocks((100, 5, 5, 30, 25)), "JPEG"), encoded(blocks((1, 0, 0, 64, 48)) + 120, "JPEG")],
    ids=["three values", "grey"],
)
def test_jpeg_masks_of_other_values_are_refused_with_the_way_out(store: DatasetStore, mask: bytes) -> None:
    with pytest.raises(UnusableDataset, match="JPEG changes values") as caught:
        ingest(store, archive("images/{}.jpg", "masks/{}.jpg", dict.fromkeys(range(6), mask)))
    assert "Save each mask as a PNG" in str(caught.value.hint)


def test_photos_in_folders_called_mask_and_no_mask_stay_categories(store: DatasetStore) -> None:
    noise = [np.random.default_rng(seed).integers(0, 256, (48, 64)).astype(np.uint16) for seed in range(12)]
    files = {f"{('mask', 'no')[n % 2]}/{n // 2}.jpg": encoded(each, "JPEG") for n, each in enumerate(noise)}

    assert ingest(store, files).info.categories == ("mask", "no")


def test_masks_with_soft_edges_have_two_categories(store: DatasetStore) -> None:
    def soft(number: int) -> bytes:
        image = Image.fromarray(shifted(number).astype(np.uint8)).resize((640, 480)).filter(ImageFilter.GaussianBlur(6))
        file = BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    files = archive("images/{}.png", "masks/{}.png", {number: soft(number) for number in range(6)})
    files |= {f"images/{number}.png": png_of(np.full((480, 640), number * 9)) for number in range(6)}
    info = ingest(store, files).info

    assert info.categories == ("background", "object")
    assert the_finding(info.report, "blurred_masks").severity == "warning"


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x{}.png", "x{}_mask.png"),
        ("data/x{}.jpg", "data/x{}_mask.png"),
        ("train/x{}_jpg.rf.ab.jpg", "train/x{}_jpg.rf.ab_mask.png"),
        ("train/x{}.jpg", "train_masks/x{}_mask.gif"),
        ("imgs/x{}.jpg", "imgs_gt/x{}-gt.png"),
    ],
    ids=["beside", "beside in a folder", "Roboflow", "Carvana", "suffix in a folder"],
)
def test_masks_with_a_suffix_belong_to_their_images(store: DatasetStore, image: str, mask: str) -> None:
    format = "GIF" if mask.endswith("gif") else "PNG"  # noqa: A001
    mask = mask.replace("imgs_gt", "ground_truth")
    files = archive(image, mask, {number: encoded(shifted(number), format) for number in range(6)})
    version = ingest(store, files)

    assert (version.info.format, version.info.categories) == ("label_masks", ("background", "object"))
    name = image.format(2).rpartition("/")[2]
    np.testing.assert_array_equal(label_map(version, store, name), shifted(2, 1))


def test_images_without_masks_beside_them_are_left_out_with_a_warning(store: DatasetStore) -> None:
    files = archive("train/x{}.jpg", "train_masks/x{}_mask.gif", {n: encoded(shifted(n), "GIF") for n in range(6)})
    files |= {f"test/y{number}.jpg": image_64x48(50 + number) for number in range(3)}

    assert the_finding(ingest(store, files).info.report, "missing_annotations").count == 3


def test_image_with_several_masks_is_left_out(store: DatasetStore) -> None:
    files = archive("x{}.png", "x{}_mask.png", {number: png_of(shifted(number)) for number in range(6)})
    files["x0_mask_1.png"] = png_of(shifted(20))

    assert the_finding(ingest(store, files).info.report, "annotated_twice").files == ("x0.png",)


class TestLegends:
    MASK = coloured((RED, 5, 5, 20, 20), (BLUE, 30, 10, 50, 40))
    EXPECTED = blocks((1, 5, 5, 20, 20), (2, 30, 10, 50, 40))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (
                "labelmap.txt",
                "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred:250,50,83::\nblue:0,0,255::\n",
            ),
            ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nred,250,50,83\nblue,0,0,255\n"),
            ("label_colors.txt", "0 0 0\tbackground\n250 50 83\tred\n0 0 255\tblue\n"),
        ],
    )
    def test_colours_are_categories(self, store: DatasetStore, name: str, content: str) -> None:
        files = archive("JPEGImages/{}.jpg", "SegmentationClass/{}.png", dict.fromkeys(range(6), self.MASK))
        files |= {f"SegmentationObject/{number}.png": self.MASK for number in range(6)}
        version = ingest(store, {**files, name: content.encode()})

        assert version.info.categories == ("background", "red", "blue")
        np.testing.assert_array_equal(label_map(version, store, "0.jpg"), self.EXPECTED)

    def test_palette_of_cvat_is_read_by_its_colours(self, store: DatasetStore) -> None:
        with Image.open(BytesIO(self.MASK)) as image:
            file = BytesIO()
            image.quantize(8).save(file, "PNG")
        files = archive("JPEGImages/{}.jpg", "SegmentationClass/{}.png", dict.fromkeys(range(6), file.getvalue()))
        version = ingest(store, {**files, "labelmap.txt": b"background:0,0,0::\nred:250,50,83::\nblue:0,0,255::\n"})

        np.testing.assert_array_equal(label_map(version, store, "0.jpg"), self.EXPECTED)

    def test_void_of_a_legend_is_not_learned(self, store: DatasetStore) -> None:
        files = archive("images/{}.jpg", "masks/{}.png", dict.fromkeys(range(6), self.MASK))
        version = ingest(store, {**files, "class_dict.csv": b"name,r,g,b\nVoid,0,0,0\nred,250,50,83\nblue,0,0,255\n"})

        assert version.info.categories == ("red", "blue")
        expected = blocks((255, 0, 0, 64, 48), (0, 5, 5, 20, 20), (1, 30, 10, 50, 40))
        np.testing.assert_array_equal(label_map(version, store, "0.jpg"), expected)

    def test_mask_with_a_colour_that_the_legend_lacks_is_left_out_and_the_colour_is_named(
        self, store: DatasetStore
    ) -> None:
        files = archive("images/{}.jpg", "masks/{}.png", dict.fromkeys(range(6), self.MASK))
        files["masks/0.png"] = coloured(((1, 2, 3), 5, 5, 30, 30))
        files["labelmap.txt"] = b"background:0,0,0::\nred:250,50,83::\nblue:0,0,255::\n"

        finding = the_finding(ingest(store, files).info.report, "broken_mask_file")
        assert finding.count == 1
        assert "lacks the colour 1,2,3" in finding.message

    def test_colours_without_a_legend_are_refused_with_the_way_out(self, store: DatasetStore) -> None:
        with pytest.raises(UnusableDataset, match="contains colours") as caught:
            ingest(store, archive("images/{}.jpg", "masks/{}.png", dict.fromkeys(range(6), self.MASK)))
        assert "labelmap.txt" in str(caught.value.hint)

    def test_classes_of_roboflow_name_the_numbers(self, store: DatasetStore) -> None:
        masks = {number: png_of(shifted(number, 1)) for number in range(6)}
        files = archive("train/x{}.jpg", "train/x{}_mask.png", masks)
        version = ingest(store, {**files, "train/_classes.csv": b"Pixel Value, Class\n0, background\n1, crack\n"})

        assert version.info.categories == ("background", "crack")
        np.testing.assert_array_equal(label_map(version, store, "x1.jpg"), shifted(1, 1))

    @pytest.mark.parametrize("names", [b"_background_\nred\n", b"__ignore__\n_background_\nred\n"])
    def test_output_of_labelme2voc_is_read_without_its_drawings(self, store: DatasetStore, names: bytes) -> None:
        masks = {number: png_of(shifted(number, 1), palette=True) for number in range(6)}
        files = archive("JPEGImages/{}.jpg", "SegmentationClass/{}.png", masks)
        files |= {f"SegmentationClassVisualization/{number}.jpg": image_64x48(number) for number in range(6)}
        for task in (None, "segmentation"):
            info = ingest(store, {**files, "class_names.txt": names}, **({"task": task} if task else {})).info
            assert (info.task, info.categories) == ("segmentation", ("_background_", "red"))
            assert "missing_annotations" not in codes(info.report)


def test_cityscapes_learns_the_categories_of_its_benchmark(store: DatasetStore) -> None:
    values = blocks((7, 0, 0, 64, 20), (26, 30, 10, 50, 40), (4, 0, 40, 64, 48))  # road, car, static; 0 is unlabeled
    files = archive(
        "leftImg8bit/train/bonn/b_{}_leftImg8bit.png",
        "gtFine/train/bonn/b_{}_gtFine_labelIds.png",
        dict.fromkeys(range(6), png_of(values)),
    )
    files |= {f"gtFine/train/bonn/b_{n}_gtFine_instanceIds.png": png_of(values) for n in range(6)}
    files |= {f"gtFine/train/bonn/b_{n}_gtFine_color.png": coloured((RED, 0, 0, 9, 9)) for n in range(6)}
    files |= {f"gtFine/train/bonn/b_{n}_gtFine_polygons.json": b'{"objects": []}' for n in range(6)}
    version = ingest(store, files)

    assert (version.info.format, version.info.categories) == ("cityscapes", ("road", "car"))
    expected = np.where(values == 7, 0, np.where(values == 26, 1, 255))
    np.testing.assert_array_equal(label_map(version, store, "b_0_leftImg8bit.png"), expected)


def object_masks() -> dict[str, bytes]:
    """Images with two masks each, in the layout of the Data Science Bowl 2018."""
    files = {f"stage1_train/i{number}/images/i{number}.png": image_64x48(number) for number in range(6)}
    for number in range(6):
        files[f"stage1_train/i{number}/masks/a.png"] = png_of(blocks((255, 5, 5, 15, 25)))
        files[f"stage1_train/i{number}/masks/b.png"] = png_of(blocks((255, 30, 10, 50, 40 + number)))
    return files


def test_one_mask_file_per_object_becomes_objects(store: DatasetStore) -> None:
    version = ingest(store, {**object_masks(), "stage1_train_labels.csv": b"ImageId,EncodedPixels\ni0,1 5\n"})

    assert (version.info.format, version.info.has_masks) == ("object_masks", True)
    assert [each.box for each in images_of(store, version)["i2.png"].objects] == [(5, 5, 15, 25), (30, 10, 50, 42)]


def test_one_mask_file_per_object_can_be_asked_for_as_segmentation(store: DatasetStore) -> None:
    version = ingest(store, object_masks(), task="segmentation")

    assert version.info.categories == ("background", "object")
    expected = blocks((1, 5, 5, 15, 25), (1, 30, 10, 50, 40))
    np.testing.assert_array_equal(label_map(version, store, "i0.png"), expected)


def test_objects_with_outlines_can_be_asked_for_as_segmentation(store: DatasetStore) -> None:
    def outline(image: int, category: int, x: int, y: int, side: int) -> dict[str, object]:
        corners = [[x, y, x + side, y, x + side, y + side, x, y + side]]
        return {"image_id": image, "category_id": category, "bbox": [x, y, side, side], "segmentation": corners}

    entries = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(6)]
    objects = [outline(n, 2, 15, 15, 5) for n in range(6)] + [outline(n, 1, 10, 10, 30) for n in range(6)]
    files = {f"images/{n}.png": image_64x48(n) for n in range(6)} | {"a.json": coco_json(entries, objects)}
    version = ingest(store, files, task="segmentation")

    assert (version.info.task, version.info.format) == ("segmentation", "coco")
    assert version.info.categories == ("background", "cat", "dog")
    expected = blocks((1, 10, 10, 40, 40), (2, 15, 15, 20, 20))  # the small object stays visible
    np.testing.assert_array_equal(label_map(version, store, "0.png"), expected)


def test_boxes_alone_are_refused_as_segmentation(store: DatasetStore) -> None:
    entries = [{"id": n, "file_name": f"{n}.png"} for n in range(6)]
    objects = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 9, 9]} for n in range(6)]
    files = {f"images/{n}.png": image_64x48(n) for n in range(6)} | {"a.json": coco_json(entries, objects)}

    with pytest.raises(UnusableDataset, match="no masks or outlines"):
        ingest(store, files, task="segmentation")


def panoptic(split: str = "val2017", *, count: int = 6) -> dict[str, bytes]:
    """Images with two segments each: 300 is a cat, 70000 is sky."""
    colours = {300: (44, 1, 0), 70_000: (112, 17, 1)}  # red + 256 green + 65536 blue
    mask = coloured((colours[300], 5, 5, 20, 20), (colours[70_000], 30, 10, 50, 40))
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48} for n in range(count)],
        "annotations": [
            {
                "image_id": n,
                "file_name": f"{n}.png",
                "segments_info": [{"id": 300, "category_id": 17}, {"id": 70_000, "category_id": 187}],
            }
            for n in range(count)
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 187, "name": "sky"}],
    }
    files = {f"{split}/{n}.jpg": image_64x48(n) for n in range(count)}
    files |= {f"annotations/panoptic_{split}/{n}.png": mask for n in range(count)}
    return {**files, f"annotations/panoptic_{split}.json": json.dumps(content, indent=1).encode()}


@pytest.mark.parametrize("task", [None, "segmentation"])
def test_coco_panoptic_is_segmentation(store: DatasetStore, task: str | None) -> None:
    version = ingest(store, panoptic("train2017"), **({"task": task} if task else {}))

    assert (version.info.format, version.info.categories) == ("coco_panoptic", ("cat", "sky"))
    expected = blocks((255, 0, 0, 64, 48), (0, 5, 5, 20, 20), (1, 30, 10, 50, 40))
    np.testing.assert_array_equal(label_map(version, store, "0.jpg"), expected)


@many_examples
@given(damaged(panoptic(count=3)["annotations/panoptic_val2017.json"]))
def test_no_damage_of_a_panoptic_file_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**panoptic(count=3), "annotations/panoptic_val2017.json": content})

    if reading is not None and reading.format == "coco_panoptic":
        assert accounted_images(reading) >= 3


@many_examples
@given(damaged(b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nred:250,50,83::\nblue:0,0,255::\n"))
def test_no_damage_of_a_legend_is_an_unknown_error(content: bytes) -> None:
    files = archive("images/{}.jpg", "masks/{}.png", dict.fromkeys(range(2), TestLegends.MASK))
    reading = read_or_refused({**files, "labelmap.txt": content})

    assert reading is None or accounted_images(reading) == 2
