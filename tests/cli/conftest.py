"""Servers for the command line to talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import ApiSettings
from tests.app.finders import finders_api
from tests.cli.stub_predictor import StubPredictor, stub_predictor
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def finders_url(tmp_path_factory: pytest.TempPathFactory, session_redis: RedisServer) -> Iterator[str]:
    """Of an API with the models of `finders.py`, for tests that change nothing."""
    home = tmp_path_factory.mktemp("finders")
    settings = ApiSettings(_env_file=None, home=home, redis_url=session_redis.url, device="cpu", offline=True)
    with finders_api(settings) as api:
        yield f"http://127.0.0.1:{api.port}"


@pytest.fixture
def stub() -> Iterator[StubPredictor]:
    """A server that says what it is told to."""
    with stub_predictor() as stub:
        yield stub
