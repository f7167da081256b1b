"""What every format makes of an archive, and what the formats share."""

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
from workers.errors import UnusableDataset

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFile:
    """A file that should be a picture, and what the archive says of it."""

    file: ArchivedFile
    label: str  # of classification; "" where `annotation` says what is on the picture
    split: SplitName | None  # None: the archive has no splits
    annotation: Annotation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """An archive as one format understands it."""

    format: DatasetFormat
    files: tuple[LabelledFile, ...]
    findings: tuple[Finding, ...]
    task: Task = "classification"
    categories: tuple[str, ...] = ()  # in the archive's order, where it lists them; of label maps by value


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One layout: how to know it and how to read it."""

    name: DatasetFormat
    task: Task
    expected: str  # for the message when nothing fits
    fits: Callable[[Sequence[ArchivedFile]], bool]
    read: Callable[[Sequence[ArchivedFile]], Reading]  # raises UnusableDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class SortedFiles:
    """The files of an archive by what they can be good for."""

    images: tuple[ArchivedFile, ...]
    unreadable: tuple[ArchivedFile, ...]  # pictures by their names, in formats that are not read
    others: tuple[ArchivedFile, ...]


def sort_files(files: Sequence[ArchivedFile]) -> SortedFiles:
    """Splits `files` into pictures and others, by content and suffix: a broken `a.jpg` should have been a picture.

    Files in hidden folders are never pictures: `.ipynb_checkpoints` would become a category.
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


def split_of(word: str) -> str | None:
    """`train`, `val` or `test` if `word` is a usual name of it, else None."""
    return _SPLIT_WORDS.get(word.strip().casefold())


_Said = TypeVar("_Said", str, Annotation)


def settle_splits(files: Sequence[tuple[ArchivedFile, _Said, str | None]]) -> tuple[list[LabelledFile], list[Finding]]:
    """Files with label or annotation and split; `test` counts as `val` if there is no other, else it is left out.

    Where some have a split, those without one are left out.
    """
    tests = [file.name for file, _, split in files if split == "test"]
    has_val = any(split == "val" for _, _, split in files)
    findings = []
    if any(split is not None for _, _, split in files):
        outside = [file.name for file, _, split in files if split is None]
        if outside:
            text = f"{counted(len(outside), 'image')} left out: in no split, where others are in one."
            findings.append(finding("warning", "images_outside_splits", text, outside))
        files = [entry for entry in files if entry[2] is not None]
    if tests and has_val:
        text = f"{counted(len(tests), 'image')} of the `test` split left out: training needs `train` and `val` only."
        findings.append(finding("info", "test_split_ignored", text, tests))
    elif tests:
        text = f"There is no `val` split, so `test` is used as `val`: {counted(len(tests), 'image')}."
        findings.append(finding("info", "test_split_used_as_val", text, tests))
    kept = [entry for entry in files if entry[2] != "test" or not has_val]
    return [_labelled(file, said, split) for file, said, split in kept], findings


def _labelled(file: ArchivedFile, said: str | Annotation, split: str | None) -> LabelledFile:
    settled: SplitName | None = None if split is None else "train" if split == "train" else "val"
    if isinstance(said, str):
        return LabelledFile(file=file, label=said, split=settled)
    return LabelledFile(file=file, label="", split=settled, annotation=said)


def leftover_findings(sorted_files: SortedFiles, *, used: Collection[str] = ()) -> list[Finding]:
    """What is said of files that are no pictures; `used` are those that told of the others."""
    findings = []
    if sorted_files.unreadable:
        names = [file.name for file in sorted_files.unreadable]
        suffixes = ", ".join(sorted({name.rpartition(".")[2].lower() for name in names}))
        text = f"{counted(len(names), 'picture')} in a format that is not read ({suffixes}): convert to JPEG or PNG."
        findings.append(finding("error", "unsupported_image_format", text, names))
    ignored = [file.name for file in sorted_files.others if file.name not in used]
    if ignored:
        text = f"{counted(len(ignored), 'file')} left out: no pictures by suffix and content, or hidden."
        findings.append(finding("info", "ignored_files", text, ignored))
    archives = [name for name in ignored if is_archive_name(name)]
    if archives:
        text = f"{counted(len(archives), 'archive')} inside the archive: what is in there was not looked at."
        findings.append(finding("warning", "nested_archives", text, archives))
    return findings


def unusable(
    message: str, *, hint: str, code: str, findings: Collection[Finding] = (), files: Collection[str] = ()
) -> UnusableDataset:
    """The error that says `message`, with itself as the first of the problems."""
    problems = (finding("error", code, message, files), *by_severity(findings))
    return UnusableDataset(message, problems=[problem.model_dump(mode="json") for problem in problems], hint=hint)


def without_images(sorted_files: SortedFiles, *, hint: str) -> UnusableDataset:
    """The error for an archive in which nothing is a picture."""
    count = len(sorted_files.others) + len(sorted_files.unreadable)
    message = (
        f"There is no image in the archive, only {counted(count, 'other file')}." if count else "The archive is empty."
    )
    return unusable(message, hint=hint, code="no_images", findings=leftover_findings(sorted_files))
