"""Registered models. A version is described by `models.manifest.Manifest` itself."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

from app.schemas.page import Page
from models.backends.report import ExportReport
from models.manifest import AnyPreset, Manifest, Task


class Model(BaseModel):
    """A registered model with its versions and aliases."""

    name: str
    versions: list[int] = Field(description="Ascending.")
    aliases: dict[str, int] = Field(description="Movable names; `production` is what the bare name means.")
    latest: Manifest = Field(description="The newest version.")


class ModelPage(Page[Model]):
    """Registered models by name."""


class ModelVersion(BaseModel):
    """One immutable version of a model."""

    manifest: Manifest
    aliases: list[str] = Field(description="Aliases that point at this version.")
    report: list[str] = Field(description="Files of its report, to GET below `report/`.")
    exports: list[ExportReport] = Field(
        description="Faster backends that were built for it, with their measurements; the newest first."
    )


class UploadedManifest(BaseModel):
    """The description of weights that were trained elsewhere."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"architecture": "resnet18", "categories": ["ant", "bee"]}]},
    )

    task: Task | None = Field(None, description="Null selects the task of the architecture.")
    architecture: str = Field(description="Catalogue name.")
    options: dict[str, str] = Field(
        default_factory=dict, description="Options of the architecture, if it has any: `variant`, `backbone`."
    )
    categories: tuple[str, ...] = Field(
        min_length=1,
        max_length=100_000,
        description="The label of every index that the network predicts, in order; without a detector's background.",
    )
    preset: AnyPreset | None = Field(None, description="Preprocessing; null selects the architecture's own.")
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict, description="Any metrics that you have measured.")
    description: str | None = Field(None, max_length=2000)

    @field_validator("categories")
    @classmethod
    def _labels_can_be_read(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        for index, label in enumerate(categories):
            if not label.strip() or not label.isprintable():
                msg = f"category {index} is {label!r}: a label is printable text"
                raise ValueError(msg)
        return categories


class AliasTarget(BaseModel):
    """The new target of an alias."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3}]})

    version: int = Field(ge=1)


class Alias(BaseModel):
    """An alias and where it points."""

    model: str
    alias: str
    version: int
    previous: int | None = Field(description="The version it pointed at before; null if the alias is new.")
