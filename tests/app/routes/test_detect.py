"""`POST /v1/detect`: boxes, masks and points in the pixels of the image that was sent; and everything refused."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.schemas.detect import DetectResponse
from models.architectures.catalog import build, get_architecture
from models.masks.regions import decode_region
from models.predictions import RunLengths
from models.store.weights import get_weights, weights_path
from tests.app.conftest import StartApi
from tests.app.finders import png
from tests.app.running_api import RunningApi
from tests.builders import encoded, exif_rotated, jpeg_bytes
from tests.models.spotter import Rectangle

RED: Rectangle = ("red", 20, 30, 120, 90)
BLUE: Rectangle = ("blue", 200, 10, 260, 70)


def ask(api: RunningApi, content: bytes, *, model: str = "boxes", accept: str = "*/*", **params: Any) -> httpx.Response:
    return api.http.post(
        "/v1/detect",
        params={"model": model, **params},
        content=content,
        headers={"Content-Type": "image/png", "Accept": accept},
    )


def detections(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    found: list[dict[str, Any]] = prediction["detections"]
    return found


def edges(found: dict[str, Any]) -> list[float]:
    return [found["box"][name] for name in ("x_min", "y_min", "x_max", "y_max")]


def test_objects_are_answered_with_their_boxes(finders: RunningApi) -> None:
    answer = ask(finders, png(320, 160, RED, BLUE))

    red, blue = detections(answer)
    assert (red["label"], red["index"], red["score"]) == ("red", 1, 0.9)
    assert edges(red) == [20, 30, 120, 90]
    assert (blue["label"], blue["index"]) == ("blue", 2)
    assert "mask" not in red
    body = DetectResponse.model_validate_json(answer.content)
    assert body.model.model_dump() == {
        "name": "boxes",
        "version": 1,
        "architecture": "fasterrcnn_resnet50_fpn",
        "backend": "eager",
        "precision": "float32",
    }
    assert (body.predictions[0].image.width, body.predictions[0].image.height) == (320, 160)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_picture(finders: RunningApi, orientation: int) -> None:
    picture = exif_rotated(orientation, "PNG", width=320, height=160)

    (red,) = detections(ask(finders, picture))

    assert edges(red) == pytest.approx([0, 0, 160, 80], abs=1)


def test_masks_are_run_lengths_of_the_whole_picture(finders: RunningApi) -> None:
    (red,) = detections(ask(finders, png(640, 320, RED), model="masks"))

    mask = decode_region(RunLengths(height=320, width=640, counts=red["mask"]["counts"]))
    assert red["mask"]["size"] == [320, 640]
    assert mask[32:88, 24:116].all()
    assert mask.sum() == pytest.approx(100 * 60, rel=0.07)


def test_polygons_come_instead_of_run_lengths_where_asked_for(finders: RunningApi) -> None:
    (red,) = detections(ask(finders, png(320, 160, RED), model="masks", masks="polygon"))

    (polygon,) = red["polygons"]
    assert (min(polygon[0::2]), max(polygon[0::2])) == (20, 120)
    assert "mask" not in red


def test_masks_can_be_left_out(finders: RunningApi) -> None:
    (red,) = detections(ask(finders, png(320, 160, RED), model="masks", masks="none"))
    assert "mask" not in red


def test_keypoints_are_answered_by_name(finders: RunningApi) -> None:
    (red,) = detections(ask(finders, png(320, 160, RED), model="points"))

    assert red["keypoints"] == [
        {"label": "upper left", "x": 20, "y": 30, "score": 5},
        {"label": "lower right", "x": 120, "y": 90, "score": 5},
    ]


@pytest.mark.parametrize(
    ("params", "labels"),
    [
        ({"score_threshold": 0.85}, ["red"]),
        ({"score_threshold": 1}, []),
        ({"max_detections": 1}, ["red"]),
        ({"categories": "blue"}, ["blue"]),
        ({"categories": ["blue", "red"]}, ["red", "blue"]),
    ],
)
def test_query_chooses_what_is_answered(finders: RunningApi, params: dict[str, Any], labels: list[str]) -> None:
    assert [found["label"] for found in detections(ask(finders, png(320, 160, RED, BLUE), **params))] == labels


def test_tiles_find_what_is_lost_when_the_picture_shrinks(finders: RunningApi) -> None:
    tiny: Rectangle = ("red", 1501, 703, 1505, 707)
    picture = png(1920, 1080, tiny)
    assert detections(ask(finders, picture)) == []

    (red,) = detections(ask(finders, picture, tile=160, overlap=0.1))

    assert edges(red) == pytest.approx([1501, 703, 1505, 707], abs=1)


def test_tiles_of_a_picture_turned_by_exif_lie_in_the_upright_one(finders: RunningApi) -> None:
    picture = exif_rotated(6, "PNG", width=400, height=200)

    (red,) = detections(ask(finders, picture, tile=150))

    assert edges(red) == pytest.approx([0, 0, 200, 100], abs=2)


def test_form_json_and_body_answer_alike(finders: RunningApi) -> None:
    content = png(320, 160, RED)
    body = {"images": [{"name": "a", "base64": base64.b64encode(content).decode()}]}

    by_form = finders.http.post("/v1/detect", params={"model": "boxes"}, files=[("image", ("a", content))])
    by_json = finders.http.post("/v1/detect", params={"model": "boxes"}, json=body)

    assert by_form.json()["predictions"] == by_json.json()["predictions"]
    assert detections(by_json) == detections(ask(finders, content))


def test_bad_picture_among_good_ones_fails_alone(finders: RunningApi) -> None:
    files = [("image", ("a.png", png(320, 160, RED))), ("image", ("b.png", b"no image")), ("image", ("c", png(9, 9)))]

    answer = finders.http.post("/v1/detect", params={"model": "boxes"}, files=files)

    good, bad, empty = answer.json()["predictions"]
    assert [found["label"] for found in good["detections"]] == ["red"]
    assert (bad["error"]["code"], "detections" in bad) == ("not_an_image", False)
    assert empty["detections"] == []


def test_picture_with_too_many_tiles_fails_alone(finders: RunningApi) -> None:
    files = [("image", ("a.png", png(320, 160, RED))), ("image", ("b.png", png(3800, 1000)))]

    answer = finders.http.post("/v1/detect", params={"model": "boxes", "tile": 64, "overlap": 0.5}, files=files)

    good, bad = answer.json()["predictions"]
    assert [found["label"] for found in good["detections"]] == ["red"]
    assert bad["error"]["code"] == "too_many_tiles"
    assert "larger tiles" in bad["error"]["hint"]


def test_tiles_of_all_pictures_count_against_the_queue(finders: RunningApi) -> None:
    files = [("image", (str(number), png(1900, 1000))) for number in range(2)]

    answer = finders.http.post("/v1/detect", params={"model": "boxes", "tile": 150, "overlap": 0.2}, files=files)

    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_tiles")


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_accept_asks_for_the_picture_with_its_objects(finders: RunningApi, accept: str, kind: str) -> None:
    answer = ask(finders, png(320, 160, RED), model="masks", accept=accept)

    assert answer.status_code == 200, answer.text
    drawn = Image.open(BytesIO(answer.content))
    assert (drawn.format, drawn.size) == (kind, (320, 160))
    pixels = np.asarray(drawn.convert("RGB")).astype(int)
    assert abs(pixels[60, 70] - (255, 0, 0)).sum() > 60  # the mask's tint
    assert abs(pixels[150, 300] - 128).sum() < 12  # nothing there


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("params", [{}, {"tile": 64}])
def test_picture_of_odd_size_is_answered(finders: RunningApi, size: tuple[int, int], params: dict[str, Any]) -> None:
    picture = png(*size, ("red", 0, 0, *size))

    assert detections(ask(finders, picture, model="masks", **params))
    assert ask(finders, picture, accept="image/png", **params).status_code == 200


@pytest.mark.parametrize(
    ("params", "field", "valid"),
    [
        ({"score_threshold": -0.1}, "score_threshold", "a finite number, from 0 to 1"),
        ({"score_threshold": "nan"}, "score_threshold", "a finite number, from 0 to 1"),
        ({"iou_threshold": 1.5}, "iou_threshold", "a finite number, from 0 to 1"),
        ({"max_detections": 0}, "max_detections", "a whole number, from 1 to 10000"),
        ({"masks": "bitmap"}, "masks", "'rle', 'polygon', 'none', or null"),
        ({"tile": 1}, "tile", "a whole number, from 64 to 8192, or null"),
        ({"tile": 640, "overlap": 1}, "overlap", "a finite number, from 0 to 0.8, or null"),
        ({"overlap": 0.2}, "overlap", None),
    ],
)
def test_query_out_of_range_names_the_field_and_what_is_valid(
    finders: RunningApi, params: dict[str, Any], field: str, valid: str | None
) -> None:
    answer = ask(finders, png(9, 9), **params)

    assert answer.status_code == 422
    assert answer.json()["hint"]
    (error,) = answer.json()["errors"]
    assert (error["field"], error["where"], error["valid"] if valid else None) == (field, "query", valid)


@pytest.mark.parametrize(
    ("content", "params", "status", "code"),
    [
        (b"no image", {}, 415, "not_an_image"),
        (jpeg_bytes()[:200], {}, 422, "broken_image"),
        (png(2400, 2000), {}, 413, "image_too_large"),
        (png(9, 9), {"model": "nothing"}, 404, "unknown_model"),
        (png(9, 9), {"categories": "green"}, 422, "unknown_category"),
        (png(9, 9), {"masks": "rle"}, 422, "no_masks"),
        (png(9, 9), {"masks": "polygon"}, 422, "no_masks"),
        (png(3800, 1000), {"tile": 64, "overlap": 0.8}, 422, "too_many_tiles"),
        (png(9, 9), {"model": "fasterrcnn_resnet50_fpn"}, 503, "weights_unavailable"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    finders: RunningApi, content: bytes, params: dict[str, Any], status: int, code: str
) -> None:
    answer = ask(finders, content, **params)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
    assert finders.services.engine.pending_images == 0


@pytest.mark.parametrize("route", ["classify", "detect", "segment"])
@pytest.mark.parametrize(("model", "fits"), [("compass", "classify"), ("boxes", "detect"), ("painter", "segment")])
def test_model_is_only_asked_for_what_it_does(finders: RunningApi, route: str, model: str, fits: str) -> None:
    answer = finders.http.post(f"/v1/{route}", params={"model": model}, content=png(40, 30), headers=IMAGE)

    if route == fits:
        assert answer.status_code == 200, answer.text
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_task")
        assert f"/v1/{fits}" in answer.json()["hint"]


IMAGE = {"Content-Type": "image/png"}


def test_pretrained_detector_serves_from_its_weights_file(start_api: StartApi, tmp_path: Path) -> None:
    api = start_api()
    architecture = get_architecture("ssdlite320_mobilenet_v3_large")
    entry = get_weights(architecture, "DEFAULT")
    path = weights_path(entry, api.home / "weights")
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    module = build(architecture.name, num_categories=len(architecture.categories))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("head.classification_head") and parameter.shape == (6 * 91,):
                parameter.view(6, 91)[:, 18] += 6.0  # untrained, it shall be sure of something: dogs
    torch.save(module.state_dict(), path)

    answer = ask(api, jpeg_bytes(200, 150), model=architecture.name, score_threshold=0.1, max_detections=7)

    found = detections(answer)
    assert 0 < len(found) <= 7
    assert {one["label"] for one in found} == {"dog"}
    assert all(0 <= edges(one)[0] < edges(one)[2] <= 200 and 0 <= edges(one)[1] < edges(one)[3] <= 150 for one in found)
    assert answer.json()["model"]["version"] is None


def test_jpeg_and_its_png_twin_are_answered_alike(finders: RunningApi) -> None:
    picture = Image.open(BytesIO(png(320, 160, RED)))

    (of_jpeg,) = detections(ask(finders, encoded(picture, "JPEG", quality=100, subsampling=0)))

    assert edges(of_jpeg) == [20, 30, 120, 90]
