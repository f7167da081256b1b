"""Images with one PNG each whose pixels are object numbers: 0 is background, 1 to n are instances, as in Penn-Fudan.

The labels come from text files in the PASCAL format of 2005 (`Original label for object 1 "PASpersonWalking"`). Without
such files, every instance has the label `object`.
Source: Wang et al. 2007, "Object Detection Combining Recognition and Segmentation" (Penn-Fudan).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import finding
from workers.datasets.formats.annotation import Annotation, clean_label, index_mask
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.index_image import BrokenIndexImage, read_index_image
from workers.datasets.formats.mask_pairs import MaskPairs, pair_masks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, unusable

_EXPECTED = "images and PNG masks of instances with the same names: PNGImages/1.png and PedMasks/1_mask.png"
_HINT = f"Expected: {_EXPECTED}."
_INSTANCES = re.compile(r".*instance.*|SegmentationObject|PedMasks", re.IGNORECASE)
_CATEGORIES = re.compile(r".*(semantic|label|class|categor|annot|trimap).*", re.IGNORECASE)
_PASCAL_LABEL = re.compile(r'^Original label for object (\d{1,6}) "([^"\n]{1,200})"', re.MULTILINE)
_PASCAL_HEAD = re.compile(rb"\s*# Compatible with PASCAL")
_MAX_TEXT_BYTES = 2**20
_MASKS_CHECKED = 30  # at most about twice as many


def _fits(files: Sequence[ArchivedFile]) -> bool:
    if any("SegmentationClass" in file.name.split("/") for file in files):
        return False  # beside masks of objects, VOC has masks of categories, which say more
    found = _pairs(files)
    return found.look_like_masks and count_instances(files, found)


def count_instances(files: Sequence[ArchivedFile], found: MaskPairs) -> bool:
    """Returns True if the masks are masks of instances: their folder says so, or their values count objects."""
    if are_instances_by_name(files, found):
        return True
    folders = {part for _, mask in found.pairs for part in mask.name.split("/")[:-1]}
    if any(_CATEGORIES.fullmatch(folder) for folder in folders):
        return False
    return _values_count_instances([mask for _, mask in found.pairs])


def are_instances_by_name(files: Sequence[ArchivedFile], found: MaskPairs) -> bool:
    """Returns True if the name of a folder or PASCAL's text files state that the masks are masks of instances."""
    folders = {part for _, mask in found.pairs for part in mask.name.split("/")[:-1]}
    return any(_INSTANCES.fullmatch(folder) for folder in folders) or any(_is_pascal_text(file) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    pairs = _pairs(files)
    texts = {stem_of(file.name): file for file in files if _is_pascal_text(file)}
    findings = [*pairs.findings(), *leftover_findings(pairs.sorted_files, used={file.name for file in texts.values()})]
    if not pairs.pairs:
        raise unusable(
            "No image has a PNG mask with the same name.", hint=_HINT, code="no_annotations", findings=findings
        )
    if not are_instances_by_name(files, pairs):
        text = (
            "Fovea reads the pixels of the masks as object numbers. If they are category numbers, post the archive "
            "with format=label_masks."
        )
        findings.append(finding("info", "masks_of_instances", text, count=len(pairs.pairs)))
    splits = pairs.splits()
    resolved, split_findings = resolve_splits(
        [
            (
                image,
                Annotation(mask=index_mask(mask), labels=_labels(texts.get(stem_of(image.name)))),
                splits[image.name],
            )
            for image, mask in pairs.pairs
        ]
    )
    return Reading(
        format="instance_masks", task="detection", files=tuple(resolved), findings=(*split_findings, *findings)
    )


def _pairs(files: Sequence[ArchivedFile]) -> MaskPairs:
    has_voc = any("SegmentationObject" in file.name.split("/") for file in files)
    return pair_masks(files, only_folder="SegmentationObject" if has_voc else None)


def _values_count_instances(masks: Sequence[ArchivedFile]) -> bool:
    """Returns True if the values of every mask are 1 to n, and n differs between images: categories are not like that.

    Only some of the masks are read.
    """
    counts = set()
    for mask in masks[:: max(1, len(masks) // _MASKS_CHECKED)]:
        try:
            values = set(read_index_image(mask.path.read_bytes()).ravel().tolist()) - {0}
        except BrokenIndexImage:
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
    """Returns the labels of instance 1, 2, …; empty without a text file."""
    if text is None:
        return ()
    found = _PASCAL_LABEL.findall(text.path.read_text(encoding="utf-8", errors="replace"))
    labels = {int(number): clean_label(label) for number, label in found}
    return tuple(labels.get(number) or "object" for number in range(1, max(labels, default=0) + 1))


INSTANCE_MASKS = Format(name="instance_masks", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
