"""One folder per category, as torchvision's ImageFolder, with or without the folders `train/` and `val/` above."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.file_names import split_in_word
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    no_images_error,
    resolve_splits,
    sort_files,
    unusable,
)
from workers.datasets.formats.structure_words import is_structural

_EXPECTED = (
    "one folder of images per category, for example ants/1.jpg and bees/2.jpg, optionally inside train/ and val/"
)
_HINT = f"Expected: {_EXPECTED}."

_PlacedFile = tuple[ArchivedFile, list[str]]  # a file, and its path inside the wrapping folders, split at `/`
SplitFile = tuple[ArchivedFile, list[str], str | None]  # a file, its path inside its split, and the split


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(len(parts) > 1 for _, parts in _unwrapped(sort_files(files).images))


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    if not sorted_files.images:
        raise no_images_error(sorted_files, hint=_HINT)
    kept, findings = place_images(sorted_files.images)
    loose = [file.name for file, parts, _ in kept if len(parts) < 2]
    if loose:
        text = f"{counted(len(loose), 'image')} left out: not inside the folder of a category."
        findings.append(finding("warning", "images_outside_categories", text, loose))
    labelled = [(file, parts[0].strip(), split) for file, parts, split in kept if len(parts) > 1]
    findings += leftover_findings(sorted_files)
    if not labelled:
        raise unusable(
            f"The archive contains {counted(len(sorted_files.images), 'image')} but no folders that name categories.",
            hint=_HINT,
            code="no_categories",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(labelled)
    return Reading(format="image_folder", files=tuple(resolved), findings=(*split_findings, *findings))


def place_images(images: Sequence[ArchivedFile]) -> tuple[list[SplitFile], list[Finding]]:
    """Returns each image with its split and its path below the wrapping folders and the split.

    The first part of a path is the category, if there are two parts or more. The findings are about images that have no
    split although others have one.
    """
    placed = _unwrapped(images)
    if _has_splits(placed):
        return _below_splits(placed)
    return [(file, parts, None) for file, parts in placed], []


def _unwrapped(images: Sequence[ArchivedFile]) -> list[_PlacedFile]:
    """Removes the folders that wrap everything from each path: `dataset/` in `dataset/train/ants/1.jpg`.

    A single outermost folder is a wrapper if all its images lie in subfolders, or if several subfolders have images.
    """
    placed = [(image, image.name.split("/")) for image in images]
    while True:
        below = [parts for _, parts in placed if len(parts) > 1]
        inner = {parts[1] for parts in below if len(parts) > 2}
        is_wrapper = len(inner) > 1 or (len(inner) == 1 and all(len(parts) > 2 for parts in below))
        if len({parts[0] for parts in below}) != 1 or not is_wrapper:
            return placed
        placed = [(image, parts[1:] if len(parts) > 1 else parts) for image, parts in placed]


def _has_splits(placed: Sequence[_PlacedFile]) -> bool:
    """Returns True if the outermost folders are splits: one of them is a `train` that contains folders.

    A `train` without folders may be a category, next to `car` and `bus`; so may one with a single folder.
    """
    below_train = {parts[1] for _, parts in placed if len(parts) > 2 and _split_of(parts[0]) == "train"}
    categories = {parts[0] for _, parts in placed if len(parts) == 2 and _split_of(parts[0]) is None}
    if len(below_train) > 1 or (below_train and len(categories) < 2):
        return True
    return all(len(parts) > 2 and _split_of(parts[0]) is not None for _, parts in placed)


def _split_of(folder: str) -> str | None:
    """Returns the split that `folder` is named after: `training_set`, `seg_train`; not `train_station`."""
    return split_in_word(folder) if is_structural(folder) else None


def _below_splits(placed: Sequence[_PlacedFile]) -> tuple[list[SplitFile], list[Finding]]:
    """Returns the images inside splits, with their paths inside the split, and the findings about the other images."""
    by_folder: defaultdict[str, list[_PlacedFile]] = defaultdict(list)
    outside: list[str] = []
    for file, parts in placed:
        if len(parts) > 1 and _split_of(parts[0]) is not None:
            by_folder[parts[0]].append((file, parts[1:]))
        else:
            outside.append(file.name)
    kept = [
        (file, parts, _split_of(folder))
        for folder, inside in by_folder.items()
        for file, parts in _without_repeated_folder(inside)
    ]
    if not outside:
        return kept, []
    text = f"{counted(len(outside), 'image')} left out: not inside the folders `train` and `val`."
    return kept, [finding("warning", "images_outside_splits", text, outside)]


def _without_repeated_folder(placed: Sequence[_PlacedFile]) -> Sequence[_PlacedFile]:
    """Removes a folder that all images of a split share and that is no category: `training_set/training_set/cats/`."""
    while len({parts[0] for _, parts in placed}) == 1 and all(
        len(parts) > 2 and is_structural(parts[0]) for _, parts in placed
    ):
        placed = [(file, parts[1:]) for file, parts in placed]
    return placed


IMAGE_FOLDER = Format(name="image_folder", task="classification", expected=_EXPECTED, fits=_fits, read=_read)
