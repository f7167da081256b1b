"""What is known of a data set version: `dataset.json` and its lists of images. No torch here: clients read it too."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import DatasetReference, Task

VOID = 255  # in a label map: no category; neither learned nor counted

DatasetFormat = Literal["image_folder", "csv", "coco", "pascal_voc", "yolo", "instance_masks", "label_masks"]
SplitName = Literal["train", "val"]
Severity = Literal["error", "warning", "info"]


class Finding(BaseModel):
    """One kind of thing that validation saw, and where."""

    model_config = ConfigDict(frozen=True)

    severity: Severity = Field(description="`error`: dropped or unusable; `warning`: kept, look at it; `info`: said.")
    code: str = Field(description="Stable: `unreadable_image`, `duplicate_images`, `split_made`, …")
    message: str
    count: int = Field(ge=0, description="How many files it concerns; of boxes and lines, how many of these.")
    files: tuple[str, ...] = Field(
        (), description="The first 20 of them, as named in the archive; `a.xml:12` is line 12."
    )


class SplitSummary(BaseModel):
    """How much one split holds."""

    model_config = ConfigDict(frozen=True)

    images: int
    images_by_category: dict[str, int] = Field(description="Images with at least one object or pixel of it.")
    objects_by_category: dict[str, int] = Field(default_factory=dict, description="Of detection.")


class SizeSummary(BaseModel):
    """Image sizes over all splits, px."""

    model_config = ConfigDict(frozen=True)

    width_min: int
    width_median: int
    width_max: int
    height_min: int
    height_median: int
    height_max: int


class DatasetInfo(BaseModel):
    """A published, immutable data set version."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    name: str
    version: int
    created_at: datetime
    task: Task
    format: DatasetFormat
    categories: tuple[str, ...] = Field(description="Label of every index.")
    has_masks: bool = Field(False, description="Of detection: whether every object has a mask.")
    splits: dict[SplitName, SplitSummary]
    sizes: SizeSummary
    size_bytes: int = Field(description="Bytes of the images.")
    fingerprint: str = Field(
        description="sha256 over the images' contents, what is on them, and splits; not their names."
    )
    validation_fraction: float | None = Field(description="Share moved to `val` when the archive had no such split.")
    seed: int
    report: tuple[Finding, ...]

    @property
    def reference(self) -> DatasetReference:
        """What a manifest keeps of it."""
        return DatasetReference(name=self.name, version=self.version, fingerprint=self.fingerprint)


class DatasetObject(BaseModel):
    """An object on an image of a detection data set."""

    model_config = ConfigDict(frozen=True)

    category: int = Field(description="Index into the data set's categories.")
    box: tuple[float, float, float, float] = Field(
        description="x_min, y_min, x_max, y_max in pixels of the upright image, clipped to it; never without area."
    )
    mask: str | None = Field(None, description="COCO's compressed run lengths, of the image's height and width.")
    is_crowd: bool = Field(False, description="Many objects in one: neither learned nor counted against a model.")
    is_difficult: bool = Field(False, description="Pascal VOC's: learned, but not counted against a model.")


class DatasetImage(BaseModel):
    """One line of `train.jsonl` or `val.jsonl`."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="Below the version's `images/`, with forward slashes.")
    name: str = Field(description="What the file is called in the archive.")
    category: int | None = Field(None, description="Of classification: index into the data set's categories.")
    objects: tuple[DatasetObject, ...] = Field((), description="Of detection; none on a negative.")
    label_map: str | None = Field(
        None,
        description="Of segmentation: a PNG below `images/`, the index of a category at every pixel, 255 for none.",
    )
    width: int = Field(description="Pixels, upright.")
    height: int
    sha256: str
