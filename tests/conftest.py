"""What every test may ask for."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.redis_server import RedisServer, redis_server


def pytest_sessionstart() -> None:
    """A suite that was started in the background ignores Ctrl-C, and so would every process that it starts.

    Servers build nothing beside the tests; those of building say what they want themselves.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["FOVEA_BACKEND"] = "eager"
    os.environ["FOVEA_PRECISION"] = "float32"  # where the processor has bfloat16, eager is built in that too
    # with a handler of pytest's, torch writes down every step of an export, which takes several times as long
    logging.getLogger("torch.__trace").addHandler = lambda hdlr: None  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do not stop it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(session_redis: RedisServer) -> str:
    """An empty Redis that stays up."""
    with redis.Redis.from_url(session_redis.url) as client:
        client.flushall()
    return session_redis.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may stop, empty and start again."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Random numbers do not depend on the tests before. pytest-randomly seeds the generators of Python and NumPy.

    torch is not imported for that: it takes seconds, and a test file without it starts at once.
    """
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch computes on one until the module's tests are through: several share their cores with other tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
