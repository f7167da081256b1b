"""Intake: from a posted archive to a published version, or to an error and nothing left on the disk."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace

import pytest

from models.errors import InvalidName
from tests.datasets.builders import NOW, codes, file_tree, folders, ingest, small_image, tar_of, the_finding, zip_of
from workers.datasets.intake import IntakeProgress, ingest_archive
from workers.datasets.store import DatasetStore
from workers.errors import BrokenArchive, DiskFull, UnsafeArchive, UnusableDataset

SPLIT = folders(train__ants=12, train__bees=10, val__ants=3, val__bees=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def store(root: Path) -> DatasetStore:
    return DatasetStore(root)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_archive_with_splits_is_published_unchanged(store: DatasetStore) -> None:
    version = ingest(store, SPLIT)
    info = version.info

    assert (info.name, info.version, info.created_at) == ("ants-bees", 1, NOW)
    assert (info.task, info.format, info.categories) == ("classification", "image_folder", ("ants", "bees"))
    assert info.splits["train"].images_by_category == {"ants": 12, "bees": 10}
    assert info.splits["val"].images_by_category == {"ants": 3, "bees": 2}
    assert (info.sizes.width_min, info.sizes.width_median, info.sizes.height_max) == (16, 16, 12)
    assert info.size_bytes == sum(len(content) for content in SPLIT.values())
    assert info.validation_fraction is None
    assert info.report == ()
    assert store.resolve("ants-bees") == version


def test_every_listed_image_exists_with_its_bytes(store: DatasetStore) -> None:
    version = ingest(store, SPLIT)

    for split in ("train", "val"):
        for image in store.images(version, split):
            assert (version.images_dir / image.path).read_bytes() == SPLIT[image.name]
            assert image.category is not None
            assert image.path.startswith(f"{split}/{version.info.categories[image.category]}/")
    files = [path for path in version.images_dir.rglob("*") if path.is_file()]
    assert len(files) == len(SPLIT)


def test_test_split_is_stored_beside_the_others(store: DatasetStore) -> None:
    files = {**SPLIT, **{f"test/{name}": content for name, content in folders(ants=40, bees=30, moths=2).items()}}
    files = {name: small_image(number) for number, name in enumerate(files)}
    version = ingest(store, files)

    assert list(version.info.splits) == ["train", "val", "test"]
    assert version.info.splits["test"].images_by_category == {"ants": 40, "bees": 30}
    assert {image.name for image in store.images(version, "test")} == {
        name for name in files if name.startswith(("test/ants/", "test/bees/"))
    }
    assert the_finding(version.info.report, "test_categories_not_in_train").count == 2
    assert version.info.categories == ("ants", "bees")
    without = {name: content for name, content in files.items() if not name.startswith("test/")}
    assert ingest(store, without).info.fingerprint != version.info.fingerprint


def test_image_of_the_test_split_that_is_in_train_is_reported(store: DatasetStore) -> None:
    files = {**SPLIT, "test/ants/copy.png": SPLIT["train/ants/3.png"], "test/ants/seen.png": SPLIT["val/ants/1.png"]}
    report = ingest(store, files).info.report

    assert the_finding(report, "cross_split_duplicates").files == ("test/ants/copy.png", "test/ants/seen.png")


def test_split_is_made_without_the_test_images_if_no_image_of_val_is_usable(store: DatasetStore) -> None:
    files = folders(train__ants=10, train__bees=10, val__ants=1, test__ants=5)
    version = ingest(store, {**files, "val/ants/0.png": b"\x89PNG broken"})

    assert {split: summary.images for split, summary in version.info.splits.items()} == {
        "train": 16,
        "val": 4,
        "test": 5,
    }
    assert all(image.name.startswith("test/") for image in store.images(version, "test"))


def test_archive_without_splits_gets_a_generated_split(store: DatasetStore) -> None:
    info = ingest(store, folders(ants=20, bees=10), validation_fraction=0.3, seed=5).info

    assert info.splits["val"].images_by_category == {"ants": 6, "bees": 3}
    assert (info.validation_fraction, info.seed) == (0.3, 5)
    assert "split_made" in codes(info.report)


def test_second_archive_is_the_next_version(store: DatasetStore) -> None:
    ingest(store, SPLIT)

    assert ingest(store, folders(ants=9, bees=9)).info.version == 2
    assert store.resolve("ants-bees/1").info.splits["train"].images == 22


def test_fingerprint_depends_on_content_and_not_on_names(store: DatasetStore) -> None:
    first = ingest(store, SPLIT)
    renamed = {name.replace(".png", "-x.png"): content for name, content in reversed(SPLIT.items())}
    swapped = {name.replace("ants", "x").replace("bees", "ants"): content for name, content in SPLIT.items()}

    assert ingest(store, renamed).info.fingerprint == first.info.fingerprint
    assert ingest(store, swapped).info.fingerprint != first.info.fingerprint


def test_other_split_has_another_fingerprint(store: DatasetStore) -> None:
    files = folders(ants=20, bees=20)

    assert ingest(store, files, seed=0).info.fingerprint != ingest(store, files, seed=1).info.fingerprint


def test_tar_gz_gives_the_same_dataset_as_zip(store: DatasetStore) -> None:
    from_zip = ingest(store, SPLIT)
    from_tar = ingest_archive(tar_of(SPLIT, gzipped=True), name="tar", store=store, now=NOW)

    assert from_tar.info.fingerprint == from_zip.info.fingerprint


def test_file_given_as_source_stays_open(store: DatasetStore) -> None:
    with SpooledTemporaryFile(max_size=10) as upload:
        upload.write(zip_of(SPLIT).getvalue())
        ingest_archive(upload, name="spooled", store=store, now=NOW)

        assert not upload.closed


def test_requested_csv_is_read(store: DatasetStore) -> None:
    rows = "".join(f"{name},{name.split('/')[1][:-1]}\n" for name in SPLIT)

    assert ingest(store, {**SPLIT, "list.csv": f"path,label\n{rows}".encode()}, format="csv").info.categories == (
        "ant",
        "bee",
    )


def test_bad_files_are_left_out_and_reported(store: DatasetStore) -> None:
    bad = {
        "train/ants/broken.jpg": small_image(size=(200, 200), format="JPEG")[:300],
        "train/ants/empty.png": b"",
        "train/ants/page.jpg": b"<html>not found</html>",
        "train/ants/dot.gif": small_image(size=(1, 1), format="GIF"),
        "notes.txt": b"hi",
    }
    version = ingest(store, {**SPLIT, **bad})

    assert codes(version.info.report) == {
        "unreadable_image",
        "empty_file",
        "not_an_image",
        "tiny_image",
        "ignored_files",
    }
    assert version.info.splits["train"].images == 22
    assert len([path for path in version.images_dir.rglob("*") if path.is_file()]) == len(SPLIT)


def test_names_that_file_systems_refuse_are_changed(store: DatasetStore) -> None:
    label = "long" * 75
    odd = {
        f"{label}/{'n' * 300}.png": small_image(900),
        f"{label}/a:b?.png": small_image(901),
        f"{label}/甲虫.png": small_image(902),
    }
    version = ingest(store, {**folders(ants=5), **odd})

    assert version.info.categories == ("ants", label)
    names = {image.name for split in ("train", "val") for image in store.images(version, split)}
    assert set(odd) < names


def test_repeated_name_in_the_archive_is_reported(store: DatasetStore) -> None:
    files = {**SPLIT, "train/ants/a.png": small_image(800), "train/ants/b.png": small_image(801)}
    data = zip_of(files).getvalue().replace(b"train/ants/b.png", b"train/ants/a.png")
    version = ingest_archive(BytesIO(data), name="twice", store=store, now=NOW)

    assert the_finding(version.info.report, "repeated_names").files == ("train/ants/a.png",)
    assert version.info.splits["train"].images == 23


def test_progress_is_reported_for_both_stages(store: DatasetStore) -> None:
    seen: list[IntakeProgress] = []
    ingest(store, SPLIT, on_progress=seen.append)

    assert [progress.stage for progress in seen] == ["unpack"] * len(SPLIT) + ["inspect"] * len(SPLIT)
    assert seen[-1] == IntakeProgress(stage="inspect", done=len(SPLIT), total=len(SPLIT))


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "no_images"),
        ({"a.txt": b"a"}, "no_images"),
        ({"1.png": small_image(1), "2.png": small_image(2)}, "no_categories"),
        (folders(ants=9), "too_few_categories"),
        (folders(ants=1, bees=1), "too_few_images"),
        (folders(train__ants=3, train__bees=3, val__Ants=2), "val_categories_not_in_train"),
        ({"ants/1.png": b"", "bees/2.png": b"x"}, "no_usable_images"),
    ],
)
def test_unusable_dataset_lists_problems_and_leaves_nothing(
    store: DatasetStore, root: Path, files: dict[str, bytes], code: str
) -> None:
    with pytest.raises(UnusableDataset) as caught:
        ingest(store, files)

    assert caught.value.problems[0]["code"] == code
    assert caught.value.hint is not None
    assert file_tree(root) == []


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (zip_of({"../a.png": b"a"}), UnsafeArchive),
        (zip_of({"a.png": bytes(5_000_000)}), UnsafeArchive),
        (BytesIO(b"no archive at all"), BrokenArchive),
        (BytesIO(zip_of(SPLIT).getvalue()[:-40]), BrokenArchive),
    ],
    ids=["outside", "bomb", "no archive", "truncated"],
)
def test_refused_archive_leaves_nothing(
    store: DatasetStore, root: Path, archive: BytesIO, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ingest_archive(archive, name="ants-bees", store=store, now=NOW)
    assert file_tree(root) == []


def test_invalid_name_is_refused_before_anything_is_written(store: DatasetStore, root: Path) -> None:
    with pytest.raises(InvalidName):
        ingest(store, SPLIT, name="../ants")
    assert not root.exists()


def test_archive_larger_than_the_disk_is_refused_before_it_is_unpacked(
    store: DatasetStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))

    with pytest.raises(DiskFull, match="only 1,000 bytes are free"):
        ingest(store, SPLIT)
    assert file_tree(root) == []


def test_full_disk_while_unpacking_leaves_nothing(store: DatasetStore, root: Path) -> None:
    noise = bytes(range(256)) * 1000
    with largest_file(100_000), pytest.raises(DiskFull, match="The disk is full") as caught:
        ingest(store, {**SPLIT, "train/ants/large.bin": noise})

    assert caught.value.hint is not None
    assert file_tree(root) == []


def test_full_disk_while_publishing_leaves_nothing(store: DatasetStore, root: Path) -> None:
    with largest_file(1000), pytest.raises(DiskFull):
        ingest(store, SPLIT)  # each image fits, but the list of images does not

    assert file_tree(root) == []


def test_interrupted_intake_leaves_nothing(store: DatasetStore, root: Path) -> None:
    def interrupt(progress: IntakeProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(store, SPLIT, on_progress=interrupt)
    assert file_tree(root) == []
