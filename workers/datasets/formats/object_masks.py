"""One mask file per object: `a/images/a.png` and `a/masks/1.png`, `a/masks/2.png`, …, as in the Data Science Bowl 2018.

Each folder has one image. Every pixel of a mask that is not 0 belongs to its object; all objects are `object`.
Source: Caicedo et al. 2019, "Nucleus segmentation across imaging experiments" (kaggle.com/c/data-science-bowl-2018).
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import Annotation, Mask
from workers.datasets.formats.file_names import split_in_path
from workers.datasets.formats.index_image import BrokenIndexImage, Indices, read_index_image
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable

_EXPECTED = "a folder per image with one mask file per object: a/images/a.png, a/masks/1.png and a/masks/2.png"
_IMAGE_FOLDERS = ("images", "image")
_MASK_FOLDERS = ("masks", "mask")


def _fits(files: Sequence[ArchivedFile]) -> bool:
    images, masks = _by_folder(files)
    complete = [folder for folder in images if folder in masks]
    return len(complete) > 1 and all(len(images[folder]) == 1 for folder in complete)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    images, masks = _by_folder(files)
    listed = [
        (inside[0], Annotation(mask=_joined(folder, masks[folder])), split_in_path(inside[0].name))
        for folder, inside in sorted(images.items())
        if folder in masks and len(inside) == 1
    ]
    used = {image.name for image, _, _ in listed} | {mask.name for inside in masks.values() for mask in inside}
    findings = leftover_findings(sorted_files)
    without = [image.name for image in sorted_files.images if image.name not in used]
    if without:
        text = f"{counted(len(without), 'image')} left out: not the one image beside a folder of masks."
        findings.append(finding("warning", "missing_annotations", text, without))
    lost = [mask.name for folder, inside in masks.items() if len(images.get(folder, ())) != 1 for mask in inside]
    if lost:
        text = f"{counted(len(lost), 'mask')} left out: not exactly one image beside their folder."
        findings.append(finding("error", "missing_images", text, lost))
    if not listed:
        raise unusable(
            "No folder has one image and its masks.",
            hint=f"Expected: {_EXPECTED}.",
            code="no_annotations",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(listed)
    return Reading(
        format="object_masks", task="detection", files=tuple(resolved), findings=(*split_findings, *findings)
    )


def _by_folder(files: Sequence[ArchivedFile]) -> tuple[dict[str, list[ArchivedFile]], dict[str, list[ArchivedFile]]]:
    """Returns the images and the masks of each folder that contains `images/` and `masks/`."""
    images: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    masks: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    for file in sort_files(files).images:
        folder, inner = posixpath.split(posixpath.dirname(file.name))
        if inner.casefold() in _IMAGE_FOLDERS:
            images[folder].append(file)
        elif inner.casefold() in _MASK_FOLDERS:
            masks[folder].append(file)
    return dict(images), dict(masks)


def _joined(folder: str, masks: Sequence[ArchivedFile]) -> Mask:
    """Returns the masks of one image as one mask of instances."""

    def read() -> Indices:
        joined = np.zeros((0, 0), dtype=np.uint16)
        for number, mask in enumerate(masks, start=1):
            inside = read_index_image(mask.path.read_bytes()) > 0
            if number == 1:
                joined = np.zeros(inside.shape, dtype=np.uint16)
            if inside.shape != joined.shape:
                raise BrokenIndexImage(f"{posixpath.basename(mask.name)} has another size than the mask before it")
            joined[inside] = number
        return joined

    return Mask(name=f"{folder}/masks", read=read)


OBJECT_MASKS = Format(name="object_masks", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
