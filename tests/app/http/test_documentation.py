"""Swagger UI without a network: nothing comes from elsewhere, and "Try it out" uploads files. In a real Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.app import pictures
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.running_api import RunningApi

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_page_names_nothing_from_elsewhere(compass: RunningApi) -> None:
    page = compass.http.get("/docs")
    assert re.findall(r"(?:https?:)?//\w", page.text) == []
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert compass.http.get(asset).status_code == 200, asset


def test_document_is_served(compass: RunningApi) -> None:
    document = compass.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert "/v1/classify" in document["paths"]


@pytest.fixture
def page(api: RunningApi) -> Iterator[Page]:
    """The page in a browser that can reach nothing but the API; fails if it tries."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (on Debian: apt install chromium)")
    origin = f"http://127.0.0.1:{api.port}"
    asked: list[str] = []
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{origin}/docs")
        page.wait_for_selector(".opblock")
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith((origin, f"blob:{origin}", "data:"))] == []


def answer_to(page: Page, operation: str, **values: str | Path) -> str:
    """What the page shows after the operation was filled in and executed."""
    block = page.locator(f"[id$={operation}]")
    block.locator(".opblock-summary-control").click()
    for name, value in values.items():
        row = block.locator(f"tr[data-param-name={name}], tr[data-property-name={name}]").first
        if isinstance(value, Path):
            row.locator("input[type=file]").first.set_input_files(value)
        else:
            row.locator("input[type=text]").first.fill(value)
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table")
    answer.wait_for()
    return answer.inner_text()


def test_pictures_and_archives_are_uploaded_from_the_page(api: RunningApi, page: Page, tmp_path: Path) -> None:
    publish_compass(api.services.registry)
    (tmp_path / "a.png").write_bytes(pictures.png())
    (tmp_path / "shades.zip").write_bytes(image_folder_zip())

    answer = answer_to(page, "classify_v1_classify_post", model="compass", image=tmp_path / "a.png")
    assert '"label": "left"' in answer

    answer = answer_to(page, "post_dataset_v1_datasets_post", file=tmp_path / "shades.zip", name="shades")
    assert '"format": "image_folder"' in answer
    assert api.services.datasets.names() == ["shades"]
