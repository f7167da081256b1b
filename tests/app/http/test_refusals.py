"""A full server refuses before it reads and before it routes: in every protocol's words, cheaply, and to be counted."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.http import protocol as http_protocol
from app.http import refusals
from app.http.protocol import BoundedHttpProtocol
from app.protocols.open_inference.infer import infer
from app.protocols.torchserve.predictions import predict
from app.routes.classify import classify
from app.routes.detect import detect
from app.routes.segment import segment
from app.schemas.problem import Problem
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.exposed import Exposed
from tests.app.http.test_requests import problem_of
from tests.app.raw_client import RawClient, raw_client
from tests.app.running_api import RunningApi
from tests.waiting import BRIEF_S, wait_until

PLACES = 8
PICTURE = pictures.png()
SMALL_BUFFER = 16 * 1024  # bytes: so a client that does not read its answers holds the server up soon


@pytest.fixture
def api_with_places(start_api: StartApi) -> RunningApi:
    """An API with one model, in memory."""
    api = start_api(max_pending_images=PLACES, max_images_per_request=PLACES // 2)
    publish_compass(api.services.registry)
    assert api.classify(PICTURE).status_code == 200
    return api


@pytest.fixture
def full(api_with_places: RunningApi) -> Iterator[RunningApi]:
    """The same, with every place taken."""
    admission = api_with_places.services.engine._admission
    admission.pending = PLACES
    yield api_with_places
    admission.pending = 0


def post(path: str, *, content_length: int, headers: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\nContent-Length: {content_length}\r\n"
        f"{headers}\r\n"
    ).encode()


@pytest.mark.parametrize("path", ["/v1/classify?model=compass", "/v1/detect", "/v1/segment?model=%00&model=x"])
def test_refusal_is_a_whole_problem(full: RunningApi, path: str) -> None:
    answer = full.http.post(path, content=PICTURE, headers={"X-Request-ID": "r-1", "Content-Type": "image/png"})
    problem = problem_of(answer)
    assert (problem.status, problem.code, problem.request_id) == (503, "engine_full", "r-1")
    assert problem.title == "Too many images are pending"
    assert problem.detail == "8 images are pending, and the limit is 8."
    assert problem.instance == path.partition("?")[0]
    assert problem.hint == f"Send them again in {answer.headers['Retry-After']} s."
    assert "total;dur=" in answer.headers["Server-Timing"]


def test_each_refusal_has_its_own_id_and_numbers(full: RunningApi) -> None:
    def refused(request_id: str, path: str = "/v1/classify?model=compass") -> Problem:
        problem = problem_of(full.http.post(path, content=PICTURE, headers={"X-Request-ID": request_id}))
        assert (problem.status, problem.request_id, problem.instance) == (503, request_id, path.partition("?")[0])
        return problem

    for request_id in ("1", "two", "a" * 128):
        assert refused(request_id).detail == "8 images are pending, and the limit is 8."
    full.services.engine._admission._view_s = 1.0
    answer = full.http.post("/v1/classify?model=compass", content=PICTURE)
    assert (answer.headers["Retry-After"], problem_of(answer).hint) == ("8", "Send them again in 8 s.")
    full.services.engine._admission.pending = 9
    assert refused("later").detail == "9 images are pending, and the limit is 8."
    assert refused("there", "/v1/detect").instance == "/v1/detect"
    own = [full.http.post("/v1/classify?model=compass", content=PICTURE) for _ in range(2)]
    ids = [problem_of(answer).request_id for answer in own]
    assert ids == [answer.headers["X-Request-ID"] for answer in own]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("path", ["/v2/models/compass/infer", "/v2/models/made%20up/versions/7/infer"])
def test_refusal_is_v2_s_error_there(full: RunningApi, path: str) -> None:
    answer = full.http.post(path, content=b"{}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() == {"error": "8 images are pending, and the limit is 8. Send them again in 1 s."}
    assert {"X-Request-ID", "Server-Timing"} <= {name.title().replace("Id", "ID") for name in answer.headers}


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/compass", "/predictions/compass/1"])
def test_refusal_is_torchserve_s_error_there(full: RunningApi, method: str, path: str) -> None:
    answer = full.http.request(method, path, content=PICTURE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    message = "8 images are pending, and the limit is 8. Send them again in 1 s."
    assert answer.json() == {"code": 503, "type": "ServiceUnavailableException", "message": message}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/classify?model=compass", 405),
        ("HEAD", "/v1/classify?model=compass", 405),
        ("GET", "/predictions/compass", 405),
        ("POST", "/predictions/a/b/c", 404),
        ("POST", "/predictions/", 404),
        ("POST", "/v2/models//infer", 404),
        ("HEAD", "/v2/models/compass/infer", 405),
        ("GET", "/v2/models/compass", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("POST", "/v2/repository/index", 200),
    ],
)
def test_what_predicts_nothing_is_answered_by_a_full_server_too(
    full: RunningApi, method: str, path: str, status: int
) -> None:
    assert full.http.request(method, path).status_code == status


def test_connection_goes_on_after_a_refusal_in_the_middle_of_a_body(full: RunningApi) -> None:
    with raw_client(full) as client:
        body = bytes(300_000)
        client.send(post("/v1/classify?model=compass", content_length=len(body)) + body[:1000])
        head = client.head()  # before the body has come
        assert head.startswith(b"http/1.1 503")
        assert b"connection: close" not in head
        client.send(body[1000:])
        full.services.engine._admission.pending = 0
        client.send(post("/v1/classify?model=compass", content_length=len(PICTURE)) + PICTURE)
        assert client.head().startswith(b"http/1.1 200")


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize("headers", ["", "Expect: 100-continue\r\n"])
def test_client_that_sends_much_or_asks_first_hears_the_answer_before_the_end(
    full: RunningApi, headers: str, size: int
) -> None:
    with raw_client(full) as client:
        body = b"" if headers else bytes(size)
        client.send(post("/v1/classify?model=compass", content_length=size, headers=headers) + body)
        head = client.head()
        assert head.startswith(b"http/1.1 503")
        assert b"\r\nserver: uvicorn\r\n" in head
        assert b"\r\ndate: " in head
        assert (b"connection: close" in head) == (bool(headers) or size > 1024**2)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""


def test_refusal_asks_nothing_of_routing_and_dependencies(full: RunningApi) -> None:
    asked: list[str] = []
    routes = full.app.router.app

    async def routing(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await routes(scope, receive, send)

    full.app.router.middleware_stack = routing
    assert full.http.post("/v1/classify?model=compass", content=PICTURE).status_code == 503
    assert full.http.get("/healthz").status_code == 200
    assert asked == ["/healthz"]


@pytest.mark.parametrize("count", [3, 3000])
def test_requests_sent_together_are_all_refused_in_their_order(full: RunningApi, count: int) -> None:
    with raw_client(full) as client:
        ask_first = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"  # what waits for its turn is refused then
        requests = (
            post("/v1/classify?model=compass", content_length=2, headers=f"X-Request-ID: n-{number}\r\n") + b"no"
            for number in range(count)
        )
        sending = threading.Thread(target=client.send, args=(ask_first + b"".join(requests) + ask_first,))
        sending.start()
        heads = [client.head() for _ in range(count + 2)]
        sending.join()
    assert heads[0].startswith(b"http/1.1 200")
    assert heads[-1].startswith(b"http/1.1 200")
    for number, head in enumerate(heads[1:-1]):
        assert head.startswith(b"http/1.1 503")
        assert f"x-request-id: n-{number}\r\n".encode() in head


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"], ids=["first", "behind"])
def test_nothing_is_begun_behind_a_refusal_that_ends_the_connection(
    full: RunningApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: bytes
) -> None:
    monkeypatch.setattr(refusals, "_LINGER_S", 1000.0)  # it is closed when the request has ended, not before
    path = "/v1/classify?model=compass"
    with (
        caplog.at_level(logging.DEBUG, "fovea.access"),
        raw_client(full) as client,
    ):
        unknown_length = post(path, content_length=0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        ask_on = b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Request-ID: behind\r\n\r\n"
        ask_on += post(path, content_length=0, headers="X-Request-ID: behind\r\n")
        client.send(before + unknown_length + b"2\r\nno\r\n0\r\n\r\n" + ask_on)
        data = client.rest()
    assert data.count(b"HTTP/1.1 503") == 1
    assert data.count(b"HTTP/1.1 ") == (2 if before else 1)
    assert b"connection: close" in data.lower()
    with caplog.at_level(logging.DEBUG, "fovea.access"):
        assert full.http.get("/healthz", headers={"X-Request-ID": "later"}).status_code == 200
        wait_until(lambda: any(getattr(line, "request_id", "") == "later" for line in caplog.records))
    assert not [line for line in caplog.records if getattr(line, "request_id", "") == "behind"]


def test_what_is_no_http_behind_a_refusal_gets_no_second_answer(full: RunningApi) -> None:
    with raw_client(full) as client:
        head = post("/v1/classify", content_length=0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        client.send(head + b"ZZ\r\n")
        assert client.rest().count(b"HTTP/1.1 ") == 1


def test_much_behind_other_requests_is_read_over_too(full: RunningApi) -> None:
    small, large = (post("/v1/classify?model=compass", content_length=size) + bytes(size) for size in (2, 30_000_000))
    with raw_client(full) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" + small + large)
        data = client.rest()
    assert [data.count(b"HTTP/1.1 %d" % status) for status in (200, 503)] == [1, 2]


@pytest.fixture
def short_keep_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are closed soon after an answer."""
    soon = property(lambda _: 0.2, lambda *_: None)
    monkeypatch.setattr(BoundedHttpProtocol, "timeout_keep_alive", soon, raising=False)


@pytest.mark.usefixtures("short_keep_alive")
def test_request_behind_a_refusal_is_not_cut_off_by_the_pause_between_requests(
    api_with_places: RunningApi,
) -> None:
    admission = api_with_places.services.engine._admission
    admission.pending = 6  # no room for bulk
    path = "/v1/classify?model=compass"
    with raw_client(api_with_places) as client:
        refused = post(path, content_length=0, headers="X-Priority: bulk\r\n")
        client.send(refused + post(path, content_length=len(PICTURE)))
        assert client.head().startswith(b"http/1.1 503")
        with raw_client(api_with_places) as other:
            for _ in range(2):  # by which time that pause is over
                other.send(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
                assert other.head().startswith(b"http/1.1 200")
            assert other.rest() == b""
        client.send(PICTURE)
        assert client.head().startswith(b"http/1.1 200")
    admission.pending = 0


@pytest.mark.usefixtures("short_keep_alive")
@pytest.mark.parametrize("rest", [b"", b"n", b"no"])
def test_connection_is_closed_some_time_after_a_refusal(
    full: RunningApi, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "READ_OVER_S", 0.3)
    with raw_client(full) as client:
        client.send(post("/v1/classify?model=compass", content_length=2))
        assert client.head().startswith(b"http/1.1 503")
        client.send(rest)
        assert client.rest() == b""


def test_client_that_leaves_without_its_answers_is_no_error(full: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    many = (post("/v1/classify?model=compass", content_length=2) + b"no") * 10
    for _ in range(4):
        with raw_client(full, buffer_bytes=SMALL_BUFFER) as client:
            client.socket.settimeout(BRIEF_S)
            with suppress(TimeoutError):
                send_until_blocked(client, many)
    assert full.http.get("/healthz").status_code == 200
    assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []


def test_client_of_http_1_0_is_told_that_the_connection_ends(full: RunningApi) -> None:
    with raw_client(full) as client:
        client.send(b"POST /v1/classify?model=compass HTTP/1.0\r\nContent-Length: 2\r\n\r\nno")
        assert b"connection: close" in client.head()
        assert client.rest() == b""


def test_who_takes_no_answers_is_not_read_for_ever(full: RunningApi) -> None:
    with raw_client(full, buffer_bytes=SMALL_BUFFER) as client:
        client.socket.settimeout(5 * BRIEF_S)
        many = (post("/v1/classify?model=compass", content_length=2) + b"no") * 10
        with pytest.raises(TimeoutError):
            send_until_blocked(client, many)


def send_until_blocked(client: RawClient, data: bytes, *, most_bytes: int = 100_000_000) -> None:
    """Sends the data again and again. Raises TimeoutError once the server takes nothing for the socket's time-out."""
    for _ in range(most_bytes // len(data)):
        client.socket.sendall(data)


def test_who_sends_on_after_a_refusal_is_cut_off(full: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_LINGER_S", 0.1)
    with raw_client(full) as client:
        client.send(post("/v1/classify?model=compass", content_length=5_000_000) + b"a")
        assert client.head().startswith(b"http/1.1 503")
        assert client.rest() == b""


def test_bulk_is_refused_while_there_is_room_for_others(api_with_places: RunningApi) -> None:
    admission = api_with_places.services.engine._admission
    admission.pending = 6  # three quarters
    headers = {"Content-Type": "image/png"}
    path = "/v1/classify?model=compass"
    refused = api_with_places.http.post(path, content=b"unread", headers={**headers, "X-Priority": "bulk"})
    taken = api_with_places.http.post(path, content=PICTURE, headers=headers)
    admission.pending = 0
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_full")
    assert taken.status_code == 200


@pytest.mark.parametrize(("timeout", "status"), [("5", 503), ("15", 200), (None, 200)])
def test_who_cannot_be_answered_in_time_is_refused_unread(
    api_with_places: RunningApi, timeout: str | None, status: int
) -> None:
    admission = api_with_places.services.engine._admission
    admission.pending, admission._view_s = 1, 10.0
    headers = {"Content-Type": "image/png"} | ({} if timeout is None else {"X-Request-Timeout": timeout})
    with raw_client(api_with_places) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name != "Content-Type")
        client.send(post("/v1/classify?model=compass", content_length=len(PICTURE), headers=lines))
        if status == 200:
            client.send(PICTURE)
        assert client.head().startswith(f"http/1.1 {status}".encode())
    admission.pending = 0


@pytest.mark.parametrize(
    ("header", "value", "valid"),
    [
        ("X-Priority", "urgent", "interactive or bulk"),
        ("X-Priority", "", "interactive or bulk"),
        ("X-Request-Timeout", "soon", "a number of seconds above 0"),
        ("X-Request-Timeout", "nan", "a number of seconds above 0"),
        ("X-Request-Timeout", "inf", "a number of seconds above 0"),
        ("X-Request-Timeout", "-1", "a number of seconds above 0"),
        ("X-Request-Timeout", "0", "a number of seconds above 0"),
    ],
)
def test_invalid_header_is_refused_unread(api_with_places: RunningApi, header: str, value: str, valid: str) -> None:
    with raw_client(api_with_places) as client:
        lines = f"{header}: {value}\r\n"
        client.send(post("/v1/classify?model=compass", content_length=len(PICTURE), headers=lines))
        head, body = client.answer()  # before the body is sent
        assert head.startswith(b"http/1.1 422")
        (error,) = Problem.model_validate_json(body).errors or ()
        assert (error.where, error.field, error.value, error.valid) == ("header", header.lower(), value, valid)
        client.send(PICTURE + post("/v1/classify?model=compass", content_length=len(PICTURE)) + PICTURE)
        assert client.head().startswith(b"http/1.1 200")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/classify?model=compass", "/v1/classify"),
        ("/v1/classify?model=ghost&model=compass", "/v1/classify"),
        ("/v2/models/compass/infer", "/v2/models/{model}/infer"),
        ("/v2/models/compass/versions/1/infer", "/v2/models/{model}/versions/{version}/infer"),
        ("/predictions/compass", "/predictions/{model}"),
        ("/predictions/compass/1", "/predictions/{model}/{version}"),
    ],
)
def test_refusal_is_counted_for_the_model_and_the_route(full: RunningApi, path: str, route: str) -> None:
    assert full.http.post(path, content=PICTURE).status_code == 503
    told = Exposed.of(full.http)
    assert told.value("fovea_predictions_total", model="compass", version="1", outcome="rejected") == 1
    assert told.value("fovea_http_requests_total", route=route, status="503", method="POST") == 1


def test_refusal_of_a_model_that_nobody_knows_makes_no_label(full: RunningApi) -> None:
    for path in ("/v1/classify?model=ghost", "/v1/classify", "/v2/models/ghost/infer", "/predictions/ghost/1"):
        assert full.http.post(path, content=PICTURE).status_code == 503
    assert Exposed.of(full.http).value("fovea_predictions_total", model="", version="", outcome="rejected") == 4
    assert "ghost" not in full.http.get("/metrics").text


def test_refusal_has_its_line_in_the_log(full: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fovea.access"):
        full.http.post("/v1/classify?model=compass", content=PICTURE, headers={"X-Request-ID": "full-1"})
        (line,) = wait_until(lambda: [line for line in caplog.records if getattr(line, "request_id", "") == "full-1"])
    assert line.getMessage().startswith("POST /v1/classify 503 ")
    assert vars(line)["client"] == "127.0.0.1"


def test_client_behind_a_proxy_is_named_in_the_line(full: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fovea.access"):
        headers = {"X-Request-ID": "full-2", "X-Forwarded-For": "203.0.113.9, 127.0.0.1"}
        full.http.post("/v1/classify?model=compass", content=PICTURE, headers=headers)
        (line,) = wait_until(lambda: [line for line in caplog.records if getattr(line, "request_id", "") == "full-2"])
    assert vars(line)["client"] == "203.0.113.9"


def test_routes_that_predict_are_known_and_no_others(full: RunningApi) -> None:
    refused = set()
    for route, method in _routes(full.app.routes):
        path = route.path_format.format(**dict.fromkeys(route.param_convertors, "7"))
        if method != "DELETE" and full.http.request(method, path).status_code == 503:
            refused.add(route.endpoint)
    assert refused == {classify, detect, segment, infer, predict}


def _routes(routes: Any) -> Iterator[tuple[APIRoute, str]]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((route, method) for method in route.methods or ())
        else:
            yield from _routes(getattr(getattr(route, "original_router", None), "routes", []))
