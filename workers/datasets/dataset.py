"""The models of `dataset.json` and of the image lists of a dataset version. Imports no torch: clients use it, too."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import DatasetReference, Task

VOID = 255  # the value of a label map for pixels without a category: training and metrics ignore them

DatasetFormat = Literal[
    "coco",
    "coco_panoptic",
    "cvat",
    "pascal_voc",
    "dota",
    "yolo",
    "labelme",
    "createml",
    "label_studio",
    "csv_boxes",
    "hugging_face",
    "csv",
    "label_studio_choices",
    "cityscapes",
    "object_masks",
    "instance_masks",
    "label_masks",
    "image_folder",
]
SplitName = Literal["train", "val", "test"]
Severity = Literal["error", "warning", "info"]


class Finding(BaseModel):
    """One kind of observation that validation made, and the files that it concerns."""

    model_config = ConfigDict(frozen=True)

    severity: Severity = Field(
        description="`error`: left out or unusable; `warning`: kept, but look at it; `info`: for your information."
    )
    code: str = Field(description="Stable: `unreadable_image`, `duplicate_images`, `split_made`, …")
    message: str
    count: int = Field(ge=0, description="Number of files; for findings about boxes or lines, the number of these.")
    files: tuple[str, ...] = Field(
        (), description="The first 20 files, by their names in the archive; `a.xml:12` is line 12."
    )


class SplitSummary(BaseModel):
    """The size of one split."""

    model_config = ConfigDict(frozen=True)

    images: int
    images_by_category: dict[str, int] = Field(
        description="Number of images with at least one object or pixel of each category."
    )
    objects_by_category: dict[str, int] = Field(
        default_factory=dict, description="Detection: number of objects of each category."
    )


class SizeSummary(BaseModel):
    """Image sizes over all splits, in pixels."""

    model_config = ConfigDict(frozen=True)

    width_min: int
    width_median: int
    width_max: int
    height_min: int
    height_median: int
    height_max: int


class DatasetInfo(BaseModel):
    """A published, immutable dataset version."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    name: str
    version: int
    created_at: datetime
    task: Task
    format: DatasetFormat
    categories: tuple[str, ...] = Field(description="The label of each category, in the order of their indices.")
    has_masks: bool = Field(False, description="Detection: true if every object has a mask.")
    splits: dict[SplitName, SplitSummary] = Field(
        description="`train` and `val`, and `test` if the archive has it besides `val`. Training measures the best "
        "weights on `test` once, at its end; nothing is chosen by it."
    )
    sizes: SizeSummary
    size_bytes: int = Field(description="Total size of the image files.")
    fingerprint: str = Field(
        description="sha256 over the contents of the images, their targets and their splits, but not over file names."
    )
    validation_fraction: float | None = Field(
        description="Share of the images that Fovea moved to `val`; null if the archive has a validation split."
    )
    seed: int = Field(description="Seed of the validation split, if Fovea made it.")
    report: tuple[Finding, ...]

    @property
    def reference(self) -> DatasetReference:
        """The part that the manifest of a model stores."""
        return DatasetReference(name=self.name, version=self.version, fingerprint=self.fingerprint)


class DatasetObject(BaseModel):
    """An object in an image of a detection dataset."""

    model_config = ConfigDict(frozen=True)

    category: int = Field(description="Index into the categories of the dataset.")
    box: tuple[float, float, float, float] = Field(
        description="x_min, y_min, x_max, y_max in pixels of the upright image, clipped to it. The area is never 0."
    )
    mask: str | None = Field(None, description="COCO's compressed run lengths for the height and width of the image.")
    is_crowd: bool = Field(False, description="Many objects in one box. Training and metrics ignore its region.")
    is_difficult: bool = Field(False, description="Difficult as in Pascal VOC. Training and metrics ignore its region.")
    area: float | None = Field(
        None,
        description="px^2, as a COCO file states it, for metrics by size; null: the area of the mask or the box.",
    )


class DatasetImage(BaseModel):
    """One line of `train.jsonl`, `val.jsonl` or `test.jsonl`."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="Relative to the `images/` of the version, with forward slashes.")
    name: str = Field(description="Name of the file in the archive.")
    category: int | None = Field(None, description="Classification: index into the categories of the dataset.")
    objects: tuple[DatasetObject, ...] = Field((), description="Detection: empty for an example of background.")
    label_map: str | None = Field(
        None,
        description="Segmentation: path of a PNG, relative to `images/`. Each pixel is a category index, 255 is void.",
    )
    width: int = Field(description="Pixels of the upright image.")
    height: int = Field(description="Pixels of the upright image.")
    sha256: str
