"""Pictures with a PNG each whose pixels number the category: 255 is none (void), a palette is for people only.

What the numbers mean is told by a list, a name a line from number 0 on (`classes.txt`), or by CamVid's
`label_colors.txt`; else 0 is `background` and the others are called by their numbers.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.image_lists import ImageLists
from workers.datasets.formats.instance_masks import are_instances_by_name
from workers.datasets.formats.mask_pairs import MaskPairs, pair_masks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, settle_splits, unusable

_EXPECTED = "pictures and PNGs of categories of the same names: images/1.jpg with masks/1.png, and classes.txt"
_HINT = f"Expected is {_EXPECTED}."
_NAME_LISTS = ("classes.txt", "categories.txt", "labels.txt", "class_names.txt", "label_names.txt", "codes.txt")
_MAX_LIST_BYTES = 2**20


def _fits(files: Sequence[ArchivedFile]) -> bool:
    found = _pairs(files)
    return found.is_likely and not are_instances_by_name(files, found)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    pairs = _pairs(files)
    lists = ImageLists(files, task_folder="Segmentation")
    names = next((file for file in files if posixpath.basename(file.name).lower() in _NAME_LISTS), None)
    used = lists.names | ({names.name} if names is not None else set())
    findings = [*pairs.findings(), *leftover_findings(pairs.sorted_files, used=used)]
    if not pairs.pairs:
        raise unusable(
            "No picture has a PNG of categories of its name.", hint=_HINT, code="no_annotations", findings=findings
        )
    splits = pairs.splits()
    settled, split_findings = settle_splits(
        [
            (image, Annotation(mask=mask), lists.split_of(stem_of(posixpath.basename(image.name)), splits[image.name]))
            for image, mask in pairs.pairs
        ]
    )
    return Reading(
        format="label_masks",
        task="segmentation",
        files=tuple(settled),
        findings=(*split_findings, *findings),
        categories=_listed(names),
    )


def _pairs(files: Sequence[ArchivedFile]) -> MaskPairs:
    has_voc = any("SegmentationClass" in file.name.split("/") for file in files)
    return pair_masks(files, only_folder="SegmentationClass" if has_voc else None)


def _listed(names: ArchivedFile | None) -> tuple[str, ...]:
    if names is None or names.size_bytes > _MAX_LIST_BYTES:
        return ()
    lines = names.path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return tuple(unicodedata.normalize("NFC", " ".join(line.split())) for line in lines if line.strip())


LABEL_MASKS = Format(name="label_masks", task="segmentation", expected=_EXPECTED, fits=_fits, read=_read)
