"""TorchServe's inference API and what of its management API looks, in TorchServe's shapes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.finders import png
from tests.app.running_api import RunningApi
from tests.models.spotter import Rectangle

RED: Rectangle = ("red", 20, 30, 120, 90)
BLUE: Rectangle = ("blue", 200, 10, 260, 70)


def assert_refused(answer: httpx.Response, status: int, kind: str, words: str = "") -> None:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert list(error) == ["code", "type", "message"]
    assert (answer.status_code, error["code"], error["type"]) == (status, status, kind)
    assert words in error["message"]


@pytest.mark.parametrize("method", ["POST", "PUT"])  # curl -T puts
@pytest.mark.parametrize("path", ["/predictions/compass", "/predictions/compass/1", "/predictions/compass/1.0"])
@pytest.mark.parametrize("content_type", [None, "image/png", "application/x-www-form-urlencoded"])
def test_raw_body_is_classified_in_labels(
    compass: RunningApi, method: str, path: str, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    answer = compass.http.request(method, path, content=pictures.png(), headers=headers)

    assert answer.status_code == 200
    scores = answer.json()
    assert list(scores) == ["left", "right"]
    assert scores["left"] + scores["right"] == pytest.approx(1, abs=1e-6)
    (by_v1,) = compass.classify(pictures.png()).json()["predictions"]
    assert scores["left"] == pytest.approx(by_v1["classes"][0]["score"], abs=1e-6)


@pytest.mark.parametrize("field", ["data", "body"])
def test_form_with_a_picture_is_answered_like_the_raw_body(compass: RunningApi, field: str) -> None:
    raw = compass.http.post("/predictions/compass", content=pictures.png()).json()

    answer = compass.http.post("/predictions/compass", files={field: ("left.png", pictures.png())})

    assert answer.json() == pytest.approx(raw, abs=1e-6)


def test_form_with_several_pictures_is_answered_with_a_list(compass: RunningApi) -> None:
    mirrored = pictures.encoded(pictures.left_bright().rotate(180))
    files = [("data", ("a.png", pictures.png())), ("data", ("b.png", mirrored))]

    first, second = compass.http.post("/predictions/compass", files=files).json()

    assert (next(iter(first)), next(iter(second))) == ("left", "right")


def test_objects_are_boxes_by_label(finders: RunningApi) -> None:
    red, blue = finders.http.post("/predictions/boxes", content=png(320, 160, RED, BLUE)).json()

    assert red == {"red": pytest.approx(list(RED[1:]), abs=1), "score": pytest.approx(0.9)}
    assert list(blue) == ["blue", "score"]
    assert finders.http.post("/predictions/boxes", content=png(320, 160)).json() == []


def test_segmentation_is_refused_with_the_way_out(finders: RunningApi) -> None:
    answer = finders.http.post("/predictions/painter", content=png(9, 9))

    assert_refused(answer, 400, "BadRequestException", "/v1/segment?model=painter")


def test_ping_is_healthy(compass: RunningApi) -> None:
    answer = compass.http.get("/ping")

    assert (answer.status_code, answer.json()) == (200, {"status": "Healthy"})


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/predictions/nothing", 404, "ModelNotFoundException"),
        ("POST", "/predictions/compass/9", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/compass/new", 404, "ModelVersionNotFoundException"),
        ("POST", "/predictions/compass/1/2", 404, "ResourceNotFoundException"),
        ("GET", "/predictions/compass", 405, "MethodNotAllowedException"),
        ("POST", "/predictions/.%20.", 400, "BadRequestException"),
        ("GET", "/models/nothing", 404, "ModelNotFoundException"),
        ("GET", "/models/nothing/all", 404, "ModelNotFoundException"),
        ("GET", "/models/compass/9", 404, "ModelVersionNotFoundException"),
        ("GET", "/models?limit=0", 400, "BadRequestException"),
        ("GET", "/models?next_page_token=x", 400, "BadRequestException"),
        ("POST", "/models", 405, "MethodNotAllowedException"),
        ("DELETE", "/models/compass/1", 405, "MethodNotAllowedException"),
    ],
)
def test_what_cannot_be_had_is_answered_in_torchserves_shape(
    compass: RunningApi, method: str, path: str, status: int, kind: str
) -> None:
    content = pictures.png() if method == "POST" else None

    assert_refused(compass.http.request(method, path, content=content), status, kind)


@pytest.mark.parametrize(
    ("request_parts", "words"),
    [
        ({"content": b""}, "The data is empty"),
        ({"content": b"no image"}, "not an image in a format"),
        ({"content": pictures.png()[:60]}, "damaged"),
        ({"files": {"image": ("a.png", b"x")}}, "a file in the field 'image'. Files go into 'body' or 'data'."),
        ({"files": {"note": (None, b"x")}}, "no file in the field 'data' or 'body'. The form has: note."),
        ({"files": [("data", ("a", pictures.png())), ("data", ("b", b"x"))]}, "Image 2 of 2"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "boundary"),
    ],
    ids=["empty", "no image", "cut", "other field", "no file", "second of two", "no boundary"],
)
def test_picture_that_cannot_be_used_is_a_bad_request(
    compass: RunningApi, request_parts: dict[str, Any], words: str
) -> None:
    answer = compass.http.post("/predictions/compass", **request_parts)

    assert_refused(answer, 400, "BadRequestException", words)


def test_requests_above_the_limits_are_refused(start_api: StartApi) -> None:
    api = start_api(max_images_per_request=2, max_body_bytes=2048)
    publish_compass(api.services.registry)

    too_many = api.http.post("/predictions/compass", files=[("data", ("a", b"x"))] * 3)
    too_large = api.http.post("/predictions/compass", content=b"x" * 4096)

    assert_refused(too_many, 413, "BadRequestException", "more than 2 images")
    assert_refused(too_large, 413, "BadRequestException", "2048 bytes")


def test_models_are_listed_page_by_page(start_api: StartApi) -> None:
    api = start_api()
    for name in ("a", "b", "c"):
        publish_compass(api.services.registry, name)

    first = api.http.get("/models", params={"limit": 2}).json()
    rest = api.http.get("/models", params={"limit": 2, "next_page_token": first["nextPageToken"]}).json()

    assert [entry["modelName"] for entry in first["models"]] == ["a", "b"]
    assert rest == {"models": [{"modelName": "c", "modelUrl": "c"}]}


def test_model_describes_its_versions(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    publish_compass(api.services.registry)
    api.http.post("/predictions/compass", content=pictures.png())

    (production,) = api.http.get("/models/compass").json()
    (first,) = api.http.get("/models/compass/1").json()
    every = api.http.get("/models/compass/all").json()

    assert (production["modelName"], production["modelVersion"]) == ("compass", "2")
    assert production["jobQueueStatus"] == {"remainingCapacity": 256, "pendingRequests": 0}
    assert production["workers"][0]["memoryUsage"] > first["workers"][0]["memoryUsage"] == 0
    assert [worker["status"] for entry in every for worker in entry["workers"]] == ["READY", "READY"]
    assert every == [first, production]
