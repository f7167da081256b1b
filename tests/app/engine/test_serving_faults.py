"""Serving when things go wrong: clients that leave or crawl, weights that rot, aliases that move, more than fits."""

from __future__ import annotations

import gc
import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app.settings import ApiSettings
from models.predictors.classification import Classifier, ClassSelection
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def compass_of_its_own(start_api: StartApi) -> RunningApi:
    """An API with one model, in memory."""
    api = start_api(max_pending_images=8, max_images_per_request=6)
    publish_compass(api.services.registry)
    assert api.classify(pictures.png()).status_code == 200
    return api


@contextmanager
def busy_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Batches end when this does. Yields the sizes of those that began."""
    release = threading.Event()
    began: list[int] = []
    original = Classifier.predict_prepared

    def held(predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]) -> list[torch.Tensor]:
        began.append(len(batch))
        assert release.wait(PATIENCE_S)
        return original(predictor, batch, selections)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "predict_prepared", held)
        try:
            yield began
        finally:
            release.set()


def open_files() -> int:
    """Of this process, which the server is a thread of."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def post_head(path: str, *, content_length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\nContent-Length: {content_length}\r\n\r\n"
    ).encode()


def test_damaged_weights_are_503_with_the_digest_and_other_models_go_on(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    publish_compass(api.services.registry, "rotten")
    weights = api.home / "registry" / "rotten" / "1" / "state_dict.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0xFF
    weights.chmod(0o644)
    weights.write_bytes(content)

    answer = api.classify(pictures.png(), model="rotten")

    assert answer.status_code == 503
    assert answer.json()["code"] == "corrupt_version"
    assert "sha256" in answer.json()["detail"]
    assert "Retry-After" in answer.headers
    assert api.classify(pictures.png()).status_code == 200


@pytest.mark.parametrize("model", ["compass", "nobody"])
def test_errors_keep_nothing_of_a_body(compass_of_its_own: RunningApi, model: str) -> None:
    size_bytes = 4 * 1024**2
    body = b"no picture" + os.urandom(size_bytes)

    def refused() -> None:
        for _ in range(10):
            assert compass_of_its_own.classify(body, model=model).status_code in (404, 415)

    refused()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        refused()
        assert tracemalloc.get_traced_memory()[0] < 2 * size_bytes
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("size_bytes", [0, 400_000, 1_500_000])  # uvicorn stops reading at 64 KiB
def test_client_that_leaves_frees_its_place_and_is_not_predicted(
    compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    api, engine = compass_of_its_own, compass_of_its_own.services.engine
    picture = pictures.png()
    picture += bytes(max(0, size_bytes - len(picture)))  # nobody reads what is behind a PNG's end
    with ThreadPoolExecutor(1) as pool, busy_network(monkeypatch) as began:
        first = pool.submit(api.classify, picture)
        wait_until(lambda: began)
        with closing(socket.create_connection(("127.0.0.1", api.port))) as client:
            client.sendall(post_head("/v1/classify?model=compass", content_length=len(picture)) + picture)
            wait_until(lambda: engine.pending_images == 2)
        wait_until(lambda: engine.pending_images == 1)
    assert first.result().status_code == 200
    assert began == [1]


def test_deadline_of_the_request_ends_it(compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api = compass_of_its_own
    with busy_network(monkeypatch):
        answer = api.http.post(
            "/v1/classify?model=compass",
            content=pictures.png(),
            headers={"Content-Type": "image/png", "X-Request-Timeout": "0.2"},
        )
    assert answer.status_code == 504
    assert answer.json()["code"] == "deadline_exceeded"
    assert api.services.engine.pending_images == 0


def test_batch_that_is_stuck_makes_the_server_not_ready_until_it_ends(
    compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine_check() -> dict[str, Any]:
        check: dict[str, Any] = compass_of_its_own.http.get("/readyz").json()["checks"]["engine"]
        return check

    monkeypatch.setattr("app.routes.health.longest_batch_s", lambda _: 0.2)
    assert engine_check()["ok"]
    with ThreadPoolExecutor(1) as client, busy_network(monkeypatch):
        asked = client.submit(compass_of_its_own.classify, pictures.png())
        wait_until(lambda: not engine_check()["ok"])
        assert engine_check()["detail"].startswith("stuck")
        assert Exposed.of(compass_of_its_own.http).value("fovea_device_busy_seconds") > 0.2
        assert compass_of_its_own.http.get("/readyz").status_code == 503
    assert asked.result().status_code == 200
    assert engine_check()["ok"]
    assert Exposed.of(compass_of_its_own.http).value("fovea_device_busy_seconds") == 0


def test_drawing_ends_with_the_deadline_and_with_its_client(
    compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, engine, picture = compass_of_its_own, compass_of_its_own.services.engine, pictures.png()
    release = threading.Event()
    monkeypatch.setattr("app.engine.engine.encode_image", lambda *_: release.wait(PATIENCE_S) and b"drawn")
    try:
        late = api.http.post(
            "/v1/classify?model=compass",
            content=picture,
            headers={"Content-Type": "image/png", "Accept": "image/png", "X-Request-Timeout": "0.5"},
        )
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        with closing(socket.create_connection(("127.0.0.1", api.port))) as client:
            head = post_head("/v1/classify?model=compass", content_length=len(picture))
            client.sendall(head.replace(b"Host:", b"Accept: image/png\r\nHost:") + picture)
            wait_until(lambda: engine.pending_images == 1)
        wait_until(lambda: engine.pending_images == 0)
    finally:
        release.set()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Request-Timeout", "0"),
        ("X-Request-Timeout", "-1"),
        ("X-Request-Timeout", "soon"),
        ("X-Request-Timeout", "nan"),
        ("X-Priority", "urgent"),
    ],
)
def test_header_that_makes_no_sense_is_named(compass: RunningApi, header: str, value: str) -> None:
    answer = compass.http.post(
        "/v1/classify?model=compass",
        content=pictures.png(),
        headers={"Content-Type": "image/png", header: value},
    )
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"].lower() == header.lower()


def test_full_server_refuses_before_it_reads_the_body(
    compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, engine = compass_of_its_own, compass_of_its_own.services.engine
    files = [("image", (f"{number}.png", pictures.png())) for number in range(4)]
    with ThreadPoolExecutor(2) as pool, busy_network(monkeypatch):
        taken = [pool.submit(api.http.post, "/v1/classify", params={"model": "compass"}, files=files) for _ in range(2)]
        wait_until(lambda: engine.pending_images == 8)
        with closing(socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S)) as client:
            client.sendall(post_head("/v1/classify?model=compass", content_length=10_000_000))  # and not a byte more
            answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: " in answer.lower()
    assert [one.result().status_code for one in taken] == [200, 200]


@pytest.mark.parametrize("path", ["/v1/classify?model=compass", "/v2/models/compass/infer", "/predictions/compass"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_bodies_in_flight_are_bounded_together(start_api: StartApi, path: str, is_declared: bool) -> None:
    api = start_api(max_body_bytes=80_000, max_pending_bytes=100_000)
    publish_compass(api.services.registry)
    large, headers = bytes(60_000), {"Content-Type": "image/png"}

    def ask(size_bytes: int) -> httpx.Response:
        body = large[:size_bytes]
        return api.http.post(path, content=body if is_declared else iter([body]), headers=headers)

    with closing(socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S)) as first:
        first.sendall(post_head(path, content_length=len(large) + 1) + large)
        wait_until(lambda: ask(len(large)).status_code == 503)
        refused = ask(len(large))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "100000 bytes" in refused.text
        assert ask(10_000).status_code in (400, 415)  # there is room for it: it is read, and is no image
        assert api.http.post("/v1/jobs", content=large).status_code != 503  # it is kept by nobody
        first.sendall(b"!")
        assert first.recv(65536).split()[1] in (b"400", b"415")
    assert ask(len(large)).status_code in (400, 415)


def test_body_that_could_never_be_taken_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="max_pending_bytes is 2000"):
        ApiSettings(_env_file=None, max_body_bytes=4000, max_pending_bytes=2000)


def test_client_that_sends_a_byte_now_and_then_holds_up_nobody(compass_of_its_own: RunningApi) -> None:
    api, picture = compass_of_its_own, pictures.png()
    with closing(socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S)) as crawler:
        crawler.sendall(post_head("/v1/classify?model=compass", content_length=len(picture)))
        for number in range(5):
            crawler.sendall(picture[number : number + 1])
            assert api.classify(picture).status_code == 200
            assert api.services.engine.pending_images == 0  # it has no place before its image is whole
        crawler.sendall(picture[5:])
        assert crawler.recv(65536).startswith(b"HTTP/1.1 200")


def test_ten_thousand_connections_come_and_go(compass_of_its_own: RunningApi) -> None:
    api = compass_of_its_own
    before = open_files()
    for _ in range(50):
        sockets = [socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S) for _ in range(200)]
        for number, client in enumerate(sockets):
            if number % 2:
                client.sendall(b"POST /v1/classify?model=compass HTTP/1.1\r\nContent-Le")
            client.close()
    assert api.classify(pictures.png()).status_code == 200
    wait_until(lambda: open_files() <= before + 2)
    assert api.services.engine.pending_images == 0


def test_alias_that_moves_under_load_fails_nothing_and_mixes_nothing(compass_of_its_own: RunningApi) -> None:
    api = compass_of_its_own
    publish_compass(api.services.registry, gain=-2.0)  # the second version says right where the first says left
    says = {1: "left", 2: "right"}
    stop = threading.Event()

    def ask() -> list[tuple[int, dict[str, Any]]]:
        answers = []
        files = [("image", (f"{number}.png", pictures.png())) for number in range(2)]
        with httpx.Client(base_url=str(api.http.base_url), timeout=PATIENCE_S) as client:
            while not stop.is_set():
                answer = client.post("/v1/classify", params={"model": "compass"}, files=files)
                answers.append((answer.status_code, answer.json()))
        return answers

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for version in (1, 2, 1, 2):
            moved = api.http.put("/v1/models/compass/aliases/production", json={"version": version})
            assert moved.status_code == 200
            now = api.classify(pictures.png()).json()
            assert now["model"]["version"] == version  # live with the next request
        stop.set()
        answers = [answer for client in asking for answer in client.result()]

    assert {status for status, _ in answers} == {200}
    for _, body in answers:
        labels = [entry["classes"][0]["label"] for entry in body["predictions"]]
        assert labels == [says[body["model"]["version"]]] * 2


def test_broken_picture_in_a_shared_batch_fails_alone(
    compass_of_its_own: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, engine = compass_of_its_own, compass_of_its_own.services.engine
    torn = pictures.jpeg()[:200]
    with ThreadPoolExecutor(4) as pool, busy_network(monkeypatch) as began:
        first = pool.submit(api.classify, pictures.png())
        wait_until(lambda: began)
        rest = [pool.submit(api.classify, picture) for picture in (pictures.png(), torn, pictures.png())]
        wait_until(lambda: engine._lane.waiting == 2)
    assert first.result().status_code == 200
    assert [answer.result().status_code for answer in rest] == [200, 422, 200]
