"""COCO: JSON files that list images, categories, and objects with boxes, outlines or run lengths.

There may be one file per split; its name or its folder states the split. If some files are called `instances_*`, only
these are read: the others contain captions of the same images, or the same people again.
Source: Lin et al. 2014, and cocodataset.org, "Data format".
"""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.coco_file import read_coco_file
from workers.datasets.formats.file_names import FileNames, missing_findings, split_in_path, split_in_word, stem_of
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable

_EXPECTED = "COCO: images and a JSON file (or one per split) with `images`, `annotations` and `categories`"
_HINT = f"Expected: {_EXPECTED}."
_NOT_INSTANCES = ("captions", "person_keypoints", "panoptic", "image_info", "stuff")


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_coco(file) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    collected = _CollectedAnnotations(files)
    lists = _lists(files)
    for file in lists:
        collected.add(file)
    collected.merge()
    findings = collected.findings()
    if not collected.by_image:
        raise unusable(
            f"None of the images listed in {', '.join(file.name for file in lists[:3])} is in the archive.",
            hint=_HINT,
            code="no_images",
            findings=findings,
        )
    resolved, split_findings = resolve_splits([collected.by_image[name] for name in sorted(collected.by_image)])
    return Reading(
        format="coco",
        task="detection",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=tuple(collected.categories),
    )


def _is_coco(file: ArchivedFile) -> bool:
    is_object = file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    if not file.name.lower().endswith(".json") or not is_object:
        return False
    with file.path.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b'"segments_info"') >= 0:
            return False  # a panoptic file, which coco_panoptic.py reads
        return data.find(b'"images"') >= 0 and (data.find(b'"annotations"') >= 0 or data.find(b'"file_name"') >= 0)


def _lists(files: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    lists = [file for file in files if _is_coco(file)]
    if not lists:
        raise unusable(
            "The archive has no JSON file with `images` and `annotations`.", hint=_HINT, code="no_annotations"
        )
    instances = [file for file in lists if posixpath.basename(file.name).startswith("instances")]
    usual = [file for file in lists if not posixpath.basename(file.name).startswith(_NOT_INSTANCES)]
    return instances or usual or lists


@dataclass(frozen=True, slots=True)
class _Entry:
    written: str  # `file_name`
    annotation: Annotation
    split: str | None


class _CollectedAnnotations:
    """The annotations of all JSON files, by the images of the archive."""

    def __init__(self, files: Sequence[ArchivedFile]) -> None:
        self._sorted = sort_files(files)
        self._names = FileNames(self._sorted.images)
        self._lists = {file.name for file in files if _is_coco(file)}
        self._missing: dict[str, Sequence[str]] = {}  # written name -> the images that it may mean
        self._listed_twice: list[str] = []
        self._in_several_splits: list[str] = []
        self._entries: dict[str, tuple[ArchivedFile, list[_Entry]]] = {}
        self._file_findings: list[Finding] = []
        self.by_image: dict[str, tuple[ArchivedFile, Annotation, str | None]] = {}
        self.categories: dict[str, None] = {}

    def add(self, file: ArchivedFile) -> None:
        """Reads `file`. Raises UnusableDataset."""
        content = read_coco_file(file)
        self._file_findings += content.findings
        self.categories.update(dict.fromkeys(content.categories))
        near = posixpath.dirname(file.name)
        split = split_in_word(stem_of(file.name)) or split_in_path(file.name)
        for written, annotation in content.images:
            image = self._names.find(written, near=near, split=split)
            if image is None:
                self._missing[written] = self._names.tied(written, near=near, split=split)
            else:
                entry = _Entry(written, annotation, split or split_in_path(image.name))
                self._entries.setdefault(image.name, (image, []))[1].append(entry)

    def merge(self) -> None:
        """Makes one annotation of all entries for one image."""
        for image, entries in self._entries.values():
            exact = [entry for entry in entries if self._names.is_exact(entry.written, image)]
            if not exact and len({entry.written for entry in entries}) > 1:
                self._missing |= {entry.written: (image.name,) for entry in entries}
                continue
            chosen = exact or entries
            self._missing |= {entry.written: () for entry in entries if entry not in chosen}
            splits = {entry.split for entry in chosen if entry.split is not None}
            if len(splits) > 1:
                self._in_several_splits.append(image.name)
            if len(chosen) > 1:
                self._listed_twice.append(image.name)
            first = chosen[0].annotation
            merged = replace(
                first,
                objects=[each for entry in chosen for each in entry.annotation.objects],
                unusable_objects=sum(entry.annotation.unusable_objects for entry in chosen),
            )
            kept = next((split for split in ("test", "val", "train") if split in splits), None)
            self.by_image[image.name] = (image, merged if len(chosen) > 1 else first, kept)

    def findings(self) -> list[Finding]:
        """Findings about the JSON files, and about images that are missing or not listed."""
        findings = list(self._file_findings)
        findings += missing_findings(self._missing)
        if self._listed_twice:
            text = f"{counted(len(self._listed_twice), 'image')} listed more than once. The objects are put together."
            findings.append(finding("warning", "annotated_twice", text, self._listed_twice))
        if self._in_several_splits:
            count = counted(len(self._in_several_splits), "image")
            text = f"{count} listed in several splits. They are not trained on."
            findings.append(finding("warning", "listed_in_several_splits", text, self._in_several_splits))
        unlisted = [image.name for image in self._sorted.images if image.name not in self.by_image]
        if unlisted:
            text = f"{counted(len(unlisted), 'image')} left out: not listed in a JSON file."
            findings.append(finding("warning", "missing_annotations", text, unlisted))
        return [*findings, *leftover_findings(self._sorted, used=self._lists)]


COCO = Format(name="coco", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
