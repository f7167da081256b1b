"""DOTA: one text file per image, one oriented box per line: `x1 y1 x2 y2 x3 y3 x4 y4 category difficulty`, in pixels.

Roboflow exports oriented boxes in the same way, in `labelTxt/`. The upright box around the corners is read.
Source: Xia et al. 2018, "DOTA: A Large-scale Dataset for Object Detection in Aerial Images".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, clean_label
from workers.datasets.formats.file_names import split_in_path, stem_of
from workers.datasets.formats.json_values import numbers_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, sort_files, unusable
from workers.datasets.formats.rotated_boxes import box_around

_EXPECTED = "DOTA: images and labelTxt/1.txt with eight numbers and a category per line"
_LINE = re.compile(r"(-?\d+(\.\d+)?\s+){8}(?=\S*[^\W\d_])\S+(\s+\d+)?\s*")
_HEADER = ("imagesource", "gsd")
_MAX_BYTES = 32 * 2**20
_HEAD_BYTES = 1024


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return bool(_label_files(files))


def _label_files(files: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    texts = [file for file in files if file.name.lower().endswith(".txt")]
    stems = {stem_of(image.name) for image in sort_files(files).images} if texts else set()
    texts = [file for file in texts if stem_of(file.name) in stems]
    folders = {file.name.rpartition("/")[0] for file in texts if _begins_like_dota(file)}
    return [file for file in texts if file.name.rpartition("/")[0] in folders]  # with the empty ones beside them


def _begins_like_dota(file: ArchivedFile) -> bool:
    with file.path.open("rb") as content:
        head = content.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith(_HEADER)]
    return bool(lines) and _LINE.fullmatch(lines[0]) is not None


def _read(files: Sequence[ArchivedFile]) -> Reading:
    found = _label_files(files)
    if not found:
        raise unusable("No image has a text file of DOTA.", hint=f"Expected: {_EXPECTED}.", code="no_annotations")
    collector = ObjectCollector(files, expected=_EXPECTED)
    for file in found:
        near = file.name.rpartition("/")[0]
        image = collector.find(stem_of(file.name), near=near, split=split_in_path(file.name))
        if image is None:
            continue
        if file.size_bytes > _MAX_BYTES:
            collector.leave_out(file.name, f"it has {file.size_bytes:,} bytes, but may have at most {_MAX_BYTES:,}")
            continue
        collector.add(image, list(_objects(file, image, collector)))
    configs = {file.name for file in files if file.name.lower().endswith(("data.yaml", "data.yml"))}
    return collector.reading("dota", used={file.name for file in found} | configs)


def _objects(file: ArchivedFile, image: ArchivedFile, collector: ObjectCollector) -> Iterator[AnnotatedObject]:
    text = file.path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        where, words = f"{file.name}:{number}", line.split()
        if not words or line.startswith(_HEADER):
            continue
        corners = numbers_of(words[:8])
        label = clean_label(words[8]) if len(words) > 8 else ""
        if corners is None or not label:
            collector.leave_out(where, "it does not have eight numbers and a category", image=image)
            continue
        collector.note_rotated(where)
        yield AnnotatedObject(
            label=label,
            where=where,
            box=box_around(list(zip(corners[::2], corners[1::2], strict=True))),
            is_difficult=len(words) > 9 and words[9] not in ("0", "0.0"),
        )


DOTA = Format(name="dota", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
