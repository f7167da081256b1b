"""The catalogue of network architectures, and the types of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import AfterQuery, LimitQuery, SettingsDep
from app.errors import UnknownJobType
from app.http.documented_answers import problems
from app.routes.paging import page_of_names
from app.schemas.architectures import (
    Architecture,
    ArchitectureDetails,
    ArchitectureOption,
    ArchitecturePage,
    Layer,
    PretrainedWeights,
)
from app.schemas.jobs import REQUESTS, JobKind, JobTypes
from models.architectures import architecture as catalogue
from models.architectures.catalog import get_architecture, layer_table, names
from models.manifest import Task
from models.store.weights import weights_status

_JOB_TYPES = {
    "fine_tune": "Train an architecture, or fine-tune a model, on a dataset; publish the result.",
    "evaluate": "Measure a model on a dataset: metrics and report, without training.",
}

router = APIRouter(prefix="/v1", tags=["Catalogue"])


@router.get("/architectures", response_model=ArchitecturePage, summary="List architectures", responses=problems(422))
def list_architectures(
    settings: SettingsDep,
    limit: LimitQuery = 20,
    after: AfterQuery = None,
    task: Annotated[Task | None, Query(description="Only architectures for this task.")] = None,
) -> ArchitecturePage:
    """Lists the architectures by name, with their pretrained weights."""
    page = page_of_names(names(task), limit=limit, after=after)
    described = [Architecture(**_described(get_architecture(name), settings.weights_dir)) for name in page.names]
    return ArchitecturePage(data=described, has_more=page.has_more, next=page.next)


@router.get(
    "/architectures/{name}",
    response_model=ArchitectureDetails,
    summary="Show one architecture",
    responses=problems(404),
)
def show_architecture(name: str, settings: SettingsDep) -> ArchitectureDetails:
    """Shows sizes, pretrained weights and whether they are cached, and every layer with its parameters."""
    known = get_architecture(name)
    layers = [Layer(name=row.name, type=row.type, parameters=row.parameters) for row in layer_table(name)]
    return ArchitectureDetails(**_described(known, settings.weights_dir), layers=layers)


@router.get("/job-types", response_model=JobTypes, summary="List job types")
async def list_job_types() -> JobTypes:
    """Lists the types of jobs that `POST /v1/jobs` accepts."""
    return JobTypes(
        data=[
            JobKind(name=name, description=words, json_schema=f"/v1/job-types/{name}/schema")
            for name, words in _JOB_TYPES.items()
        ]
    )


@router.get("/job-types/{type}/schema", summary="JSON schema of a job's configuration", responses=problems(404))
async def job_type_schema(type: str) -> dict[str, Any]:  # noqa: A002 -- the path's word
    """The JSON schema of a job type: every field with unit, range and default."""
    if type not in REQUESTS:
        raise UnknownJobType(f"There is no job type {type[:100]!r}.", hint=f"Available: {', '.join(REQUESTS)}.")
    return REQUESTS[type].model_json_schema()


def _described(known: catalogue.Architecture, weights_dir: Path) -> dict[str, Any]:
    weights = [
        PretrainedWeights(
            name=entry.name,
            reference=entry.reference,
            is_default=entry.name == known.default_weights,
            is_cached=weights_status(entry, weights_dir) == "cached",
            file_name=entry.file_name,
            size_bytes=entry.size_bytes,
            metrics=entry.metrics,
        )
        for entry in known.weights
    ]
    return {
        "name": known.name,
        "tasks": list(known.tasks),
        "family": known.family,
        "parameters": known.parameters,
        "preset": known.preset,
        "min_size_px": known.min_size_px,
        "max_size_px": known.max_size_px,
        "size_step_px": known.size_step_px,
        "options": [
            ArchitectureOption(name=option.name, choices=list(option.choices), description=option.description)
            for option in known.options
        ],
        "is_trainable": known.is_trainable,
        "weights": weights,
    }
