"""`python -m workers.health`, the health check of the worker's container, with a real worker and a real Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from tests.redis_server import RedisServer
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until
from tests.workers.worker_process import WorkerProcess
from workers.health import worker_answers

HERE = socket.gethostname()


@pytest.fixture
def worker(tmp_path: Path, own_redis: RedisServer) -> Iterator[WorkerProcess]:
    """A worker that listens."""
    process = WorkerProcess(home=tmp_path, redis_url=own_redis.url)
    try:
        process.start()
        wait_until(lambda: "is ready" in process.log.read_text())
        yield process
    finally:
        process.end()


def test_worker_answers_only_for_its_own_host(worker: WorkerProcess) -> None:
    assert worker_answers(worker.redis_url, hostname=HERE, timeout_s=PATIENCE_S)
    assert not worker_answers(worker.redis_url, hostname="elsewhere", timeout_s=5 * BRIEF_S)


def test_killed_worker_does_not_answer(worker: WorkerProcess) -> None:
    assert worker_answers(worker.redis_url, hostname=HERE, timeout_s=PATIENCE_S)
    worker.kill()
    assert not worker_answers(worker.redis_url, hostname=HERE, timeout_s=5 * BRIEF_S)


def test_check_without_redis_raises_an_error(own_redis: RedisServer) -> None:
    own_redis.stop()
    with pytest.raises(OperationalError):
        worker_answers(own_redis.url, hostname=HERE, timeout_s=PATIENCE_S)
