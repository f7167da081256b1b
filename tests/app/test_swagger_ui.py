"""The Swagger UI in a real browser that can reach nothing but this server: a picture is classified by clicking."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.app import pictures
from tests.app.running_api import RunningApi

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSIFY = "#operations-Predict-classify_v1_classify_post"


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_picture_is_classified_by_try_it_out(compass: RunningApi, tmp_path: Path) -> None:
    server = f"http://127.0.0.1:{compass.port}"
    picture = tmp_path / "north.png"
    picture.write_bytes(pictures.png())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            page = browser.new_page()
            asked_for: list[str] = []
            broken: list[str] = []
            page.on("request", lambda request: asked_for.append(request.url))
            page.on("pageerror", lambda error: broken.append(str(error)))
            assert '"classes": [' in answer_of_try_it_out(page, f"{server}/docs", picture)
        finally:
            browser.close()
    assert [url for url in asked_for if not url.startswith((server, "data:", "blob:"))] == []
    assert broken == []


def answer_of_try_it_out(page: Page, url: str, picture: Path) -> str:
    page.goto(url)
    page.locator(f"{CLASSIFY} .opblock-summary-control").click()
    form = page.locator(CLASSIFY)
    form.locator("tr[data-param-name=model] input").fill("compass")
    if not form.locator("input[type=file]").count():
        form.locator(".json-schema-form-item-add").last.click()
    form.locator("input[type=file]").first.set_input_files(picture)
    form.locator(".execute").click()
    answer = form.locator(".live-responses-table .response")
    answer.wait_for()
    return answer.inner_text()
