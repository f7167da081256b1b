"""Datasets. A version is described by `workers.datasets.dataset.DatasetInfo` itself."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.page import Page
from models.manifest import Task
from workers.datasets.dataset import DatasetFormat, DatasetInfo
from workers.datasets.validation.splits import GroupBy


class DatasetUpload(BaseModel):
    """The text fields of an upload; the archive is in the field `file`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        description="The dataset's name: letters, digits, `-`, `_`, `.`, at most 64 characters.", examples=["ants-bees"]
    )
    task: Task | None = Field(None, description="Detected from the archive if left out.")
    format: DatasetFormat | None = Field(None, description="Detected from the archive if left out.")
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share moved to `val`, stratified, when the archive has no such split."
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Seed of that split: the same archive and seed give the same split."
    )
    group_by: GroupBy = Field(
        "similar",
        description="Images that stay on one side of that split. `similar`: copies that were resized, compressed again "
        "or captioned; `folder`: the images of one folder; `none`: only equal files. The column `group` of a CSV file "
        "always counts.",
    )


class Dataset(BaseModel):
    """A dataset with its versions."""

    name: str
    versions: list[int] = Field(description="Ascending.")
    latest: DatasetInfo = Field(description="The newest version.")


class DatasetPage(Page[Dataset]):
    """Datasets by name."""
