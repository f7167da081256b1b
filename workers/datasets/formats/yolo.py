"""YOLO: a text file a picture, a line an object: the category's number, then a box or an outline.

A box is its centre, width and height, an outline its corners, all as shares of the picture. `data.yaml` names the
categories and the folders of the splits; older sets have `classes.txt` or `obj.names`. A picture without a text file
has no objects. Source: docs.ultralytics.com, "Object Detection Datasets"; pjreddie.com/darknet/yolo.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation
from workers.datasets.formats.file_names import FileNames, stem_of
from workers.datasets.formats.reading import Format, Reading, leftover_findings, settle_splits, sort_files, unusable
from workers.datasets.formats.yolo_config import YoloConfig, is_config, read_config
from workers.datasets.formats.yolo_lines import BadLine, read_line
from workers.errors import UnusableDataset

_EXPECTED = "YOLO: data.yaml with the names of the categories, images/1.jpg with labels/1.txt, optionally in splits"
_HINT = f"Expected is {_EXPECTED}."
_MAX_BYTES = 32 * 2**20  # a picture's labels
_FIRST_LINE = re.compile(rb"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*(\n|$)")
_HEAD_BYTES = 1024


def _fits(files: Sequence[ArchivedFile]) -> bool:
    if any(is_config(file) for file in files if file.name.lower().endswith((".yaml", ".yml"))):
        return True
    stems = {stem_of(posixpath.basename(image.name)) for image in sort_files(files).images}
    return any(_looks_like_labels(file, stems) for file in files)


def _looks_like_labels(file: ArchivedFile, stems: set[str]) -> bool:
    if not file.name.endswith(".txt") or stem_of(posixpath.basename(file.name)) not in stems:
        return False
    with file.path.open("rb") as content:
        return _FIRST_LINE.match(content.read(_HEAD_BYTES)) is not None


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    config = read_config(files)
    labels = _LabelFiles(files, sorted_files.images, config)
    read = [(image, labels.of(image), config.split_of(image.name)) for image in sorted_files.images]
    findings = [*config.findings(), *labels.findings()]
    findings += leftover_findings(sorted_files, used=labels.names | config.files)
    if not read:
        raise unusable("There is no image in the archive.", hint=_HINT, code="no_images", findings=findings)
    if not labels.used:
        raise _without_labels(findings)
    settled, split_findings = settle_splits(read)
    return Reading(
        format="yolo",
        task="detection",
        files=tuple(settled),
        findings=(*split_findings, *findings),
        categories=tuple(dict.fromkeys(config.labels.values())),
    )


def _without_labels(findings: Sequence[Finding]) -> UnusableDataset:
    return unusable(
        "None of the pictures has a text file with its objects.", hint=_HINT, code="no_annotations", findings=findings
    )


class _LabelFiles:
    """The text files that go with pictures, and what in them cannot be used."""

    def __init__(self, files: Sequence[ArchivedFile], images: Sequence[ArchivedFile], config: YoloConfig) -> None:
        stems = {stem_of(posixpath.basename(image.name)) for image in images}
        candidates = [
            file
            for file in files
            if file.name.lower().endswith(".txt")
            and file.name not in config.files
            and (stem_of(posixpath.basename(file.name)) in stems or "labels" in file.name.split("/"))
        ]
        self.names = {file.name for file in candidates}
        self.used: set[str] = set()
        self._files = FileNames(candidates)
        self._config = config
        self._without: list[str] = []
        self._bad: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def of(self, image: ArchivedFile) -> Annotation:
        """What is said of `image`; nothing if it has no text file."""
        folder, base = posixpath.split(image.name)
        near = "/".join("labels" if part == "images" else part for part in folder.split("/"))
        name = f"{stem_of(base)}.txt"
        file = self._files.find(name, near=near)
        is_of_another = file is not None and file.name in self.used
        if file is None or is_of_another:
            self._without.append(image.name)
            return Annotation()
        self.used.add(file.name)
        return Annotation(objects=list(self._objects(file)), is_relative=True)

    def findings(self) -> list[Finding]:
        """What is said of files without pictures, pictures without files, and lines left out."""
        findings = []
        lonely = sorted(self.names - self.used)
        if lonely:
            text = f"{counted(len(lonely), 'label file')} of pictures that are not in the archive."
            findings.append(finding("error", "missing_images", text, lonely))
        if self._without:
            text = f"{counted(len(self._without), 'image')} without a label file: kept as pictures without objects."
            findings.append(finding("warning", "missing_annotations", text, self._without))
        for code, bad in self._bad.items():
            where, reason = next(iter(bad.items()))
            text = f"{counted(len(bad), 'line')} of label files left out. The first, {where}: {reason}."
            findings.append(finding("error", code, text, bad))
        return findings

    def _objects(self, file: ArchivedFile) -> Iterator[AnnotatedObject]:
        if file.size_bytes > _MAX_BYTES:
            self._bad["bad_objects"][file.name] = f"the file has {file.size_bytes:,} bytes"
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
                self._bad[error.code][where] = str(error)


YOLO = Format(name="yolo", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
