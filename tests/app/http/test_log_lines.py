"""A request's id, from the call through Celery to the lines of the worker that runs its job."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.running_api import RunningApi
from tests.waiting import wait_until
from tests.workers.worker_process import WorkerProcess
from workers.log_lines import JsonLines, log_fields

JOB = {"model": "garment_classifier", "dataset": "shades", "hyperparameters": {"epochs": 1, "batch_size": 4}}


@pytest.fixture
def worker(shades: RunningApi) -> Iterator[WorkerProcess]:
    """Not started yet."""
    worker = WorkerProcess(home=shades.home, redis_url=shades.services.settings.redis_url, log_format="json")
    yield worker
    worker.end()


def lines_of(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Every line; all of them are JSON, whichever library wrote them."""
    return [json.loads(line) for line in worker.log.read_text().splitlines()]


def test_lines_of_a_worker_carry_the_id_of_the_request(shades: RunningApi, worker: WorkerProcess) -> None:
    """Two calls send a message: the first runs the job, the second finds it done. A sweep that sends one has no id."""
    job_id = shades.http.post("/v1/jobs", json=JOB, headers={"X-Request-ID": "made-by-1"}).json()["id"]
    shades.http.post(f"/v1/jobs/{job_id}/cancel")
    shades.http.post(f"/v1/jobs/{job_id}/retry", headers={"X-Request-ID": "retried-by-2"})
    worker.start()

    def said_by(request_id: str) -> list[str]:
        about = [line for line in lines_of(worker) if line.get("request_id") == request_id]
        assert {line["job_id"] for line in about} <= {job_id}
        return [line["message"] for line in about]

    wait_until(lambda: said_by("retried-by-2"))
    assert said_by("made-by-1") == [f"job {job_id}: attempt 1", f"job {job_id}: succeeded"]
    assert said_by("retried-by-2") == [
        f"job {job_id} is not queued: ignoring a repeated message",
    ]
    assert [line for line in lines_of(worker) if job_id in json.dumps(line) and "request_id" not in line] == []


def formatted(message: str, **extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"msg": message, **extra})
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    return line


def test_line_says_what_it_is_about_only_within() -> None:
    with log_fields(job_id="job-1", request_id=None):
        with log_fields(request_id="r"):
            inner = formatted("x")
        outer = formatted("x", size=3)
    assert (inner["job_id"], inner["request_id"]) == ("job-1", "r")
    assert (outer["job_id"], outer["size"], "request_id" in outer) == ("job-1", 3, False)
    assert "job_id" not in formatted("x")


def test_other_threads_lines_are_not_about_it() -> None:
    found: list[dict[str, Any]] = []
    with log_fields(job_id="job-1"):
        thread = threading.Thread(target=lambda: found.append(formatted("x")))
        thread.start()
        thread.join()
    assert "job_id" not in found[0]
