"""From a posted archive to a published version, or to an error and nothing left on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median_low
from typing import IO, Literal

from models.images import MAX_PIXELS
from models.manifest import Task
from models.names import checked_name
from workers.datasets.archive import ArchiveLimits, UnpackedArchive, unpack_archive
from workers.datasets.dataset import (
    DatasetFormat,
    DatasetImage,
    DatasetInfo,
    Finding,
    SizeSummary,
    SplitName,
    SplitSummary,
)
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.catalog import read_files
from workers.datasets.inspection import ImageFacts, ImageProblem, inspect_images
from workers.datasets.layout import ImageLayout
from workers.datasets.store import IMAGES_DIRECTORY, DatasetStore, DatasetVersion
from workers.datasets.validation import ValidDataset, validate
from workers.disk_space import disk_full_errors

SPLITS: tuple[SplitName, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeProgress:
    """How far an intake is."""

    stage: Literal["unpack", "inspect"]
    done: int  # bytes of the archive, or images
    total: int


def ingest_archive(
    source: IO[bytes] | Path,
    *,
    name: str,
    store: DatasetStore,
    now: datetime,
    limits: ArchiveLimits | None = None,
    task: Task | None = None,
    format: DatasetFormat | None = None,  # noqa: A002 - the word callers expect
    validation_fraction: float = 0.2,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[IntakeProgress], None] | None = None,
) -> DatasetVersion:
    """Unpacks `source`, validates what is in it and publishes it as the next version of `name`.

    source: a zip, tar or tar.gz file: a path, or a seekable file, which stays open. task, format: null finds them.
    validation_fraction, seed: of the split that is made if the archive has none.
    Raises InvalidName, UnsafeArchive, BrokenArchive, UnusableDataset, DiskFull; then nothing is left behind.
    """
    checked_name(name, kind="dataset")
    report = on_progress or _say_nothing
    with disk_full_errors(), store.temporary() as workspace:
        unpacked = unpack_archive(
            source,
            workspace / "unpacked",
            limits=limits,
            on_progress=lambda done, total: report(IntakeProgress(stage="unpack", done=done, total=total)),
        )
        reading = read_files(unpacked.files, format=format)
        inspected = inspect_images([labelled.file for labelled in reading.files], max_pixels=max_pixels)
        valid = validate(
            reading,
            _counted_off(inspected, len(reading.files), report),
            validation_fraction=validation_fraction,
            seed=seed,
        )
        version_directory = workspace / "version"
        layout = ImageLayout(version_directory / IMAGES_DIRECTORY, valid.categories)
        images = {split: layout.place(valid.splits[split], split) for split in SPLITS}

        def describe(version: int) -> DatasetInfo:
            return DatasetInfo(
                name=name,
                version=version,
                created_at=now,
                task=task or "classification",
                format=reading.format,
                categories=valid.categories,
                splits={split: _split_summary(valid, split) for split in SPLITS},
                sizes=_size_summary([image for split in SPLITS for image in images[split]]),
                size_bytes=sum(sample.file.size_bytes for split in SPLITS for sample in valid.splits[split]),
                fingerprint=_fingerprint(valid),
                validation_fraction=validation_fraction if valid.has_made_split else None,
                seed=seed,
                report=by_severity((*valid.findings, *_repeated(unpacked))),
            )

        return store.publish(name, version_directory, images=images, describe=describe)


def _say_nothing(progress: IntakeProgress) -> None:
    """Stands in where nobody asks."""


def _counted_off(
    inspected: Iterator[ImageFacts | ImageProblem], total: int, report: Callable[[IntakeProgress], None]
) -> Iterator[ImageFacts | ImageProblem]:
    for done, outcome in enumerate(inspected, start=1):
        yield outcome
        report(IntakeProgress(stage="inspect", done=done, total=total))


def _fingerprint(valid: ValidDataset) -> str:
    """sha256 over the images' contents, categories and splits: equal for equal data, whatever the files are called."""
    lines = sorted(
        f"{split}\t{sample.file.sha256}\t{sample.label}\n" for split in SPLITS for sample in valid.splits[split]
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _split_summary(valid: ValidDataset, split: SplitName) -> SplitSummary:
    labels = [sample.label for sample in valid.splits[split]]
    counts = dict.fromkeys(valid.categories, 0)
    for label in labels:
        counts[label] += 1
    return SplitSummary(images=len(labels), images_by_category=counts)


def _size_summary(images: Sequence[DatasetImage]) -> SizeSummary:
    widths, heights = [image.width for image in images], [image.height for image in images]
    return SizeSummary(
        width_min=min(widths),
        width_median=median_low(widths),
        width_max=max(widths),
        height_min=min(heights),
        height_median=median_low(heights),
        height_max=max(heights),
    )


def _repeated(unpacked: UnpackedArchive) -> list[Finding]:
    if not unpacked.repeated:
        return []
    text = f"{counted(len(unpacked.repeated), 'name')} more than once in the archive: the last file of each was taken."
    return [finding("warning", "repeated_names", text, unpacked.repeated)]
