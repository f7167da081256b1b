"""A running API for the tests of its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.settings import ApiSettings
from models.store.registry import Registry
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.finders import finders_api, publish_finders
from tests.app.running_api import RunningApi, running_api
from tests.redis_server import RedisServer

StartApi = Callable[..., RunningApi]


@pytest.fixture
def start_api(tmp_path: Path, redis_url: str) -> Iterator[StartApi]:
    """Starts an API with these settings; stopped after the test."""
    with ExitStack() as stack:

        def start(**changes: Any) -> RunningApi:
            values = {"home": tmp_path / "home", "redis_url": redis_url, "device": "cpu", "offline": True}
            settings = ApiSettings(_env_file=None, **{**values, **changes})
            return stack.enter_context(running_api(settings))

        yield start


@pytest.fixture
def api(start_api: StartApi) -> RunningApi:
    """An API with nothing in it."""
    return start_api()


@pytest.fixture(scope="session")
def compass(tmp_path_factory: pytest.TempPathFactory, session_redis: RedisServer) -> Iterator[RunningApi]:
    """An API with a model whose answers are known and the dataset `shades`, shared by tests that change nothing."""
    home = tmp_path_factory.mktemp("compass")
    settings = ApiSettings(_env_file=None, home=home, redis_url=session_redis.url, device="cpu", offline=True)
    with running_api(settings) as api:
        publish_compass(api.services.registry)
        post_shades(api)
        yield api


@pytest.fixture(scope="session")
def finders_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the models of `finders.py`, for engines without an API."""
    home = tmp_path_factory.mktemp("engine")
    publish_finders(Registry(home / "registry"))
    return home


@pytest.fixture(scope="session")
def finders(tmp_path_factory: pytest.TempPathFactory, session_redis: RedisServer) -> Iterator[RunningApi]:
    """An API with detectors and a segmentation network whose answers are known, for tests that change nothing."""
    home = tmp_path_factory.mktemp("finders")
    settings = ApiSettings(
        _env_file=None,
        home=home,
        redis_url=session_redis.url,
        device="cpu",
        offline=True,
        max_image_pixels=4_000_000,
    )
    with finders_api(settings) as api:
        yield api


@pytest.fixture
def shades(api: RunningApi) -> RunningApi:
    """An API with a dataset, `shades`."""
    post_shades(api)
    return api


def post_shades(api: RunningApi) -> None:
    answer = api.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", image_folder_zip())})
    assert answer.status_code == 201, answer.text
