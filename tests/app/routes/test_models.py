"""Models over HTTP: list, promote, download, bring your own, delete."""

from __future__ import annotations

import json
import os
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from models.architectures.catalog import build
from models.manifest import Manifest
from models.store.library_versions import library_versions
from tests.app import pictures
from tests.app.compass import CATEGORIES, compass_weights, publish_compass
from tests.app.http.test_requests import problem_of, spooled_files
from tests.app.running_api import RunningApi
from tests.waiting import wait_until

MANIFEST = {"architecture": "garment_classifier", "categories": list(CATEGORIES)}


def as_pth(content: object) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def upload(api: RunningApi, weights: bytes, name: str = "mine", **manifest: Any) -> httpx.Response:
    return api.http.post(
        f"/v1/models/{name}/versions",
        data={"manifest": json.dumps({**MANIFEST, **manifest})},
        files={"state_dict": ("weights.bin", weights)},
    )


@pytest.fixture
def two_versions(api: RunningApi) -> RunningApi:
    """`needle`: the first version is right, the second says the opposite."""
    publish_compass(api.services.registry, "needle")
    publish_compass(api.services.registry, "needle", gain=-2.0)
    return api


def test_model_shows_versions_aliases_and_manifest(two_versions: RunningApi) -> None:
    two_versions.http.put("/v1/models/needle/aliases/production", json={"version": 1})
    shown = two_versions.http.get("/v1/models/needle").json()
    assert (shown["versions"], shown["aliases"]) == ([1, 2], {"production": 1})
    assert shown["latest"]["architecture"] == "garment_classifier"
    assert two_versions.http.get("/v1/models").json()["data"] == [shown]
    version = two_versions.http.get("/v1/models/needle/versions/1").json()
    assert (version["aliases"], version["report"], version["manifest"]["version"]) == (["production"], [], 1)


def test_moved_alias_is_live_with_the_next_request(two_versions: RunningApi) -> None:
    def answer(model: str) -> tuple[str, int]:
        body = two_versions.classify(pictures.png(), model=model).json()
        return body["predictions"][0]["classes"][0]["label"], body["model"]["version"]

    assert answer("needle") == ("right", 2)  # no production yet: the newest
    for version, label in ((1, "left"), (2, "right"), (1, "left")):
        two_versions.http.put("/v1/models/needle/aliases/production", json={"version": version})
        assert answer("needle") == (label, version)
    assert answer("needle/2") == ("right", 2)
    two_versions.http.put("/v1/models/needle/aliases/staging", json={"version": 2})
    assert answer("needle@staging") == ("right", 2)


def test_alias_answers_where_it_pointed_before(two_versions: RunningApi) -> None:
    path = "/v1/models/needle/aliases/production"
    assert two_versions.http.put(path, json={"version": 1}).json()["previous"] is None
    assert two_versions.http.put(path, json={"version": 2}).json()["previous"] == 1
    assert two_versions.http.delete(path).status_code == 204
    assert problem_of(two_versions.http.delete(path)).code == "unknown_alias"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/models/needle/aliases/production", {"version": 3}, "unknown_version"),
        ("/v1/models/nothing/aliases/production", {"version": 1}, "unknown_model"),
        ("/v1/models/needle/aliases/a%00b", {"version": 1}, "invalid_name"),
        (f"/v1/models/needle/aliases/{'x' * 300}", {"version": 1}, "invalid_name"),
        ("/v1/models/needle/aliases/production", {"version": 0}, "invalid_request"),
        ("/v1/models/needle/aliases/production", {}, "invalid_request"),
    ],
)
def test_alias_that_makes_no_sense_is_refused(
    two_versions: RunningApi, path: str, body: dict[str, int], code: str
) -> None:
    assert problem_of(two_versions.http.put(path, json=body)).code == code
    assert two_versions.services.registry.aliases("needle") == {}


def test_version_that_an_alias_points_at_is_kept(two_versions: RunningApi) -> None:
    two_versions.http.put("/v1/models/needle/aliases/production", json={"version": 1})
    problem = problem_of(two_versions.http.delete("/v1/models/needle/versions/1"))
    assert (problem.status, problem.code) == (409, "version_in_use")
    assert two_versions.http.delete("/v1/models/needle/versions/2").status_code == 204
    assert problem_of(two_versions.classify(pictures.png(), model="needle/2")).code == "unknown_version"


def test_state_dict_downloads_in_both_formats(two_versions: RunningApi, tmp_path: Path) -> None:
    path = "/v1/models/needle/versions/1/state_dict"
    as_safetensors = two_versions.http.get(path)
    assert "needle-1.safetensors" in as_safetensors.headers["Content-Disposition"]
    file = tmp_path / "weights.pth"
    file.write_bytes(two_versions.http.get(path, params={"format": "pth"}).content)
    expected = compass_weights()
    for found in (load_safetensors(as_safetensors.content), torch.load(file, weights_only=True)):
        assert set(found) == set(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    wait_until(lambda: not spooled_files(two_versions))
    problem = problem_of(two_versions.http.get(path, params={"format": "onnx"}))
    assert [error.field for error in problem.errors or ()] == ["format"]


@pytest.mark.parametrize("encode", [save_safetensors, as_pth])
def test_own_weights_are_published_and_answer(api: RunningApi, encode: Any) -> None:
    answer = upload(api, encode(compass_weights()), description="by hand", metrics={"val/top1": 0.9})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == "/v1/models/mine/versions/1"
    manifest = Manifest.model_validate_json(answer.content)
    assert (manifest.origin, manifest.categories, manifest.parameters) == ("uploaded", CATEGORIES, 43_746)
    assert manifest.libraries == library_versions()  # as the trainer says it of what it trained
    classes = api.classify(pictures.png(), model="mine", top_k=5).json()["predictions"][0]["classes"]
    assert [row["label"] for row in classes] == ["left", "right"]
    assert spooled_files(api) == []


def test_own_detector_is_published_with_its_options_and_answers(api: RunningApi) -> None:
    options = {"backbone": "mobilenet_v3_small"}
    weights = build("yolo", num_categories=2, options=options).state_dict()
    answer = upload(api, as_pth(weights), architecture="yolo", options=options, categories=["ant", "bee"])
    assert answer.status_code == 201, answer.text
    manifest = Manifest.model_validate_json(answer.content)
    assert (manifest.task, manifest.options["variant"]) == ("detection", "modern")

    picture = {"Content-Type": "image/png"}
    found = api.http.post("/v1/detect", params={"model": "mine"}, content=pictures.png(), headers=picture)
    assert found.status_code == 200, found.text
    wrong = api.http.post("/v1/classify", params={"model": "mine"}, content=pictures.png(), headers=picture)
    assert problem_of(wrong).code == "wrong_task"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"options": {"backbone": "vgg99"}}, "unsupported_option"), ({"task": "classification"}, "invalid_request")],
)
def test_own_detector_that_makes_no_sense_is_refused(compass: RunningApi, change: dict[str, Any], code: str) -> None:
    problem = problem_of(upload(compass, as_pth({}), **{"architecture": "yolo", "categories": ["a"], **change}))
    assert (problem.status, problem.code) == (422, code)


def test_wrappers_of_training_scripts_are_taken_off(api: RunningApi) -> None:
    wrapped = {f"module.{key}": tensor for key, tensor in compass_weights().items()}
    assert upload(api, as_pth({"state_dict": wrapped, "epoch": 3})).status_code == 201


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("encode", [as_pth, pickle.dumps])
def test_pickle_that_runs_code_is_refused_and_not_run(compass: RunningApi, tmp_path: Path, encode: Any) -> None:
    trap = tmp_path / "trap"
    problem = problem_of(upload(compass, encode({"fc.weight": Malicious(trap)})))
    assert (problem.status, problem.code) == (422, "unsafe_weights")
    assert not trap.exists()
    assert spooled_files(compass) == []
    assert compass.http.get("/v1/models/mine").status_code == 404


def test_weights_of_another_architecture_list_every_key(compass: RunningApi) -> None:
    weights = compass_weights()
    weights["conv9.weight"] = weights.pop("conv1.weight")
    weights["fc3.bias"] = torch.zeros(7)
    problem = problem_of(upload(compass, save_safetensors(weights)))
    assert (problem.status, problem.code) == (422, "incompatible_weights")
    assert (problem.missing, problem.unexpected) == (("conv1.weight",), ("conv9.weight",))
    assert problem.mismatched
    assert problem.mismatched[0].startswith("fc3.bias")


@pytest.mark.parametrize("content", [b"", b"no weights", save_safetensors(compass_weights())[:500], as_pth([1, 2])])
def test_file_that_holds_no_weights_is_refused(compass: RunningApi, content: bytes) -> None:
    assert problem_of(upload(compass, content)).code == "unsafe_weights"


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        ({"architecture": "resnet999"}, "manifest.architecture"),
        ({"categories": []}, "manifest.categories"),
        ({"categories": ["a", "a"]}, "manifest.categories"),
        ({"metrics": {"val/top1": "good"}}, "manifest.metrics.val/top1"),
        ({"archtecture": "resnet18"}, "manifest.archtecture"),
    ],
)
def test_manifest_that_makes_no_sense_names_the_field(
    compass: RunningApi, manifest: dict[str, Any], field: str
) -> None:
    problem = problem_of(upload(compass, save_safetensors(compass_weights()), **manifest))
    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field == field


def test_preset_that_the_architecture_does_not_take_is_refused(compass: RunningApi) -> None:
    preset = {"channels": 3, "resize_px": 28, "crop_px": 28, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert problem_of(upload(compass, save_safetensors(compass_weights()), preset=preset)).code == "unsupported_preset"


@pytest.mark.parametrize("text", ["{", "null", "[]", ""])
def test_manifest_that_is_no_json_object_is_refused(compass: RunningApi, text: str) -> None:
    answer = compass.http.post(
        "/v1/models/mine/versions", data={"manifest": text}, files={"state_dict": ("w", as_pth({}))}
    )
    problem = problem_of(answer)
    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field.startswith("manifest")


@pytest.mark.parametrize("name", ["resnet18", "resnet18.mine", "..%5c", "a%00b", "x" * 300, "%D0%BC"])
def test_name_that_a_model_cannot_have_is_refused(compass: RunningApi, name: str) -> None:
    assert problem_of(upload(compass, save_safetensors(compass_weights()), name=name)).code == "invalid_name"


def test_repeated_upload_under_one_key_is_one_version(api: RunningApi) -> None:
    weights = save_safetensors(compass_weights())
    for _ in range(2):
        answer = api.http.post(
            "/v1/models/mine/versions",
            data={"manifest": json.dumps(MANIFEST)},
            files={"state_dict": ("w", weights)},
            headers={"Idempotency-Key": "once"},
        )
        assert answer.status_code == 201
    assert api.http.get("/v1/models/mine").json()["versions"] == [1]


def test_report_of_a_version_is_served(api: RunningApi, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "curves.png").write_bytes(pictures.png())
    version = publish_compass(api.services.registry, "needle", report_dir=report)
    assert version.report_dir.is_dir()
    assert api.http.get("/v1/models/needle/versions/1").json()["report"] == ["curves.png"]
    answer = api.http.get("/v1/models/needle/versions/1/report/curves.png")
    assert (answer.headers["Content-Type"], answer.content) == ("image/png", pictures.png())
    assert problem_of(api.http.get("/v1/models/needle/versions/1/report/..%2fmanifest.json")).code == "unknown_file"


def test_nan_in_a_manifest_is_refused_and_hides_no_model(api: RunningApi) -> None:
    weights = save_safetensors(compass_weights())
    nan_mean = {"channels": 1, "resize_px": 28, "crop_px": 28, "mean": [float("nan")], "std": [0.5]}
    for said in ({"metrics": {"val/top1": float("nan")}}, {"preset": nan_mean}, {"categories": ["up", "\0", "a", "b"]}):
        assert problem_of(upload(api, weights, **said)).code == "invalid_request"
    assert api.http.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(api: RunningApi, damage: float) -> None:
    weights = compass_weights()
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], damage)
    problem = problem_of(upload(api, save_safetensors(weights)))
    assert (problem.code, problem.mismatched) == ("incompatible_weights", (name,))


def test_damaged_version_does_not_hide_the_other_models(two_versions: RunningApi) -> None:
    publish_compass(two_versions.services.registry, "broken")
    registry = two_versions.services.settings.registry_dir
    (registry / "broken" / "1" / "manifest.json").write_text("{}")
    (registry / "needle" / "2" / "manifest.json").write_text("{}")
    (listed,) = two_versions.http.get("/v1/models").json()["data"]
    assert (listed["name"], listed["latest"]["version"]) == ("needle", 1)


def test_pth_download_leaves_nothing_behind_whatever_range_is_asked_for(two_versions: RunningApi) -> None:
    path = "/v1/models/needle/versions/1/state_dict"
    for asked, status in (("bytes=999999999999-", 416), ("garbage", 200), ("bytes=5-", 206)):
        answer = two_versions.http.get(path, params={"format": "pth"}, headers={"Range": asked})
        assert answer.status_code == status
    assert spooled_files(two_versions) == []
