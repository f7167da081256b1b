"""Files of a run: metrics, log, report, checkpoints. They are read from its directory."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from app.dependencies import JobsDep
from app.errors import UnknownFile
from app.http.documented_answers import Documented, file_part, problems
from app.http.downloads import Download, file_download
from app.schemas.jobs import Checkpoint, Checkpoints, MetricHistory, MetricPoint, Report, ReportFile
from workers.errors import StoreUnavailable, UnknownJob
from workers.jobs.store import JobStore
from workers.run_directory import RunDirectory

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

_LOG_PIECE_BYTES = 64 * 1024
_LOOK_EVERY_S = 0.5

REPORT_FILE: Final[Documented] = {
    200: {"description": "The file", "content": {"application/octet-stream": {"schema": file_part("The file.")}}}
}


@router.get("/{job_id}/metrics", response_model=MetricHistory, summary="Metrics of a job", responses=problems(404, 503))
def job_metrics(job_id: str, jobs: JobsDep) -> MetricHistory:
    """Lists `train/step_loss` within epochs, and `train/loss`, `val/loss`, `val/top1`, … at the end of each epoch."""
    points = _run(jobs, job_id).read_metrics()
    return MetricHistory(data=[MetricPoint.model_validate(point.model_dump()) for point in points])


@router.get(
    "/{job_id}/log", response_class=PlainTextResponse, summary="Log of a job", responses=problems(404, 416, 422, 503)
)
def job_log(
    request: Request,
    job_id: str,
    jobs: JobsDep,
    follow: Annotated[bool, Query(description="Keep sending new lines until the job ends.")] = False,
) -> Response:
    """Sends the standard output and error of the trainer, over all attempts."""
    log = _run(jobs, job_id).log
    if follow:
        return StreamingResponse(_followed(jobs, job_id, log), media_type="text/plain; charset=utf-8")
    file = log.open("rb") if log.exists() else BytesIO()
    return file_download(request, file, media_type="text/plain; charset=utf-8")


@router.get("/{job_id}/report", response_model=Report, summary="Files of a job's report", responses=problems(404, 503))
def job_report(job_id: str, jobs: JobsDep) -> Report:
    """Lists plots and tables about the best weights on the validation split; empty until the run is complete."""
    return Report(data=report_files(_run(jobs, job_id).report))


@router.get(
    "/{job_id}/report/{file:path}",
    response_class=Response,
    summary="One file of a job's report",
    responses={**REPORT_FILE, **problems(404, 416, 503)},
)
def job_report_file(request: Request, job_id: str, file: str, jobs: JobsDep) -> Download:
    """Sends one file: `report.json`, `curves.png`, `confusion.png`, `mistakes.png`, …"""
    return report_file(request, _run(jobs, job_id).report, file)


@router.get(
    "/{job_id}/checkpoints", response_model=Checkpoints, summary="Checkpoints of a job", responses=problems(404, 503)
)
def job_checkpoints(job_id: str, jobs: JobsDep) -> Checkpoints:
    """Lists `last.pt`, from which the run resumes, and `best.safetensors`, which it publishes."""
    directory = _run(jobs, job_id).checkpoints
    paths = [path for path in directory.iterdir() if path.suffix != ".tmp"] if directory.is_dir() else []
    found = [(path, path.stat()) for path in paths]
    found.sort(key=lambda entry: entry[1].st_mtime, reverse=True)
    return Checkpoints(
        data=[
            Checkpoint(name=path.name, size_bytes=stat.st_size, written_at=datetime.fromtimestamp(stat.st_mtime, UTC))
            for path, stat in found
        ]
    )


def report_files(directory: Path) -> list[ReportFile]:
    """The files of a report, by name."""
    if not directory.is_dir():
        return []
    return [
        ReportFile(name=path.name, size_bytes=path.stat().st_size, media_type=_media_type(path))
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]


def report_file(request: Request, directory: Path, name: str) -> Download:
    """One file of a report. The name is compared with the existing names before it becomes a path.

    Raises UnknownFile.
    """
    names = [file.name for file in report_files(directory)]
    if name not in names:
        hint = f"Available: {', '.join(names)}." if names else "There is no report until the run is complete."
        raise UnknownFile(f"The report has no file {name[:100]!r}.", hint=hint)
    path = directory / name
    stat = path.stat()
    etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    return file_download(request, path.open("rb"), media_type=_media_type(path), etag=etag)


def _run(jobs: JobStore, job_id: str) -> RunDirectory:
    """The run directory of a known job, whose id is therefore a safe directory name. Raises UnknownJob."""
    return jobs.run(jobs.get(job_id).id)


async def _followed(jobs: JobStore, job_id: str, log: Path) -> AsyncIterator[bytes]:
    offset = 0
    while True:
        try:
            has_ended = (await asyncio.to_thread(jobs.get, job_id)).status.is_final
        except StoreUnavailable:  # the run continues without Redis, and so does its log
            has_ended = False
        except UnknownJob:  # the job was deleted in the meantime
            return
        while piece := await asyncio.to_thread(_read_from, log, offset):
            offset += len(piece)
            yield piece
        if has_ended:
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_LOG_PIECE_BYTES)
    except FileNotFoundError:
        return b""


def _media_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
