"""Pictures with a PNG each whose pixels number the objects: 0 is background, 1 to n are instances, as in Penn-Fudan.

What the instances are is told by text files in PASCAL's format of 2005 where there are some
(`Original label for object 1 "PASpersonWalking"`); else all are `object`.
Source: Wang et al. 2007, "Object Detection Combining Recognition and Segmentation" (Penn-Fudan).
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import finding
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.index_png import BadIndexPng, read_index_png
from workers.datasets.formats.mask_pairs import MaskPairs, pair_masks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, settle_splits, unusable

_EXPECTED = "pictures and PNGs of instances of the same names: PNGImages/1.png with PedMasks/1_mask.png"
_HINT = f"Expected is {_EXPECTED}."
_INSTANCES = re.compile(r".*instance.*|SegmentationObject|PedMasks", re.IGNORECASE)
_CATEGORIES = re.compile(r".*(semantic|label|class|categor|annot|trimap).*", re.IGNORECASE)
_PASCAL_LABEL = re.compile(r'^Original label for object (\d{1,6}) "([^"\n]{1,200})"', re.MULTILINE)
_PASCAL_HEAD = re.compile(rb"\s*# Compatible with PASCAL")
_MAX_TEXT_BYTES = 2**20
_LOOKED_AT = 30  # masks


def _fits(files: Sequence[ArchivedFile]) -> bool:
    found = _pairs(files)
    if not found.is_likely:
        return False
    if are_instances_by_name(files, found):
        return True
    folders = {part for _, mask in found.pairs for part in mask.name.split("/")[:-1]}
    if any(_CATEGORIES.fullmatch(folder) for folder in folders):
        return False
    return _count_instances([mask for _, mask in found.pairs])


def are_instances_by_name(files: Sequence[ArchivedFile], found: MaskPairs) -> bool:
    """Whether a folder's name or PASCAL's texts say that the masks are of instances."""
    folders = {part for _, mask in found.pairs for part in mask.name.split("/")[:-1]}
    return any(_INSTANCES.fullmatch(folder) for folder in folders) or any(_is_pascal_text(file) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    pairs = _pairs(files)
    texts = {stem_of(posixpath.basename(file.name)): file for file in files if _is_pascal_text(file)}
    findings = [*pairs.findings(), *leftover_findings(pairs.sorted_files, used={file.name for file in texts.values()})]
    if not pairs.pairs:
        raise unusable(
            "No picture has a PNG of instances of its name.", hint=_HINT, code="no_annotations", findings=findings
        )
    if not are_instances_by_name(files, pairs):
        text = (
            "The pixels of the masks are taken for numbers of objects; if they are categories, say format=label_masks."
        )
        findings.append(finding("info", "masks_of_instances", text, count=len(pairs.pairs)))
    splits = pairs.splits()
    settled, split_findings = settle_splits(
        [
            (
                image,
                Annotation(mask=mask, labels=_labels(texts.get(stem_of(posixpath.basename(image.name))))),
                splits[image.name],
            )
            for image, mask in pairs.pairs
        ]
    )
    return Reading(
        format="instance_masks", task="detection", files=tuple(settled), findings=(*split_findings, *findings)
    )


def _pairs(files: Sequence[ArchivedFile]) -> MaskPairs:
    has_voc = any("SegmentationObject" in file.name.split("/") for file in files)
    return pair_masks(files, only_folder="SegmentationObject" if has_voc else None)


def _count_instances(masks: Sequence[ArchivedFile]) -> bool:
    """Whether the values of every mask count from 1 on, to another number on another picture: categories do not."""
    counts = set()
    for mask in masks[:: max(1, len(masks) // _LOOKED_AT)]:
        try:
            values = set(read_index_png(mask.path.read_bytes()).ravel().tolist()) - {0}
        except BadIndexPng:
            continue
        if values != set(range(1, len(values) + 1)):
            return False
        counts.add(len(values))
    return len(counts - {0}) > 1


def _is_pascal_text(file: ArchivedFile) -> bool:
    return (
        file.name.endswith(".txt") and _PASCAL_HEAD.match(file.head) is not None and file.size_bytes <= _MAX_TEXT_BYTES
    )


def _labels(text: ArchivedFile | None) -> tuple[str, ...]:
    """The label of instance 1, 2, …; empty if nothing tells."""
    if text is None:
        return ()
    found = _PASCAL_LABEL.findall(text.path.read_text(encoding="utf-8", errors="replace"))
    labels = {int(number): unicodedata.normalize("NFC", " ".join(label.split())) for number, label in found}
    return tuple(labels.get(number) or "object" for number in range(1, max(labels, default=0) + 1))


INSTANCE_MASKS = Format(name="instance_masks", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
