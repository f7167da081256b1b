"""YOLO: one text file per image, one line per object: the number of the category, then a box or an outline.

A box is its centre, width and height; an outline is its corners. All are fractions of the width and height of the
image. `data.yaml` names the categories and the folders of the splits; older datasets have `classes.txt` or `obj.names`.
An image without a text file has no objects.
Source: docs.ultralytics.com, "Object Detection Datasets"; pjreddie.com/darknet/yolo.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, entries_finding, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation
from workers.datasets.formats.file_names import FileNames, stem_of
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable
from workers.datasets.formats.yolo_config import YoloConfig, is_config, read_config
from workers.datasets.formats.yolo_lines import BadLine, is_oriented_box, read_line

_EXPECTED = "YOLO: data.yaml with the names of the categories, images/1.jpg and labels/1.txt, optionally in splits"
_HINT = f"Expected: {_EXPECTED}."
_MAX_BYTES = 32 * 2**20  # of one label file
_FIRST_LINE = re.compile(rb"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*(\n|$)")
_HEAD_BYTES = 1024


def _fits(files: Sequence[ArchivedFile]) -> bool:
    if any(is_config(file) for file in files if file.name.lower().endswith((".yaml", ".yml"))):
        return True
    stems = {stem_of(image.name).casefold() for image in sort_files(files).images}
    return any(_looks_like_labels(file, stems) for file in files)


def _looks_like_labels(file: ArchivedFile, stems: set[str]) -> bool:
    if not file.name.lower().endswith(".txt") or stem_of(file.name).casefold() not in stems:
        return False
    with file.path.open("rb") as content:
        return _FIRST_LINE.match(content.read(_HEAD_BYTES)) is not None


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    config = read_config(files)
    labels = _LabelFiles(files, sorted_files.images, config)
    listed = config.listed_splits(files, sorted_files.images)
    annotated = [
        (image, annotation, listed.get(image.name) or config.split_for(image.name))
        for image in sorted_files.images
        if (annotation := labels.annotation_of(image)) is not None
    ]
    findings = [*config.findings(), *labels.findings()]
    findings += leftover_findings(sorted_files, used=labels.names | config.files)
    if not sorted_files.images:
        raise unusable("The archive contains no images.", hint=_HINT, code="no_images", findings=findings)
    if not labels.used:
        raise unusable("No image has a label file.", hint=_HINT, code="no_annotations", findings=findings)
    resolved, split_findings = resolve_splits(annotated)
    return Reading(
        format="yolo",
        task="detection",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=tuple(dict.fromkeys(config.labels.values())),
    )


class _LabelFiles:
    """The text files that belong to images, and what in them cannot be used."""

    def __init__(self, files: Sequence[ArchivedFile], images: Sequence[ArchivedFile], config: YoloConfig) -> None:
        stems = {stem_of(image.name).casefold() for image in images}
        candidates = [
            file
            for file in files
            if file.name.lower().endswith(".txt")
            and file.name not in config.files
            and (stem_of(file.name).casefold() in stems or "labels" in file.name.casefold().split("/"))
        ]
        self.names = {file.name for file in candidates}
        self.used: set[str] = set()
        self._config = config
        self._file_of: dict[str, ArchivedFile] = {}  # name of an image -> its text file
        self._ambiguous: list[str] = []
        self._assign(images, FileNames(candidates))
        self._objects_read = 0
        self._four_corners = 0
        self._images_without_file: list[str] = []
        self._bad_lines: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # code -> place, reason

    def _assign(self, images: Sequence[ArchivedFile], files: FileNames) -> None:
        """Finds the text file of each image. If several images find the same file, the nearest one has it."""
        claims: defaultdict[str, list[tuple[bool, bool, ArchivedFile]]] = defaultdict(list)
        for image in images:
            folder, base = posixpath.split(image.name)
            near = "/".join("labels" if part.casefold() == "images" else part for part in folder.split("/"))
            written = f"{stem_of(base)}.txt"
            file = files.find(written, near=near)
            if file is not None:
                is_beside = posixpath.dirname(file.name).casefold() == near.casefold()
                claims[file.name].append((is_beside, stem_of(file.name) == stem_of(base), image))
                self._file_of[image.name] = file
            elif files.tied(written, near=near):
                self._ambiguous.append(image.name)
        for claiming in claims.values():
            nearest = max(claiming, key=lambda claim: claim[:2])
            for _, _, image in claiming:
                if image is not nearest[2]:
                    del self._file_of[image.name]

    def annotation_of(self, image: ArchivedFile) -> Annotation | None:
        """Reads the text file of `image`. The annotation is empty if there is none; None if several fit equally."""
        file = self._file_of.get(image.name)
        if image.name in self._ambiguous:
            return None
        if file is None:
            self._images_without_file.append(image.name)
            return Annotation()
        self.used.add(file.name)
        bad_before = sum(map(len, self._bad_lines.values()))
        objects = list(self._objects(file))
        self._objects_read += len(objects)
        self._four_corners += sum(is_oriented_box(each) for each in objects)
        bad = sum(map(len, self._bad_lines.values())) - bad_before
        return Annotation(objects=objects, is_relative=True, unusable_objects=bad)

    def findings(self) -> list[Finding]:
        """Findings about files without an image, images without a file, and lines that were left out."""
        findings = []
        unused = sorted(self.names - self.used)
        if unused:
            text = f"{counted(len(unused), 'label file')} left out: the image is not in the archive."
            findings.append(finding("error", "missing_images", text, unused))
        if self._images_without_file:
            count = counted(len(self._images_without_file), "image")
            text = f"{count} without a label file, kept as examples of background."
            findings.append(finding("warning", "missing_annotations", text, self._images_without_file))
        for code, lines in self._bad_lines.items():
            findings.append(entries_finding(code, lines, noun=("line", "lines"), of=" of label files"))
        if self._config.has_keypoints and self._objects_read:
            text = f"Keypoints of {counted(self._objects_read, 'object')} not read: Fovea learns the boxes only."
            findings.append(finding("warning", "keypoints_not_read", text, count=self._objects_read))
        if self._objects_read and self._four_corners == self._objects_read:
            text = (
                f"All {counted(self._four_corners, 'object')} have four corners, as YOLO's oriented boxes. The corners "
                "are read as an outline, and the box is the upright one around it: Fovea learns no angle."
            )
            findings.append(finding("warning", "rotated_boxes", text, count=self._four_corners))
        if self._ambiguous:
            text = f"{counted(len(self._ambiguous), 'image')} left out: several label files have the name."
            findings.append(finding("error", "ambiguous_images", text, self._ambiguous))
        return findings

    def _objects(self, file: ArchivedFile) -> Iterator[AnnotatedObject]:
        if file.size_bytes > _MAX_BYTES:
            reason = f"the file has {file.size_bytes:,} bytes, but may have at most {_MAX_BYTES:,}"
            self._bad_lines["bad_objects"].append((file.name, reason))
            return
        text = file.path.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            where = f"{file.name}:{number}"
            try:
                if line.strip():
                    yield read_line(
                        line, where=where, labels=self._config.labels, has_keypoints=self._config.has_keypoints
                    )
            except BadLine as error:
                self._bad_lines[error.code].append((where, str(error)))


YOLO = Format(name="yolo", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
