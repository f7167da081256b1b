"""Reading Pascal VOC: from an archive to objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.builders import codes, image_64x48, images_of, ingest, the_finding, voc_archive, voc_xml
from workers.datasets.store import DatasetStore
from workers.errors import UnusableDataset


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def test_archive_is_recognised_and_split(store: DatasetStore) -> None:
    version = ingest(store, voc_archive(count=10))
    info = version.info

    assert (info.task, info.format, info.categories, info.has_masks) == ("detection", "pascal_voc", ("cell",), False)
    assert (info.splits["train"].images, info.splits["val"].images) == (8, 2)
    assert info.splits["train"].objects_by_category == {"cell": 8}
    assert "split_made" in codes(info.report)


def test_box_counts_pixels_from_zero_without_its_last_row(store: DatasetStore) -> None:
    (target,) = images_of(store, ingest(store, voc_archive()))["b0.png"].objects

    assert target.box == (10, 5, 30, 20)


def test_lists_of_image_sets_make_the_splits(store: DatasetStore) -> None:
    lists = {
        "BCCD/ImageSets/Main/train.txt": b"b0\nb1\nb2\n",
        "BCCD/ImageSets/Main/val.txt": b"b3\n",
        "BCCD/ImageSets/Main/trainval.txt": b"b0\nb1\nb2\nb3\n",
        "BCCD/ImageSets/Main/test.txt": b"b4\nb5\ngone\n",
        "BCCD/ImageSets/Main/cell_train.txt": b"b0  1\nb1 -1\n",
    }
    info = ingest(store, {**voc_archive(), **lists}).info

    assert {split: summary.images for split, summary in info.splits.items()} == {"train": 3, "val": 1, "test": 2}
    assert the_finding(info.report, "test_split_kept").count == 2
    assert the_finding(info.report, "listed_images_missing").files == ("gone",)
    assert "ignored_files" not in codes(info.report)


def test_difficult_objects_are_marked(store: DatasetStore) -> None:
    odd = voc_xml(("cell", (1, 1, 20, 20)), more="<difficult>1</difficult>")
    images = images_of(store, ingest(store, voc_archive({"Annotations/b0.xml": odd})))

    assert [target.is_difficult for target in images["b0.png"].objects] == [True]
    assert [target.is_difficult for target in images["b1.png"].objects] == [False]


def test_point_and_line_are_dropped_and_their_lines_named(store: DatasetStore) -> None:
    odd = voc_xml(("cell", (5, 5, 5, 5)), ("cell", (5, 5, 30, 5)), ("cell", (5, 5, 30, 30)))
    version = ingest(store, voc_archive({"Annotations/b0.xml": odd}))

    assert len(images_of(store, version)["b0.png"].objects) == 1
    assert the_finding(version.info.report, "degenerate_boxes").files == (
        "BCCD/Annotations/b0.xml:4",
        "BCCD/Annotations/b0.xml:5",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"<annotation>\n<object>\n</annotation>",
        b"<annotation>\n",
        b'<!DOCTYPE x [\n<!ENTITY a "aaaa">]>\n<annotation><object><name>&a;</name></object></annotation>',
        b"<annotation>" + b"<a>" * 100 + b"</a>" * 100 + b"</annotation>",
        b'<?xml version="1.0" encoding="nonsense"?><annotation></annotation>',
    ],
    ids=["mismatch", "ends early", "entities", "deep", "encoding"],
)
def test_broken_xml_is_left_out_with_file_and_line(store: DatasetStore, content: bytes) -> None:
    info = ingest(store, voc_archive({"Annotations/b0.xml": content})).info

    found = the_finding(info.report, "broken_xml")
    assert found.files[0].startswith("BCCD/Annotations/b0.xml:")
    assert found.count == 1
    assert sum(split.images for split in info.splits.values()) == 5


def test_archive_of_broken_xml_is_refused_with_the_line(store: DatasetStore) -> None:
    broken = {f"BCCD/Annotations/b{number}.xml": b"<annotation>\n<size></annotation>" for number in range(6)}
    with pytest.raises(UnusableDataset, match=r"b0\.xml:2") as caught:
        ingest(store, {**voc_archive(), **broken})

    assert caught.value.problems[0]["code"] == "broken_xml"


def test_bomb_of_entities_is_refused(store: DatasetStore) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><annotation>&e11;</annotation>'.encode()
    info = ingest(store, voc_archive({"Annotations/b0.xml": bomb})).info

    assert the_finding(info.report, "broken_xml").count == 1


def test_missing_images_and_missing_annotations_are_reported(store: DatasetStore) -> None:
    files = voc_archive(count=8)
    del files["BCCD/JPEGImages/b0.png"], files["BCCD/Annotations/b1.xml"]
    info = ingest(store, files).info

    assert the_finding(info.report, "missing_images").files == ("BCCD/Annotations/b0.xml",)
    assert the_finding(info.report, "missing_annotations").files == ("BCCD/JPEGImages/b1.png",)
    assert sum(split.images for split in info.splits.values()) == 6


def test_image_with_an_empty_annotation_is_kept_as_background(store: DatasetStore) -> None:
    version = ingest(store, voc_archive({"Annotations/b0.xml": voc_xml()}))

    assert images_of(store, version)["b0.png"].objects == ()
    assert the_finding(version.info.report, "images_without_objects").files == ("BCCD/JPEGImages/b0.png",)


def test_object_without_name_or_numbers_is_left_out_with_its_image(store: DatasetStore) -> None:
    odd = voc_xml(("", (1, 1, 9, 9)), ("cell", (1, 1, float("nan"), 9)), ("cell", (1, 1, 9, 9)))
    version = ingest(store, voc_archive({"Annotations/b0.xml": odd}))

    assert "b0.png" not in images_of(store, version)
    assert the_finding(version.info.report, "bad_objects").count == 2
    assert the_finding(version.info.report, "images_with_bad_entries").files == ("BCCD/JPEGImages/b0.png",)


def test_every_box_of_an_object_is_a_box(store: DatasetStore) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9.0</xmax><ymax>8</ymax></bndbox>"
    version = ingest(store, voc_archive({"Annotations/b0.xml": voc_xml(("cell", (11, 11, 30, 30)), more=box)}))

    assert [each.box for each in images_of(store, version)["b0.png"].objects] == [(0, 0, 9, 8), (10, 10, 30, 30)]


def test_each_bad_box_of_an_object_is_counted(store: DatasetStore) -> None:
    bad = "<bndbox><xmin>1</xmin></bndbox><bndbox/>"
    info = ingest(store, voc_archive({"Annotations/b0.xml": voc_xml(("cell", (11, 11, 30, 30)), more=bad)})).info

    assert the_finding(info.report, "bad_objects").count == 2


def test_image_with_two_annotations_that_differ_is_left_out(store: DatasetStore) -> None:
    files = voc_archive(
        {"old/b0.xml": voc_xml(("cell", (1, 1, 9, 9))), "old/b1.xml": voc_xml(("cell", (11, 6, 30, 21)))}
    )
    version = ingest(store, files)

    assert the_finding(version.info.report, "annotated_twice").files == ("BCCD/JPEGImages/b0.png",)
    assert {"b0.png", "b1.png"} & set(images_of(store, version)) == {"b1.png"}


def test_copies_of_the_images_drawn_for_people_are_not_the_images(store: DatasetStore) -> None:
    drawn = {f"AnnotationsVisualization/b{number}.png": image_64x48(100 + number) for number in range(6)}
    version = ingest(store, voc_archive(drawn))

    names = {image.name for split in version.info.splits for image in store.images(version, split)}
    assert names == {f"BCCD/JPEGImages/b{number}.png" for number in range(6)}


def test_lists_of_two_years_count_for_their_own_images(store: DatasetStore) -> None:
    files = {}
    for year, shift in (("VOC2007", 0), ("VOC2012", 50)):
        for number in range(4):
            files[f"{year}/JPEGImages/{number}.png"] = image_64x48(number + shift)
            files[f"{year}/Annotations/{number}.xml"] = voc_xml(("cell", (11, 6, 30, 20 + number)))
    files["VOC2007/ImageSets/Main/train.txt"] = b"0\n1\n2\n"
    files["VOC2007/ImageSets/Main/val.txt"] = b"3\n"
    files["VOC2012/ImageSets/Main/train.txt"] = b"3\n2\n1\n"
    files["VOC2012/ImageSets/Main/val.txt"] = b"0\n"
    version = ingest(store, files)

    val = {image.name for image in store.images(version, "val")}
    assert val == {"VOC2007/JPEGImages/3.png", "VOC2012/JPEGImages/0.png"}


def test_image_in_two_lists_is_not_trained_on(store: DatasetStore) -> None:
    lists = {"ImageSets/Main/train.txt": b"b0\nb1\nb2\nb3\n", "ImageSets/Main/val.txt": b"b3.png\nb4\n"}
    version = ingest(store, voc_archive(lists))

    assert {image.name for image in store.images(version, "val")} == {f"BCCD/JPEGImages/b{n}.png" for n in (3, 4)}


def test_annotation_of_another_size_leaves_its_image_out(store: DatasetStore) -> None:
    odd = voc_xml(("cell", (1, 1, 9, 9)), size=(640, 480))
    info = ingest(store, voc_archive({"Annotations/b0.xml": odd})).info

    found = the_finding(info.report, "size_mismatch")
    assert found.files == ("BCCD/JPEGImages/b0.png",)
    assert "64 x 48" in found.message
    assert "640 x 480" in found.message


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_annotation_without_a_size_is_used(store: DatasetStore, size: tuple[int, int] | None) -> None:
    odd = voc_xml(("cell", (1, 1, 9, 9)), size=size)
    version = ingest(store, voc_archive({"Annotations/b0.xml": odd}))

    assert images_of(store, version)["b0.png"].objects[0].box == (0, 0, 9, 9)


def test_image_is_found_by_the_file_name_in_the_xml(store: DatasetStore) -> None:
    files = voc_archive()
    del files["BCCD/Annotations/b0.xml"]
    files["BCCD/Annotations/other.xml"] = voc_xml(("cell", (1, 1, 9, 9)), name="C:\\data\\b0.png")
    version = ingest(store, files)

    assert len(images_of(store, version)["b0.png"].objects) == 1


def test_masks_of_voc_are_not_counted_as_images(store: DatasetStore) -> None:
    info = ingest(store, voc_archive({"SegmentationClass/b0.png": image_64x48(99)})).info

    assert sum(split.images for split in info.splits.values()) == 6
    assert "missing_annotations" not in codes(info.report)


def test_fingerprint_depends_on_the_objects(store: DatasetStore) -> None:
    first = ingest(store, voc_archive()).info
    moved = voc_archive({"Annotations/b0.xml": voc_xml(("cell", (12, 6, 30, 20)))})

    assert ingest(store, voc_archive()).info.fingerprint == first.fingerprint
    assert ingest(store, moved).info.fingerprint != first.fingerprint
