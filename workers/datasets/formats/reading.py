"""The result of reading an archive in one format, and the functions that all formats share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from models.manifest import Task
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import image_kind, is_archive_name, is_unreadable_image, suffix_kind
from workers.datasets.dataset import DatasetFormat, Finding, SplitName
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.unread_annotations import find_unread
from workers.errors import UnusableDataset

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFile:
    """A file that should be an image, and what the archive states about it."""

    file: ArchivedFile
    label: str  # the category, for classification; "" for the other tasks, which have an `annotation`
    split: SplitName | None  # None: the archive has no splits
    annotation: Annotation | None = None
    group: str | None = None  # images of one group, as the archive states it, stay in one split


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The labelled files and the findings that one format reads from an archive."""

    format: DatasetFormat
    files: tuple[LabelledFile, ...]
    findings: tuple[Finding, ...]
    task: Task = "classification"
    categories: tuple[str, ...] = ()  # in the order of the archive if it lists them; for label maps: by pixel value
    is_drawn: bool = False  # segmentation: the label maps are drawn from the objects of the annotations


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A dataset format: how to recognise it and how to read it."""

    name: DatasetFormat
    task: Task
    expected: str  # what such an archive contains, for the message when no format fits
    fits: Callable[[Sequence[ArchivedFile]], bool]
    read: Callable[[Sequence[ArchivedFile]], Reading]  # raises UnusableDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class SortedFiles:
    """The files of an archive, sorted by what they are."""

    images: tuple[ArchivedFile, ...]
    unreadable: tuple[ArchivedFile, ...]  # images by their suffix, in formats that Fovea does not read
    others: tuple[ArchivedFile, ...]


def sort_files(files: Sequence[ArchivedFile]) -> SortedFiles:
    """Sorts `files` into images and others.

    A file counts as an image by its content or by its suffix: a broken `a.jpg` was meant to be an image.
    A file in a hidden folder never counts as an image; otherwise `.ipynb_checkpoints` would become a category.
    """
    images, unreadable, others = [], [], []
    for file in files:
        if any(part.startswith(".") for part in file.name.split("/")):
            others.append(file)
        elif suffix_kind(file.name) is not None or image_kind(file.name, file.head) is not None:
            images.append(file)
        elif is_unreadable_image(file.name):
            unreadable.append(file)
        else:
            others.append(file)
    return SortedFiles(images=tuple(images), unreadable=tuple(unreadable), others=tuple(others))


def split_from_word(word: str) -> str | None:
    """Returns `train`, `val` or `test` if `word` is a usual name of that split, else None."""
    return _SPLIT_WORDS.get(word.strip().casefold())


_LabelT = TypeVar("_LabelT", str, Annotation)


def resolve_splits(
    files: Sequence[tuple[ArchivedFile, _LabelT, str | None]],
) -> tuple[list[LabelledFile], list[Finding]]:
    """Gives each file its split: `train`, `val` or `test`, or None if the archive has no splits.

    `test` becomes `val` if the archive has no `val`. Images without a split are left out if others have one.
    """
    tests = [file.name for file, _, split in files if split == "test"]
    has_val = any(split == "val" for _, _, split in files)
    findings = []
    if any(split is not None for _, _, split in files):
        outside = [file.name for file, _, split in files if split is None]
        if outside:
            text = f"{counted(len(outside), 'image')} left out: not in any split, although other images are."
            findings.append(finding("warning", "images_outside_splits", text, outside))
        files = [entry for entry in files if entry[2] is not None]
    if tests and has_val:
        text = f"{counted(len(tests), 'image')} in `test`: training does not see them, and measures on them at its end."
        findings.append(finding("info", "test_split_kept", text, tests))
    elif tests:
        text = f"The archive has no `val` split, so its `test` split is used as `val`: {counted(len(tests), 'image')}."
        findings.append(finding("info", "test_split_used_as_val", text, tests))
    splits: dict[str | None, SplitName] = {"train": "train", "val": "val", "test": "test" if has_val else "val"}
    return [_labelled_file(file, label, splits.get(split)) for file, label, split in files], findings


def _labelled_file(file: ArchivedFile, label: str | Annotation, split: SplitName | None) -> LabelledFile:
    if isinstance(label, str):
        return LabelledFile(file=file, label=label, split=split)
    return LabelledFile(file=file, label="", split=split, annotation=label)


def leftover_findings(sorted_files: SortedFiles, *, used: Collection[str] = ()) -> list[Finding]:
    """Findings about files that are not images.

    used: names of files that were read as annotations or lists; they are not reported.
    """
    findings = []
    if sorted_files.unreadable:
        names = [file.name for file in sorted_files.unreadable]
        suffixes = ", ".join(sorted({name.rpartition(".")[2].lower() for name in names}))
        text = (
            f"{counted(len(names), 'image')} left out: Fovea does not read this format ({suffixes}). "
            "Convert to JPEG or PNG."
        )
        findings.append(finding("error", "unsupported_image_format", text, names))
    unread = find_unread(sorted_files.others, sorted_files.images, used=used)
    if unread.files:
        names = [file.name for file in unread.files]
        text = f"{counted(len(names), 'file')} not read, although they name images of the archive: {names[0]}."
        findings.append(finding("warning", "annotations_not_read", text, names))
    read_or_reported = {*used, *(file.name for file in unread.files)}
    ignored = [file.name for file in sorted_files.others if file.name not in read_or_reported]
    if ignored:
        text = f"{counted(len(ignored), 'file')} left out: hidden, or not an image by suffix and content."
        findings.append(finding("info", "ignored_files", text, ignored))
    archives = [name for name in ignored if is_archive_name(name)]
    if archives:
        text = (
            f"{counted(len(archives), 'archive')} inside the archive left out. To use the content, unpack it before "
            "you pack the folder."
        )
        findings.append(finding("warning", "nested_archives", text, archives))
    return findings


def unusable(
    message: str, *, hint: str, code: str, findings: Collection[Finding] = (), files: Collection[str] = ()
) -> UnusableDataset:
    """Returns the error that refuses a dataset; `message` is also its first problem, before `findings`."""
    problems = (finding("error", code, message, files), *by_severity(findings))
    return UnusableDataset(message, problems=[problem.model_dump(mode="json") for problem in problems], hint=hint)


def no_images_error(sorted_files: SortedFiles, *, hint: str) -> UnusableDataset:
    """Returns the error for an archive without images."""
    count = len(sorted_files.others) + len(sorted_files.unreadable)
    message = (
        f"The archive contains no images, only {counted(count, 'other file')}." if count else "The archive is empty."
    )
    return unusable(message, hint=hint, code="no_images", findings=leftover_findings(sorted_files))
