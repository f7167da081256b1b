"""Lists the dataset formats and finds the format of an archive."""

from __future__ import annotations

from collections.abc import Sequence

from models.manifest import Task
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import DatasetFormat
from workers.datasets.findings import counted
from workers.datasets.formats.cityscapes import CITYSCAPES
from workers.datasets.formats.coco import COCO
from workers.datasets.formats.coco_panoptic import COCO_PANOPTIC
from workers.datasets.formats.createml import CREATEML
from workers.datasets.formats.csv_boxes import CSV_BOXES
from workers.datasets.formats.csv_list import CSV_LIST
from workers.datasets.formats.cvat_xml import CVAT_XML
from workers.datasets.formats.dota import DOTA
from workers.datasets.formats.doubtful_folders import check_folders
from workers.datasets.formats.drawn_masks import as_segmentation
from workers.datasets.formats.hugging_face import HUGGING_FACE
from workers.datasets.formats.image_folder import IMAGE_FOLDER
from workers.datasets.formats.instance_masks import INSTANCE_MASKS
from workers.datasets.formats.known_formats import refuse_known_format, refuse_pointers
from workers.datasets.formats.label_masks import LABEL_MASKS
from workers.datasets.formats.label_studio import LABEL_STUDIO
from workers.datasets.formats.label_studio_choices import LABEL_STUDIO_CHOICES
from workers.datasets.formats.labelme import LABELME
from workers.datasets.formats.object_masks import OBJECT_MASKS
from workers.datasets.formats.pascal_voc import PASCAL_VOC
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    no_images_error,
    sort_files,
    unusable,
)
from workers.datasets.formats.yolo import YOLO
from workers.errors import UnusableDataset

# The first format that fits is used, so the specific ones come first: annotated images may lie in folders, too.
FORMATS: tuple[Format, ...] = (
    COCO,
    COCO_PANOPTIC,
    CVAT_XML,
    PASCAL_VOC,
    DOTA,
    YOLO,
    LABELME,
    CREATEML,
    LABEL_STUDIO,
    CSV_BOXES,
    HUGGING_FACE,
    CSV_LIST,
    LABEL_STUDIO_CHOICES,
    CITYSCAPES,
    OBJECT_MASKS,
    INSTANCE_MASKS,
    LABEL_MASKS,
    IMAGE_FOLDER,
)


_NOTHING: dict[Task | None, str] = {
    None: "nothing that names their categories: no folders, no list and no annotations",
    "classification": "nothing that names their categories: no folders and no list",
    "detection": "no annotations with boxes or outlines",
    "segmentation": "no masks, outlines or other annotations of pixels",
}


def read_files(
    files: Sequence[ArchivedFile],
    *,
    format: DatasetFormat | None = None,  # noqa: A002
    task: Task | None = None,
    has_group_folders: bool = False,
) -> Reading:
    """Reads the archive in `format`, or in the first format of `task` that fits.

    has_group_folders: the folders below the categories are groups of images, for example one per patient.

    Raises UnusableDataset, also if the archive fits only another task than `task`.
    """
    refuse_pointers(files)
    if format is not None:
        chosen = next(each for each in FORMATS if each.name == format)
        if task in (None, chosen.task):
            return chosen.read(files)
        if (task, chosen.task) == ("segmentation", "detection"):
            return _drawn(chosen, files)
        raise _other_task(chosen, task, f"The format {format} is for {chosen.task} datasets.")
    fitting = next((each for each in FORMATS if task in (None, each.task) and each.fits(files)), None)
    if fitting is not None and task == "classification" and fitting is IMAGE_FOLDER:
        fitting = next(each for each in FORMATS if each.fits(files))  # any other format that fits is more likely
    if fitting is not None and task in (None, fitting.task):
        if fitting is IMAGE_FOLDER:
            refuse_known_format(files)
            check_folders(files, hint=_expected(task), task=task, has_group_folders=has_group_folders)
        return fitting.read(files)
    others = [each for each in FORMATS if each.fits(files)]
    if not others or others[0] is IMAGE_FOLDER:
        refuse_known_format(files)
    if task is None or not others:
        raise _nothing_fits(files, task)
    if others[0] is IMAGE_FOLDER:
        check_folders(files, hint=_expected(task), task=task, has_group_folders=has_group_folders)
    if (task, others[0].task) == ("segmentation", "detection"):
        return _drawn(others[0], files)
    raise _other_task(others[0], task, f"This is a {others[0].task} dataset in the format {others[0].name}.")


def _drawn(found: Format, files: Sequence[ArchivedFile]) -> Reading:
    """Reads a detection dataset for segmentation. Raises UnusableDataset if its objects have only boxes."""
    drawn = as_segmentation(found.read(files))
    if drawn is None:
        message = f"This is a detection dataset in the format {found.name}: its objects have no masks or outlines."
        raise _other_task(found, "segmentation", message)
    return drawn


def _other_task(found: Format, wanted: Task | None, message: str) -> UnusableDataset:
    hint = f"Post it with task={found.task} or without a task, and train a {found.task} model on it."
    if found is LABEL_MASKS and wanted == "detection":
        hint += " If the pixels of the masks are the numbers of objects, post it with format=instance_masks."
    expected = "; or ".join(each.expected for each in FORMATS if each.task == wanted)
    return unusable(
        f"{message} It cannot be used for {wanted}.",
        hint=f"{hint} For {wanted}, post one of these: {expected}.",
        code="other_task",
    )


def _expected(task: Task | None) -> str:
    expected = "; or ".join(each.expected for each in FORMATS if task in (None, each.task))
    return f"Post one of these: {expected}."


def _nothing_fits(files: Sequence[ArchivedFile], task: Task | None) -> UnusableDataset:
    sorted_files = sort_files(files)
    hint = _expected(task)
    if not sorted_files.images:
        return no_images_error(sorted_files, hint=hint)
    return unusable(
        f"The archive contains {counted(len(sorted_files.images), 'image')} but {_NOTHING[task]}.",
        hint=hint,
        code="no_categories",
        findings=leftover_findings(sorted_files),
    )
