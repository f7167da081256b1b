"""Which formats there are, and which of them an archive is in."""

from __future__ import annotations

from collections.abc import Sequence

from models.manifest import Task
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import DatasetFormat
from workers.datasets.findings import counted
from workers.datasets.formats.coco import COCO
from workers.datasets.formats.csv_list import CSV_LIST
from workers.datasets.formats.image_folder import IMAGE_FOLDER
from workers.datasets.formats.instance_masks import INSTANCE_MASKS
from workers.datasets.formats.label_masks import LABEL_MASKS
from workers.datasets.formats.pascal_voc import PASCAL_VOC
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    sort_files,
    unusable,
    without_images,
)
from workers.datasets.formats.yolo import YOLO
from workers.errors import UnusableDataset

# The first that fits is taken, so the more specific come first: images that annotations speak of lie in folders too.
FORMATS: tuple[Format, ...] = (COCO, PASCAL_VOC, YOLO, CSV_LIST, INSTANCE_MASKS, LABEL_MASKS, IMAGE_FOLDER)


def read_files(
    files: Sequence[ArchivedFile],
    *,
    format: DatasetFormat | None = None,  # noqa: A002
    task: Task | None = None,
) -> Reading:
    """The archive as `format` reads it, or as the first format of `task` that fits.

    Raises UnusableDataset, also if what fits is of another task than is asked for.
    """
    if format is not None:
        chosen = next(each for each in FORMATS if each.name == format)
        if task not in (None, chosen.task):
            raise _other_task(chosen, task, f"The format {format} is one of {chosen.task} data sets.")
        return chosen.read(files)
    fitting = next((each for each in FORMATS if task in (None, each.task) and each.fits(files)), None)
    if fitting is not None and task == "classification" and fitting is IMAGE_FOLDER:
        fitting = next(each for each in FORMATS if each.fits(files))  # what else it is, it is more likely
    if fitting is not None and task in (None, fitting.task):
        return fitting.read(files)
    others = [each for each in FORMATS if each.fits(files)]
    if task is not None and others:
        raise _other_task(others[0], task, f"This is a {others[0].task} data set in the format {others[0].name}.")
    raise _nothing_fits(files, task)


def _other_task(found: Format, wanted: Task | None, words: str) -> UnusableDataset:
    hint = f"Post it with task={found.task} or without a task, and train a model of {found.task} on it"
    if found is LABEL_MASKS and wanted == "detection":
        hint += "; if the masks' pixels number objects, with format=instance_masks"
    expected = "; or ".join(each.expected for each in FORMATS if each.task == wanted)
    return unusable(
        f"{words} It cannot be one of {wanted}.",
        hint=f"{hint}. For {wanted} this fits: {expected}.",
        code="other_task",
    )


def _nothing_fits(files: Sequence[ArchivedFile], task: Task | None) -> UnusableDataset:
    sorted_files = sort_files(files)
    expected = "; or ".join(each.expected for each in FORMATS if task in (None, each.task))
    hint = f"Expected is one of: {expected}."
    if not sorted_files.images:
        return without_images(sorted_files, hint=hint)
    return unusable(
        f"The archive holds {counted(len(sorted_files.images), 'image')} but nothing that names their categories: "
        "no folders, no list and no annotations.",
        hint=hint,
        code="no_categories",
        findings=leftover_findings(sorted_files),
    )
