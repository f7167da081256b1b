"""Boxes and outlines in the files of labelme, CVAT, CreateML, DOTA and Darknet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from models.masks.coco_masks import decode_mask
from tests.datasets.builders import image_64x48, images_of, ingest, the_finding
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from workers.datasets.store import DatasetStore
from workers.errors import UnusableDataset

IMAGES = {f"images/{number}.png": image_64x48(number) for number in range(6)}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def labelme(number: int, *shapes: dict[str, Any]) -> bytes:
    """A file of labelme for `{number}.png`; by default with a cat, a polygon."""
    cat = {"label": "cat", "points": [[10, 5], [30, 5], [30, 25], [10, 25]], "shape_type": "polygon", "group_id": None}
    content: dict[str, Any] = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes or [cat]),
        "imagePath": f"..\\images\\{number}.png",
        "imageData": None,
        "imageHeight": 48,
        "imageWidth": 64,
    }
    return json.dumps(content, indent=1).encode()


def labelme_archive(first: bytes | None = None) -> dict[str, bytes]:
    files = {**IMAGES, **{f"json/{number}.json": labelme(number) for number in range(6)}}
    return files if first is None else {**files, "json/0.json": first}


class TestLabelme:
    def test_polygons_become_objects_with_masks(self, store: DatasetStore) -> None:
        version = ingest(store, labelme_archive())

        assert (version.info.format, version.info.has_masks, version.info.categories) == ("labelme", True, ("cat",))
        assert images_of(store, version)["3.png"].objects[0].box == (10, 5, 30, 25)

    def test_rectangles_and_circles_become_boxes(self, store: DatasetStore) -> None:
        rectangle = {"label": "cat", "points": [[30, 25], [10, 5]], "shape_type": "rectangle"}
        circle = {"label": "dog", "points": [[40, 20], [40, 30]], "shape_type": "circle"}
        version = ingest(store, labelme_archive(labelme(0, rectangle, circle)))

        first, second = images_of(store, version)["0.png"].objects
        assert first.box == (10, 5, 30, 25)
        assert second.box == pytest.approx((30, 10, 50, 30), abs=1)

    def test_polygons_of_one_group_are_one_object(self, store: DatasetStore) -> None:
        parts = [
            {
                "label": "cat",
                "points": [[x, 5], [x + 9, 5], [x + 9, 14], [x, 14]],
                "shape_type": "polygon",
                "group_id": 1,
            }
            for x in (10, 40)
        ]
        (target,) = images_of(store, ingest(store, labelme_archive(labelme(0, *parts))))["0.png"].objects

        assert target.box == (10, 5, 49, 14)

    def test_points_and_lines_are_counted_and_their_image_is_kept(self, store: DatasetStore) -> None:
        cat = {"label": "cat", "points": [[10, 5], [30, 5], [30, 25]], "shape_type": "polygon"}
        point = {"label": "eye", "points": [[10, 5]], "shape_type": "point"}
        version = ingest(store, labelme_archive(labelme(0, cat, point, point)))

        assert "point (2)" in the_finding(version.info.report, "shapes_not_read").message
        assert len(images_of(store, version)["0.png"].objects) == 1

    def test_bad_shape_leaves_its_image_out(self, store: DatasetStore) -> None:
        bad = {"label": "cat", "points": [[10, 5], ["x", 5], [30, 25]], "shape_type": "polygon"}
        report = ingest(store, labelme_archive(labelme(0, bad))).info.report

        assert the_finding(report, "bad_entries").files == ("json/0.json: shape 1",)
        assert the_finding(report, "images_with_bad_entries").files == ("images/0.png",)

    def test_outlines_can_be_asked_for_as_segmentation(self, store: DatasetStore) -> None:
        assert ingest(store, labelme_archive(), task="segmentation").info.categories == ("background", "cat")


def cvat(*first: str, subset: str = "") -> str:
    """CVAT's XML for six images; `first` are the shapes of the first, a box by default."""
    box = '<box label="cat" occluded="0" xtl="10.00" ytl="5.00" xbr="30.00" ybr="25.00" z_order="0"></box>'
    shapes = ["".join(first) or box, *[box] * 5]
    images = "".join(
        f'  <image id="{n}" name="{n}.png"{subset} width="64" height="48">{each}</image>\n'
        for n, each in enumerate(shapes)
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{images}</annotations>\n'


def cvat_archive(*first: str) -> dict[str, bytes]:
    return {**IMAGES, "annotations.xml": cvat(*first).encode()}


class TestCvat:
    def test_boxes_become_objects(self, store: DatasetStore) -> None:
        version = ingest(store, cvat_archive())

        assert (version.info.format, version.info.categories) == ("cvat", ("cat",))
        assert images_of(store, version)["0.png"].objects[0].box == (10, 5, 30, 25)

    def test_polygons_and_masks_have_masks(self, store: DatasetStore) -> None:
        polygon = '<polygon label="cat" points="10.0,5.0;30.0,5.0;30.0,25.0;10.0,25.0" />'
        mask = '<mask label="dog" rle="1, 2, 3, 4, 2" left="40" top="10" width="4" height="3" />'
        first, second = images_of(store, ingest(store, cvat_archive(polygon, mask)))["0.png"].objects

        assert first.mask is not None
        assert int(decode_mask(first.mask, 48, 64).sum()) == 400
        assert second.mask is not None
        # rows of the rectangle: 0110, 0011, 1100
        expected = np.zeros((48, 64), dtype=np.uint8)
        expected[10:13, 40:44] = [[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]]
        np.testing.assert_array_equal(decode_mask(second.mask, 48, 64), expected)

    def test_rotated_box_becomes_the_upright_box_around_it_and_is_counted(self, store: DatasetStore) -> None:
        box = '<box label="cat" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90" />'
        version = ingest(store, cvat_archive(box))

        assert images_of(store, version)["0.png"].objects[0].box == (18, 12, 22, 32)
        assert the_finding(version.info.report, "rotated_boxes").count == 1

    def test_image_without_shapes_is_background_and_points_are_counted(self, store: DatasetStore) -> None:
        version = ingest(store, cvat_archive('<points label="eye" points="1,2" />'))

        assert images_of(store, version)["0.png"].objects == ()
        assert the_finding(version.info.report, "shapes_not_read").count == 1

    @pytest.mark.parametrize(
        "shape",
        [
            '<box label="cat" xtl="10" ytl="x" xbr="30" ybr="24" />',
            '<polygon label="cat" points="1,2;3" />',
            '<mask label="cat" rle="1, 2" left="0" top="0" width="4" height="3" />',
            '<mask label="cat" rle="12" left="62" top="0" width="4" height="3" />',
            '<box xtl="10" ytl="5" xbr="30" ybr="24" />',
        ],
    )
    def test_bad_shape_is_counted_and_leaves_its_image_out(self, store: DatasetStore, shape: str) -> None:
        report = ingest(store, cvat_archive(shape)).info.report

        assert the_finding(report, "bad_entries").files == ("annotations.xml:4",)
        assert the_finding(report, "images_with_bad_entries").files == ("images/0.png",)

    def test_xml_of_videos_is_refused_with_the_way_out(self, store: DatasetStore) -> None:
        content = b'<annotations><track id="0" label="cat"><box frame="0" /></track></annotations>'

        with pytest.raises(UnusableDataset, match="for videos") as caught:
            ingest(store, {**IMAGES, "annotations.xml": content})
        assert "CVAT for images" in str(caught.value.hint)


def createml_archive() -> dict[str, bytes]:
    files = {f"{split}/{n}.png": image_64x48(n + at) for at, split in ((0, "train"), (30, "valid")) for n in range(4)}
    for split in ("train", "valid"):
        box = {"label": "cat", "coordinates": {"x": 20, "y": 15.0, "width": 20, "height": "20"}}
        entries = [{"image": f"{n}.png", "annotations": [box]} for n in range(4)]
        files[f"{split}/_annotations.createml.json"] = json.dumps(entries, indent=1).encode()
    return files


def test_coordinates_of_createml_are_centres(store: DatasetStore) -> None:
    version = ingest(store, createml_archive())

    assert (version.info.format, version.info.splits["val"].images) == ("createml", 4)
    assert images_of(store, version)["1.png"].objects[0].box == (10, 5, 30, 25)


def test_bad_box_of_createml_leaves_its_image_out(store: DatasetStore) -> None:
    files = createml_archive()
    files["train/_annotations.createml.json"] = files["train/_annotations.createml.json"].replace(
        b'"x": 20', b'"x": []', 1
    )
    report = ingest(store, files).info.report

    assert the_finding(report, "images_with_bad_entries").files == ("train/0.png",)


@pytest.mark.parametrize("folder", ["labelTxt", "labels"])
@pytest.mark.parametrize("header", ["", "imagesource:GoogleEarth\ngsd:0.14\n"])
def test_oriented_boxes_of_dota_become_upright_boxes_and_are_counted(
    store: DatasetStore, folder: str, header: str
) -> None:
    files = {f"train/images/{n}.png": image_64x48(n) for n in range(6)}
    files |= {f"train/{folder}/{n}.txt": f"{header}20 5 30 15 20 25 10 15 ship 0\n".encode() for n in range(5)}
    files |= {f"train/{folder}/5.txt": b"", "data.yaml": b"train: ../train/images\nnames: ['ship']\n"}
    version = ingest(store, files)

    assert (version.info.format, version.info.categories) == ("dota", ("ship",))
    assert images_of(store, version)["0.png"].objects[0].box == (10, 5, 30, 25)
    assert images_of(store, version)["5.png"].objects == ()
    assert the_finding(version.info.report, "rotated_boxes").count == 5


def test_labels_of_roboflows_darknet_export_name_the_categories(store: DatasetStore) -> None:
    files = {
        f"{split}/{split}{n}.jpg": image_64x48(n + at) for at, split in ((0, "train"), (9, "valid")) for n in range(4)
    }
    files |= {name.replace("jpg", "txt"): b"1 0.5 0.5 0.25 0.5\n" for name in files}
    files |= {f"{split}/_darknet.labels": b"blue\nred\n" for split in ("train", "valid")}
    info = ingest(store, files).info

    assert (info.format, info.categories, info.splits["val"].images) == ("yolo", ("red",), 4)


@many_examples
@given(damaged(labelme(0)))
def test_no_damage_of_a_labelme_file_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused(labelme_archive(content))

    if reading is not None and reading.format == "labelme":
        assert accounted_images(reading) == len(IMAGES)


@many_examples
@given(damaged(cvat('<polygon label="cat" points="1,2;3,4;5,9" /><mask rle="1,2" label="a" left="0" />').encode()))
def test_no_damage_of_cvats_xml_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "annotations.xml": content})

    if reading is not None and reading.format == "cvat":
        assert accounted_images(reading) == len(IMAGES)


@many_examples
@given(damaged(createml_archive()["train/_annotations.createml.json"]))
def test_no_damage_of_a_createml_file_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**createml_archive(), "train/_annotations.createml.json": content})

    if reading is not None and reading.format == "createml":
        assert accounted_images(reading) == 8


@many_examples
@given(damaged(b"imagesource:x\n20 5 30 15 20 25 10 15 ship 0\n20 5 30 15 20 25 10 15 ship 1\n"))
def test_no_damage_of_a_dota_file_loses_an_image_without_a_finding(content: bytes) -> None:
    texts = {f"labelTxt/{n}.txt": b"20 5 30 15 20 25 10 15 ship 0\n" for n in range(1, 6)}
    reading = read_or_refused({**IMAGES, **texts, "labelTxt/0.txt": content})

    if reading is not None and reading.format == "dota":
        assert accounted_images(reading) == len(IMAGES)
