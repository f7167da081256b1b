"""Export of a dataset as a COCO or YOLO zip, and posting the zip again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from models.masks.coco_masks import decode_mask, encode_mask
from tests.datasets.builders import (
    NOW,
    blocks,
    coco_archive,
    coco_object,
    folders,
    image_64x48,
    images_of,
    ingest,
    voc_archive,
    voc_xml,
)
from workers.datasets.dataset import DatasetObject, SplitName
from workers.datasets.intake import ingest_archive
from workers.datasets.output.export import ExportFormat, export_zip
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import CannotExport

RUNS = {"size": [48, 64], "counts": encode_mask(blocks((1, 5, 5, 20, 30), (1, 40, 2, 60, 11)))}
SPLIT_NAMES = ["train", "val", "test"]
MASKS = [coco_object(number, None, segmentation=RUNS) for number in range(1, 6)]


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def exported_and_posted(store: DatasetStore, version: DatasetVersion, format: ExportFormat) -> DatasetVersion:  # noqa: A002
    archive = BytesIO(b"".join(export_zip(store, version, format)))
    return ingest_archive(archive, name="back", store=store, now=NOW)


def objects(store: DatasetStore, version: DatasetVersion) -> dict[str, tuple[DatasetObject, ...]]:
    return {name: image.objects for name, image in images_of(store, version).items()}


def with_areas(objects: dict[str, tuple[DatasetObject, ...]]) -> dict[str, tuple[DatasetObject, ...]]:
    """The objects as a COCO file states them: every object has an area, in px^2."""

    def area(each: DatasetObject) -> float:
        x_min, y_min, x_max, y_max = each.box
        return float((x_max - x_min) * (y_max - y_min) if each.mask is None else decode_mask(each.mask, 48, 64).sum())

    return {
        name: tuple(each.model_copy(update={"area": pytest.approx(area(each), abs=1e-3)}) for each in listed)
        for name, listed in objects.items()
    }


@pytest.mark.parametrize("format_name", ["coco", "yolo"])
def test_boxes_are_the_same_after_export_and_posting(store: DatasetStore, format_name: Literal["coco", "yolo"]) -> None:
    odd = [("cell", (1.3, 2.7, 30.123, 40.001)), ("cat", (5, 5, 64, 48))]
    changes = {"Annotations/b0.xml": voc_xml(*odd), "Annotations/b1.xml": voc_xml()}
    version = ingest(store, voc_archive(changes, count=8))

    back = exported_and_posted(store, version, format_name)
    before = objects(store, version)
    assert back.info.format == format_name
    assert objects(store, back) == (with_areas(before) if format_name == "coco" else before)
    assert back.info.fingerprint == version.info.fingerprint
    assert back.info.categories == version.info.categories
    assert {finding.severity for finding in back.info.report} <= {"info", "warning"}


@pytest.mark.parametrize("format_name", ["coco", "yolo"])
def test_three_splits_are_the_same_after_export_and_posting(
    store: DatasetStore, format_name: Literal["coco", "yolo"]
) -> None:
    lists = {f"ImageSets/Main/{split}.txt": f"b{2 * n}\nb{2 * n + 1}\n" for n, split in enumerate(SPLIT_NAMES)}
    version = ingest(store, {**voc_archive(), **{name: text.encode() for name, text in lists.items()}})
    assert list(version.info.splits) == SPLIT_NAMES

    back = exported_and_posted(store, version, format_name)
    assert {split: summary.images for split, summary in back.info.splits.items()} == dict.fromkeys(SPLIT_NAMES, 2)
    assert back.info.fingerprint == version.info.fingerprint


def test_crowds_difficult_objects_and_masks_survive_coco(store: DatasetStore) -> None:
    entries = [
        coco_object(0, None, segmentation=RUNS, iscrowd=1),
        coco_object(0, None, segmentation=RUNS, ignore=1),
        *MASKS,
    ]
    version = ingest(store, coco_archive(*entries, categories=[(5, "dog"), (1, "cat")]))

    back = exported_and_posted(store, version, "coco")
    assert objects(store, back) == with_areas(objects(store, version))
    assert back.info.fingerprint == version.info.fingerprint
    assert back.info.has_masks
    assert [(each.is_crowd, each.is_difficult) for each in objects(store, back)["0.png"]] == [
        (True, False),
        (False, True),
    ]


def test_area_that_the_archive_states_is_exported(store: DatasetStore) -> None:
    entries = [coco_object(number, segmentation=[[10, 5, 30, 5, 10, 20]], area=149.5) for number in range(6)]
    back = exported_and_posted(store, ingest(store, coco_archive(*entries)), "coco")

    assert {each.area for listed in objects(store, back).values() for each in listed} == {149.5}


def test_masks_survive_yolo_almost_exactly(store: DatasetStore) -> None:
    version = ingest(store, coco_archive(coco_object(0, None, segmentation=RUNS), *MASKS))
    back = exported_and_posted(store, version, "yolo")

    assert back.info.has_masks
    (before,), (after,) = objects(store, version)["1.png"], objects(store, back)["1.png"]
    assert before.box == after.box
    assert before.mask is not None
    assert after.mask is not None
    assert int((decode_mask(before.mask, 48, 64) != decode_mask(after.mask, 48, 64)).sum()) <= 4


def test_yolo_export_has_boxes_if_an_object_has_no_mask(store: DatasetStore) -> None:
    version = ingest(store, coco_archive(coco_object(0), *MASKS))
    with zipfile.ZipFile(BytesIO(b"".join(export_zip(store, version, "yolo")))) as archive:
        labels = [archive.read(name) for name in archive.namelist() if name.startswith("labels/")]

    assert all(len(line.split()) == 5 for label in labels for line in label.splitlines())


def test_images_with_the_same_stem_get_separate_label_files(store: DatasetStore) -> None:
    files = {**voc_archive(), "BCCD/JPEGImages/deep/b0.jpg": image_64x48(99)}
    files["BCCD/Annotations/deep/b0.xml"] = voc_xml(("cell", (1, 1, 20, 20)))
    version = ingest(store, files)
    back = exported_and_posted(store, version, "yolo")

    assert back.info.fingerprint == version.info.fingerprint


def test_same_dataset_gives_the_same_zip(store: DatasetStore) -> None:
    version = ingest(store, voc_archive())
    pieces = list(export_zip(store, version, "coco"))

    assert b"".join(pieces) == b"".join(export_zip(store, version, "coco"))


def test_large_dataset_is_sent_in_pieces(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.datasets.output.export._PIECE_BYTES", 1000)
    version = ingest(store, voc_archive(count=40))

    assert max(len(piece) for piece in list(export_zip(store, version, "coco"))[:-1]) < 10_000


def test_classification_cannot_be_exported(store: DatasetStore) -> None:
    version = ingest(store, folders(ants=3, bees=3))
    with pytest.raises(CannotExport, match="ants-bees/1 is a classification dataset") as caught:
        export_zip(store, version, "yolo")
    assert caught.value.hint


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools with NumPy 2
@pytest.mark.parametrize("keys", ["default", "all"])
def test_torchvisions_wrapper_reads_masks_of_an_export(tmp_path: Path, store: DatasetStore, keys: str) -> None:
    version = ingest(store, coco_archive(coco_object(0, None, segmentation=RUNS, iscrowd=1), *MASKS))

    for split, wrapped in wrapped_splits(tmp_path, store, version, keys):
        for (_, target), image in zip(wrapped, store.images(version, split), strict=True):
            assert target["boxes"].tolist() == [list(map(float, each.box)) for each in image.objects]
            assert target["labels"].tolist() == [each.category + 1 for each in image.objects]
            if keys == "all":
                masks = [decode_mask(each.mask or "", 48, 64) for each in image.objects]
                assert target["masks"].numpy().tolist() == [mask.astype(bool).tolist() for mask in masks]


def test_torchvisions_wrapper_reads_boxes_of_an_export(tmp_path: Path, store: DatasetStore) -> None:
    version = ingest(store, voc_archive())

    for split, wrapped in wrapped_splits(tmp_path, store, version, "default"):
        for (_, target), image in zip(wrapped, store.images(version, split), strict=True):
            assert target["boxes"].tolist() == [pytest.approx(list(each.box), abs=1e-3) for each in image.objects]


def wrapped_splits(
    tmp_path: Path, store: DatasetStore, version: DatasetVersion, keys: str
) -> Iterator[tuple[SplitName, Sequence[Any]]]:
    """The splits of a COCO export, as torchvision reads them."""
    with zipfile.ZipFile(BytesIO(b"".join(export_zip(store, version, "coco")))) as archive:
        archive.extractall(tmp_path / "export")
    for split in version.info.splits:
        annotations = tmp_path / f"export/annotations/instances_{split}.json"
        plain = CocoDetection(str(tmp_path / f"export/images/{split}"), str(annotations))
        target_keys = "all" if keys == "all" else None
        yield split, wrap_dataset_for_transforms_v2(plain, target_keys=target_keys)


def test_every_object_of_an_export_has_the_fields_that_readers_ask_for(store: DatasetStore) -> None:
    version = ingest(store, coco_archive(coco_object(0), *MASKS))
    with zipfile.ZipFile(BytesIO(b"".join(export_zip(store, version, "coco")))) as archive:
        listed = [
            entry
            for name in archive.namelist()
            if name.endswith(".json")
            for entry in json.loads(archive.read(name))["annotations"]
        ]
    for entry in listed:
        assert {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"} <= entry.keys()
    assert [] in [entry["segmentation"] for entry in listed]


def test_layout_of_earlier_versions_is_read_as_the_same_dataset(store: DatasetStore) -> None:
    """Before, images were in `<split>/`, boxes had no `segmentation`, and run lengths were compressed."""
    version = ingest(store, coco_archive(coco_object(0), *MASKS))
    old = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(b"".join(export_zip(store, version, "coco")))) as archive,
        zipfile.ZipFile(old, "w") as earlier,
    ):
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".json"):
                document = json.loads(content)
                for entry in document["annotations"]:
                    if entry["segmentation"]:
                        entry["segmentation"] = RUNS
                    else:
                        del entry["segmentation"]
                content = json.dumps(document).encode()
            earlier.writestr(name.removeprefix("images/"), content)

    back = ingest_archive(old, name="back", store=store, now=NOW)
    assert back.info.fingerprint == version.info.fingerprint
    assert exported_and_posted(store, version, "coco").info.fingerprint == version.info.fingerprint
