"""Jobs over HTTP: make, plan, list, watch, steer, forget. A worker is played by the same store a real one uses."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis

from app.schemas.jobs import JobDetails, JobPlan
from tests.app.compass import publish_compass
from tests.app.http.test_requests import problem_of
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until
from workers.configs.fine_tune import ResolvedFineTune
from workers.jobs.job import Job, JobFailure, JobStatus
from workers.jobs.leases import Claim, Leases
from workers.jobs.records import JobRecords
from workers.run_directory import EventLine, MetricLine

SMALL = {"model": "garment_classifier", "dataset": "shades", "hyperparameters": {"epochs": 3, "batch_size": 4}}


def make_job(api: RunningApi, **changes: Any) -> Job:
    answer = api.http.post("/v1/jobs", json={**SMALL, **changes})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    return Job.model_validate_json(answer.content)


def leases_of(api: RunningApi) -> Leases:
    records: JobRecords = api.services.jobs.records
    return Leases(records)


def claim(api: RunningApi, job: Job) -> Claim:
    claimed = leases_of(api).claim(job.id, "test-worker")
    assert claimed is not None
    return claimed


def test_job_is_queued_and_sent_to_the_workers(shades: RunningApi) -> None:
    job = make_job(shades)
    assert (job.status, job.config.architecture, job.config.publish_as) == ("queued", "garment_classifier", "shades")
    assert isinstance(job.config, ResolvedFineTune)
    assert job.config.hyperparameters.epochs == 3
    assert job.request_id
    assert shades.services.jobs.queue_depth() == 1


@pytest.mark.parametrize(("path", "more"), [("/v1/jobs/plan", {}), ("/v1/jobs", {"dry_run": True})])
def test_dry_run_shows_the_resolved_job_and_queues_nothing(
    shades: RunningApi, path: str, more: dict[str, bool]
) -> None:
    answer = shades.http.post(path, json={**SMALL, **more})
    assert answer.status_code == 200
    plan = JobPlan.model_validate_json(answer.content)
    assert isinstance(plan.config, ResolvedFineTune)
    assert (plan.config.dataset.version, plan.config.hyperparameters.learning_rate) == (1, 0.01)
    estimate = plan.estimate
    assert estimate is not None
    assert (estimate.train_images, estimate.val_images, estimate.steps_per_epoch, estimate.steps) == (16, 4, 4, 12)
    assert estimate.parameters == estimate.trained_parameters == 43_746
    assert estimate.memory.total_bytes == 43_746 * 4 * 3  # weights, gradients, momentum
    assert shades.http.get("/v1/jobs").json()["data"] == []


def test_jobs_are_listed_newest_first_in_pages(shades: RunningApi) -> None:
    ids = [make_job(shades, publish_as=f"m{number}").id for number in range(3)][::-1]
    first = shades.http.get("/v1/jobs", params={"limit": 2}).json()
    assert ([job["id"] for job in first["data"]], first["has_more"], first["next"]) == (ids[:2], True, ids[1])
    rest = shades.http.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"], rest["next"]) == (ids[2:], False, None)


def test_jobs_are_filtered(shades: RunningApi) -> None:
    kept, cancelled = make_job(shades, publish_as="a"), make_job(shades, publish_as="b")
    shades.http.post(f"/v1/jobs/{cancelled.id}/cancel")

    def listed(**params: str) -> list[str]:
        return [job["id"] for job in shades.http.get("/v1/jobs", params=params).json()["data"]]

    assert listed(status="cancelled") == [cancelled.id]
    assert listed(model="a") == [kept.id]
    assert len(listed(type="fine_tune")) == 2
    problem = problem_of(shades.http.get("/v1/jobs", params={"status": "paused"}))
    assert [error.field for error in problem.errors or ()] == ["status"]


def test_job_shows_its_place_in_the_queue(shades: RunningApi) -> None:
    first, second = make_job(shades), make_job(shades)
    assert JobDetails.model_validate(shades.http.get(f"/v1/jobs/{second.id}").json()).position == 1
    claim(shades, first)
    assert shades.http.get(f"/v1/jobs/{second.id}").json()["position"] == 0
    assert shades.http.get(f"/v1/jobs/{first.id}").json()["position"] is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate": -1}}, "hyperparameters.learning_rate"),
        ({"hyperparameters": {"epochs": "many"}}, "hyperparameters.epochs"),
        ({"hyperparameters": {"learning_rat": 0.1}}, "hyperparameters.learning_rat"),
        ({"hyperparameters": {"image_size_px": 30}}, "hyperparameters.image_size_px"),
        ({"model": "resnet999"}, "model"),
        ({"model": "resnet18", "weights": "IMAGENET1K_V9"}, "weights"),
        ({"dataset": "nothing"}, "dataset"),
        ({"dataset": "shades/9"}, "dataset"),
        ({"dataset": "../shades"}, "dataset"),
        ({"strategy": "magic"}, "strategy"),
        ({"strategy": "feature_extraction"}, "strategy"),
        ({"publish_as": "resnet18"}, "publish_as"),
        ({"publish_as": "a/b"}, "publish_as"),
        ({"publish_as": "x" * 300}, "publish_as"),
        ({"promote": "maybe"}, "promote"),
        ({"type": "magic"}, "type"),
        ({"type": 7}, "type"),
        ({"type": "evaluate"}, "hyperparameters"),
        ({"modle": "resnet18"}, "modle"),
    ],
)
def test_job_that_makes_no_sense_names_the_field(compass: RunningApi, change: dict[str, Any], field: str) -> None:
    problem = problem_of(compass.http.post("/v1/jobs", json={**SMALL, **change}))
    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field == field
    assert problem.errors[0].valid or problem.hint
    assert list(compass.services.settings.runs_dir.iterdir()) == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_number_that_json_does_not_have_is_refused_and_shown(compass: RunningApi, value: str) -> None:
    body = json.dumps(SMALL).replace('"epochs": 3', f'"learning_rate": {value}')
    answer = compass.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    (error,) = problem_of(answer).errors or ()
    assert error.field == "hyperparameters.learning_rate"
    assert error.valid == "a finite number, above 0 to 10, or null"
    assert isinstance(error.value, str)


def test_misspelt_field_is_told_the_right_one(compass: RunningApi) -> None:
    answer = compass.http.post("/v1/jobs", json={**SMALL, "hyperparameters": {"learning_rat": 0.1}})
    (error,) = problem_of(answer).errors or ()
    assert error.valid
    assert error.valid.startswith("learning_rate (perhaps meant)")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"model": "\\ud800", "dataset": "a"}',
        b'{"\\ud800": 1}',
    ],
)
def test_body_that_is_no_job_is_a_problem(compass: RunningApi, body: bytes) -> None:
    problem = problem_of(compass.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}))
    assert problem.status in (400, 422)


def test_cancelled_job_can_be_retried_and_deleted(shades: RunningApi) -> None:
    job = make_job(shades)
    assert shades.http.post(f"/v1/jobs/{job.id}/cancel").json()["status"] == "cancelled"
    again = problem_of(shades.http.post(f"/v1/jobs/{job.id}/cancel"))
    assert (again.status, again.code) == (409, "wrong_status")
    assert shades.http.post(f"/v1/jobs/{job.id}/retry").json()["status"] == "queued"
    assert problem_of(shades.http.delete(f"/v1/jobs/{job.id}")).code == "wrong_status"
    assert shades.services.jobs.run(job.id).path.exists()
    shades.http.post(f"/v1/jobs/{job.id}/cancel")
    assert shades.http.delete(f"/v1/jobs/{job.id}").status_code == 204
    assert problem_of(shades.http.get(f"/v1/jobs/{job.id}")).code == "unknown_job"
    assert not shades.services.jobs.run(job.id).path.exists()


def test_stop_is_for_running_jobs(shades: RunningApi) -> None:
    job = make_job(shades)
    assert problem_of(shades.http.post(f"/v1/jobs/{job.id}/stop")).code == "wrong_status"
    assert shades.http.get(f"/v1/jobs/{job.id}").json()["stop_requested"] is False
    claim(shades, job)
    assert shades.http.post(f"/v1/jobs/{job.id}/stop").json()["stop_requested"] is True
    assert shades.http.post(f"/v1/jobs/{job.id}/cancel").json()["cancel_requested"] is True


@pytest.mark.parametrize("path", ["", "/events", "/metrics", "/log", "/report", "/checkpoints", "/report/report.json"])
@pytest.mark.parametrize("job_id", ["job-nothing", "%2e%2e", "a%00b", "x" * 300])
def test_unknown_job_is_a_404(compass: RunningApi, job_id: str, path: str) -> None:
    assert problem_of(compass.http.get(f"/v1/jobs/{job_id}{path}")).code == "unknown_job"


def events_of(answer: httpx.Response) -> list[dict[str, str]]:
    """The events of a stream, up to where it ends."""
    events: list[dict[str, str]] = []
    for block in "".join(answer.iter_text()).split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")]
        if lines:
            events.append(dict(lines))
    return events


def test_events_are_streamed_as_they_come_until_the_job_ends(shades: RunningApi) -> None:
    job = make_job(shades)
    connected = threading.Event()

    def work() -> None:
        assert connected.wait(PATIENCE_S)
        claimed = claim(shades, job)
        leases_of(shades).record(
            claimed, [EventLine(at=datetime.now(UTC), type="message", data={"message": "hello"})], mirrored_bytes=0
        )
        leases_of(shades).fail(claimed, JobFailure(code="bad_data", message="no good"))

    worker = threading.Thread(target=work)
    worker.start()
    with shades.http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        connected.set()
        events = events_of(answer)
    worker.join()
    assert [event["event"] for event in events] == ["status", "status", "message", "status"]
    statuses = [json.loads(event["data"])["data"].get("status") for event in events]
    assert statuses == ["queued", "running", None, "failed"]


def test_last_event_id_replays_only_what_was_missed(shades: RunningApi) -> None:
    job = make_job(shades)
    shades.http.post(f"/v1/jobs/{job.id}/cancel")
    with shades.http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        everything = events_of(answer)
    assert len(everything) == 2
    with shades.http.stream(
        "GET", f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": everything[0]["id"]}
    ) as answer:
        assert events_of(answer) == everything[1:]


def test_events_so_far_are_a_list_in_json(shades: RunningApi) -> None:
    job = make_job(shades)
    answer = shades.http.get(f"/v1/jobs/{job.id}/events", headers={"Accept": "application/json"})
    (event,) = answer.json()["data"]
    assert (event["type"], event["data"]["status"]) == ("status", "queued")
    after = {"Accept": "application/json", "Last-Event-ID": event["id"]}
    assert shades.http.get(f"/v1/jobs/{job.id}/events", headers=after).json() == {"data": []}


@pytest.mark.parametrize("event_id", ["abc", "1-x", "$", "9" * 60])
def test_event_id_that_is_none_is_refused(compass: RunningApi, event_id: str) -> None:
    answer = compass.http.get("/v1/jobs/any/events", headers={"Last-Event-ID": event_id})
    problem = problem_of(answer)
    assert (problem.status, problem.code) == (422, "invalid_request")
    assert [error.field for error in problem.errors or ()] == ["Last-Event-ID"]


def test_run_directory_is_shown(shades: RunningApi) -> None:
    job = make_job(shades)
    run = shades.services.jobs.run(job.id)
    lines = [
        MetricLine(at=datetime.now(UTC), epoch=1, step=4, metrics={"train/loss": 0.5}),
        MetricLine(at=datetime.now(UTC), epoch=2, step=8, metrics={"train/loss": 0.25, "val/top1": 1.0}),
    ]
    run.metrics.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    run.log.write_text("epoch 1\népoque 2\n", encoding="utf-8")
    run.report.mkdir()
    (run.report / "report.json").write_text("{}")
    run.checkpoints.mkdir()
    run.last_checkpoint.write_bytes(b"12345")

    metrics = shades.http.get(f"/v1/jobs/{job.id}/metrics").json()["data"]
    assert [(row["step"], row["metrics"]["train/loss"]) for row in metrics] == [(4, 0.5), (8, 0.25)]
    assert shades.http.get(f"/v1/jobs/{job.id}/log").text == "epoch 1\népoque 2\n"
    (file,) = shades.http.get(f"/v1/jobs/{job.id}/report").json()["data"]
    assert file == {"name": "report.json", "size_bytes": 2, "media_type": "application/json"}
    assert shades.http.get(f"/v1/jobs/{job.id}/report/report.json").json() == {}
    (checkpoint,) = shades.http.get(f"/v1/jobs/{job.id}/checkpoints").json()["data"]
    assert (checkpoint["name"], checkpoint["size_bytes"]) == ("last.pt", 5)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("..%2fjob.json", "unknown_file"),
        ("../job.json", "unknown_route"),  # the client takes it for the path that it means
        ("%2e%2e/%2e%2e/secret", "unknown_file"),
        ("a%00b", "unknown_file"),
        ("no.png", "unknown_file"),
        ("/etc/passwd", "unknown_file"),
    ],
)
def test_report_gives_no_file_from_elsewhere(shades: RunningApi, name: str, code: str) -> None:
    job = make_job(shades)
    run = shades.services.jobs.run(job.id)
    run.report.mkdir()
    (run.report / "report.json").write_text("{}")
    answer = shades.http.get(f"/v1/jobs/{job.id}/report/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert shades.http.get(f"/v1/jobs/{job.id}/report/report.json").status_code == 200


def test_job_that_has_not_run_has_nothing_to_show_yet(shades: RunningApi) -> None:
    job = make_job(shades)
    assert shades.http.get(f"/v1/jobs/{job.id}/metrics").json() == {"data": []}
    assert shades.http.get(f"/v1/jobs/{job.id}/log").text == ""
    assert shades.http.get(f"/v1/jobs/{job.id}/report").json() == {"data": []}
    assert shades.http.get(f"/v1/jobs/{job.id}/checkpoints").json() == {"data": []}


def test_log_is_followed_until_the_job_ends(shades: RunningApi) -> None:
    job = make_job(shades)
    run = shades.services.jobs.run(job.id)
    claimed = claim(shades, job)
    run.log.write_text("first\n")
    seen = ""
    with shades.http.stream("GET", f"/v1/jobs/{job.id}/log", params={"follow": 1}) as answer:
        for piece in answer.iter_text():
            seen += piece
            if seen == "first\n":
                with run.log.open("a") as log:
                    log.write("second\n")
            elif seen == "first\nsecond\n" and shades.services.jobs.get(job.id).status is JobStatus.RUNNING:
                leases_of(shades).fail(claimed, JobFailure(code="bad_data", message="no good"))
    assert seen == "first\nsecond\n"


def test_watcher_that_leaves_is_let_go(shades: RunningApi, redis_url: str) -> None:
    job = make_job(shades)
    with redis.Redis.from_url(redis_url) as client:

        def watchers() -> int:
            return sum(connection["cmd"] == "xread" for connection in client.client_list())

        with shades.http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
            pieces = answer.iter_text()  # httpx hangs up when it is let go of
            next(pieces)
            wait_until(watchers)
        wait_until(lambda: not watchers())


@pytest.mark.parametrize("suffix", [":events", ":lease"])
def test_job_id_that_names_another_key_is_a_404(shades: RunningApi, suffix: str) -> None:
    job = make_job(shades)
    claim(shades, job)
    assert problem_of(shades.http.get(f"/v1/jobs/{job.id}{suffix}")).code == "unknown_job"


@pytest.mark.parametrize("event_id", ["9" * 26, "123-", "\u0661-\u0661", str(2**64)])
def test_event_id_that_redis_would_refuse_is_refused(shades: RunningApi, event_id: str) -> None:
    job = make_job(shades)
    answer = shades.http.get(f"/v1/jobs/{job.id}/events", params={"after": event_id})
    assert problem_of(answer).code == "invalid_request"


def test_model_that_a_waiting_job_goes_on_from_is_kept(shades: RunningApi) -> None:
    for _ in range(2):
        publish_compass(shades.services.registry, "needle")
    make_job(shades, model="needle/1")
    assert problem_of(shades.http.delete("/v1/models/needle/versions/1")).code == "version_in_use"
    assert shades.http.delete("/v1/models/needle/versions/2").status_code == 204
