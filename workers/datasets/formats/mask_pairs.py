"""Pictures and the PNGs that say of each of their pixels what it shows: which belongs to which."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import image_kind
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.file_names import split_of_path, stem_of
from workers.datasets.formats.reading import SortedFiles, sort_files

# A folder is one of masks by its name only: categories of a classification set may hold pictures of equal names too.
_MASK_FOLDER = re.compile(
    r"masks?|.*(mask|segment|label|annot|instance|semantic|panoptic|ground.?truth).*|gt|gts|anno|trimaps?|y", re.I
)
_IMAGE_FOLDER = re.compile(r".*(image|img|photo|picture|jpeg|png|rgb|frame|leftimg).*|x|input|inputs|data", re.I)
_WORDS = "masks?|labels?|labelids|labeltrainids|instanceids|instances?|seg|segmentation|gt|gtfine|annotation"
_SUFFIX = re.compile(rf"([-_. ]?({_WORDS}))+$", re.I)
_IMAGE_SUFFIX = re.compile(r"[-_.](img|image|rgb|leftimg8bit)$", re.I)

_COLOUR_TYPE_AT = 25  # of a PNG (ISO/IEC 15948, section 11.2.2)
_INDEX_TYPES = (b"\0", b"\3")  # grey and palette


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPairs:
    """Pictures with their masks, and those that have none."""

    pairs: tuple[tuple[ArchivedFile, ArchivedFile], ...] = ()  # picture, mask
    lonely_images: tuple[str, ...] = ()
    lonely_masks: tuple[str, ...] = ()
    sorted_files: SortedFiles = field(default_factory=lambda: SortedFiles(images=(), unreadable=(), others=()))

    @property
    def is_likely(self) -> bool:
        """Whether these are masks and not pictures of two categories that happen to have equal names."""
        return any(
            mask.head[_COLOUR_TYPE_AT : _COLOUR_TYPE_AT + 1] in _INDEX_TYPES
            or any(_IMAGE_FOLDER.fullmatch(folder) for folder in image.name.split("/")[:-1])
            for image, mask in self.pairs
        )

    def findings(self) -> list[Finding]:
        """What is said of pictures without a mask and of masks without a picture."""
        findings = []
        if self.lonely_images:
            text = f"{counted(len(self.lonely_images), 'image')} left out: without a mask."
            findings.append(finding("warning", "missing_annotations", text, self.lonely_images))
        if self.lonely_masks:
            text = f"{counted(len(self.lonely_masks), 'mask')} left out: without a picture."
            findings.append(finding("error", "missing_images", text, self.lonely_masks))
        return findings

    def splits(self) -> dict[str, str | None]:
        """The split that its folders tell, a picture."""
        return {image.name: split_of_path(image.name) or split_of_path(mask.name) for image, mask in self.pairs}


def pair_masks(files: Sequence[ArchivedFile], *, only_folder: str | None = None) -> MaskPairs:
    """The pairs: a PNG in a folder of masks and a picture of the same name elsewhere, as near as possible.

    only_folder: of several folders of masks only that one counts, as VOC's `SegmentationClass`.
    """
    sorted_files = sort_files(files)
    masks = [file for file in sorted_files.images if _is_mask(file)]
    chosen = [mask for mask in masks if only_folder is None or only_folder in mask.name.split("/")]
    known = {mask.name for mask in masks}
    by_stem: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    images = [file for file in sorted_files.images if file.name not in known]
    for image in images:
        by_stem[_IMAGE_SUFFIX.sub("", stem_of(posixpath.basename(image.name)))].append(image)
    pairs: dict[str, tuple[ArchivedFile, ArchivedFile]] = {}
    lonely_masks = []
    for mask in chosen:
        stem = stem_of(posixpath.basename(mask.name))
        candidates = by_stem.get(stem) or by_stem.get(_SUFFIX.sub("", stem)) or []
        nearest = _nearest(candidates, mask)
        if nearest is None or nearest.name in pairs:
            lonely_masks.append(mask.name)
        else:
            pairs[nearest.name] = (nearest, mask)
    return MaskPairs(
        pairs=tuple(pairs[name] for name in sorted(pairs)),
        lonely_images=tuple(image.name for image in images if image.name not in pairs),
        lonely_masks=tuple(lonely_masks),
        sorted_files=sorted_files,
    )


def _is_mask(file: ArchivedFile) -> bool:
    """Whether it is a PNG in a folder of masks: the innermost folder that says what it holds."""
    if image_kind(file.name, file.head) != "PNG":
        return False
    for folder in reversed(file.name.split("/")[:-1]):
        if _MASK_FOLDER.fullmatch(folder):
            return True
        if _IMAGE_FOLDER.fullmatch(folder):
            return False
    return False


def _nearest(candidates: Sequence[ArchivedFile], mask: ArchivedFile) -> ArchivedFile | None:
    """Of pictures of one name the one whose folders differ least from those of `mask`."""
    folders = mask.name.split("/")[:-1]

    def common(image: ArchivedFile) -> int:
        return len([1 for folder in image.name.split("/")[:-1] if folder in folders])

    ranked = sorted(candidates, key=common, reverse=True)
    if len(ranked) > 1 and common(ranked[0]) == common(ranked[1]):
        return None
    return ranked[0] if ranked else None
