"""Web pages of other origins may call the API where the operator allows it, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright
from pydantic import ValidationError

from app.settings import ApiSettings
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.http.test_documentation import CHROMIUM
from tests.app.pictures import png
from tests.app.running_api import RunningApi

ORIGIN = "https://app.example.com"
ALLOWED, EXPOSED = "Access-Control-Allow-Origin", "Access-Control-Expose-Headers"


@pytest.fixture
def api(start_api: StartApi) -> RunningApi:
    """An API that pages of `ORIGIN` may call."""
    api = start_api(cors_origins=f"http://localhost:3000, {ORIGIN}", max_body_bytes=20_000)
    publish_compass(api.services.registry)
    return api


def preflight(api: RunningApi, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-priority",
    }
    return api.http.options("/v1/classify?model=compass", headers=headers)


def test_preflight_of_an_allowed_origin_is_answered(api: RunningApi) -> None:
    for origin in (ORIGIN, "http://localhost:3000"):
        answer = preflight(api, origin)
        assert (answer.status_code, answer.headers[ALLOWED]) == (200, origin)
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "x-priority" in answer.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "origin", ["https://other.example.com", "http://app.example.com", f"{ORIGIN}.evil.com", "null"]
)
def test_other_origins_are_not_allowed(api: RunningApi, origin: str) -> None:
    assert ALLOWED not in preflight(api, origin).headers
    assert ALLOWED not in api.http.get("/healthz", headers={"Origin": origin}).headers


def test_nothing_is_allowed_by_default(compass: RunningApi) -> None:
    answer = preflight(compass, ORIGIN)
    assert answer.status_code == 405
    assert ALLOWED not in answer.headers
    assert ALLOWED not in compass.http.get("/healthz", headers={"Origin": ORIGIN}).headers


def test_page_can_read_every_response_its_errors_too(api: RunningApi) -> None:
    def explode(*_: Any) -> None:
        raise RuntimeError

    origin = {"Origin": ORIGIN}
    api.services.registry.names = explode  # type: ignore[method-assign, assignment]
    answers = [
        api.http.get("/healthz", headers=origin),
        api.http.head("/healthz", headers=origin),
        api.http.get("/v1/nothing", headers=origin),
        api.http.post("/v1/classify?model=compass", content=bytes(20_001), headers=origin),
        api.http.post("/v1/classify?model=compass", content=b"x", headers={**origin, "X-Priority": "urgent"}),
        api.http.get("/v1/models", headers=origin),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 413, 422, 500]
    for answer in answers:
        assert answer.headers[ALLOWED] == ORIGIN
        assert {"X-Request-ID", "Retry-After", "Location", "ETag"} <= set(answer.headers[EXPOSED].split(", "))


def test_any_origin_may_be_allowed(start_api: StartApi) -> None:
    assert preflight(start_api(cors_origins="*"), ORIGIN).headers[ALLOWED] == "*"


@pytest.mark.parametrize(
    "origin", ["https://a.example.com/", "a.example.com", "https://a.example.com/page", "https://"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        ApiSettings(_env_file=None, cors_origins=origin)


@pytest.fixture
def page_origin() -> Iterator[str]:
    """The origin of a server that is not the API."""

    class Pages(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


CLASSIFY = """async ([url, image]) => {
    try {
        const body = new Uint8Array(image);
        const headers = {"Content-Type": "image/png", "X-Priority": "bulk"};
        const answer = await fetch(url, {method: "POST", headers, body});
        return [answer.status, answer.headers.get("X-Request-ID").length, (await answer.json()).predictions.length];
    } catch (error) { return String(error); }
}"""


@pytest.mark.parametrize("is_allowed", [True, False])
def test_page_in_a_browser_classifies_an_image(start_api: StartApi, page_origin: str, is_allowed: bool) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (on Debian: apt install chromium)")
    api = start_api(cors_origins=page_origin if is_allowed else "")
    publish_compass(api.services.registry)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.goto(page_origin)
        url = f"http://127.0.0.1:{api.port}/v1/classify?model=compass"
        found = page.evaluate(CLASSIFY, [url, list(png())])
        browser.close()
    assert found == ([200, 32, 1] if is_allowed else "TypeError: Failed to fetch")
