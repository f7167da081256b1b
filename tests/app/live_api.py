"""A real uvicorn with the real application, in a thread of the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn

from app.main import create_app
from app.settings import ApiSettings
from models.architectures.catalog import build, get_architecture
from models.manifest import ManifestDraft
from models.registry import ModelVersion, Registry
from tests.waiting import wait_until


@dataclass(frozen=True, kw_only=True)
class LiveApi:
    """A running server and a client of it."""

    url: str
    home: Path
    http: httpx.Client

    def publish(self, name: str, *, categories: tuple[str, ...] = ("circle", "square"), seed: int = 0) -> ModelVersion:
        """The next version of a model: garment_classifier with random weights."""
        torch.manual_seed(seed)
        architecture = get_architecture("garment_classifier")
        module = build("garment_classifier", num_categories=len(categories))
        draft = ManifestDraft(architecture=architecture.name, categories=categories, preset=architecture.preset)
        registry = Registry(self.home / "registry")
        return registry.publish(name, module.state_dict(), draft, now=datetime.now(UTC))

    def classify(self, image: bytes, **params: Any) -> httpx.Response:
        """The image as the raw body, to the model `shapes` unless another is named."""
        params = {"model": "shapes", **params}
        return self.http.post(
            "/v1/classify", params=params, content=image, headers={"Content-Type": "application/octet-stream"}
        )


@contextmanager
def live_api(home: Path, redis_url: str, **settings: Any) -> Iterator[LiveApi]:
    """Serves until the block ends; never fetches weights."""
    options = {"home": home, "redis_url": redis_url, "offline": True, "device": "cpu", **settings}
    app = create_app(ApiSettings(_env_file=None, **options))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=60) as http:
            yield LiveApi(url=url, home=home, http=http)
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem details of a response, which must be those."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-ID"]
    return problem
