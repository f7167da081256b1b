"""Jobs: create, list, watch, control, delete. `runs.py` serves the files of a run."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.openapi.models import Example
from starlette.responses import Response, StreamingResponse

from app.dependencies import AfterQuery, IdempotencyDep, JobsDep, LimitQuery, ServicesDep
from app.errors import InvalidValue
from app.http.documented_answers import json_answer, problems
from app.routes.training_estimate import estimate
from app.schemas.jobs import JobDetails, JobEvents, JobPage, JobPlan, JobRequest
from app.services import Services
from workers.configs.evaluate import EvaluateConfig
from workers.configs.fine_tune import ResolvedFineTune
from workers.configs.resolve_evaluate import resolve_evaluate
from workers.configs.resolve_fine_tune import resolve_fine_tune
from workers.errors import StoreUnavailable, UnknownJob
from workers.jobs.job import AnyConfig, Job, JobConfig, JobEvent, JobStatus, JobType
from workers.jobs.store import JobStore, new_job_id

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

_EVENTS_PER_PAGE = 1000
_EXAMPLES: dict[str, Example] = {
    "classifier": {
        "summary": "Train a classifier",
        "value": {
            "type": "fine_tune",
            "model": "resnet18",
            "weights": "none",
            "dataset": "ants-bees",
            "publish_as": "ants-bees",
            "hyperparameters": {"epochs": 5, "batch_size": 32},
        },
    },
    "detector": {
        "summary": "Train a detector from random weights",
        "value": {"type": "fine_tune", "model": "yolo", "dataset": "blood-cells", "publish_as": "blood-cells"},
    },
    "evaluation": {
        "summary": "Measure a model on a dataset",
        "value": {"type": "evaluate", "model": "ants-bees@production", "dataset": "ants-bees"},
    },
}
_EVENT_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?", re.ASCII)


@router.post(
    "",
    response_model=Job,
    status_code=202,
    summary="Make a job",
    responses=problems(400, 409, 422, 503),
)
async def make_job(
    request: Request,
    body: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)],
    services: ServicesDep,
    idempotency: IdempotencyDep,
) -> Response:
    """Fine-tunes an architecture or a registered model on a dataset, or evaluates a model on one.

    Answers at once with the job's URL in `Location`. With `"dry_run": true` it answers as `POST /v1/jobs/plan`.
    """
    if body.dry_run:
        return json_answer(await asyncio.to_thread(_plan, services, body))

    async def read() -> str:
        return hashlib.sha256(body.model_dump_json().encode()).hexdigest()

    async def make() -> Response:
        request_id = request.state.request_id
        job = await asyncio.to_thread(_make, services, body, request_id)
        return json_answer(job, status=202, headers={"Location": f"{request.url.path}/{job.id}"})

    return await idempotency.answer(read, make)


@router.post("/plan", response_model=JobPlan, summary="Plan a job", responses=problems(400, 409, 422, 503))
def plan_job(body: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)], services: ServicesDep) -> JobPlan:
    """Checks a job as `POST /v1/jobs` does, and queues nothing.

    Answers with the configuration that the job would have, and with an estimate of its size.
    """
    return _plan(services, body)


@router.get("", response_model=JobPage, summary="List jobs", responses=problems(404, 422, 503))
def list_jobs(
    jobs: JobsDep,
    limit: LimitQuery = 20,
    after: AfterQuery = None,
    status: Annotated[JobStatus | None, Query(description="Only jobs with this status.")] = None,
    type: Annotated[JobType | None, Query(description="Only jobs of this type.")] = None,  # noqa: A002
    model: Annotated[str | None, Query(description="Only jobs that publish as this model.")] = None,
) -> JobPage:
    """Lists jobs, the newest first."""
    page = jobs.page(status=status, job_type=type, model=model, limit=limit, after=after)
    return JobPage(data=page.jobs, has_more=page.has_more, next=page.jobs[-1].id if page.has_more else None)


@router.get("/{job_id}", response_model=JobDetails, summary="Show a job", responses=problems(404, 503))
def show_job(job_id: str, jobs: JobsDep) -> JobDetails:
    """Shows status, progress, latest metrics, best epoch, configuration, result and position in the queue."""
    return _details(jobs, jobs.get(job_id))


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_model=JobEvents,
    responses={
        200: {
            "description": "Server-Sent Events, or with `Accept: application/json` a list of those so far",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404, 422, 503),
    },
)
async def watch_job(
    request: Request,
    job_id: str,
    jobs: JobsDep,
    after: AfterQuery = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Replays the events after this one.")
    ] = None,
) -> Response:
    """Streams all past events, then new ones as they happen, until the event that ends the job.

    Types: `status`, `progress`, `metrics`, `message`. A client whose connection broke sends the last id that
    it received as `Last-Event-ID` and misses nothing. After ten seconds without an event a comment line is sent.
    """
    position = _checked_event_id(last_event_id or after)
    await asyncio.to_thread(jobs.get, job_id)
    if "application/json" in request.headers.get("accept", ""):
        return json_answer(JobEvents(data=await asyncio.to_thread(_all_events, jobs, job_id, position)))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(jobs, job_id, position), media_type="text/event-stream", headers=headers)


@router.post("/{job_id}/cancel", response_model=JobDetails, summary="Cancel a job", responses=problems(404, 409, 503))
def cancel_job(job_id: str, jobs: JobsDep) -> JobDetails:
    """Ends a queued job at once, and a running one within seconds. Its checkpoints stay, so it can be retried."""
    return _details(jobs, jobs.request_cancel(job_id))


@router.post("/{job_id}/stop", response_model=JobDetails, summary="Stop a job early", responses=problems(404, 409, 503))
def stop_job(job_id: str, jobs: JobsDep) -> JobDetails:
    """Ends a running job after the current step and publishes the best weights so far."""
    return _details(jobs, jobs.request_stop(job_id))


@router.post("/{job_id}/retry", response_model=JobDetails, summary="Retry a job", responses=problems(404, 409, 503))
def retry_job(request: Request, job_id: str, services: ServicesDep) -> JobDetails:
    """Queues a failed or cancelled job again; it resumes from its last checkpoint."""
    job = services.jobs.retry(job_id)
    services.send(job.id, request.state.request_id)
    return _details(services.jobs, job)


@router.delete("/{job_id}", status_code=204, summary="Delete an ended job", responses=problems(404, 409, 503))
def delete_job(job_id: str, jobs: JobsDep) -> None:
    """Deletes the checkpoints, log and report of an ended job. A model that it published stays."""
    jobs.delete(job_id)


def _plan(services: Services, config: JobConfig) -> JobPlan:
    resolved = _resolve(services, config)
    if not isinstance(resolved, ResolvedFineTune):
        return JobPlan(config=resolved)
    dataset = services.datasets.get(resolved.dataset.name, resolved.dataset.version).info
    return JobPlan(config=resolved, estimate=estimate(resolved, dataset))


def _make(services: Services, config: JobConfig, request_id: str) -> Job:
    job = Job(
        id=new_job_id(),
        type=config.type,
        created_at=datetime.now(UTC),
        max_attempts=services.settings.max_attempts,
        config=_resolve(services, config),
        request_id=request_id,
    )
    services.jobs.create(job)
    services.send(job.id, request_id)
    return job


def _resolve(services: Services, config: JobConfig) -> AnyConfig:
    if isinstance(config, EvaluateConfig):
        return resolve_evaluate(config, datasets=services.datasets, registry=services.registry)
    return resolve_fine_tune(config, datasets=services.datasets, registry=services.registry)


def _details(jobs: JobStore, job: Job) -> JobDetails:
    return JobDetails(**job.model_dump(), position=jobs.position(job.id))


def _all_events(jobs: JobStore, job_id: str, after: str | None) -> list[JobEvent]:
    found: list[JobEvent] = []
    while page := jobs.events(job_id, after=found[-1].id if found else after, limit=_EVENTS_PER_PAGE):
        found += page
    return found


async def _stream(jobs: JobStore, job_id: str, after: str | None) -> AsyncIterator[str]:
    yield ": watching\n\n"  # tells the client at once that it is connected
    try:
        async for event in jobs.follow(job_id, after=after):
            if event is None:
                yield ": still here\n\n"
            else:
                yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
    except (StoreUnavailable, UnknownJob):
        return  # the client reconnects with Last-Event-ID, and gets a 404 if the job was deleted


def _checked_event_id(event_id: str | None) -> str | None:
    if event_id is None:
        return None
    # An id of a Redis stream is two unsigned 64-bit numbers.
    if not _EVENT_ID.fullmatch(event_id) or any(int(part) >= 2**64 for part in event_id.split("-")):
        raise InvalidValue(
            f"{event_id[:40]!r} is not a valid event id",
            field="Last-Event-ID",
            where="header",
            valid="an id of an earlier event",
        )
    return event_id
