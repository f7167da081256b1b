"""The page at `/`: it says what runs here, loads nothing, and fits a phone."""

from __future__ import annotations

import html
import re
import shutil

import pytest
from playwright.sync_api import sync_playwright

from app.version import fovea_version
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.running_api import RunningApi

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def text_of(api: RunningApi) -> str:
    """The page's words, without its tags."""
    answer = api.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    body = answer.text.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_page_of_an_empty_server_says_what_to_do_first(api: RunningApi) -> None:
    words = text_of(api)

    assert f"● ready version {fovea_version()}" in words
    assert "Models in production None yet. The three steps below make one." in words
    assert "Newest jobs None yet." in words
    assert f"curl -F file=@photos.zip -F name=photos http://127.0.0.1:{api.port}/v1/datasets" in words


def test_page_shows_models_in_production_and_jobs(shades: RunningApi) -> None:
    publish_compass(shades.services.registry)
    shades.services.registry.set_alias("compass", "production", 1)
    body = {"model": "garment_classifier", "dataset": "shades", "publish_as": "shades-by-night"}
    assert shades.http.post("/v1/jobs", json=body).status_code == 202

    words = text_of(shades)

    assert re.search(r"model task score architecture compass v1 classification", words)
    assert re.search(r"job status progress made \(UTC\) shades-by-night queued", words)
    assert "Waiting jobs 1" in words


def test_page_without_redis_says_so(start_api: StartApi) -> None:
    words = text_of(start_api(redis_url="redis://127.0.0.1:1/0"))

    assert "▲ not ready redis: " in words
    assert "Redis is away. Predictions work" in words
    assert "Waiting jobs unknown: Redis is away" in words


def test_every_link_leads_somewhere(compass: RunningApi) -> None:
    links = re.findall(r'href="(/[^"]*)"', compass.http.get("/").text)

    assert {"/docs", "/v1/system", "/metrics"} <= set(links)
    assert {link: compass.http.get(link).status_code for link in links} == dict.fromkeys(links, 200)


def test_words_of_a_client_are_escaped(compass: RunningApi) -> None:
    page = compass.http.get("/", headers={"Host": "x'><script>alert(1)</script>"}).text

    assert "<script" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (on Debian: apt install chromium)")
@pytest.mark.parametrize("width", [360, 1280])
def test_page_loads_nothing_and_fits_the_screen(compass: RunningApi, width: int) -> None:
    asked, complaints = [], []
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"http://127.0.0.1:{compass.port}/")
        widest = page.evaluate("document.documentElement.scrollWidth")
        ink = page.evaluate("getComputedStyle(document.querySelector('.quiet')).color")
        browser.close()

    assert [url for url in asked if not url.startswith("data:")] == [f"http://127.0.0.1:{compass.port}/"]
    assert complaints == []
    assert widest <= width
    assert ink == "rgb(92, 102, 112)"  # the style sheet is allowed by its digest
