"""`/v2` on the wire: JSON, binary tensors, and every kind of bad request in the protocol's own shape."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from app.engine.lane import Priority
from app.protocols.open_inference import request_body
from models.predictor import AnyPredictor
from models.predictors import loading
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.finders import png
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until

HEADER_LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/compass/infer"
LONG = 10**4200  # JSON may have it; two of them multiplied are too long for Python to write out


def image(**changes: Any) -> dict[str, Any]:
    """One encoded image as an input in JSON."""
    encoded = base64.b64encode(pictures.png()).decode()
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded], **changes}


def ask(api: RunningApi, *inputs: dict[str, Any], path: str = INFER, **members: Any) -> httpx.Response:
    return api.http.post(path, json={"inputs": list(inputs), **members})


def ask_binary(api: RunningApi, tensor: dict[str, Any], data: bytes, *, header: str | None = None) -> httpx.Response:
    tensor = {"parameters": {"binary_data_size": len(data)}, "name": "image", **tensor}
    text = json.dumps({"inputs": [tensor]}).encode()
    return api.http.post(INFER, content=text + data, headers={HEADER_LENGTH: header or str(len(text))})


def assert_refused(answer: httpx.Response, status: int, words: str) -> None:
    """The protocol's error, and nothing else, with these words in it."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert answer.status_code == status
    assert answer.headers["x-request-id"]


def best(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    scores = np.array(output["data"]).reshape(output["shape"])
    return [int(index) for index in scores.argmax(axis=1)]


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_encoded_image_is_base64_in_json(compass: RunningApi, shape: list[int]) -> None:
    answer = ask(compass, image(shape=shape), id="7")

    assert best(answer) == [0]
    assert (answer.json()["id"], answer.json()["model_name"], answer.json()["model_version"]) == ("7", "compass", "1")


def test_body_without_json_is_one_encoded_image(compass: RunningApi) -> None:
    answer = compass.http.post(INFER, content=pictures.jpeg(), headers={HEADER_LENGTH: "0"})

    assert best(answer) == [0]


def test_numbers_may_be_nested_or_flat(compass: RunningApi) -> None:
    levels = np.asarray(pictures.left_bright())[None]
    shape = list(levels.shape)

    nested = ask(compass, image(datatype="UINT8", shape=shape, data=levels.tolist()))
    flat = ask(compass, image(datatype="UINT8", shape=shape, data=levels.reshape(-1).tolist()))

    assert best(nested) == best(flat) == [0]


def test_numbers_may_be_nested_a_list_a_pixel(compass: RunningApi) -> None:
    levels = np.asarray(pictures.left_bright().resize((300, 300)))[None]

    assert best(ask(compass, image(datatype="UINT8", shape=list(levels.shape), data=levels.tolist()))) == [0]


@pytest.mark.parametrize(
    ("numbers", "is_even"),
    [
        ("[1, -2.5e-3]", True),
        ("[[1, 2],\n [3, 4]]", True),
        ("[[[1], [2]], [[3], [4]]]", True),
        ("[1, [2, 3]]", False),
        ("[[1, 2], [3]]", False),
        ("[[1, 2], 3]", False),
        ("[" * 9 + "1" + "]" * 9, False),
    ],
)
def test_evenly_nested_numbers_are_read_as_one_row(numbers: str, is_even: bool) -> None:
    text = f'{{"data" : {numbers}, "shape": [[2]]}}'

    read = json.loads(request_body._NUMBERS.sub(request_body._in_one_row, text.encode()))

    nested = json.loads(numbers)
    assert read == {"data": np.array(nested).reshape(-1).tolist() if is_even else nested, "shape": [[2]]}


def test_binary_answer_tells_where_its_json_ends(compass: RunningApi) -> None:
    answer = ask(compass, image(), parameters={"binary_data_output": True})

    length = int(answer.headers[HEADER_LENGTH])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert (output["shape"], output["parameters"]) == ([1, 2], {"binary_data_size": 8})
    assert np.frombuffer(answer.content[length:], "<f4").sum() == pytest.approx(1)


def test_output_in_json_among_binary_ones_stays_json(compass: RunningApi) -> None:
    wanted = {"name": "scores", "parameters": {"binary_data": False, "classification": 1}}

    answer = ask(compass, image(), parameters={"binary_data_output": True}, outputs=[wanted])

    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 1])
    assert output["data"][0].endswith(":0:left")
    assert HEADER_LENGTH not in answer.headers


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/compass/ready"])
def test_state_is_answered_with_200(compass: RunningApi, path: str) -> None:
    assert compass.http.get(path, follow_redirects=True).status_code == 200


def test_server_is_not_ready_while_it_preloads(start_api: StartApi) -> None:
    api = start_api()
    api.services.preloading.add("compass")

    assert api.http.get("/v2/health/ready").status_code == 400
    assert api.http.get("/ping").status_code == 500
    assert api.http.get("/v2/health/live").status_code == 200


def test_pretrained_weights_are_version_one(compass: RunningApi) -> None:
    metadata = compass.http.get("/v2/models/resnet18").json()
    config = compass.http.get("/v2/models/resnet18.IMAGENET1K_V1/versions/1/config").json()

    assert metadata["versions"] == ["1"]
    assert metadata["outputs"][0]["shape"] == [-1, 1000]
    assert "FP32 [-1, 3, 224, 224]" in metadata["inputs"][0]["parameters"]["also"]
    assert config["output"][0]["dims"] == [1000]
    assert_refused(compass.http.get("/v2/models/resnet18/versions/2"), 404, "no version 2")
    assert_refused(compass.http.post("/v2/repository/models/resnet18/load"), 503, "resnet18")  # the server is offline


@pytest.mark.parametrize("model", ["boxes", "painter"])
def test_metadata_says_what_comes_out(finders: RunningApi, model: str) -> None:
    answer = ask(finders, image(data=[base64.b64encode(png(60, 40)).decode()]), path=f"/v2/models/{model}/infer")

    described = {entry["name"]: entry for entry in finders.http.get(f"/v2/models/{model}").json()["outputs"]}
    answered = {entry["name"]: entry for entry in answer.json()["outputs"]}
    assert described.keys() == answered.keys()
    for name, entry in described.items():
        assert entry["datatype"] == answered[name]["datatype"]
        assert len(entry["shape"]) == len(answered[name]["shape"])
        assert all(said in (-1, is_now) for said, is_now in zip(entry["shape"], answered[name]["shape"], strict=True))
        assert entry["parameters"]["meaning"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "input"}, "has one input, 'image', and the request has 'input'"),
        ({"datatype": "INT8"}, "cannot have the datatype 'INT8'"),
        ({"shape": [2]}, "is of 2 elements, and 1 were sent"),
        ({"shape": []}, "holds no image"),
        ({"shape": [0], "data": []}, "holds no image"),
        ({"shape": [1, 2]}, "cannot have the shape [1, 2] as BYTES"),
        ({"shape": [-1]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"shape": [2**31]}, "inputs.0.shape.0: Input should be less than or equal to 2147483647"),
        ({"datatype": "UINT8", "shape": [1, LONG, LONG, 3]}, "inputs.0.shape.1: Input should be less than"),
        ({"shape": "x"}, "inputs.0.shape"),
        ({"data": ["§"]}, "must be base64 text"),
        ({"data": [7]}, "must be base64 text"),
        ({"data": None}, "needs its elements"),
        ({"parameters": {"binary_data_size": 0}}, "and not both"),
        ({"parameters": {"binary_data_size": 5}}, "have 5 bytes of binary data, and 0 follow"),
        ({"parameters": {"binary_data_size": LONG}}, "inputs.0.parameters.binary_data_size: Input should be less than"),
        ({"parameters": {"shared_memory_region": "r"}, "data": None}, "Shared memory is not served"),
        ({"datatype": "UINT8", "shape": [1, 2, 2]}, "cannot have the shape [1, 2, 2] as UINT8"),
        ({"datatype": "UINT8", "shape": [1, 2, 0, 3]}, "cannot have the shape [1, 2, 0, 3]"),
        ({"datatype": "UINT8", "shape": [1, 3, 8, 8]}, "It is BYTES [-1, 1] or UINT8 [-1, -1, -1, 3] or FP32"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2]}, "is of 3 elements, and 2 were sent"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": []}, "whole numbers from 0 to 255"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 256]}, "whole numbers from 0 to 255"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, -1]}, "whole numbers from 0 to 255"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 0.5]}, "whole numbers from 0 to 255"),
        ({"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, [2, 3]]}, "nested unevenly"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28], "data": ["a"]}, "are numbers"),
        ({"datatype": "FP32", "shape": [1, 3, 28, 28], "data": [0.5]}, "cannot have the shape [1, 3, 28, 28]"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28], "data": [0.5]}, "is of 784 elements, and 1 were sent"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28], "data": [1e9] * 784}, "from [-1.0] to [1.0]"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28], "data": [1e300] * 784}, "from [-1.0] to [1.0]"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28], "data": [float("inf")] * 784}, "from [-1.0] to [1.0]"),
    ],
)
def test_input_that_does_not_fit_is_refused(compass: RunningApi, changes: dict[str, Any], words: str) -> None:
    body = json.dumps({"inputs": [image(**changes)]})

    assert_refused(compass.http.post(INFER, content=body), 400, words)


@pytest.mark.parametrize(
    ("tensor", "data", "words"),
    [
        ({"datatype": "UINT8", "shape": [1, 2, 2, 3]}, b"\0" * 11, "has 12 bytes, and 11 were sent"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28]}, b"\0" * 784, "has 3136 bytes, and 784 were sent"),
        ({"datatype": "FP32", "shape": [1, 1, 28, 28]}, b"\xff" * 3136, "are not those of an image"),  # NaN
        ({"datatype": "BYTES", "shape": [1]}, b"\x05\0\0\0abcd", "ends 1 bytes behind the data"),
        ({"datatype": "BYTES", "shape": [1]}, b"\x05\0", "ends"),
        ({"datatype": "BYTES", "shape": [2]}, b"\x01\0\0\0a", "is of 2 elements, and 1 were sent"),
        ({"datatype": "BYTES", "shape": [1]}, b"\0" * 4000, "is of 1 elements, and 2 were sent"),
        ({"datatype": "BYTES", "shape": [1], "parameters": {}}, b"abc", "have 0 bytes of binary data, and 3 follow"),
        ({"datatype": "BYTES", "shape": [1]}, b"\x03\0\0\0abc", "The data is not an image"),
        ({"datatype": "BYTES", "shape": [1]}, b"\0\0\0\0", "The data is empty"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    compass: RunningApi, tensor: dict[str, Any], data: bytes, words: str
) -> None:
    assert_refused(ask_binary(compass, tensor, data), 400, words)


@pytest.mark.parametrize("header", ["-1", "x", "999999", "1.5", "٣", "1" * 5000])
def test_header_length_that_cannot_be_is_refused(compass: RunningApi, header: str) -> None:
    text = json.dumps({"inputs": [image()]}).encode()

    answer = compass.http.post(INFER, content=text, headers=[(HEADER_LENGTH.encode(), header.encode())])

    assert_refused(answer, 400, "and the body has")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "inputs: Field required"),
        (b"{", "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        pytest.param(b"[" * 50_000, "malformed", id="deep"),
        (b'{"inputs": []}', "and the request has none"),
        (b'{"inputs": 3}', "inputs"),
        (b'{"inputs": [{}]}', "inputs.0.name: Field required"),
        pytest.param(b"[" + b"0," * (2**22 + 1) + b"0]", "Send large tensors as binary data", id="long"),
        *(  # cut short: what is parsed first is malformed
            pytest.param(text * 70_000, "more than 65536 objects, lists and keys", id=text.decode())
            for text in (b"[", b"{", b'"":')
        ),
        pytest.param(b'{"inputs": [{"data": [' + b"[1],[]," * 40_000, "Write `data` flat", id="rows"),
    ],
)
def test_body_that_is_no_request_is_refused(compass: RunningApi, body: bytes, words: str) -> None:
    assert_refused(compass.http.post(INFER, content=body), 400, words)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"outputs": [{"name": "boxes"}]}, "It has scores"),
        ({"outputs": [{"name": "scores"}, {"name": "scores"}]}, "twice"),
        ({"outputs": [{"name": "scores", "parameters": {"classification": -1}}]}, "classification"),
        ({"outputs": [{"name": "scores", "parameters": {"shared_memory_region": "r"}}]}, "Shared memory"),
        ({"parameters": {"timeout": -1}}, "parameters.timeout"),
        ({"parameters": {"timeout": LONG}}, "parameters.timeout: Input should be less than"),
        ({"parameters": {"priority": "high"}}, "parameters.priority"),
        ({"parameters": {"priority": LONG}}, "parameters.priority: Input should be less than"),
        ({"outputs": [{"name": "scores", "parameters": {"classification": LONG}}]}, "classification: Input should be"),
        ({"parameters": {"score_threshold": 2}}, "parameters.score_threshold"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(compass: RunningApi, members: dict[str, Any], words: str) -> None:
    assert_refused(ask(compass, image(), **members), 400, words)


def test_two_inputs_are_one_too_many(compass: RunningApi) -> None:
    assert_refused(ask(compass, image(), image()), 400, "has one input")


def test_detector_takes_no_floats_and_gives_no_classifications(finders: RunningApi) -> None:
    floats = image(datatype="FP32", shape=[1, 3, 8, 8], data=[0.0] * 192)
    wanted = [{"name": "scores", "parameters": {"classification": 1}}]

    assert_refused(ask(finders, floats, path="/v2/models/boxes/infer"), 400, "does not accept FP32")
    assert_refused(ask(finders, image(), path="/v2/models/boxes/infer", outputs=wanted), 400, "Only `scores`")


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"no gzip", "is not gzip"),
        ("deflate", gzip.compress(b"{}"), "is not deflate"),
        ("gzip", gzip.compress(b"{}" * 99)[:-9], "ends before its gzip stream"),
        ("gzip", gzip.compress(b"{}") * 2, "behind its gzip stream"),
        ("br", b"{}", "one of gzip and deflate"),
    ],
    ids=["other bytes", "another packing", "cut", "doubled", "unknown"],  # a packed body has the time in it
)
def test_body_that_cannot_be_unpacked_is_refused(compass: RunningApi, encoding: str, body: bytes, words: str) -> None:
    answer = compass.http.post(INFER, content=body, headers={"Content-Encoding": encoding})

    assert_refused(answer, 400, words)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v2/models/nothing/infer", 404, "no model 'nothing'"),
        ("POST", "/v2/models/compass/versions/9/infer", 404, "no version 9"),
        ("POST", "/v2/models/compass/versions/one/infer", 404, "no version 'one'"),
        ("POST", "/v2/models/compass@gone/infer", 404, "no alias 'gone'"),
        ("GET", "/v2/models/compass%2F1/config", 404, "Nothing is at"),
        ("GET", "/v2/models/nothing", 404, "no model 'nothing'"),
        ("GET", "/v2/models/resnet18.NONE", 404, "no pretrained weights"),
        ("GET", "/v2/models/nothing/ready", 404, "no model 'nothing'"),
        ("GET", "/v2/models/nothing/stats", 404, "no model 'nothing'"),
        ("POST", "/v2/repository/models/nothing/load", 404, "no model 'nothing'"),
        ("POST", "/v2/repository/models/nothing/unload", 404, "no model 'nothing'"),
        ("GET", "/v2/repository/index", 405, "Allowed: POST"),
        ("GET", "/v2/systemsharedmemory/status", 404, "Nothing is at"),
        ("GET", "/v2/models/.%20./ready", 400, "cannot be a model name"),
    ],
)
def test_what_is_not_there_is_answered_in_the_protocols_shape(
    compass: RunningApi, method: str, path: str, status: int, words: str
) -> None:
    body = json.dumps({"inputs": [image()]}) if path.endswith("infer") else None

    assert_refused(compass.http.request(method, path, content=body), status, words)


def test_requests_above_the_limits_are_refused(start_api: StartApi) -> None:
    api = start_api(max_images_per_request=2, max_body_bytes=20_000, max_image_pixels=64 * 64, max_image_bytes=1024)
    publish_compass(api.services.registry)
    many = image(shape=[3], data=[""] * 3)
    large = {"datatype": "UINT8", "shape": [1, 65, 64, 3]}
    heavy = pictures.png() + b"\0" * 2000
    bomb = gzip.compress(b" " * 30_000)

    assert_refused(ask(api, many), 413, "the limit is 2")
    assert_refused(api.http.post(INFER, content=b" " * 30_000), 413, "20000 bytes")
    assert_refused(api.http.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"}), 413, "20000 bytes")
    assert_refused(ask_binary(api, large, b"\0" * 12_480), 413, "4,160 pixels")
    assert_refused(ask(api, image(data=[base64.b64encode(heavy).decode()])), 413, "the limit is 1024")


@pytest.mark.parametrize("path", ["index", "models/compass/load", "models/compass/unload"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_large_body_to_the_repository_is_refused(compass: RunningApi, path: str, encoding: str) -> None:
    body = b" " * 65_537
    if encoding == "gzip":
        body = gzip.compress(body)

    answer = compass.http.post(f"/v2/repository/{path}", content=body, headers={"Content-Encoding": encoding})

    assert_refused(answer, 413, "65536 bytes")


def test_label_maps_too_large_for_an_answer_are_refused(finders: RunningApi) -> None:
    files = [base64.b64encode(file).decode() for file in (png(3000, 1000), png(1000, 1000))]

    answer = ask(finders, image(shape=[2], data=files), path="/v2/models/painter/infer")

    assert_refused(answer, 400, "2 label maps of 3000 x 1000 pixels")


@contextmanager
def loading_held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it lasts no model gets loaded; yields what is set once one is asked for."""
    asked, go_on = threading.Event(), threading.Event()
    original = loading.load_version

    def from_version(*args: Any) -> AnyPredictor:
        asked.set()
        assert go_on.wait(PATIENCE_S)
        return original(*args)

    monkeypatch.setattr(loading, "load_version", from_version)
    try:
        yield asked
    finally:
        go_on.set()


def test_full_server_says_when_to_come_again(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api = start_api(max_images_per_request=1, max_pending_images=2)
    publish_compass(api.services.registry)
    with ThreadPoolExecutor(2) as pool:
        with loading_held_up(monkeypatch):
            first = [pool.submit(ask, api, image()) for _ in range(2)]
            wait_until(lambda: api.services.engine.pending_images == 2)
            by_v2 = ask(api, image())
            by_torchserve = api.http.post("/predictions/compass", content=pictures.png())

        assert [best(one.result()) for one in first] == [[0], [0]]
    assert_refused(by_v2, 503, "2 images are pending")
    assert int(by_v2.headers["retry-after"]) >= 1
    assert (by_torchserve.status_code, by_torchserve.json()["type"]) == (503, "ServiceUnavailableException")
    assert int(by_torchserve.headers["retry-after"]) >= 1


def test_timeout_of_a_request_is_kept(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    with ThreadPoolExecutor(1) as pool, loading_held_up(monkeypatch) as asked:
        patient = pool.submit(ask, api, image())
        assert asked.wait(PATIENCE_S)
        answer = ask(api, image(), parameters={"timeout": 200_000})

    assert_refused(answer, 503, "still being loaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert best(patient.result()) == [0]
    assert best(ask(api, image(), parameters={"timeout": 10**12})) == [0]


@pytest.mark.parametrize("path", [INFER, "/predictions/compass"])
@pytest.mark.parametrize(
    ("name", "value"), [("X-Request-Timeout", "-1"), ("X-Request-Timeout", "soon"), ("X-Priority", "vip")]
)
def test_header_that_makes_no_sense_is_refused(compass: RunningApi, path: str, name: str, value: str) -> None:
    answer = compass.http.post(path, content=pictures.png(), headers={name: value, HEADER_LENGTH: "0"})

    assert answer.status_code == 400
    assert name.lower() in answer.json().get("error", answer.json().get("message"))


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        (INFER, {}, (2.5, "bulk")),
        (INFER, {"timeout": 0, "priority": 0}, (2.5, "bulk")),
        (INFER, {"timeout": 7_000_000, "priority": 1}, (7.0, "interactive")),
        ("/predictions/compass", {}, (2.5, "bulk")),
    ],
)
def test_headers_tell_how_urgent_it_is_where_parameters_do_not(
    compass: RunningApi,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    parameters: dict[str, int],
    expected: tuple[float, str],
) -> None:
    predict = compass.services.engine.predict
    asked = []

    async def note(*args: Any, timeout_s: float, priority: Priority, **others: Any) -> Any:
        asked.append((timeout_s, priority))
        return await predict(*args, timeout_s=timeout_s, priority=priority, **others)

    monkeypatch.setattr(compass.services.engine, "predict", note)
    body = json.dumps({"inputs": [image()], "parameters": parameters}).encode() if path == INFER else pictures.png()

    answer = compass.http.post(path, content=body, headers={"X-Request-Timeout": "2.5", "X-Priority": "bulk"})

    assert answer.status_code == 200, answer.text
    assert asked == [expected]


def test_damaged_weights_are_named_and_others_go_on(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    damaged = publish_compass(api.services.registry, "damaged")
    damaged.state_dict_path.write_bytes(b"\0" * damaged.manifest.size_bytes)

    answer = ask(api, image(), path="/v2/models/damaged/infer")

    assert_refused(answer, answer.status_code, "have changed since they were published")
    assert answer.status_code >= 500
    assert best(ask(api, image())) == [0]


@pytest.mark.parametrize("asked", ["auto", "float32", None])
def test_precision_is_in_the_answer_and_can_be_insisted_on(
    compass: RunningApi, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    engine, heard = compass.services.engine, []
    predict = engine.predict

    async def listening(*arguments: Any, precision: Any, **options: Any) -> Any:
        heard.append(precision)
        return await predict(*arguments, precision=precision, **options)

    monkeypatch.setattr(engine, "predict", listening)
    answer = ask(compass, image(), parameters={} if asked is None else {"precision": asked})
    assert answer.json()["parameters"] == {"backend": "eager", "precision": "float32"}
    assert heard == [asked or "auto"]


def test_precision_that_cannot_be_insisted_on_is_refused(compass: RunningApi) -> None:
    assert_refused(ask(compass, image(), parameters={"precision": "int4"}), 400, "'auto' or 'float32'")


def test_model_that_could_not_be_loaded_is_not_ready_for_a_while(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.loaded_models._FAILED_FOR_S", 3600.0)
    api = start_api()
    damaged = publish_compass(api.services.registry)
    damaged.state_dict_path.write_bytes(b"\0" * damaged.manifest.size_bytes)
    assert api.http.get("/v2/models/compass/ready").status_code == 200

    assert ask(api, image()).status_code == 503

    assert api.http.get("/v2/models/compass/ready").status_code == 400
    (entry,) = api.http.post("/v2/repository/index").json()
    assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "it could not be loaded")
    (described,) = api.http.get("/models/compass").json()
    assert described["workers"][0]["status"] == "UNLOADED"


def test_model_that_may_be_loaded_again_is_ready(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.loaded_models._FAILED_FOR_S", 0.0)
    api = start_api()
    damaged = publish_compass(api.services.registry)
    damaged.state_dict_path.write_bytes(b"\0" * damaged.manifest.size_bytes)

    assert ask(api, image()).status_code == 503
    assert api.http.get("/v2/models/compass/ready").status_code == 200
