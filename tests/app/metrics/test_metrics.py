"""`GET /metrics` of a real API, with Redis and without; and `Server-Timing`."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.engine.test_engine import SlowLoading
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.redis_server import RedisServer
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until
from workers.jobs.job import JobFailure, JobStatus
from workers.jobs.leases import Leases
from workers.jobs.store import JobStatistics, JobStore
from workers.run_directory import EventLine

SMALL = {"model": "garment_classifier", "dataset": "shades", "hyperparameters": {"epochs": 3, "batch_size": 4}}
STAGES = ("decode", "queue", "inference", "postprocess")


def test_prediction_is_counted_and_timed(api: RunningApi) -> None:
    publish_compass(api.services.registry)
    files = [("image", ("a.png", pictures.png())), ("image", ("b.png", pictures.png()))]
    assert api.http.post("/v1/classify", params={"model": "compass"}, files=files).status_code == 200
    assert api.classify(pictures.png(), model="made-up").json()["code"] == "unknown_model"
    told = Exposed.of(api.http)
    labels = {"model": "compass", "version": "1"}
    assert told.value("fovea_predictions_total", outcome="ok", **labels) == 1
    assert told.value("fovea_images_total", outcome="ok", **labels) == 2
    assert told.value("fovea_predictions_total", outcome="failed", model="", version="") == 1
    for name in ("decode", "queue", "postprocess"):
        assert told.value(f"fovea_{name}_seconds_count", backend="eager", **labels) == 2, name
    assert told.value("fovea_batch_size_sum", **labels) == 2
    assert told.value("fovea_prediction_seconds_count", backend="eager", **labels) == 1
    assert told.value("fovea_http_requests_total", route="/v1/classify", method="POST", status="200") == 1
    assert told.value("fovea_http_requests_total", route="/v1/classify", method="POST", status="404") == 1


def test_load_that_does_not_end_is_seen_at_the_scrape(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_compass(api.services.registry)
    loading = SlowLoading(monkeypatch)
    assert Exposed.of(api.http).value("fovea_model_load_seconds") == 0
    with ThreadPoolExecutor(1) as client:
        asked = client.submit(api.classify, pictures.png())
        try:
            wait_until(lambda: Exposed.of(api.http).value("fovea_model_load_seconds") > 0.1)
        finally:
            loading.go_on.set()
        assert asked.result().status_code == 200
    assert Exposed.of(api.http).value("fovea_model_load_seconds") == 0


def test_what_the_process_holds_is_read_at_the_scrape(start_api: StartApi) -> None:
    api = start_api(model_memory=200_000)
    for name in ("one", "two"):
        publish_compass(api.services.registry, name)
    assert Exposed.of(api.http).value("fovea_loaded_models") == 0
    api.classify(pictures.png(), model="one")
    told = Exposed.of(api.http)
    assert told.value("fovea_loaded_models") == 1
    assert told.value("fovea_model_memory_bytes", model="one", version="1") > 100_000
    api.classify(pictures.png(), model="two")
    told = Exposed.of(api.http)
    assert told.value("fovea_model_memory_bytes", model="one", version="1") == 0, "it was unloaded"
    assert told.value("fovea_model_memory_bytes", model="two", version="1") > 100_000
    assert told.value("fovea_model_memory_limit_bytes") == 200_000
    assert told.value("fovea_pending_images") == 0
    assert told.value("fovea_max_pending_images") == 256
    assert told.value("fovea_processes") == 1
    assert told.value("fovea_resident_memory_bytes") > 50e6
    assert not told.has("fovea_device_memory_total_bytes"), "there is no GPU"


def test_jobs_are_told_of_by_status_and_when_ended_by_duration(shades: RunningApi) -> None:
    jobs = [shades.http.post("/v1/jobs", json={**SMALL, "publish_as": f"m{number}"}).json() for number in range(3)]
    shades.http.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
    leases = Leases(shades.services.jobs.records)
    claim = leases.claim(jobs[1]["id"], "test-worker")
    assert claim is not None
    at, best = datetime.now(UTC), {"metric": "val/top1", "value": 0.9, "epoch": 1, "loss": 0.25}
    lines = [
        EventLine(at=at, type="progress", data={"fraction": 0.5, "images_per_s": 80.0}),
        EventLine(at=at, type="metrics", data={"metrics": {"val/loss": 0.25, "val/iou/cat": 0.5}, "best": best}),
    ]
    leases.record(claim, lines, mirrored_bytes=0)
    told = Exposed.of(shades.http)
    assert told.value("fovea_job_store_up") == 1
    kinds = {status: told.value("fovea_jobs", type="fine_tune", status=status) for status in JobStatus}
    assert kinds == {"queued": 1, "running": 1, "cancelled": 1, "succeeded": 0, "failed": 0}
    assert told.value("fovea_jobs", type="evaluate") == 0
    assert told.value("fovea_job_queue_depth") == 3
    running = {"job_id": jobs[1]["id"], "model": "m1"}
    assert told.value("fovea_job_progress_ratio", **running) == 0.5
    assert told.value("fovea_job_images_per_second", **running) == 80
    assert told.value("fovea_job_metric", metric="val/loss", **running) == 0.25
    assert not told.has("fovea_job_metric", metric="val/iou/cat"), "there may be a thousand categories"
    leases.fail(claim, JobFailure(code="disk_full", message="No room."))
    told = Exposed.of(shades.http)
    assert told.value("fovea_jobs_ended_total", type="fine_tune", status="failed") == 1
    assert told.value("fovea_job_seconds_count", type="fine_tune", status="failed") == 1
    assert told.value("fovea_job_seconds_bucket", status="failed", le="10.0") == 1
    assert told.value("fovea_jobs_ended_total", status="cancelled") == 1
    assert told.value("fovea_job_seconds_count", status="cancelled") == 0, "it was never started"
    assert not told.has("fovea_job_metric"), "none is running"


def test_redis_that_is_away_costs_the_metrics_of_jobs_only(start_api: StartApi, own_redis: RedisServer) -> None:
    api = start_api(redis_url=own_redis.url)
    assert Exposed.of(api.http).value("fovea_job_store_up") == 1
    own_redis.stop()
    told = Exposed.of(api.http)
    assert told.value("fovea_job_store_up") == 0
    assert not told.has("fovea_jobs")
    assert told.value("fovea_processes") == 1
    own_redis.start()
    assert Exposed.of(api.http).value("fovea_job_store_up") == 1


def test_redis_that_never_answers_is_not_waited_for(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.metrics.exposition._LONGEST_READING_S", BRIEF_S)
    readings, answers, statistics = [], threading.Event(), JobStore.statistics

    def late(store: JobStore) -> JobStatistics:
        readings.append(store)
        assert answers.wait(PATIENCE_S)
        return statistics(store)

    monkeypatch.setattr(JobStore, "statistics", late)
    for _ in range(3):
        assert Exposed.of(api.http).value("fovea_job_store_up") == 0
    assert len(readings) == 1, "however many ask, one thread waits"
    answers.set()
    wait_until(lambda: Exposed.of(api.http).value("fovea_job_store_up") == 1)


def durations_of(header: str) -> dict[str, float]:
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


def test_prediction_says_where_its_time_went(compass: RunningApi) -> None:
    answer = compass.classify(pictures.png())
    durations = durations_of(answer.headers["Server-Timing"])
    assert tuple(durations) == (*STAGES, "total")
    assert durations["decode"] == pytest.approx(answer.json()["timing_ms"]["decode"], abs=0.1)
    assert durations["total"] >= max(durations[stage] for stage in STAGES)


@pytest.mark.parametrize("path", ["/predictions/compass", "/v2/models/compass/infer"])
def test_foreign_protocols_say_it_too(compass: RunningApi, path: str) -> None:
    content: dict[str, Any] = {"content": pictures.png()}
    if path.startswith("/v2"):
        pixels = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
        content = {"json": {"inputs": [pixels]}}
    answer = compass.http.post(path, **content)
    assert answer.status_code == 200, answer.text
    assert tuple(durations_of(answer.headers["Server-Timing"])) == (*STAGES, "total")


def test_refusal_before_the_body_is_read_is_counted(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.services.engine._admission, "pending", 256)
    assert api.classify(pictures.png()).status_code == 503
    assert Exposed.of(api.http).value("fovea_predictions_total", model="", outcome="rejected") == 1


def test_picture_says_where_its_time_went(compass: RunningApi) -> None:
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    answer = compass.http.post("/v1/classify?model=compass", content=pictures.png(), headers=headers)
    assert tuple(durations_of(answer.headers["Server-Timing"])) == (*STAGES, "total")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs-assets/swagger-ui.css", 200),
        ("GET", "/nothing", 404),
        ("PATCH", "/v1/models", 405),
        ("POST", "/v1/classify?model=compass", 415),
    ],
)
def test_every_other_answer_says_how_long_it_took(compass: RunningApi, method: str, path: str, status: int) -> None:
    answer = compass.http.request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == status
    assert tuple(durations_of(answer.headers["Server-Timing"])) == ("total",)


def test_path_that_was_made_up_is_no_label(compass: RunningApi) -> None:
    compass.http.get("/made/up")
    wait_until(lambda: Exposed.of(compass.http).has("fovea_http_requests_total", route="", status="404"))
    assert "made/up" not in compass.http.get("/metrics").text
