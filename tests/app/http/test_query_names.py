"""Query parameters that a route does not have are refused, on every route of the OpenAPI document."""

from __future__ import annotations

import re

import pytest

from app.main import create_app
from app.settings import ApiSettings
from tests.app import pictures
from tests.app.running_api import RunningApi

ROUTES = [
    (method.upper(), path)
    for path, methods in create_app(ApiSettings(_env_file=None)).openapi()["paths"].items()
    for method in methods
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_unknown_name_is_refused(compass: RunningApi, method: str, path: str) -> None:
    """Numbers stand for names in the path, so that nothing is found where the name is not refused."""
    url = re.sub(r"\{[^}]+\}", "7", path)
    answer = compass.http.request(method, url, params={"dry-run": "true"}, json={})
    assert answer.status_code == 422, answer.text
    assert ("query", "dry-run", "true") in [
        (error["where"], error["field"], error["value"]) for error in answer.json()["errors"]
    ]


def test_refusal_lists_the_names_that_exist(compass: RunningApi) -> None:
    answer = compass.classify(pictures.png(), topk=1, model="compass", colour="red")
    assert answer.status_code == 422
    first, second = sorted(answer.json()["errors"], key=lambda error: str(error["field"]))
    assert (first["field"], second["field"]) == ("colour", "topk")
    assert first["valid"] == "categories, model, precision, score_threshold, top_k"
    assert second["valid"].startswith("top_k (perhaps meant), among ")


def test_dry_run_in_the_query_queues_nothing(shades: RunningApi) -> None:
    job = {"model": "garment_classifier", "weights": "none", "dataset": "shades"}
    answer = shades.http.post("/v1/jobs", params={"dry_run": "true"}, json=job)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "dry_run: This route takes no query parameters."
    assert shades.http.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("path", ["/v2/health/ready", "/ping", "/docs", "/"])
def test_pages_and_foreign_protocols_take_any_name(compass: RunningApi, path: str) -> None:
    assert compass.http.get(path, params={"utm_source": "mail"}).status_code == 200
