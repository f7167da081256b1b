"""Turns a posted archive into a published dataset version. After an error, nothing is left on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import IO, Literal

from models.images.decode import MAX_PIXELS
from models.manifest import Task
from models.store.names import checked_name
from workers.datasets.archives.archive import ArchiveLimits, UnpackedArchive, unpack_archive
from workers.datasets.dataset import (
    DatasetFormat,
    DatasetImage,
    DatasetInfo,
    Finding,
    SizeSummary,
    SplitName,
    SplitSummary,
)
from workers.datasets.disk_space import disk_full_errors
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.fingerprint import fingerprint
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.datasets.layout import ImageLayout
from workers.datasets.store import IMAGES_DIRECTORY, DatasetStore, DatasetVersion
from workers.datasets.validation.categories import validate_categories
from workers.datasets.validation.image_findings import InspectedSample
from workers.datasets.validation.inspection import ImageFacts, ImageProblem, inspect_images
from workers.datasets.validation.label_maps import validate_label_maps
from workers.datasets.validation.objects import validate_objects
from workers.datasets.validation.sample_filter import ValidDataset
from workers.datasets.validation.splits import GroupBy, SplitRule

_VALIDATIONS = {
    "classification": validate_categories,
    "detection": validate_objects,
    "segmentation": validate_label_maps,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeProgress:
    """How far an intake has come."""

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
    format: DatasetFormat | None = None,  # noqa: A002 - the name in the API
    validation_fraction: float = 0.2,
    seed: int = 0,
    group_by: GroupBy = "similar",
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[IntakeProgress], None] | None = None,
) -> DatasetVersion:
    """Unpacks `source`, validates its content and publishes it as the next version of `name`.

    source: a zip, tar or tar.gz file, as a path or as a seekable file, which stays open.
    task, format: None means that Fovea finds them.
    validation_fraction, seed, group_by: for the validation split, if the archive has none.
    Raises InvalidName, UnsafeArchive, BrokenArchive, UnusableDataset, DiskFull; nothing is left on the disk then.
    """
    checked_name(name, kind="dataset")
    report = on_progress or _ignore_progress
    with disk_full_errors(), store.temporary() as workspace:
        unpacked = unpack_archive(
            source,
            workspace / "unpacked",
            limits=limits,
            on_progress=lambda done, total: report(IntakeProgress(stage="unpack", done=done, total=total)),
        )
        reading = read_files(unpacked.files, format=format, task=task, has_group_folders=group_by == "folder")
        inspected = inspect_images([labelled.file for labelled in reading.files], max_pixels=max_pixels)
        valid = _VALIDATIONS[reading.task](
            reading,
            _with_progress(inspected, len(reading.files), report),
            SplitRule(fraction=validation_fraction, seed=seed, group_by=group_by),
        )
        version_directory = workspace / "version"
        layout = ImageLayout(
            version_directory / IMAGES_DIRECTORY, valid.categories, task=reading.task, values=valid.values
        )
        images = {split: layout.place(samples, split) for split, samples in valid.splits.items()}
        describe = partial(
            _describe,
            name=name,
            now=now,
            reading=reading,
            valid=valid,
            images=images,
            digest=fingerprint(valid.categories, images, layout.label_map_digests),
            validation_fraction=validation_fraction if valid.has_generated_split else None,
            seed=seed,
            findings=(*valid.findings, *_name_findings(unpacked)),
        )
        return store.publish(name, version_directory, images=images, describe=describe)


def _ignore_progress(progress: IntakeProgress) -> None:
    """The default for `on_progress`."""


def _with_progress(
    inspected: Iterator[ImageFacts | ImageProblem], total: int, report: Callable[[IntakeProgress], None]
) -> Iterator[ImageFacts | ImageProblem]:
    for done, outcome in enumerate(inspected, start=1):
        yield outcome
        report(IntakeProgress(stage="inspect", done=done, total=total))


def _describe(
    version: int,
    *,
    name: str,
    now: datetime,
    reading: Reading,
    valid: ValidDataset,
    images: Mapping[SplitName, Sequence[DatasetImage]],
    digest: str,
    validation_fraction: float | None,
    seed: int,
    findings: Sequence[Finding],
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        version=version,
        created_at=now,
        task=reading.task,
        format=reading.format,
        categories=valid.categories,
        has_masks=valid.has_masks,
        splits={split: _split_summary(valid, reading.task, split) for split in valid.splits},
        sizes=_size_summary([image for listed in images.values() for image in listed]),
        size_bytes=sum(sample.file.size_bytes for samples in valid.splits.values() for sample in samples),
        fingerprint=digest,
        validation_fraction=validation_fraction,
        seed=seed,
        report=by_severity(findings),
    )


def _split_summary(valid: ValidDataset, task: Task, split: SplitName) -> SplitSummary:
    samples = valid.splits[split]
    images = dict.fromkeys(valid.categories, 0)
    objects = dict.fromkeys(valid.categories, 0) if task == "detection" else {}
    by_value = dict(zip(valid.values, valid.categories, strict=False))
    for sample in samples:
        for category in _categories_on(sample, task, by_value):
            images[category] += 1
        for target in sample.objects:
            objects[target.label] += 1
    return SplitSummary(images=len(samples), images_by_category=images, objects_by_category=objects)


def _categories_on(sample: InspectedSample, task: Task, by_value: Mapping[int, str]) -> set[str]:
    if task == "classification":
        return {sample.label}
    if task == "detection":
        return {target.label for target in sample.objects}
    assert sample.label_map is not None
    return {by_value[value] for value in sample.label_map.values if value in by_value}


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


def _name_findings(unpacked: UnpackedArchive) -> list[Finding]:
    findings = []
    if unpacked.repeated_names:
        count = counted(len(unpacked.repeated_names), "name")
        text = f"{count} repeated in the archive. The last file of each name is used."
        findings.append(finding("warning", "repeated_names", text, unpacked.repeated_names))
    if unpacked.name_encoding is not None:
        names = [file.name for file in unpacked.files if not file.name.isascii()]
        text = (
            f"The zip does not state the encoding of its names. Fovea took {unpacked.name_encoding.name}: "
            f"{unpacked.name_encoding.reason}. Check {counted(len(names), 'name')}. Today's zip programs write UTF-8."
        )
        findings.append(finding("warning", "name_encoding", text, names))
    return findings
