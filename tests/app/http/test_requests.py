"""What holds for every request: ids, limits while the body comes in, and one shape of errors."""

from __future__ import annotations

import json
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.schemas.problem import Problem
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until
from workers.log_lines import JsonLines


def problem_of(answer: httpx.Response) -> Problem:
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert problem.status == answer.status_code
    assert problem.request_id == answer.headers["X-Request-ID"]
    assert problem.type == f"urn:fovea:problem:{problem.code}"
    return problem


def test_request_id_that_was_sent_comes_back(compass: RunningApi) -> None:
    answer = compass.http.get("/healthz", headers={"X-Request-ID": "abc-1.2:3"})
    assert answer.headers["X-Request-ID"] == "abc-1.2:3"


@pytest.mark.parametrize("sent", [None, "with space", "x" * 200, "a\tb"])
def test_request_id_is_made_where_none_can_be_echoed(compass: RunningApi, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    made = compass.http.get("/healthz", headers=headers).headers["X-Request-ID"]
    assert made != sent
    assert len(made) == 32


def test_unknown_route_is_a_problem(compass: RunningApi) -> None:
    problem = problem_of(compass.http.get("/v1/nothing/%00/here"))
    assert (problem.status, problem.code, problem.instance) == (404, "unknown_route", "/v1/nothing/%00/here")


def test_wrong_method_is_a_problem_that_says_which_are_right(compass: RunningApi) -> None:
    answer = compass.http.patch("/v1/models/compass")
    assert (problem_of(answer).code, answer.headers["Allow"]) == ("method_not_allowed", "GET, HEAD")


def test_unexpected_error_tells_the_client_only_its_id(api: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    def explode(*_: Any) -> None:
        msg = "secret path /srv/data"
        raise RuntimeError(msg)

    api.services.registry.names = explode  # type: ignore[method-assign, assignment]
    problem = problem_of(api.http.get("/v1/models"))
    assert (problem.status, problem.code) == (500, "internal_error")
    assert "secret" not in problem.model_dump_json()
    (record,) = [record for record in caplog.records if record.name == "fovea.errors"]
    assert problem.request_id in record.getMessage()
    assert record.exc_info is not None


def test_access_log_has_a_line_with_the_id(compass: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fovea.access"):
        compass.http.get("/v1/models/no%0Asuch", headers={"X-Request-ID": "line-1"})
        # the line is written when the answer is out
        (record,) = wait_until(lambda: [line for line in caplog.records if getattr(line, "request_id", "") == "line-1"])
    assert record.getMessage().startswith("GET /v1/models/no%0Asuch 422 ")
    line = json.loads(JsonLines().format(record))
    assert (line["status"], line["path"], line["request_id"]) == (422, "/v1/models/no%0Asuch", "line-1")


def spooled_files(api: RunningApi) -> list[Path]:
    """What lies where uploads wait."""
    return [path for path in (api.home / "tmp").rglob("*") if path.is_file() and path.name != "lock"]


def read_answer(connection: socket.socket) -> tuple[int, Problem]:
    """The status and problem that come back, with the connection closed by the server behind them."""
    connection.settimeout(PATIENCE_S)
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), Problem.model_validate_json(body)


def test_body_that_says_it_is_too_large_is_refused_before_it_comes(start_api: StartApi) -> None:
    api = start_api(max_body_bytes=10_000)
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(
            b"POST /v1/classify?model=x HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 10001\r\n\r\n"
        )
        status, problem = read_answer(connection)
    assert (status, problem.code) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/v1/classify?model=x", "/v1/jobs", "/v1/datasets", "/v1/models/x/versions"])
def test_body_without_a_length_is_refused_while_it_streams(start_api: StartApi, path: str) -> None:
    limits = {"max_body_bytes": 50_000, "max_upload_bytes": 50_000, "max_weights_bytes": 50_000}
    api = start_api(**limits)
    kind = "multipart/form-data; boundary=b" if "datasets" in path or "versions" in path else "application/json"
    field = "state_dict" if "versions" in path else "file"
    begin = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="f"\r\n\r\n'.encode()
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for piece in (begin, bytes(40_000), bytes(40_000)):  # no last chunk: the body never ends
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        status, problem = read_answer(connection)
    assert (status, problem.code) == (413, "body_too_large")
    assert spooled_files(api) == []


def test_body_just_within_the_limit_is_taken(start_api: StartApi) -> None:
    content = pictures.png()
    content += bytes(2000 - len(content))
    api = start_api(max_body_bytes=2000)
    publish_compass(api.services.registry)
    assert api.classify(content).status_code == 200
    assert problem_of(api.classify(content + b"\0")).code == "body_too_large"


def test_client_that_goes_away_in_mid_upload_leaves_nothing(api: RunningApi) -> None:
    connection = socket.create_connection(("127.0.0.1", api.port))
    connection.sendall(
        b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b'Content-Length: 9000000\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    )
    connection.sendall(bytes(2_000_000))
    wait_until(lambda: spooled_files(api))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_until(lambda: not spooled_files(api))
    assert api.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/classify?model=compass", "/predictions/compass", "/v1/datasets"])
def test_form_of_too_many_fields_is_refused_though_all_have_one_name(compass: RunningApi, path: str) -> None:
    field = b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    answer = compass.http.post(path, content=field * 65 + b"--B--\r\n", headers=headers)
    assert answer.status_code == 400
    assert "The form has more than 64 fields." in answer.text
