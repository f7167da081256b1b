"""Pairs images with their masks: PNG files that state for each pixel what it shows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import image_kind
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.file_names import split_in_path, stem_of
from workers.datasets.formats.reading import SortedFiles, sort_files

# Only its name makes a folder a folder of masks: in a classification dataset, two categories may also have equal names.
_MASK_FOLDER = re.compile(
    r"masks?|.*(mask|segment|label|annot|instance|semantic|panoptic|ground.?truth).*|gt|gts|anno|trimaps?|y", re.I
)
_IMAGE_FOLDER = re.compile(r".*(image|img|photo|picture|jpeg|png|rgb|frame|leftimg).*|x|input|inputs|data", re.I)
_WORDS = "masks?|labels?|labelids|labeltrainids|instanceids|instances?|seg|segmentation|gt|gtfine|annotation"
_SUFFIX = re.compile(rf"([-_. ]?({_WORDS}))+$", re.I)
_IMAGE_SUFFIX = re.compile(r"[-_.](img|image|rgb|leftimg8bit)$", re.I)

_COLOUR_TYPE_AT = 25  # position of the colour type in a PNG file (ISO/IEC 15948, section 11.2.2)
_INDEX_TYPES = (b"\0", b"\3")  # grey and palette


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPairs:
    """Images with their masks, and the images and masks without a partner."""

    pairs: tuple[tuple[ArchivedFile, ArchivedFile], ...] = ()  # image, mask
    unpaired_images: tuple[str, ...] = ()
    unpaired_masks: tuple[str, ...] = ()
    sorted_files: SortedFiles = field(default_factory=lambda: SortedFiles(images=(), unreadable=(), others=()))

    @property
    def look_like_masks(self) -> bool:
        """True if these are masks, and not images of two categories that happen to have equal names."""
        return any(
            mask.head[_COLOUR_TYPE_AT : _COLOUR_TYPE_AT + 1] in _INDEX_TYPES
            or any(_IMAGE_FOLDER.fullmatch(folder) for folder in image.name.split("/")[:-1])
            for image, mask in self.pairs
        )

    def findings(self) -> list[Finding]:
        """Findings about images without a mask and masks without an image."""
        findings = []
        if self.unpaired_images:
            text = f"{counted(len(self.unpaired_images), 'image')} left out: no mask with the same name."
            findings.append(finding("warning", "missing_annotations", text, self.unpaired_images))
        if self.unpaired_masks:
            text = f"{counted(len(self.unpaired_masks), 'mask')} left out: no image with the same name."
            findings.append(finding("error", "missing_images", text, self.unpaired_masks))
        return findings

    def splits(self) -> dict[str, str | None]:
        """The split of each image, from the folders of the image or of its mask; None if they name no split."""
        return {image.name: split_in_path(image.name) or split_in_path(mask.name) for image, mask in self.pairs}


def pair_masks(files: Sequence[ArchivedFile], *, only_folder: str | None = None) -> MaskPairs:
    """Pairs each PNG in a folder of masks with the nearest image of the same name in another folder.

    only_folder: the only folder of masks that counts, if there are several: VOC's `SegmentationClass`.
    """
    sorted_files = sort_files(files)
    masks = [file for file in sorted_files.images if _is_mask(file)]
    chosen = [mask for mask in masks if only_folder is None or only_folder in mask.name.split("/")]
    known = {mask.name for mask in masks}
    by_stem: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    images = [file for file in sorted_files.images if file.name not in known]
    for image in images:
        by_stem[_IMAGE_SUFFIX.sub("", stem_of(image.name))].append(image)
    pairs: dict[str, tuple[ArchivedFile, ArchivedFile]] = {}
    unpaired_masks = []
    for mask in chosen:
        stem = stem_of(mask.name)
        candidates = by_stem.get(stem) or by_stem.get(_SUFFIX.sub("", stem)) or []
        nearest = _nearest(candidates, mask)
        if nearest is None or nearest.name in pairs:
            unpaired_masks.append(mask.name)
        else:
            pairs[nearest.name] = (nearest, mask)
    return MaskPairs(
        pairs=tuple(pairs[name] for name in sorted(pairs)),
        unpaired_images=tuple(image.name for image in images if image.name not in pairs),
        unpaired_masks=tuple(unpaired_masks),
        sorted_files=sorted_files,
    )


def _is_mask(file: ArchivedFile) -> bool:
    """Returns True for a PNG in a folder of masks. The innermost folder with a telling name decides."""
    if image_kind(file.name, file.head) != "PNG":
        return False
    for folder in reversed(file.name.split("/")[:-1]):
        if _MASK_FOLDER.fullmatch(folder):
            return True
        if _IMAGE_FOLDER.fullmatch(folder):
            return False
    return False


def _nearest(candidates: Sequence[ArchivedFile], mask: ArchivedFile) -> ArchivedFile | None:
    """Returns the candidate that shares most folders with `mask`, or None if several share equally many."""
    folders = mask.name.split("/")[:-1]

    def common(image: ArchivedFile) -> int:
        return len([1 for folder in image.name.split("/")[:-1] if folder in folders])

    ranked = sorted(candidates, key=common, reverse=True)
    if len(ranked) > 1 and common(ranked[0]) == common(ranked[1]):
        return None
    return ranked[0] if ranked else None
