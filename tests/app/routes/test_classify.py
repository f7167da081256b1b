"""`POST /v1/classify`: every way to send an image, every kind of image, every way to choose the answer."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.schemas.classify import ClassifyResponse
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.http.test_requests import problem_of
from tests.app.running_api import RunningApi
from tests.fonts import write_font


def best(answer: httpx.Response) -> tuple[str, float]:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    first = prediction["classes"][0]
    return first["label"], first["score"]


def test_picture_as_the_body_is_classified(compass: RunningApi) -> None:
    answer = compass.classify(pictures.jpeg(), "image/jpeg")
    assert best(answer)[0] == "left"
    body = ClassifyResponse.model_validate_json(answer.content)
    assert body.model.model_dump() == {
        "name": "compass",
        "version": 1,
        "architecture": "garment_classifier",
        "backend": "eager",
        "precision": "float32",
    }
    assert (body.predictions[0].image.width, body.predictions[0].image.height) == (40, 28)
    assert body.timing_ms.inference > 0


def test_octet_stream_is_read_by_its_content(compass: RunningApi) -> None:
    assert best(compass.classify(pictures.png(), "application/octet-stream"))[0] == "left"


def test_form_with_several_pictures_answers_in_their_order(compass: RunningApi) -> None:
    mirrored = pictures.encoded(pictures.left_bright().transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    files = [("image", ("one.png", pictures.png())), ("image", ("zwei é.png", mirrored))]
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, files=files)
    assert answer.status_code == 200, answer.text
    assert [(row["image"]["name"], row["classes"][0]["label"]) for row in answer.json()["predictions"]] == [
        ("one.png", "left"),
        ("zwei é.png", "right"),
    ]


def test_base64_in_json_is_classified(compass: RunningApi) -> None:
    body = {"images": [{"name": "a", "base64": base64.b64encode(pictures.png()).decode()}]}
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, json=body)
    assert best(answer)[0] == "left"
    assert answer.json()["predictions"][0]["image"]["name"] == "a"


@pytest.mark.parametrize("rest", [b"\xfb\xff\xbe", b"\xfb\xff\xbe\xff", b"\xfb\xff\xbe\xff\xff"])
def test_base64_is_read_as_clients_write_it(compass: RunningApi, rest: bytes) -> None:
    content = pictures.png()
    content += bytes(-len(content) % 3) + rest  # so that every alphabet and every padding is used
    standard, url_safe = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()
    assert ("/" in standard, "_" in url_safe) == (True, True)
    for text in (standard, url_safe, standard.rstrip("="), url_safe.rstrip("="), f"data:image/png;base64,{url_safe}"):
        answer = compass.http.post("/v1/classify?model=compass", json={"images": [{"base64": text}]})
        assert best(answer)[0] == "left"
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
        infer = compass.http.post("/v2/models/compass/infer", json={"inputs": [tensor]})
        assert infer.status_code == 200, infer.text


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=A", "AA=", "====", "AA==AAAA", "AAAé", "AAA.", "%2B"])
def test_text_that_is_no_base64_is_refused(compass: RunningApi, text: str) -> None:
    problem = problem_of(compass.http.post("/v1/classify?model=compass", json={"images": [{"base64": text}]}))
    assert (problem.status, problem.errors[0].field if problem.errors else None) == (422, "images.0.base64")


@pytest.mark.parametrize(
    "make",
    [
        pictures.jpeg,
        pictures.sixteen_bit,
        pictures.transparent,
        pictures.turned_with_exif,
        lambda: pictures.encoded(pictures.left_bright("L")),
        lambda: pictures.encoded(pictures.left_bright("P")),
        lambda: pictures.encoded(pictures.left_bright("CMYK"), "JPEG", quality=95),
        lambda: pictures.encoded(pictures.left_bright(), "WEBP", lossless=True),
        lambda: pictures.encoded(pictures.left_bright(), "BMP"),
        lambda: pictures.encoded(pictures.left_bright(), "TIFF"),
        lambda: pictures.animated("GIF"),
        lambda: pictures.animated("PNG"),
        lambda: pictures.animated("WEBP"),
    ],
    ids=["jpeg", "16-bit", "alpha", "exif", "grey", "palette", "cmyk", "webp", "bmp", "tiff", "gif", "apng", "webps"],
)
def test_picture_of_any_kind_is_answered_like_its_plain_twin(compass: RunningApi, make: Callable[[], bytes]) -> None:
    label, score = best(compass.classify(pictures.png()))
    assert 0.7 < score < 0.95  # neither undecided nor saturated: a wrong grey level would show
    answer = compass.classify(make(), "application/octet-stream")
    assert best(answer)[0] == label
    assert best(answer)[1] == pytest.approx(score, abs=0.02)
    assert answer.json()["predictions"][0]["image"] == {"name": None, "width": 40, "height": 28}


def test_top_k_above_the_categories_gives_them_all(compass: RunningApi) -> None:
    classes = compass.classify(pictures.png(), top_k=5).json()["predictions"][0]["classes"]
    assert [row["label"] for row in classes] == ["left", "right"]
    assert sum(row["score"] for row in classes) == pytest.approx(1)


def test_threshold_leaves_out_what_is_less_probable(compass: RunningApi) -> None:
    classes = compass.classify(pictures.png(), score_threshold=0.5).json()["predictions"][0]["classes"]
    assert [row["label"] for row in classes] == ["left"]


def test_categories_leave_out_all_others(compass: RunningApi) -> None:
    classes = compass.classify(pictures.png(), categories="right").json()["predictions"][0]["classes"]
    assert [row["label"] for row in classes] == ["right"]


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "PNG"), ("image/jpeg;q=0.9, image/png;q=0.1", "JPEG")])
def test_accept_asks_for_the_picture_with_its_labels(compass: RunningApi, accept: str, kind: str) -> None:
    answer = compass.http.post(
        "/v1/classify",
        params={"model": "compass"},
        content=pictures.png(),
        headers={"Content-Type": "image/png", "Accept": accept},
    )
    assert answer.status_code == 200, answer.text
    picture = Image.open(BytesIO(answer.content))
    assert picture.format == kind
    assert answer.headers["Content-Type"] == f"image/{kind.lower()}"


def test_labels_are_drawn_with_the_font_of_the_settings(start_api: StartApi, tmp_path: Path) -> None:
    font = write_font(tmp_path / "made.ttf", "updownleftright0123456789.% ")
    pictures_drawn = []
    for chosen in (None, font):
        api = start_api(home=tmp_path / f"home of {chosen and chosen.name}", font=chosen)
        publish_compass(api.services.registry)
        headers = {"Content-Type": "image/png", "Accept": "image/png"}
        answer = api.http.post("/v1/classify?model=compass", content=pictures.png(), headers=headers)
        pictures_drawn.append(Image.open(BytesIO(answer.content)).tobytes())
    assert pictures_drawn[0] != pictures_drawn[1]


def test_accept_of_something_else_is_refused(compass: RunningApi) -> None:
    answer = compass.http.post(
        "/v1/classify", params={"model": "compass"}, content=pictures.png(), headers={"Accept": "text/csv"}
    )
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


def test_long_accept_header_is_read(compass: RunningApi) -> None:
    headers = {"Content-Type": "image/png", "Accept": "text/html, " * 100 + "image/png"}
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, content=pictures.png(), headers=headers)
    assert answer.headers["Content-Type"] == "image/png"


def test_bad_picture_among_good_ones_fails_alone(compass: RunningApi) -> None:
    files = [
        ("image", ("a.png", pictures.png())),
        ("image", ("b.png", b"no image")),
        ("image", ("c.png", pictures.png())),
    ]
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, files=files)
    assert answer.status_code == 200
    good, bad, also_good = answer.json()["predictions"]
    assert good["classes"] == also_good["classes"]
    assert bad["image"]["name"] == "b.png"
    assert (bad["error"]["code"], bad["error"]["status"]) == ("not_an_image", 415)
    assert "classes" not in bad
    assert "error" not in good


def test_bad_pictures_only_are_answered_like_the_first(compass: RunningApi) -> None:
    files = [("image", ("a", pictures.jpeg()[:200])), ("image", ("b", b"no image"))]
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "broken_image")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"GIF? no.", 415, "not_an_image"),
        (b"", 415, "not_an_image"),
        (pictures.jpeg()[:-200], 422, "broken_image"),
        (pictures.png()[:60], 422, "broken_image"),
        (pictures.huge_png(), 413, "image_too_large"),
        (b"\x80\x04\x95pickle", 415, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not_an_image"),
    ],
    ids=["text", "nothing", "truncated jpeg", "truncated png", "20,000 x 20,000", "pickle", "svg"],
)
def test_what_is_no_good_picture_is_refused_with_the_reason(
    compass: RunningApi, content: bytes, status: int, code: str
) -> None:
    answer = compass.classify(content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_picture_of_too_many_bytes_is_refused(start_api: StartApi) -> None:
    api = start_api(max_image_bytes=1024)
    publish_compass(api.services.registry)
    answer = api.classify(pictures.png() + b"\0" * 1024)
    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")


@pytest.mark.parametrize("as_json", [True, False])
def test_more_pictures_than_allowed_are_refused(start_api: StartApi, as_json: bool) -> None:
    api = start_api(max_images_per_request=2)
    publish_compass(api.services.registry)
    sent: dict[str, Any] = {"files": [("image", ("a.png", pictures.png()))] * 3}
    if as_json:
        sent = {"json": {"images": [{"base64": base64.b64encode(pictures.png()).decode()}] * 3}}
    answer = api.http.post("/v1/classify", params={"model": "compass"}, **sent)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{", 400, "malformed_body", None),
        (b'{"images": []}', 422, "invalid_request", "images"),
        (b'{"images": [{"base64": "###"}]}', 422, "invalid_request", "images.0.base64"),
        (b'{"images": [{}]}', 422, "invalid_request", "images.0"),
    ],
)
def test_json_that_makes_no_sense_is_refused(
    compass: RunningApi, body: bytes, status: int, code: str, field: str | None
) -> None:
    answer = compass.classify(body, "application/json")
    problem = problem_of(answer)
    assert (problem.status, problem.code) == (status, code)
    assert [error.field for error in problem.errors or ()] == ([field] if field else [])
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_file_in_a_wrong_field_is_told_the_right_one(compass: RunningApi) -> None:
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, files={"file": ("a.png", pictures.png())})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "file")
    assert answer.json()["hint"] == "Files go into 'image'."


@pytest.mark.parametrize("value", ['{"base64":""}', "0", "[]", '{"":[]}', '{"a":{"b":{}}}'])
def test_json_of_too_many_values_is_refused_before_it_is_parsed(start_api: StartApi, value: str) -> None:
    api = start_api(max_images_per_request=2)
    cut_short = '{"images":[' + f"{value}," * 12_000
    headers = {"Content-Type": "application/json"}
    answer = api.http.post("/v1/classify", params={"model": "compass"}, content=cut_short, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


def test_url_is_refused_where_no_host_is_allowed(compass: RunningApi) -> None:
    body = {"images": [{"url": "http://127.0.0.1/a.png"}]}
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_url_refused")
    assert "FOVEA_IMAGE_URL_HOSTS" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("text/plain", 415, "unsupported_body"),
        ("multipart/form-data", 400, "malformed_body"),
        ("application/x-www-form-urlencoded", 415, "unsupported_body"),
    ],
)
def test_body_of_another_type_is_refused(compass: RunningApi, content_type: str, status: int, code: str) -> None:
    problem = problem_of(compass.classify(pictures.png(), content_type))
    assert (problem.status, problem.code) == (status, code)
    assert (content_type if status == 415 else "boundary") in problem.detail


def test_form_that_ends_early_is_refused(compass: RunningApi) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + pictures.png()
    answer = compass.classify(part, "multipart/form-data; boundary=b")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize(
    ("params", "field", "valid"),
    [
        ({"top_k": 0}, "top_k", "a whole number, from 1 to 100000"),
        ({"score_threshold": "nan"}, "score_threshold", "a finite number, from 0 to 1"),
        ({"score_threshold": 2}, "score_threshold", "a finite number, from 0 to 1"),
    ],
)
def test_query_out_of_range_names_the_field_and_what_is_valid(
    compass: RunningApi, params: dict[str, Any], field: str, valid: str
) -> None:
    answer = compass.classify(pictures.png(), **params)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["where"], error["valid"]) == (field, "query", valid)


def test_model_left_out_is_named(compass: RunningApi) -> None:
    answer = compass.http.post("/v1/classify", content=pictures.png())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nothing", 404, "unknown_model"),
        ("compass/7", 404, "unknown_version"),
        ("compass@staging", 404, "unknown_alias"),
        ("resnet18.IMAGENET1K_V9", 404, "unknown_weights"),
        ("garment_classifier", 404, "unknown_weights"),
        ("../../etc/passwd", 422, "invalid_name"),
        ("a\0b", 422, "invalid_name"),
        ("модель", 422, "invalid_name"),
        ("x" * 150, 422, "invalid_name"),
        ("", 422, "invalid_name"),
    ],
)
def test_unknown_or_impossible_model_is_refused(compass: RunningApi, model: str, status: int, code: str) -> None:
    answer = compass.classify(pictures.png(), model=model)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_unknown_category_is_refused_with_those_there_are(compass: RunningApi) -> None:
    answer = compass.classify(pictures.png(), categories="up")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_category")
    assert "left, right" in answer.json()["hint"]


def test_missing_pretrained_weights_say_which_file_goes_where(compass: RunningApi) -> None:
    answer = compass.classify(pictures.png(), model="resnet18")
    assert (answer.status_code, answer.json()["code"]) == (503, "weights_unavailable")
    assert "Retry-After" in answer.headers
    assert f"{compass.home}/weights/hub/checkpoints/resnet18-f37072fd.pth" in answer.json()["hint"]


def test_prediction_does_not_depend_on_its_company(compass: RunningApi) -> None:
    alone = best(compass.classify(pictures.png()))
    files = [("image", (str(number), pictures.png())) for number in range(40)]
    answer = compass.http.post("/v1/classify", params={"model": "compass"}, files=files)
    scores = [row["classes"][0]["score"] for row in answer.json()["predictions"]]
    assert scores == pytest.approx([alone[1]] * 40, abs=1e-6)


def test_query_sent_again_is_answered_for_its_own_picture_and_accept(compass: RunningApi) -> None:
    """What a query asks for is worked out once; what comes with it is not."""
    mirrored = pictures.encoded(pictures.left_bright().transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    query: dict[str, Any] = {"top_k": 1, "score_threshold": 0.125}
    answers = [compass.classify(data, **query) for data in (pictures.png(), mirrored, pictures.png())]
    assert [best(answer)[0] for answer in answers] == ["left", "right", "left"]
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    params = {"model": "compass", **query}
    drawn = compass.http.post("/v1/classify", params=params, content=pictures.png(), headers=headers)
    assert drawn.headers["content-type"] == "image/png"
    assert best(compass.classify(pictures.png(), top_k=1, score_threshold=0.25))[0] == "left"


def test_query_sent_again_under_other_headers_is_held_to_those(compass: RunningApi) -> None:
    def ask(**headers: str) -> httpx.Response:
        headers["Content-Type"] = "image/png"
        return compass.http.post("/v1/classify", params={"model": "compass"}, content=pictures.png(), headers=headers)

    assert [ask().status_code, ask(**{"X-Request-Timeout": "5"}).status_code, ask().status_code] == [200, 200, 200]
    refused = ask(**{"X-Request-Timeout": "0"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "x-request-timeout")
    refused = ask(**{"X-Priority": "urgent"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "x-priority")
