"""The client's methods for jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from pydantic import JsonValue, ValidationError

from app.client.errors import (
    JobCancelled,
    JobFailed,
    ProblemError,
    ServerUnreachable,
    UnexpectedAnswer,
    WaitTimedOut,
)
from app.client.events import parse_events
from app.client.pages import PAGE_LIMIT, items, segment
from app.client.transport import Call, Transport
from app.schemas.jobs import JobDetails, JobPage, JobPlan, MetricHistory, MetricPoint, Report, ReportFile
from app.schemas.page import Page
from workers.jobs.job import Job, JobConfig, JobEvent, JobStatus

_SILENCE_S = 60.0  # the server sends something more often than this


class Jobs:
    """`client.jobs`."""

    def __init__(self, transport: Transport, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._transport = transport
        self._sleep = sleep

    def create(self, config: JobConfig) -> Job:
        """Queues a job. The server chooses what `config` leaves out."""
        call = Call(method="POST", path="/v1/jobs", json=_body(config), creates=True)
        return self._transport.answer(call, JobDetails)

    def plan(self, config: JobConfig) -> JobPlan:
        """The resolved job; nothing is queued."""
        call = Call(method="POST", path="/v1/jobs/plan", json=_body(config), only_asks=True)
        return self._transport.answer(call, JobPlan)

    def list(
        self,
        *,
        status: JobStatus | None = None,
        type: str | None = None,  # noqa: A002
        model: str | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first, fetched page by page."""
        return items(lambda after: self.page(status=status, type=type, model=model, after=after))

    def page(
        self,
        *,
        status: JobStatus | None = None,
        type: str | None = None,  # noqa: A002 (the API's word)
        model: str | None = None,
        limit: int = PAGE_LIMIT,
        after: str | None = None,
    ) -> Page[Job]:
        """One page of jobs. model: the name that a job publishes as."""
        params = {"status": status, "type": type, "model": model, "limit": limit, "after": after}
        return self._transport.answer(Call(method="GET", path="/v1/jobs", params=params), JobPage)

    def get(self, job_id: str) -> JobDetails:
        """The current state of a job."""
        return self._transport.answer(Call(method="GET", path=_path(job_id)), JobDetails)

    def events(self, job_id: str, *, after: str | None = None, patience_s: float = 60.0) -> Iterator[JobEvent]:
        """Past and future events of the job, until it ends.

        A broken connection is reopened, and no event is missed or repeated. It gives up after `patience_s` without an
        answer. Raises ClientError.
        """
        is_over = False
        deadline = None
        while True:
            try:
                for event in self._stream(job_id, after):
                    deadline = None
                    after = event.id
                    is_over = (event.type == "status" and JobStatus(event.data["status"]).is_final) or (
                        is_over and event.type != "status"
                    )
                    yield event
                if is_over:
                    return
            except (ServerUnreachable, ProblemError) as error:
                if not _may_pass(error) or (after is None and deadline is None):
                    raise
                if deadline is None:
                    deadline = time.monotonic() + patience_s
                elif time.monotonic() > deadline:
                    raise
            self._sleep(0.5)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Waits until the job has succeeded, and returns it.

        Raises JobFailed, JobCancelled, WaitTimedOut.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (job := self.get(job_id)).status.is_final:
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimedOut(f"Job {job_id} is still {job.status} after {timeout_s} s.", hint="It continues.")
            self._sleep(0.5)
        return ended_well(job)

    def cancel(self, job_id: str) -> Job:
        """Cancels a job; nothing is published."""
        return self._act(job_id, "cancel")

    def stop(self, job_id: str) -> Job:
        """Ends a job early and publishes the best weights so far."""
        return self._act(job_id, "stop")

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again; it resumes from its last checkpoint."""
        return self._act(job_id, "retry")

    def delete(self, job_id: str) -> None:
        """Deletes an ended job and its files."""
        self._transport.send(Call(method="DELETE", path=_path(job_id)))

    def metrics(self, job_id: str) -> Sequence[MetricPoint]:
        """The metrics of the run, by step."""
        return self._transport.answer(Call(method="GET", path=f"{_path(job_id)}/metrics"), MetricHistory).data

    def log(self, job_id: str) -> str:
        """The trainer's log so far."""
        return self._transport.send(Call(method="GET", path=f"{_path(job_id)}/log")).text

    def follow_log(self, job_id: str) -> Iterator[str]:
        """Pieces of the log as they are written, until the job ends."""
        call = Call(method="GET", path=f"{_path(job_id)}/log", params={"follow": 1}, timeout_s=24 * 3600)
        with self._transport.stream(call) as response:
            yield from response.iter_text()

    def report(self, job_id: str) -> Sequence[ReportFile]:
        """The files of the job's report."""
        return self._transport.answer(Call(method="GET", path=f"{_path(job_id)}/report"), Report).data

    def report_file(self, job_id: str, name: str) -> bytes:
        """One file of the report."""
        path = f"{_path(job_id)}/report/" + "/".join(map(segment, name.split("/")))
        return self._transport.send(Call(method="GET", path=path)).content

    def _act(self, job_id: str, action: str) -> Job:
        return self._transport.answer(Call(method="POST", path=f"{_path(job_id)}/{action}"), JobDetails)

    def _stream(self, job_id: str, after: str | None) -> Iterator[JobEvent]:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        call = Call(method="GET", path=f"{_path(job_id)}/events", headers=headers, timeout_s=_SILENCE_S)
        with self._transport.stream(call) as response:
            for event in parse_events(response.iter_lines()):
                try:
                    yield JobEvent.model_validate_json(event.data)
                except ValidationError as error:
                    raise UnexpectedAnswer(
                        f"An event of job {job_id} cannot be read ({error.error_count()} errors): {event.data[:200]}"
                    ) from error


def ended_well(job: Job) -> Job:
    """Returns the ended `job` if it succeeded.

    Raises JobFailed, JobCancelled.
    """
    if job.status is JobStatus.FAILED:
        raise JobFailed(job)
    if job.status is JobStatus.CANCELLED:
        raise JobCancelled(job)
    return job


def _body(config: JobConfig) -> JsonValue:
    return {"type": config.type, **config.model_dump(mode="json", exclude_unset=True)}


def _may_pass(error: ServerUnreachable | ProblemError) -> bool:
    """True for failures of a server that restarts or waits for Redis."""
    return isinstance(error, ServerUnreachable) or error.status in (502, 503, 504)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{segment(job_id)}"
