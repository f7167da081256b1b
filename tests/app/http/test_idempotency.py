"""Idempotency-Key: sent twice, made once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.app.archives import image_folder_zip
from tests.app.http.test_requests import problem_of
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until
from workers.datasets.intake import ingest_archive
from workers.jobs.idempotency_store import Claimed, IdempotencyStore, InFlight, StoredAnswer

JOB = {"model": "garment_classifier", "dataset": "shades"}


def post_job(api: RunningApi, key: str, **changes: Any) -> httpx.Response:
    return api.http.post("/v1/jobs", json={**JOB, **changes}, headers={"Idempotency-Key": key})


def post_data(api: RunningApi, key: str, archive: bytes, boundary: str = "b1", name: str = "keyed") -> httpx.Response:
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    ).encode() + archive
    return api.http.post(
        "/v1/datasets",
        content=body + f"\r\n--{boundary}--\r\n".encode(),
        headers={"Idempotency-Key": key, "Content-Type": f"multipart/form-data; boundary={boundary}"},
    )


def test_repeated_job_is_made_once_and_answered_alike(shades: RunningApi) -> None:
    first, second = post_job(shades, "k1"), post_job(shades, "k1")
    assert first.status_code == second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(shades.http.get("/v1/jobs").json()["data"]) == 1


def test_key_with_another_payload_is_refused(shades: RunningApi) -> None:
    post_job(shades, "k1")
    problem = problem_of(post_job(shades, "k1", publish_as="other"))
    assert (problem.status, problem.code) == (422, "idempotency_mismatch")


def test_request_that_made_nothing_leaves_its_key_free(shades: RunningApi) -> None:
    assert post_job(shades, "k1", dataset="nothing").status_code == 422
    assert post_job(shades, "k1").status_code == 202


def test_repeated_upload_with_another_boundary_is_made_once(api: RunningApi) -> None:
    archive = image_folder_zip()
    first, second = post_data(api, "k", archive), post_data(api, "k", archive, boundary="other")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert api.http.get("/v1/datasets/keyed").json()["versions"] == [1]
    assert problem_of(post_data(api, "k", image_folder_zip(of_each=11))).code == "idempotency_mismatch"
    assert problem_of(post_data(api, "k", archive, name="another")).code == "idempotency_mismatch"
    assert [one["name"] for one in api.http.get("/v1/datasets").json()["data"]] == ["keyed"]


def test_same_key_on_another_route_is_another_key(shades: RunningApi) -> None:
    post_job(shades, "k1")
    assert post_data(shades, "k1", image_folder_zip()).status_code == 201


def test_second_request_while_the_first_is_answered_is_told_to_wait(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slowly(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        return ingest_archive(*args, **kwargs)

    monkeypatch.setattr("app.routes.datasets.ingest_archive", slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post_data, api, "k", image_folder_zip())
        assert entered.wait(PATIENCE_S)
        problem = problem_of(post_data(api, "k", image_folder_zip()))
        go_on.set()
        assert first.result().status_code == 201
    assert (problem.status, problem.code) == (409, "request_in_progress")


def test_broken_server_leaves_the_key_free(shades: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("app.routes.jobs._make", explode)
        assert post_job(shades, "k1").status_code == 500
    assert post_job(shades, "k1").status_code == 202


@pytest.mark.parametrize("key", ["", "with space", "x" * 256])
def test_key_that_cannot_be_one_is_refused(shades: RunningApi, key: str) -> None:
    assert problem_of(post_job(shades, key)).code == "malformed_idempotency_key"


@pytest.fixture
def store(redis_url: str) -> Iterator[IdempotencyStore]:
    store = IdempotencyStore(redis_url, claim_s=0.2)
    yield store
    store.close()


def test_claim_of_a_process_that_died_expires(store: IdempotencyStore) -> None:
    assert isinstance(store.claim("POST /x", "k", owner="dead"), Claimed)
    assert isinstance(store.claim("POST /x", "k", owner="next"), InFlight)
    wait_until(lambda: isinstance(store.claim("POST /x", "k", owner="next"), Claimed))


def test_only_the_owner_of_a_claim_completes_or_releases_it(store: IdempotencyStore) -> None:
    answer = StoredAnswer(fingerprint="f", status=201, headers={}, body="{}")
    store.claim("POST /x", "k", owner="first")
    store.complete("POST /x", "k", answer, owner="second")
    store.release("POST /x", "k", owner="second")
    store.renew("POST /x", "k", owner="first")
    assert isinstance(store.claim("POST /x", "k", owner="third"), InFlight)
    store.complete("POST /x", "k", answer, owner="first")
    assert store.claim("POST /x", "k", owner="third") == answer
