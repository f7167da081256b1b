"""Refuses archives whose folders are no categories, before they are read as an image folder because nothing else fits.

A folder `masks`, or a table that no format could read, says that the folders mean something else. A dataset with the
categories "train" and "test" would be worse than a refusal: nobody notices it before the results are nonsense.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from models.manifest import Task
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import counted
from workers.datasets.formats.image_folder import place_images
from workers.datasets.formats.reading import leftover_findings, sort_files, unusable
from workers.datasets.formats.structure_words import are_structural, is_structural
from workers.datasets.formats.unread_annotations import find_unread
from workers.errors import UnusableDataset

_SHOWN = 5
_NEEDED: dict[Task | None, str] = {
    None: "The archive has no annotations that Fovea can read",
    "classification": "The archive has no list of categories that Fovea can read",
    "detection": "The archive has no annotations with boxes that Fovea can read",
    "segmentation": "The archive has no masks that Fovea can read",
}
_BY_FORCE = "If the folders are the categories, post it with format=image_folder."


def check_folders(
    files: Sequence[ArchivedFile], *, hint: str, task: Task | None, has_group_folders: bool = False
) -> None:
    """Raises UnusableDataset if the outermost folders of images are probably no categories.

    hint: what to post instead. task: what the caller wants; None: anything.
    has_group_folders: the folders below the categories are groups, so they may have equal names.
    """
    sorted_files = sort_files(files)
    below: defaultdict[str, set[str]] = defaultdict(set)  # folder -> the folders inside it; "" for its own images
    for _, parts, _ in place_images(sorted_files.images)[0]:
        if len(parts) > 1:
            below[parts[0]].add(parts[1] if len(parts) > 2 else "")

    def refused(reason: str, code: str, way_out: str, files: Sequence[str] = ()) -> UnusableDataset:
        findings = leftover_findings(sorted_files)
        return unusable(
            f"{_NEEDED[task]}: {reason}.", hint=f"{way_out} {hint}", code=code, findings=findings, files=files
        )

    unread = find_unread(sorted_files.others, sorted_files.images)
    if unread.files:
        names = [file.name for file in unread.files]
        message = f"{_listed(names)} {'names' if len(names) == 1 else 'name'} its images, but in no known form"
        way_out = f"Leave {'it' if len(names) == 1 else 'them'} out of the archive, or convert it. {_BY_FORCE}"
        raise refused(message, "annotations_not_read", way_out, names)
    if are_structural(below):
        message = f"its folders ({_listed(sorted(below))}) are words for splits, images or masks, not categories"
        raise refused(message, "folders_are_not_categories", _BY_FORCE)
    recurring = _recurring(below)
    if recurring and not has_group_folders:
        message = f"its folders ({_listed(sorted(below))}) contain the same folders ({_listed(recurring)})"
        way_out = (
            f"If {_listed(recurring)} are the categories, put them outermost, or inside train/ and val/. {_BY_FORCE}"
        )
        raise refused(message, "folders_are_not_categories", way_out)


def _recurring(below: dict[str, set[str]]) -> list[str]:
    """Returns the folders that occur in several others, if every folder consists of such folders."""
    counts: defaultdict[str, int] = defaultdict(int)
    for folders in below.values():
        for folder in folders:
            counts[folder] += 1
    found = {folder for folder, count in counts.items() if count > 1 and folder and not is_structural(folder)}
    is_everywhere = all(folders & found and "" not in folders for folders in below.values())
    return sorted(found) if len(found) > 1 and is_everywhere else []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {counted(len(names) - _SHOWN, 'other')}" if len(names) > _SHOWN else shown
