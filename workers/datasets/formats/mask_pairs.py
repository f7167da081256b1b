"""Pairs images with their masks: files that state for each pixel what it shows.

Masks lie in folders of their own, or beside their images with a suffix: `a_mask.png` beside `a.png`.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import image_kind
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.file_names import split_in_path, stem_of
from workers.datasets.formats.index_image import BrokenIndexImage, read_index_image
from workers.datasets.formats.reading import SortedFiles, sort_files

# Only its name makes a folder a folder of masks: in a classification dataset, two categories may also have equal names.
_MASK_FOLDER = re.compile(
    r"masks?|.*(mask|segment|label|annot|instance|semantic|panoptic|ground.?truth).*|gt|gts|anno|trimaps?|y", re.I
)
_MASK_KINDS = ("PNG", "BMP", "TIFF", "GIF", "JPEG")
_DRAWINGS = re.compile(r".*(visuali[sz]ation|overlay|[-_]viz?s?).*", re.I)  # folders of masks drawn for people
_IMAGE_FOLDER = re.compile(r".*(image|img|photo|picture|jpeg|png|rgb|frame|leftimg).*|x|input|inputs|data", re.I)
_WORDS = "masks?|labels?|labelids|labeltrainids|instanceids|instances?|seg|segmentation|gt|gtfine|annotation"
_SUFFIX = re.compile(rf"([-_. ]?({_WORDS}))+$", re.I)
_IMAGE_SUFFIX = re.compile(r"[-_.](img|image|rgb|leftimg8bit)$", re.I)

_BESIDE = re.compile(r"(.+?)[-_. ](masks?|seg|segmentation|gt|annotation|label)([-_]?\d+)?", re.I)
_SAMPLE = 8  # masks that are read to see whether they are masks


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPairs:
    """Images with their masks, and the images and masks without a partner."""

    pairs: tuple[tuple[ArchivedFile, ArchivedFile], ...] = ()  # image, mask
    unpaired_images: tuple[str, ...] = ()
    unpaired_masks: tuple[str, ...] = ()
    images_with_several: tuple[str, ...] = ()  # images that several masks belong to; they are not in `pairs`
    drawings: tuple[str, ...] = ()  # masks drawn for people, which are not read
    sorted_files: SortedFiles = field(default_factory=lambda: SortedFiles(images=(), unreadable=(), others=()))

    @property
    def look_like_masks(self) -> bool:
        """True if these are masks, and not images of two categories that happen to have equal names."""
        return any(
            any(_IMAGE_FOLDER.fullmatch(folder) for folder in image.name.split("/")[:-1]) for image, _ in self.pairs
        ) or all(map(_is_readable, self.sample()))

    def sample(self) -> list[ArchivedFile]:
        """Some of the masks, from all of them."""
        masks = [mask for _, mask in self.pairs]
        return masks[:: max(1, len(masks) // _SAMPLE)]

    def findings(self) -> list[Finding]:
        """Findings about images without a mask and masks without an image."""
        findings = []
        if self.unpaired_images:
            text = f"{counted(len(self.unpaired_images), 'image')} left out: no mask with the same name."
            findings.append(finding("warning", "missing_annotations", text, self.unpaired_images))
        if self.unpaired_masks:
            text = f"{counted(len(self.unpaired_masks), 'mask')} left out: no image with the same name."
            findings.append(finding("error", "missing_images", text, self.unpaired_masks))
        if self.images_with_several:
            text = f"{counted(len(self.images_with_several), 'image')} left out: several masks belong to it."
            findings.append(finding("error", "annotated_twice", text, self.images_with_several))
        if self.drawings:
            text = f"{counted(len(self.drawings), 'drawing')} of masks for people not read."
            findings.append(finding("info", "ignored_files", text, self.drawings))
        return findings

    def splits(self) -> dict[str, str | None]:
        """The split of each image, from the folders of the image or of its mask; None if they name no split."""
        return {image.name: split_in_path(image.name) or split_in_path(mask.name) for image, mask in self.pairs}


def pair_masks(files: Sequence[ArchivedFile], *, only_folder: str | None = None) -> MaskPairs:
    """Pairs each mask with the nearest image of the same name.

    Masks are in a folder of masks; if no folder is one, they lie beside their images, which half of the images must.
    only_folder: the only folder of masks that counts, if there are several: VOC's `SegmentationClass`.
    """
    sorted_files = sort_files(files)
    shown = [file for file in sorted_files.images if not _is_drawing(file)]
    masks = [file for file in shown if _is_mask(file)]
    chosen = [mask for mask in masks if only_folder is None or only_folder in mask.name.split("/")]
    drawings = tuple(file.name for file in sorted_files.images if _is_drawing(file))
    pairs = _paired(shown, masks, chosen)
    if not pairs.pairs:
        beside = _masks_beside(shown)
        beside_pairs = _paired(shown, beside, beside)
        if 2 * len(beside_pairs.pairs) >= len(shown) - len(beside) > 0:
            pairs = beside_pairs
    return replace(pairs, sorted_files=sorted_files, drawings=drawings)


def _paired(files: Sequence[ArchivedFile], masks: Sequence[ArchivedFile], chosen: Sequence[ArchivedFile]) -> MaskPairs:
    known = {mask.name for mask in masks}
    by_stem: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    images = [file for file in files if file.name not in known]
    for image in images:
        by_stem[_IMAGE_SUFFIX.sub("", stem_of(image.name))].append(image)
    pairs: dict[str, tuple[ArchivedFile, ArchivedFile]] = {}
    several: dict[str, None] = {}
    unpaired_masks = []
    for mask in chosen:
        stem = stem_of(mask.name)
        candidates = by_stem.get(stem) or by_stem.get(_SUFFIX.sub("", stem)) or by_stem.get(_stem_beside(stem)) or []
        nearest = _nearest(candidates, mask)
        if nearest is None:
            unpaired_masks.append(mask.name)
        elif nearest.name in pairs:
            several[nearest.name] = None
        else:
            pairs[nearest.name] = (nearest, mask)
    return MaskPairs(
        pairs=tuple(pairs[name] for name in sorted(pairs) if name not in several),
        unpaired_images=tuple(image.name for image in images if image.name not in pairs),
        unpaired_masks=tuple(unpaired_masks),
        images_with_several=tuple(several),
    )


def _is_drawing(file: ArchivedFile) -> bool:
    return any(_DRAWINGS.fullmatch(folder) for folder in file.name.split("/")[:-1])


def _is_mask(file: ArchivedFile) -> bool:
    """Returns True for an image in a folder of masks. The innermost folder with a telling name decides."""
    if image_kind(file.name, file.head) not in _MASK_KINDS:
        return False
    for folder in reversed(file.name.split("/")[:-1]):
        if _MASK_FOLDER.fullmatch(folder):
            return True
        if _IMAGE_FOLDER.fullmatch(folder):
            return False
    return False


def _masks_beside(files: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """Returns the files with a suffix such as `_mask` whose image lies in the same folder."""
    places = {posixpath.splitext(file.name)[0] for file in files}
    return [
        file
        for file in files
        if image_kind(file.name, file.head) in _MASK_KINDS
        and (stem := _stem_beside(stem_of(file.name))) != ""
        and posixpath.join(posixpath.dirname(file.name), stem) in places
    ]


def _stem_beside(stem: str) -> str:
    """Returns `a` for `a_mask` and `a_mask_1`, or an empty text for other stems."""
    match = _BESIDE.fullmatch(stem)
    return match[1] if match else ""


def _is_readable(mask: ArchivedFile) -> bool:
    try:
        read_index_image(mask.path.read_bytes())
    except BrokenIndexImage:
        return False
    return True


def _nearest(candidates: Sequence[ArchivedFile], mask: ArchivedFile) -> ArchivedFile | None:
    """Returns the candidate that shares most folders with `mask`, or None if several share equally many."""
    folders = mask.name.split("/")[:-1]

    def common(image: ArchivedFile) -> int:
        return len([1 for folder in image.name.split("/")[:-1] if folder in folders])

    ranked = sorted(candidates, key=common, reverse=True)
    if len(ranked) > 1 and common(ranked[0]) == common(ranked[1]):
        return None
    return ranked[0] if ranked else None
