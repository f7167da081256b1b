"""Images with one PNG each whose pixels are category numbers. 255 means no category (void); a palette has no meaning.

A list such as `classes.txt` names the categories, one name per line, from number 0 on. Without a list, 0 is
`background` and the other categories are named by their numbers.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import Annotation, clean_label
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.image_lists import ImageLists
from workers.datasets.formats.instance_masks import are_instances_by_name
from workers.datasets.formats.mask_pairs import MaskPairs, pair_masks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, unusable

_EXPECTED = "images and PNG masks of categories with the same names: images/1.jpg and masks/1.png, and classes.txt"
_HINT = f"Expected: {_EXPECTED}."
_NAME_LISTS = ("classes.txt", "categories.txt", "labels.txt", "class_names.txt", "label_names.txt", "codes.txt")
_MAX_LIST_BYTES = 2**20


def _fits(files: Sequence[ArchivedFile]) -> bool:
    found = _pairs(files)
    return found.look_like_masks and not are_instances_by_name(files, found)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    pairs = _pairs(files)
    lists = ImageLists(files, task_folder="Segmentation")
    names = next((file for file in files if posixpath.basename(file.name).lower() in _NAME_LISTS), None)
    used = lists.names | ({names.name} if names is not None else set())
    findings = [*pairs.findings(), *leftover_findings(pairs.sorted_files, used=used)]
    if not pairs.pairs:
        raise unusable(
            "No image has a PNG mask with the same name.", hint=_HINT, code="no_annotations", findings=findings
        )
    splits = pairs.splits()
    resolved, split_findings = resolve_splits(
        [
            (image, Annotation(mask=mask), lists.split_for(stem_of(image.name), splits[image.name]))
            for image, mask in pairs.pairs
        ]
    )
    return Reading(
        format="label_masks",
        task="segmentation",
        files=tuple(resolved),
        findings=(*split_findings, *findings),
        categories=_category_names(names),
    )


def _pairs(files: Sequence[ArchivedFile]) -> MaskPairs:
    has_voc = any("SegmentationClass" in file.name.split("/") for file in files)
    return pair_masks(files, only_folder="SegmentationClass" if has_voc else None)


def _category_names(names: ArchivedFile | None) -> tuple[str, ...]:
    if names is None or names.size_bytes > _MAX_LIST_BYTES:
        return ()
    lines = names.path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return tuple(clean_label(line) for line in lines if line.strip())


LABEL_MASKS = Format(name="label_masks", task="segmentation", expected=_EXPECTED, fits=_fits, read=_read)
