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
    aliases: list[str] = Field(description="Those that point at this version.")
    report: list[str] = Field(description="Files of its report, to GET below `report/`.")
    exports: list[ExportReport] = Field(
        description="Faster forms of it that were built for machines, with their figures; the newest first."
    )


class UploadedManifest(BaseModel):
    """What must be said of weights that were trained elsewhere."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"architecture": "resnet18", "categories": ["ant", "bee"]}]},
    )

    task: Task | None = Field(None, description="Null: what the architecture does.")
    architecture: str = Field(description="Catalogue name.")
    options: dict[str, str] = Field(
        default_factory=dict, description="Of the architecture, where it has any: `variant`, `backbone`."
    )
    categories: tuple[str, ...] = Field(
        min_length=1,
        max_length=100_000,
        description="Label of every index the network answers with, in order; of a detector without the background.",
    )
    preset: AnyPreset | None = Field(None, description="Preprocessing; null: the architecture's own.")
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict, description="Whatever you measured.")
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
    """Where an alias shall point."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3}]})

    version: int = Field(ge=1)


class Alias(BaseModel):
    """An alias and where it points."""

    model: str
    alias: str
    version: int
    previous: int | None = Field(description="Where it pointed before; null if it is new.")
