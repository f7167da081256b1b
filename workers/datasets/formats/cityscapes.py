"""Cityscapes: `leftImg8bit/train/bonn/a_leftImg8bit.png` and `gtFine/train/bonn/a_gtFine_labelIds.png`.

The 19 categories of its benchmark are learned; the others are void, as in the authors' scripts. `labelTrainIds` has
their numbers already; `labelIds` is converted.
Source: Cordts et al. 2016, and labels.py of mcordts/cityscapesScripts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

import numpy as np

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import VOID
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import Annotation, Mask, index_mask
from workers.datasets.formats.file_names import split_in_path, stem_of
from workers.datasets.formats.index_image import Indices, read_index_image
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable

_EXPECTED = "Cityscapes: leftImg8bit/train/bonn/a_leftImg8bit.png and gtFine/train/bonn/a_gtFine_labelIds.png"
_MASK = re.compile(r"(.+)_(gtFine|gtCoarse)_(labelIds|labelTrainIds)")
_IMAGE = re.compile(r"(.+)_leftImg8bit")
_CATEGORIES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of _CATEGORIES


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_MASK.fullmatch(stem_of(file.name)) for file in files) and any(
        _IMAGE.fullmatch(stem_of(file.name)) for file in files
    )


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    masks: dict[str, Mask] = {}
    for file in sorted_files.images:  # sorted: labelIds before labelTrainIds, which replaces it
        if match := _MASK.fullmatch(stem_of(file.name)):
            masks[match[1]] = index_mask(file) if match[3] == "labelTrainIds" else _converted(file)
    images = [file for file in sorted_files.images if _IMAGE.fullmatch(stem_of(file.name))]
    listed = [
        (image, Annotation(mask=masks[name]), split_in_path(image.name))
        for image in images
        if (name := _name_of(image)) in masks
    ]
    findings = []
    without = [image.name for image in images if _name_of(image) not in masks]
    if without:
        text = f"{counted(len(without), 'image')} left out: no file of labelIds or labelTrainIds."
        findings.append(finding("warning", "missing_annotations", text, without))
    found = {_name_of(image) for image in images}
    lost = [mask.name for name, mask in masks.items() if name not in found]
    if lost:
        text = f"{counted(len(lost), 'mask')} left out: no image with the same name."
        findings.append(finding("error", "missing_images", text, lost))
    others = {file.name for file in sorted_files.others if posixpath.basename(file.name).endswith("_polygons.json")}
    findings += leftover_findings(sorted_files, used=others)
    if not listed:
        raise unusable(
            "No image has a mask with the same name.",
            hint=f"Expected: {_EXPECTED}.",
            code="no_annotations",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(listed)
    return Reading(
        format="cityscapes",
        task="segmentation",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=_CATEGORIES,
    )


def _name_of(image: ArchivedFile) -> str:
    return stem_of(image.name).removesuffix("_leftImg8bit")


def _converted(file: ArchivedFile) -> Mask:
    table = np.full(2**16, VOID, dtype=np.uint16)
    table[list(_LABEL_IDS)] = range(len(_LABEL_IDS))

    def read() -> Indices:
        return table[read_index_image(file.path.read_bytes())]

    return Mask(name=file.name, read=read)


CITYSCAPES = Format(name="cityscapes", task="segmentation", expected=_EXPECTED, fits=_fits, read=_read)
