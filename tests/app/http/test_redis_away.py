"""Redis may be away at the start and while serving: predictions go on, jobs say 503, and it may come back."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.app import pictures
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.http.test_requests import problem_of
from tests.redis_server import RedisServer
from tests.waiting import wait_until

JOB = {"model": "garment_classifier", "dataset": "shades"}


def test_start_without_redis_says_so_and_predicts(start_api: StartApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        api = start_api(redis_url="redis://127.0.0.1:1/0")
    assert any("Redis is unreachable" in record.getMessage() for record in caplog.records)
    publish_compass(api.services.registry)
    assert api.classify(pictures.png()).status_code == 200
    answer = api.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert {name: check["ok"] for name, check in answer.json()["checks"].items()} == {
        "redis": False,
        "registry": True,
        "engine": True,
        "device": True,
        "disk": True,
    }
    assert api.http.get("/v1/system").json()["queue"] == {"depth": None}
    assert api.http.get("/healthz").json() == {"status": "alive"}


def test_redis_that_goes_and_comes_back(start_api: StartApi, own_redis: RedisServer) -> None:
    api = start_api(redis_url=own_redis.url)
    publish_compass(api.services.registry)
    api.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", image_folder_zip())})
    job = api.http.post("/v1/jobs", json=JOB).json()
    assert api.http.get("/readyz").status_code == 200

    own_redis.stop()
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/jobs", {"json": JOB}),
        ("GET", "/v1/jobs", {}),
        ("GET", f"/v1/jobs/{job['id']}", {}),
        ("GET", f"/v1/jobs/{job['id']}/events", {}),
        ("POST", f"/v1/jobs/{job['id']}/cancel", {}),
        ("DELETE", "/v1/datasets/shades", {}),
    ]
    for method, path, sent in calls:
        answer = api.http.request(method, path, **sent)
        assert (problem_of(answer).status, answer.json()["code"]) == (503, "redis_unavailable"), path
        assert answer.headers["Retry-After"] == "5"
    assert api.classify(pictures.png()).status_code == 200
    assert api.http.get("/readyz").status_code == 503
    assert api.http.post("/v1/jobs", json={**JOB, "dry_run": True}).status_code == 200
    assert len(list(api.services.settings.runs_dir.iterdir())) == 1  # the refused job left nothing

    own_redis.start()
    wait_until(lambda: api.http.get("/readyz").status_code == 200)
    assert [row["id"] for row in api.http.get("/v1/jobs").json()["data"]] == [job["id"]]
    assert api.http.post("/v1/jobs", json=JOB).status_code == 202


def test_job_that_is_stored_but_cannot_be_sent_is_kept_for_the_sweep(
    start_api: StartApi, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start_api(redis_url=own_redis.url)
    api.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", image_folder_zip())})

    def create(job: Any) -> Any:
        created = type(api.services.jobs).create(api.services.jobs, job)
        own_redis.stop()
        return created

    monkeypatch.setattr(api.services.jobs, "create", create)
    answer = api.http.post("/v1/jobs", json=JOB)
    assert answer.status_code == 202
    own_redis.start()
    assert api.http.get(f"/v1/jobs/{answer.json()['id']}").json()["status"] == "queued"
