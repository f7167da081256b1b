"""Images with one file each whose pixels are category numbers, or colours that a legend names. 255 means void.

A list such as `classes.txt` names the categories, one name per line, from number 0 on; `mask_legend.py` knows other
legends. Without a legend, the index of a palette counts and not its colour, 0 is `background`, and the other categories
are named by their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import VOID
from workers.datasets.findings import finding
from workers.datasets.formats.annotation import Annotation, Mask, index_mask
from workers.datasets.formats.image_lists import ImageLists
from workers.datasets.formats.index_image import BrokenIndexImage, Indices, with_two_values
from workers.datasets.formats.instance_masks import count_instances
from workers.datasets.formats.mask_legend import MaskLegend, find_legend
from workers.datasets.formats.mask_pairs import MaskPairs, pair_masks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, unusable

_EXPECTED = "images and PNG masks of categories with the same names: images/1.jpg and masks/1.png, and classes.txt"
_HINT = f"Expected: {_EXPECTED}."
_MANY_VALUES = 64  # more values than a mask has that is not grey
_TWO_SHARE = 0.9  # of the pixels of a scaled or blurred mask are still exactly 0 or 255


def _fits(files: Sequence[ArchivedFile]) -> bool:
    found = _pairs(files)
    if not found.pairs or count_instances(files, found):
        return False
    return bool(find_legend(files).colours) or found.look_like_masks


def _read(files: Sequence[ArchivedFile]) -> Reading:
    pairs = _pairs(files)
    legend = find_legend(files)
    lists = ImageLists(files, task_folder="Segmentation")
    used = lists.names | ({legend.file} if legend.file is not None else set())
    findings = [*pairs.findings(), *leftover_findings(pairs.sorted_files, used=used)]
    if not pairs.pairs:
        raise unusable("No image has a mask with the same name.", hint=_HINT, code="no_annotations", findings=findings)
    masks = {mask.name: legend.mask(mask) if legend.colours else index_mask(mask) for _, mask in pairs.pairs}
    sampled = _read_sample(pairs, masks, legend)
    if _are_blurred(sampled):
        masks = {name: _binary(mask) for name, mask in masks.items()}
        text = "The masks have many grey values, but nearly all pixels are 0 or 255. Fovea reads 128 and more as 255."
        findings.append(finding("warning", "blurred_masks", text, count=len(masks)))
    splits = pairs.splits()
    resolved, split_findings = resolve_splits(
        [
            (
                image,
                Annotation(mask=masks[mask.name]),
                lists.split_for(image.name, splits[image.name]),
            )
            for image, mask in pairs.pairs
        ]
    )
    return Reading(
        format="label_masks",
        task="segmentation",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=legend.names,
    )


def _pairs(files: Sequence[ArchivedFile]) -> MaskPairs:
    has_voc = any("SegmentationClass" in file.name.split("/") for file in files)
    return pair_masks(files, only_folder="SegmentationClass" if has_voc else None)


def _read_sample(pairs: MaskPairs, masks: dict[str, Mask], legend: MaskLegend) -> list[Indices]:
    """Reads some of the masks. Raises UnusableDataset if none of them can be read."""
    sampled: list[Indices] = []
    reasons = []
    for mask in pairs.sample():
        try:
            sampled.append(masks[mask.name].read())
        except BrokenIndexImage as error:
            reasons.append(f"{mask.name}: {error}")
    if sampled:
        return sampled
    legend_hint = "" if legend.file else " If colours stand for the categories, add CVAT's labelmap.txt."
    raise unusable(
        f"The masks cannot be read. The first, {reasons[0]}.",
        hint=f"Save each mask as a PNG whose pixels are the numbers of the categories.{legend_hint}",
        code="broken_mask_file",
        files=[reason.partition(":")[0] for reason in reasons],
    )


def _are_blurred(sampled: Sequence[Indices]) -> bool:
    """Returns True if the masks are grey, but nearly all pixels are 0 or 255: two categories with soft edges."""
    values = np.concatenate([mask.ravel() for mask in sampled])
    extremes = float(((values == 0) | (values == VOID)).mean())
    return len(np.unique(values)) > _MANY_VALUES and extremes >= _TWO_SHARE and bool((values == VOID).any())


def _binary(mask: Mask) -> Mask:
    return Mask(name=mask.name, read=lambda: with_two_values(mask.read()))


LABEL_MASKS = Format(name="label_masks", task="segmentation", expected=_EXPECTED, fits=_fits, read=_read)
