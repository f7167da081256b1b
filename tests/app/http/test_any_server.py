"""The application gives the same answers under any ASGI server: predictions, uploads, jobs, refusals."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.dependencies import get_services
from app.main import create_app
from app.services import Services
from app.settings import ApiSettings
from models.store.registry import Registry
from tests import children
from tests.app import pictures
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.redis_server import free_port
from tests.waiting import PATIENCE_S, wait_until

IMAGE = pictures.png()
PNG = {"Content-Type": "image/png"}
PLACES = 4


def settings_of(home: Path, redis_url: str) -> ApiSettings:
    return ApiSettings(
        _env_file=None,
        home=home,
        redis_url=redis_url,
        device="cpu",
        offline=True,
        max_pending_images=2 * PLACES,
        max_images_per_request=PLACES,
    )


@asynccontextmanager
async def transport_client(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application itself, with no server between them."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
    ):
        yield client


@contextmanager
def plain_uvicorn(settings: ApiSettings) -> Iterator[str]:
    """The URL of `uvicorn --factory app.main:create_app`, a server without anything of Fovea's around it."""
    port = free_port()
    changed = settings.model_dump(mode="json", exclude_unset=True)
    log = settings.home.parent / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
    environment = {**os.environ, **{f"FOVEA_{name.upper()}": str(value) for name, value in changed.items()}}
    with log.open("wb") as written, children.child(command, stdout=written, stderr=written, env=environment) as server:

        def answers() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        server.wait(PATIENCE_S)


@asynccontextmanager
async def uvicorn_client(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `plain_uvicorn`."""
    with plain_uvicorn(settings) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
            yield client


CLIENTS = {"ASGITransport": transport_client, "uvicorn": uvicorn_client}


async def predictions(client: httpx.AsyncClient) -> None:
    path = "/v1/classify?model=compass"
    in_json = {"images": [{"base64": base64.b64encode(IMAGE).decode()}]}
    answers = [
        await client.post(path, content=IMAGE, headers=PNG),
        await client.post(path, files={"image": ("a.png", IMAGE, "image/png")}),
        await client.post(path, json=in_json),
        await client.post("/predictions/compass", content=IMAGE),
        await client.post("/v2/models/compass/infer", content=IMAGE, headers={"Inference-Header-Content-Length": "0"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5, [answer.text for answer in answers]
    labels = {answer.json()["predictions"][0]["classes"][0]["label"] for answer in answers[:3]}
    assert len(labels | set(list(answers[3].json())[:1])) == 1
    assert all(answer.headers["X-Request-ID"] for answer in answers)


async def refusals(client: httpx.AsyncClient) -> None:
    path = "/v1/classify?model=compass"
    too_many = await client.post(path, files=[("image", ("a.png", IMAGE, "image/png"))] * (PLACES + 1))
    wrong = await client.post(path, content=IMAGE, headers={**PNG, "X-Priority": "urgent"})
    late = await client.post(path, content=IMAGE, headers={**PNG, "X-Request-Timeout": "0.000001"})
    nothing = await client.post("/v1/nothing", json={})
    assert [answer.status_code for answer in (too_many, wrong, late, nothing)] == [413, 422, 504, 404]
    assert {answer.headers["Content-Type"] for answer in (too_many, wrong, late, nothing)} == {
        "application/problem+json"
    }


async def uploads_and_jobs(client: httpx.AsyncClient) -> None:
    form: dict[str, Any] = {"data": {"name": "shades"}, "files": {"file": ("s.zip", image_folder_zip())}}
    uploaded = await client.post("/v1/datasets", **form)
    assert uploaded.status_code == 201, uploaded.text
    config = {"model": "garment_classifier", "dataset": "shades", "hyperparameters": {"epochs": 1}}
    made = await client.post("/v1/jobs", json=config)
    assert made.status_code == 202, made.text
    found = await client.get(made.headers["Location"])
    assert (found.status_code, found.json()["status"]) == (200, "queued")
    cancelled = await client.post(f"{made.headers['Location']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize("server", CLIENTS)
def test_application_answers_alike_under_any_server(server: str, tmp_path: Path, redis_url: str) -> None:
    home = tmp_path / "home"
    publish_compass(Registry(home / "registry"))

    async def run() -> None:
        async with CLIENTS[server](settings_of(home, redis_url)) as client:
            await predictions(client)
            await refusals(client)
            await uploads_and_jobs(client)

    asyncio.run(run())


class CountingMiddleware:
    """Counts the requests that pass."""

    def __init__(self, app: ASGIApp, paths: list[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._paths.append(scope["path"])
        await self._app(scope, receive, send)


def test_added_middleware_and_dependencies_are_asked_for_every_request(tmp_path: Path, redis_url: str) -> None:
    """A key, a quota or an audit line can be added in either place: no request, repeated or not, goes past it."""
    publish_compass(Registry(tmp_path / "registry"))
    app = create_app(settings_of(tmp_path, redis_url))
    passed: list[str] = []
    depended: list[str] = []

    async def services(request: Request) -> Services:
        depended.append(request.url.path)
        return await get_services(request)

    app.add_middleware(CountingMiddleware, paths=passed)
    app.dependency_overrides[get_services] = services

    async def run() -> None:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://here") as client,
        ):
            for _ in range(3):
                answer = await client.post("/v1/classify?model=compass", content=IMAGE, headers=PNG)
                assert answer.status_code == 200

    asyncio.run(run())
    assert passed == depended == ["/v1/classify"] * 3
