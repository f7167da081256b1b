"""The dataset store: names, versions, and several writers at once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.errors import InvalidName
from tests import children
from tests.datasets.builders import NOW, file_tree
from workers.datasets.dataset import DatasetImage, DatasetInfo, SizeSummary, SplitSummary
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import DamagedDataset, UnknownDataset, UnknownDatasetVersion

IMAGE = DatasetImage(path="train/ants/1.png", name="ants/1.png", category=0, width=16, height=12, sha256="0" * 64)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def publish(store: DatasetStore, name: str = "ants-bees", *, fingerprint: str = "f") -> DatasetVersion:
    def describe(version: int) -> DatasetInfo:
        summary = SplitSummary(images=1, images_by_category={"ants": 1, "bees": 0})
        return DatasetInfo(
            name=name,
            version=version,
            created_at=NOW,
            task="classification",
            format="image_folder",
            categories=("ants", "bees"),
            splits={"train": summary, "val": summary},
            sizes=SizeSummary(width_min=1, width_median=1, width_max=1, height_min=1, height_median=1, height_max=1),
            size_bytes=7,
            fingerprint=fingerprint,
            validation_fraction=None,
            seed=0,
            report=(),
        )

    with store.temporary() as directory:
        image = directory / "version" / "images" / IMAGE.path
        image.parent.mkdir(parents=True)
        image.write_bytes(b"an image")
        return store.publish(name, directory / "version", images={"train": [IMAGE], "val": []}, describe=describe)


def test_empty_store_has_no_names(store: DatasetStore) -> None:
    assert store.names() == []


def test_published_version_can_be_read_back(store: DatasetStore) -> None:
    version = publish(store)

    assert store.names() == ["ants-bees"]
    assert store.versions("ants-bees") == [1]
    assert store.resolve("ants-bees") == version
    assert (version.info.name, version.info.version) == ("ants-bees", 1)
    assert store.images(version, "train") == [IMAGE]
    assert store.images(version, "val") == []
    assert (version.images_dir / IMAGE.path).read_bytes() == b"an image"


def test_publishing_leaves_only_the_version_on_the_disk(store: DatasetStore, tmp_path: Path) -> None:
    publish(store)

    assert file_tree(tmp_path / "datasets") == [
        "ants-bees",
        "ants-bees/1",
        "ants-bees/1/dataset.json",
        "ants-bees/1/images",
        "ants-bees/1/images/train",
        "ants-bees/1/images/train/ants",
        "ants-bees/1/images/train/ants/1.png",
        "ants-bees/1/train.jsonl",
        "ants-bees/1/val.jsonl",
    ]


def test_name_alone_means_the_newest_version(store: DatasetStore) -> None:
    for _ in range(11):
        publish(store)

    assert store.resolve("ants-bees").info.version == 11
    assert store.resolve("ants-bees/2").info.version == 2


def test_unknown_name_lists_similar_ones(store: DatasetStore) -> None:
    publish(store, "ants-bees")
    publish(store, "wasps")

    with pytest.raises(UnknownDataset, match="'ant-bees'") as caught:
        store.resolve("ant-bees")
    assert caught.value.hint == "Available: ants-bees."


def test_unknown_name_in_an_empty_store_gives_a_hint(store: DatasetStore) -> None:
    with pytest.raises(UnknownDataset) as caught:
        store.versions("ants-bees")
    assert "post an archive" in str(caught.value.hint)


def test_unknown_version_lists_those_there_are(store: DatasetStore) -> None:
    publish(store)
    publish(store)

    with pytest.raises(UnknownDatasetVersion, match="no version 3") as caught:
        store.resolve("ants-bees/3")
    assert caught.value.hint == "It has 1, 2."


@pytest.mark.parametrize(
    "reference", ["", "..", "../x", "a/b", "a/0", "a/1/2", "a@production", "a\0b", "n" * 300, "käfer", ".locks", "a/-1"]
)
def test_malformed_reference_is_refused(store: DatasetStore, reference: str) -> None:
    with pytest.raises(InvalidName):
        store.resolve(reference)


@pytest.mark.parametrize("name", ["..", "a/b", ".tmp-x", "a\0b", "n" * 65])
def test_invalid_name_cannot_be_published(store: DatasetStore, name: str) -> None:
    with pytest.raises(InvalidName):
        publish(store, name)


def test_damaged_description_is_reported(store: DatasetStore) -> None:
    version = publish(store)
    (version.path / "dataset.json").write_text("{")

    with pytest.raises(DamagedDataset, match="damaged"):
        store.resolve("ants-bees")


def test_simultaneous_writers_get_different_versions(store: DatasetStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda n: publish(store, fingerprint=str(n)), range(16)))

    assert store.versions("ants-bees") == list(range(1, 17))
    for version in versions:
        assert store.resolve(f"ants-bees/{version.info.version}").info.fingerprint == version.info.fingerprint


def test_number_of_a_deleted_version_is_not_reused(store: DatasetStore) -> None:
    publish(store)
    publish(store)
    store.delete("ants-bees", 2)

    assert store.versions("ants-bees") == [1]
    assert publish(store).info.version == 3


def test_numbers_of_a_deleted_dataset_are_not_reused(store: DatasetStore, tmp_path: Path) -> None:
    publish(store)
    publish(store)
    store.delete("ants-bees")

    assert store.names() == []
    assert file_tree(tmp_path / "datasets") == []
    assert publish(store).info.version == 3


def test_deleting_the_last_version_deletes_the_dataset(store: DatasetStore) -> None:
    publish(store)
    store.delete("ants-bees", 1)

    with pytest.raises(UnknownDataset):
        store.versions("ants-bees")


def test_deleting_an_unknown_version_is_refused(store: DatasetStore) -> None:
    publish(store)

    with pytest.raises(UnknownDatasetVersion):
        store.delete("ants-bees", 2)
    with pytest.raises(UnknownDataset):
        store.delete("wasps")
    assert store.versions("ants-bees") == [1]


def test_images_of_a_deleted_version_are_said_to_be_gone(store: DatasetStore) -> None:
    version = publish(store)
    store.delete("ants-bees")

    with pytest.raises(UnknownDatasetVersion, match="ants-bees/1 no longer exists"):
        store.images(version, "train")


def test_deleting_and_publishing_at_once_leaves_whole_versions(store: DatasetStore) -> None:
    def publish_and_delete(number: int) -> None:
        store.delete("ants-bees", publish(store, fingerprint=str(number)).info.version)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish_and_delete, range(18)))

    assert store.names() == []
    assert publish(store).info.version == 19


def test_leftovers_of_a_dead_process_are_removed(store: DatasetStore, tmp_path: Path) -> None:
    publish(store)
    dying = f"""
import os, pathlib
from workers.datasets.store import DatasetStore
with DatasetStore(pathlib.Path({str(tmp_path / "datasets")!r})).temporary() as path:
    (path / "half.png").write_bytes(b"half")
    os._exit(9)
"""
    children.run([sys.executable, "-c", dying], check=False)
    assert [path for path in file_tree(tmp_path / "datasets") if path.endswith("half.png")]

    with store.temporary():
        assert store.remove_leftovers() == 1
    assert not [path for path in file_tree(tmp_path / "datasets") if path.startswith(".tmp-")]
    assert store.versions("ants-bees") == [1]


def test_store_loads_without_torch() -> None:
    light = "import sys, workers.datasets.store, workers.datasets.archives.archive; assert 'torch' not in sys.modules"

    children.run([sys.executable, "-c", light])
