"""COCO panoptic: a JSON file that names a PNG per image and the category of each segment in it, for segmentation.

The colour of a pixel is the number of its segment: red + 256 green + 65,536 blue. Pixels without a segment are void.
Source: Kirillov et al. 2019, "Panoptic Segmentation", and cocodataset.org, "Data format", section 4.
"""

from __future__ import annotations

import mmap
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import VOID
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import Annotation, Mask, clean_label
from workers.datasets.formats.file_names import FileNames, split_in_path, split_in_word, stem_of
from workers.datasets.formats.index_image import Indices, read_colour_image
from workers.datasets.formats.json_stream import BadJson, JsonFile
from workers.datasets.formats.json_values import number_of, text_of
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable

_EXPECTED = "COCO panoptic: images, a JSON file with `segments_info`, and the PNG of each image that it names"
_HINT = f"Expected: {_EXPECTED}."
_MAX_BYTES = 512 * 2**20


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_panoptic(file) for file in files)


def _is_panoptic(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".json") or not file.size_bytes:
        return False
    with file.path.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b'"segments_info"') >= 0 and data.find(b'"images"') >= 0


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    lists = [file for file in files if _is_panoptic(file)]
    collected = _Collected(FileNames(sorted_files.images))
    for file in lists:
        _read_list(file, collected)
    masks = {annotation.mask.name for _, annotation, _ in collected.by_image.values() if annotation.mask is not None}
    findings = []
    if collected.bad:
        where, reason = next(iter(collected.bad.items()))
        text = f"{counted(len(collected.bad), 'entry', 'entries')} left out. The first, {where}: {reason}."
        findings.append(finding("error", "bad_entries", text, collected.bad))
    unlisted = [each.name for each in sorted_files.images if each.name not in collected.by_image.keys() | masks]
    if unlisted:
        text = f"{counted(len(unlisted), 'image')} left out: no segments are listed for it, or it is an unused mask."
        findings.append(finding("warning", "missing_annotations", text, unlisted))
    findings += leftover_findings(sorted_files, used={file.name for file in lists})
    if not collected.by_image:
        raise unusable(
            "No panoptic annotation leads to an image and its PNG.",
            hint=_HINT,
            code="no_annotations",
            findings=findings,
        )
    resolved, split_findings = resolve_splits([collected.by_image[name] for name in sorted(collected.by_image)])
    return Reading(
        format="coco_panoptic",
        task="segmentation",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=tuple(collected.number_of_label),
    )


@dataclass(slots=True)
class _Collected:
    names: FileNames
    by_image: dict[str, tuple[ArchivedFile, Annotation, str | None]]
    number_of_label: dict[str, int]
    bad: dict[str, str]  # place -> reason

    def __init__(self, names: FileNames) -> None:
        self.names = names
        self.by_image, self.number_of_label, self.bad = {}, {}, {}


def _read_list(file: ArchivedFile, collected: _Collected) -> None:
    if file.size_bytes > _MAX_BYTES:
        raise unusable(
            f"{file.name} has {file.size_bytes:,} bytes, but a COCO file may have at most {_MAX_BYTES:,}.",
            hint="Write one file per split.",
            code="annotations_too_large",
            files=[file.name],
        )
    images: dict[str, str] = {}  # id -> file name
    labels: dict[str, int] = {}  # id of a category -> number in the masks
    try:
        content = JsonFile(file.path)
        for key, entry, line in content.items(("images", "categories")):
            fields = entry if isinstance(entry, dict) else {}
            name, number = text_of(fields.get("file_name" if key == "images" else "name")), text_of(fields.get("id"))
            if not name or not number:
                collected.bad[f"{file.name}:{line}"] = "its id or its name is missing"
            elif key == "images":
                images[number] = name
            else:
                numbers = collected.number_of_label
                labels[number] = numbers.setdefault(clean_label(name), len(numbers))
        for _, entry, line in content.items(("annotations",)):
            reason = _read_entry(entry, file, images, labels, collected)
            if reason is not None:
                collected.bad[f"{file.name}:{line}"] = reason
    except BadJson as error:
        raise unusable(
            f"{file.name}:{error.line}: the JSON is broken: {error}.",
            hint="Open the file in an editor at this line. If the file ends early, export it again.",
            code="broken_json",
            files=[f"{file.name}:{error.line}"],
        ) from error


def _read_entry(
    entry: Any, file: ArchivedFile, images: Mapping[str, str], labels: Mapping[str, int], collected: _Collected
) -> str | None:
    """Adds the annotation of one image. Returns the reason if that is impossible."""
    fields = entry if isinstance(entry, dict) else {}
    written, mask_name = images.get(text_of(fields.get("image_id"))), text_of(fields.get("file_name"))
    segments = fields.get("segments_info")
    if written is None or not mask_name or not isinstance(segments, list):
        return "its `image_id` is unknown, or its `file_name` or `segments_info` is missing"
    near, split = posixpath.dirname(file.name), split_in_word(stem_of(file.name))
    folder = posixpath.join(near, stem_of(file.name))
    mask = collected.names.find(mask_name, near=folder, split=split)
    image = collected.names.find(written, near=near, split=split)
    if image is None or mask is None or image.name == mask.name:
        return f"{written if image is None else mask_name} is not in the archive"
    number_of_segment: dict[int, int] = {}
    for segment in segments:
        identifier = number_of(segment.get("id")) if isinstance(segment, dict) else None
        category = labels.get(text_of(segment.get("category_id"))) if isinstance(segment, dict) else None
        if identifier is None or category is None:
            return "a segment has no `id` or an unknown `category_id`"
        number_of_segment[int(identifier)] = category
    annotation = Annotation(mask=_segments_mask(mask, number_of_segment))
    collected.by_image[image.name] = (image, annotation, split or split_in_path(image.name))
    return None


def _segments_mask(file: ArchivedFile, number_of_segment: Mapping[int, int]) -> Mask:
    def read() -> Indices:
        colours, _ = read_colour_image(file.path.read_bytes())
        segments = (colours.astype(np.int32) * (1, 256, 65536)).sum(axis=2)  # [H, W]
        found, places = np.unique(segments, return_inverse=True)
        table = np.array([number_of_segment.get(int(segment), VOID) for segment in found], dtype=np.uint16)
        return table[places.reshape(segments.shape)]

    return Mask(name=file.name, read=read)


COCO_PANOPTIC = Format(name="coco_panoptic", task="segmentation", expected=_EXPECTED, fits=_fits, read=_read)
