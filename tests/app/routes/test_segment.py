"""`POST /v1/segment`: run lengths, an indexed PNG or a drawing."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.schemas.segment import SegmentResponse
from models.masks.regions import decode_region
from models.predictions import RunLengths
from tests.app.finders import png
from tests.app.running_api import RunningApi
from tests.builders import exif_rotated
from tests.models.spotter import Rectangle

RED: Rectangle = ("red", 20, 30, 120, 90)
BLUE: Rectangle = ("blue", 200, 10, 260, 70)


def ask(api: RunningApi, content: bytes, *, accept: str = "*/*", **params: Any) -> httpx.Response:
    return api.http.post(
        "/v1/segment",
        params={"model": "painter", **params},
        content=content,
        headers={"Content-Type": "image/png", "Accept": accept},
    )


def prediction(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["predictions"]
    assert isinstance(found, dict)
    return found


def test_every_category_on_the_picture_has_its_share_and_mask(finders: RunningApi) -> None:
    answer = ask(finders, png(320, 160, RED, BLUE))

    background, red, blue = prediction(answer)["segments"]
    assert (background["label"], red["label"], blue["index"]) == ("__background__", "red", 2)
    assert red["share"] == pytest.approx(100 * 60 / (320 * 160), abs=1e-6)
    mask = decode_region(RunLengths(height=160, width=320, counts=red["mask"]["counts"]))
    assert mask[30:90, 20:120].all()
    assert mask.sum() == 100 * 60
    assert SegmentResponse.model_validate_json(answer.content).model.architecture == "fcn_resnet50"


def test_masks_are_those_of_the_upright_picture(finders: RunningApi) -> None:
    segments = prediction(ask(finders, exif_rotated(6, "PNG", width=320, height=160), categories="red"))["segments"]

    mask = decode_region(RunLengths(height=160, width=320, counts=segments[0]["mask"]["counts"]))
    assert mask[:80, :160].all()
    assert mask.sum() == 160 * 80


def test_map_comes_as_base64_in_json(finders: RunningApi) -> None:
    found = prediction(ask(finders, png(320, 160, RED, BLUE), masks="png", categories="red"))

    indices = np.asarray(Image.open(BytesIO(base64.b64decode(found["map_png"]))))
    assert (indices[60, 60], indices[5, 5], indices[40, 230]) == (1, 255, 255)
    assert "mask" not in found["segments"][0]


def test_map_is_the_answer_where_a_png_is_accepted(finders: RunningApi) -> None:
    answer = ask(finders, png(320, 160, RED, BLUE), masks="png", accept="image/png")

    indexed = Image.open(BytesIO(answer.content))
    assert (indexed.mode, indexed.size) == ("P", (320, 160))
    assert set(np.unique(np.asarray(indexed))) == {0, 1, 2}


def test_map_cannot_be_a_jpeg(finders: RunningApi) -> None:
    answer = ask(finders, png(320, 160, RED), masks="png", accept="image/jpeg")

    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_accept_asks_for_the_picture_in_the_categories_colours(finders: RunningApi, accept: str, kind: str) -> None:
    answer = ask(finders, png(320, 160, RED), accept=accept)

    drawn = Image.open(BytesIO(answer.content))
    assert (drawn.format, drawn.mode, drawn.size) == (kind, "RGB", (320, 160))


def test_picture_without_what_is_asked_for_has_no_segments(finders: RunningApi) -> None:
    assert prediction(ask(finders, png(320, 160), categories="red"))["segments"] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_picture_of_odd_size_is_answered(finders: RunningApi, size: tuple[int, int]) -> None:
    (red,) = prediction(ask(finders, png(*size, ("red", 0, 0, *size))))["segments"]

    assert (red["label"], red["share"]) == ("red", 1)
    assert ask(finders, png(*size), accept="image/png").status_code == 200


def test_bad_picture_among_good_ones_fails_alone(finders: RunningApi) -> None:
    files = [("image", ("a.png", png(320, 160, RED))), ("image", ("b.png", b"no image"))]

    answer = finders.http.post("/v1/segment", params={"model": "painter"}, files=files)

    good, bad = answer.json()["predictions"]
    assert len(good["segments"]) == 2
    assert (bad["error"]["code"], "segments" in bad) == ("not_an_image", False)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"categories": "green"}, 422, "unknown_category"),
        ({"masks": "polygon"}, 422, "invalid_request"),
        ({"score_threshold": 2}, 422, "invalid_request"),
        ({"model": "nothing"}, 404, "unknown_model"),
    ],
)
def test_what_makes_no_sense_is_refused(finders: RunningApi, params: dict[str, Any], status: int, code: str) -> None:
    answer = ask(finders, png(9, 9), **params)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
