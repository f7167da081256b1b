"""Bodies that a client packed are read on every route, within the limits of bodies that are not."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest
from safetensors.torch import save as save_safetensors
from starlette.types import Message

from app.errors import BodyTooLarge, MalformedBody
from app.http.content_encoding import PIECE_BYTES, unpacking_receive
from tests.app.archives import image_folder_zip
from tests.app.compass import compass_weights, publish_compass
from tests.app.conftest import StartApi
from tests.app.http.test_requests import problem_of, spooled_files
from tests.app.pictures import png
from tests.app.raw_client import raw_client
from tests.app.routes.test_jobs import SMALL
from tests.app.routes.test_models import MANIFEST
from tests.app.running_api import RunningApi

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "X-GZIP": gzip.compress, "deflate": zlib.compress}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=B"}
LIMIT = 60_000


def form(file_field: str, content: bytes, **fields: str) -> bytes:
    parts = [f'--B\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n' for key, text in fields.items()]
    head = f'--B\r\nContent-Disposition: form-data; name="{file_field}"; filename="f"\r\n\r\n'
    return "".join([*parts, head]).encode() + content + b"\r\n--B--\r\n"


REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "image": ("POST", "/v1/classify?model=compass", {"Content-Type": "image/png"}, png()),
    "form": ("POST", "/v1/classify?model=compass", FORM, form("image", png())),
    "torchserve": ("POST", "/predictions/compass", {}, png()),
    "infer": ("POST", "/v2/models/compass/infer", {"Inference-Header-Content-Length": "0"}, png()),
    "index": ("POST", "/v2/repository/index", {}, b'{"ready": false}'),
    "job": ("POST", "/v1/jobs", JSON, json.dumps({**SMALL, "dry_run": True}).encode()),
    "alias": ("PUT", "/v1/models/compass/aliases/packed", JSON, b'{"version": 1}'),
    "dataset": ("POST", "/v1/datasets", FORM, form("file", image_folder_zip(), name="packed")),
    "weights": (
        "POST",
        "/v1/models/packed/versions",
        FORM,
        form("state_dict", save_safetensors(compass_weights()), manifest=json.dumps(MANIFEST)),
    ),
}


def ask(api: RunningApi, name: str, body: bytes, encoding: str) -> httpx.Response:
    method, path, headers, _ = REQUESTS[name]
    return api.http.request(method, path, content=body, headers={**headers, "Content-Encoding": encoding})


def answer_of(response: httpx.Response) -> Any:
    """The answer without what the clock decides."""
    answer = response.json()
    if isinstance(answer, dict):
        for name in ("timing_ms", "parameters"):
            answer.pop(name, None)
    return answer


@pytest.fixture
def small(start_api: StartApi) -> RunningApi:
    """An API with a model and small limits."""
    return start_api(max_body_bytes=LIMIT, max_pending_bytes=LIMIT, max_upload_bytes=LIMIT, max_weights_bytes=LIMIT)


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - {"alias", "dataset", "weights"}))
def test_packed_body_is_answered_like_the_same_body(compass: RunningApi, name: str) -> None:
    body = REQUESTS[name][3]
    plain = ask(compass, name, body, "identity")
    assert plain.status_code == 200, plain.text
    for encoding, pack in PACK.items():
        packed = ask(compass, name, pack(body), encoding)
        assert packed.status_code == 200, packed.text
        assert answer_of(packed) == answer_of(plain)


@pytest.mark.parametrize(("name", "status"), [("dataset", 201), ("weights", 201), ("alias", 200)])
def test_packed_body_makes_something(api: RunningApi, name: str, status: int) -> None:
    publish_compass(api.services.registry)
    method, path, headers, body = REQUESTS[name]
    without_a_length = iter([gzip.compress(body)])
    answer = api.http.request(method, path, content=without_a_length, headers={**headers, "Content-Encoding": "gzip"})
    assert answer.status_code == status, answer.text
    assert spooled_files(api) == []


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, br", "compress"])
def test_other_encoding_is_refused_by_name_with_those_that_are_read(
    compass: RunningApi, name: str, encoding: str
) -> None:
    answer = ask(compass, name, REQUESTS[name][3], encoding)
    assert answer.status_code == (400 if REQUESTS[name][1].startswith(("/v2", "/predictions")) else 415)
    assert f"Content-Encoding '{encoding}'" in answer.text
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("name", REQUESTS)
def test_body_that_is_not_what_its_encoding_says_is_refused(compass: RunningApi, name: str) -> None:
    body = REQUESTS[name][3]
    packed = gzip.compress(body)
    broken = packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:]  # the checksum
    for content, words in (
        (body, "is not gzip"),
        (packed[:-1], "ends before its gzip stream"),
        (packed[: len(packed) // 2], "ends before its gzip stream"),
        (packed + b"\0", "more bytes behind its gzip stream"),
        (packed + packed, "more bytes behind its gzip stream"),
        (broken, "is not gzip"),
    ):
        answer = ask(compass, name, content, "gzip")
        assert answer.status_code == 400, (words, answer.text)
        assert words in answer.text
    assert spooled_files(compass) == []


@pytest.mark.parametrize("name", REQUESTS)
def test_bomb_is_refused(small: RunningApi, name: str) -> None:
    bomb = gzip.compress(bytes(LIMIT * 100))
    assert len(bomb) < LIMIT
    for _ in range(3):  # what a refused one held is given back
        answer = ask(small, name, bomb, "gzip")
        assert answer.status_code == 413, answer.text
        assert f"{LIMIT} bytes" in answer.text
    assert spooled_files(small) == []


def test_unpacked_body_just_within_the_limit_is_taken(small: RunningApi) -> None:
    publish_compass(small.services.registry)
    for count, code in ((LIMIT, "not_an_image"), (LIMIT + 1, "body_too_large")):
        assert problem_of(ask(small, "image", gzip.compress(bytes(count)), "gzip")).code == code


def test_connection_is_kept_behind_a_body_that_was_refused(compass: RunningApi) -> None:
    head = b"POST /v1/classify?model=compass HTTP/1.1\r\nHost: x\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    with raw_client(compass) as client:
        for encoding, body in ((b"br", b"x" * 99), (b"gzip", b"x" * 99), (b"gzip", gzip.compress(b"x")[:-1])):
            client.send(head % (encoding, len(body)) + body)
            assert client.head().split()[1] in (b"400", b"415")


def test_request_without_a_body_may_name_an_encoding(compass: RunningApi) -> None:
    headers = {"Content-Encoding": "gzip"}
    assert compass.http.get("/healthz", headers=headers).status_code == 200
    assert compass.http.get("/v1/models/compass/versions/1/state_dict", headers=headers).status_code == 200
    assert compass.http.post("/v2/repository/index", headers=headers).status_code == 200


def received(pieces: Iterable[bytes], encoding: str = "gzip", limit_bytes: int = 2**40) -> list[bytes]:
    """What is unpacked of a body that arrives in these pieces."""
    messages = iter([{"type": "http.request", "body": piece, "more_body": True} for piece in pieces])

    async def receive() -> Message:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    async def read() -> list[bytes]:
        scope: dict[str, Any] = {"type": "http", "headers": [(b"content-encoding", encoding.encode())]}
        unpacked = unpacking_receive(scope, receive, limit_bytes)
        found = []
        while (message := await unpacked())["more_body"]:
            found.append(message["body"])
        return [*found, message["body"]]

    return asyncio.run(read())


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_pieces_of_any_size_are_unpacked_to_the_same_body(size: int, fill: str) -> None:
    body = bytes(size) if fill == "zeros" else random.Random(size).randbytes(size)
    packed = gzip.compress(body, compresslevel=1)
    for step in (max(1, len(packed) // 1000), len(packed) - 1 or 1, len(packed)):
        found = received(packed[at : at + step] for at in range(0, len(packed), step))
        assert b"".join(found) == body
        assert max(map(len, found)) <= PIECE_BYTES


def test_stream_of_nothing_has_an_end() -> None:
    head, empty_block = gzip.compress(b"")[:10], b"\0\0\0\xff\xff"
    pieces = [head, *[empty_block * 1000] * 100]
    with pytest.raises(BodyTooLarge, match="packed body is larger than 100000 bytes"):
        received(pieces, limit_bytes=100_000)
    with pytest.raises(MalformedBody, match="ends before"):
        received(pieces)
