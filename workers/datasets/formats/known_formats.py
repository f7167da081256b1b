"""Names the formats that Fovea does not read, with the way out: better than "nothing names the categories"."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import suffix_kind
from workers.datasets.findings import counted
from workers.datasets.formats.reading import unusable

_LFS = b"version https://git-lfs.github"
_LOOKED_AT_BYTES = 2**20
_YOLO_V4_LINE = re.compile(rb"[^\n,]+\.\w{3,4}( \d+,\d+,\d+,\d+,\d+)+\s")


@dataclass(frozen=True, kw_only=True, slots=True)
class _KnownFormat:
    name: str
    is_sign: Callable[[ArchivedFile], bool]  # True for a file that only this format has
    way_out: str


def refuse_pointers(files: Sequence[ArchivedFile]) -> None:
    """Raises UnusableDataset if all images are pointers of Git LFS, as a download from GitHub has them."""
    images = [file for file in files if suffix_kind(file.name) is not None]
    if images and all(file.head.startswith(_LFS) for file in images):
        raise unusable(
            f"The {counted(len(images), 'image')} of the archive are pointers of Git LFS, not images.",
            hint="Clone the repository, run `git lfs pull`, and pack the folder again.",
            code="known_format",
            files=[file.name for file in images],
        )


def refuse_known_format(files: Sequence[ArchivedFile]) -> None:
    """Raises UnusableDataset if the archive is in a format that is known, but not read."""
    for known in _FORMATS:
        signs = [file.name for file in files if known.is_sign(file)]
        if signs:
            raise unusable(
                f"This is a dataset in the format {known.name}, which Fovea does not read.",
                hint=known.way_out,
                code="known_format",
                files=signs,
            )


def _has_suffix(*suffixes: str) -> Callable[[ArchivedFile], bool]:
    return lambda file: (
        file.name.lower().endswith(suffixes)
        or any(f"{suffix}-" in posixpath.basename(file.name.lower()) for suffix in suffixes)
    )


def _contains(suffix: str, *words: bytes) -> Callable[[ArchivedFile], bool]:
    def is_sign(file: ArchivedFile) -> bool:
        if not file.name.lower().endswith(suffix):
            return False
        with file.path.open("rb") as content:
            data = content.read(_LOOKED_AT_BYTES)
        return all(word in data for word in words)

    return is_sign


def _is_supervisely(file: ArchivedFile) -> bool:
    is_annotation = file.name.lower().endswith(".json") and posixpath.dirname(file.name).split("/")[-1] == "ann"
    return is_annotation and _contains(".json", b'"objects"', b'"classTitle"')(file)


def _is_yolo_v4(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith("_annotations.txt"):
        return False
    with file.path.open("rb") as content:
        return _YOLO_V4_LINE.match(content.read(4096)) is not None


_FORMATS = (
    _KnownFormat(
        name="TFRecord",
        is_sign=_has_suffix(".tfrecord", ".tfrecords"),
        way_out="Export COCO, Pascal VOC or YOLO from the tool that wrote it, with the images as files.",
    ),
    _KnownFormat(
        name="Parquet",
        is_sign=_has_suffix(".parquet"),
        way_out="Save the images as files, in one folder per category or with Hugging Face's metadata.csv.",
    ),
    _KnownFormat(
        name="Supervisely",
        is_sign=_is_supervisely,
        way_out="In Supervisely, run the app “Export to COCO” or “Export to Pascal VOC”.",
    ),
    _KnownFormat(
        name="VIA (VGG Image Annotator)",
        is_sign=_contains(".json", b'"shape_attributes"'),
        way_out="In VIA, choose “Export Annotations (COCO format)”, and pack the JSON file with the images.",
    ),
    _KnownFormat(
        name="VIA (VGG Image Annotator)",
        is_sign=_contains(".csv", b"region_shape_attributes"),
        way_out="In VIA, choose “Export Annotations (COCO format)”, and pack the JSON file with the images.",
    ),
    _KnownFormat(
        name="Datumaro",
        is_sign=_contains(".json", b'"items"', b'"categories"', b'"annotations"', b'"label_id"'),
        way_out="Convert it with `datum convert -f coco --save-media`.",
    ),
    _KnownFormat(
        name="Roboflow's JSONL for PaliGemma or Florence-2",
        is_sign=_contains(".jsonl", b'"prefix"', b'"suffix"'),
        way_out="In Roboflow, export COCO, Pascal VOC or YOLO.",
    ),
    _KnownFormat(
        name="YOLO v4 PyTorch",
        is_sign=_is_yolo_v4,
        way_out="In Roboflow, export COCO, Pascal VOC or YOLO with data.yaml.",
    ),
)
