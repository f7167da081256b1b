"""Behind a proxy that takes a prefix off the path: every URL that Fovea gives out has the prefix."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from app.client import Client
from tests.app import pictures
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S

PREFIX = "/tools/fovea"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


@pytest.fixture
def api(start_api: StartApi) -> RunningApi:
    """An API that is told of the prefix."""
    api = start_api(root_path=PREFIX)
    publish_compass(api.services.registry)
    return api


@pytest.fixture
def proxied(api: RunningApi) -> Iterator[httpx.Client]:
    """A client of a proxy in front of the API. Without the prefix nothing is found."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self.path.startswith(PREFIX):
                self.send_error(404)
                return
            answer = api.http.request(self.command, self.path.removeprefix(PREFIX), headers=headers, content=body)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False, timeout=PATIENCE_S
            ) as http:
                yield http
        finally:
            server.shutdown()


def test_page_its_assets_and_its_document_are_found(proxied: httpx.Client) -> None:
    page = proxied.get(f"{PREFIX}/docs")
    urls = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    assert len(urls) == 4
    for asset, document in urls:
        assert proxied.get(asset or document).status_code == 200, asset or document


def test_start_page_links_and_commands_have_the_prefix(proxied: httpx.Client) -> None:
    page = proxied.get(f"{PREFIX}/").text
    links = re.findall(r'href="(/[^"]*)"', page)
    assert [proxied.get(link).status_code for link in links] == [200] * len(links)
    assert f"{PREFIX}/v1/datasets" in page


def test_document_sends_requests_to_the_prefix(proxied: httpx.Client, compass: RunningApi) -> None:
    assert proxied.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert "servers" not in compass.http.get("/openapi.json").json()


def test_location_of_what_was_made_is_found(proxied: httpx.Client) -> None:
    made = proxied.post(f"{PREFIX}/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", image_folder_zip())})
    assert made.headers["Location"] == f"{PREFIX}/v1/datasets/shades/1"
    assert proxied.get(made.headers["Location"]).json()["name"] == "shades"
    job = {"model": "garment_classifier", "dataset": "shades", "hyperparameters": {"epochs": 1}}
    queued = proxied.post(f"{PREFIX}/v1/jobs", json=job)
    assert proxied.get(queued.headers["Location"]).json()["status"] == "queued"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models/nobody", {"instance": f"{PREFIX}/v1/models/nobody", "code": "unknown_model"}),
        ("/v1/nothing", {"instance": f"{PREFIX}/v1/nothing", "hint": f"See {PREFIX}/docs."}),
        ("/v2/models/nobody", {"error": "There is no model 'nobody'."}),
        ("/models/nobody", {"code": 404, "type": "ModelNotFoundException"}),
    ],
)
def test_errors_have_the_shape_of_their_protocol(proxied: httpx.Client, path: str, error: dict[str, object]) -> None:
    found = proxied.get(PREFIX + path).json()
    assert {name: str(found[name])[: len(str(value))] for name, value in error.items()} == {
        name: str(value) for name, value in error.items()
    }


def test_predictions_and_the_client_work_through_the_proxy(proxied: httpx.Client) -> None:
    with Client(f"{proxied.base_url}{PREFIX}") as client:
        assert client.classify(pictures.png(), model="compass").predictions[0].classes
        assert client.system().version
