"""What requests to predict hold in memory is bounded together: their bodies, and what is made of them."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import pytest

from app.engine.errors import EngineFull
from app.errors import BodyTooLarge
from app.http.image_urls import Address
from app.http.refusals import HeldBytes, PendingBytes
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until

MOST = 100_000
HELD = 60_000
IMAGE = bytes(27_000)
URL = "http://images.example.com/a.png"
IN_JSON = json.dumps({"images": [{"base64": base64.b64encode(IMAGE).decode()}]}).encode()  # 36 kB
BEHIND_URLS = json.dumps({"images": [{"url": URL}, {"url": URL}]}).encode()
JSON = {"Content-Type": "application/json"}
INFER, INDEX = "/v2/models/compass/infer", "/v2/repository/index"

MORE_THAN_THEIR_BODIES = {
    "base64": ("/v1/classify?model=compass", JSON, IN_JSON),
    "urls": ("/v1/classify?model=compass", JSON, BEHIND_URLS),
    "gzip": (INFER, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000)),
    "gzip, no prediction": (INDEX, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000)),
    "v2, raw": (INFER, {"Inference-Header-Content-Length": "0"}, IMAGE),
}


@pytest.fixture
def api(start_api: StartApi) -> RunningApi:
    """An API with a model and a web of one host, whose images are none."""
    api = start_api(max_body_bytes=80_000, max_pending_bytes=MOST, image_url_hosts=("*",))
    publish_compass(api.services.registry)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [ipaddress.ip_address("93.184.216.34")]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(IMAGE))

    urls = api.services.image_urls
    urls._resolve = resolve
    urls._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return api


@contextmanager
def others_hold(api: RunningApi) -> Iterator[None]:
    """So many bytes, of a body that does not end within."""
    others = [_begun(api)]

    def is_full() -> bool:
        if ask(api, "/v1/classify?model=compass", {"Content-Type": "image/png"}, bytes(HELD)) == 503:
            return True
        if select.select([others[-1]], [], [], 0)[0]:  # it came while we were asking, and was refused in our place
            others.append(_begun(api))
        return False

    try:
        wait_until(is_full)
        yield
        others[-1].sendall(b"!")
        assert others[-1].recv(65536).split()[1] == b"415"
    finally:
        for other in others:
            other.close()


def _begun(api: RunningApi) -> socket.socket:
    """A request whose body lacks a byte."""
    other = socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S)
    head = f"POST /v1/classify?model=compass HTTP/1.1\r\nHost: x\r\nContent-Length: {HELD + 1}\r\n"
    other.sendall(f"{head}Content-Type: image/png\r\n\r\n".encode() + bytes(HELD))
    return other


def ask(api: RunningApi, path: str, headers: dict[str, str], body: bytes) -> int:
    answer = api.http.post(path, content=body, headers=headers)
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    return answer.status_code


@pytest.mark.parametrize("name", MORE_THAN_THEIR_BODIES)
def test_what_a_body_becomes_counts_beside_it_until_the_answer(api: RunningApi, name: str) -> None:
    path, headers, body = MORE_THAN_THEIR_BODIES[name]
    with others_hold(api):
        assert HELD + len(body) < MOST
        assert ask(api, path, headers, body) == 503
    for _ in range(4):  # if it were kept, the second would find no room
        assert ask(api, path, headers, body) in (200, 400, 415)


def test_body_as_it_is_counts_once(api: RunningApi) -> None:
    with others_hold(api):
        assert ask(api, "/v1/classify?model=compass", {"Content-Type": "image/png"}, IMAGE) == 415
        assert ask(api, INFER, {}, IMAGE) == 400


def test_refusal_for_bytes_is_counted_for_the_model_and_the_route(api: RunningApi) -> None:
    path, headers = "/v1/classify?model=compass", {"Content-Type": "image/png"}
    assert ask(api, path, headers, IMAGE) == 415  # the model was looked up
    with others_hold(api):
        assert ask(api, path, headers, bytes(HELD)) == 503
    told = Exposed.of(api.http)
    refused = told.value("fovea_http_requests_total", route="/v1/classify", status="503", method="POST")
    assert refused >= 1
    assert told.value("fovea_predictions_total", model="compass", version="1", outcome="rejected") == refused


def test_request_that_never_fits_is_not_told_to_come_again(api: RunningApi) -> None:
    body = json.dumps({"images": [{"base64": base64.b64encode(bytes(50_000)).decode()}]}).encode()
    answer = api.http.post("/v1/classify?model=compass", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "100000 bytes of memory" in answer.json()["detail"]


def test_bytes_are_given_back_by_the_request_that_took_them() -> None:
    pending = PendingBytes(100)
    one, other = HeldBytes(pending), HeldBytes(pending)
    one.take(60)
    with pytest.raises(EngineFull, match="110 bytes are pending"):
        other.take(50)
    other.leave()
    assert pending.pending == 60
    one.take(40)
    one.leave()
    one.take(1000)  # by something that had not heard yet
    assert pending.pending == 0


def test_one_request_that_is_too_large_alone_is_not_called_full() -> None:
    pending = PendingBytes(100)
    held = HeldBytes(pending)
    with pytest.raises(BodyTooLarge, match="more than 100 bytes"):
        held.take(101)
    held.leave()
    pending.check(100)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/classify?model=compass", "body_too_slow"),
        (INFER, "408"),
        ("/predictions/compass", "408"),
        (INDEX, "408"),
    ],
)
def test_body_that_does_not_come_is_given_up_and_leaves_its_room(start_api: StartApi, path: str, code: str) -> None:
    api = start_api(max_body_bytes=80_000, max_pending_bytes=MOST, body_timeout_s=0.5)
    publish_compass(api.services.registry)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {HELD + 1}\r\nContent-Type: image/png\r\n\r\n".encode()
    stalled = [socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S) for _ in range(2)]
    for client in stalled:
        client.sendall(head + bytes(HELD))
    answers = [client.recv(65536) for client in stalled]
    assert {answer.split()[1] for answer in answers} <= {b"408", b"503"}
    slow = next(answer for answer in answers if answer.split()[1] == b"408")
    assert code.encode() in slow
    assert b"within 0.5 s" in slow or b"within 0.5 s" in stalled[answers.index(slow)].recv(65536)
    assert ask(api, "/v1/classify?model=compass", {"Content-Type": "image/png"}, bytes(HELD)) == 415
    for client in stalled:
        client.close()


def test_body_that_goes_to_the_disk_may_take_its_time(start_api: StartApi) -> None:
    api = start_api(body_timeout_s=0.2)
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\nno archive\r\n--x--\r\n'

    def begin(path: str, kind: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_S)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(form)}\r\n\r\n"
        client.sendall(head.encode() + form[:-1])
        return client

    upload = begin("/v1/datasets", "multipart/form-data; boundary=x")
    picture = begin("/v1/classify?model=compass", "image/png")
    with upload, picture:
        assert picture.recv(65536).split()[1] == b"408"  # the time of both is over
        upload.sendall(form[-1:])
        assert upload.recv(65536).split()[1] not in (b"408", b"503")
