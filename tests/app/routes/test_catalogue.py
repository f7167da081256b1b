"""Architectures, kinds of jobs, health and state."""

from __future__ import annotations

import pytest

from app.schemas.architectures import ArchitectureDetails
from app.schemas.system import System
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.http.test_requests import problem_of
from tests.app.running_api import RunningApi
from tests.waiting import wait_until


def test_architectures_are_listed_by_name_in_pages(compass: RunningApi) -> None:
    names: list[str] = []
    after = None
    while True:
        params = {"limit": 50} | ({"after": after} if after else {})
        page = compass.http.get("/v1/architectures", params=params).json()
        names += [row["name"] for row in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert names == sorted(names)
    assert {"resnet18", "vit_b_16", "garment_classifier"} <= set(names)


def test_architecture_shows_layers_and_weights(compass: RunningApi) -> None:
    answer = compass.http.get("/v1/architectures/resnet18")
    shown = ArchitectureDetails.model_validate_json(answer.content)
    assert (shown.parameters, shown.preset.image_size_px) == (11_689_512, 224)
    assert sum(layer.parameters for layer in shown.layers) == shown.parameters
    (weights,) = shown.weights
    assert (weights.reference, weights.is_default, weights.is_cached) == ("resnet18.IMAGENET1K_V1", True, False)


@pytest.mark.parametrize("name", ["resnet999", "..%5c", "a%00b", "x" * 300])
def test_unknown_architecture_is_a_404(compass: RunningApi, name: str) -> None:
    problem = problem_of(compass.http.get(f"/v1/architectures/{name}"))
    assert (problem.status, problem.code) == (404, "unknown_architecture")


def test_schema_of_a_job_type_is_complete(compass: RunningApi) -> None:
    kinds = {kind["name"]: kind for kind in compass.http.get("/v1/job-types").json()["data"]}
    assert set(kinds) == {"fine_tune", "evaluate"}
    schema = compass.http.get(kinds["fine_tune"]["json_schema"]).json()
    assert {"model", "dataset", "hyperparameters", "dry_run"} <= set(schema["properties"])
    assert schema["$defs"]["Hyperparameters"]["properties"]["seed"]["minimum"] == 0
    evaluation = compass.http.get(kinds["evaluate"]["json_schema"]).json()
    assert {"model", "dataset", "split", "dry_run"} <= set(evaluation["properties"])
    assert problem_of(compass.http.get("/v1/job-types/magic/schema")).code == "unknown_job_type"


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 10_000}, {"limit": "many"}, {"task": "poetry"}])
def test_list_with_an_impossible_limit_is_refused(compass: RunningApi, params: dict[str, str | int]) -> None:
    problem = problem_of(compass.http.get("/v1/architectures", params=params))
    assert (problem.status, problem.code) == (422, "invalid_request")
    assert [error.field for error in problem.errors or ()] == list(params)


def test_ready_server_names_everything_it_checked(compass: RunningApi) -> None:
    answer = compass.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert set(answer.json()["checks"]) == {"redis", "registry", "engine", "device", "disk"}


def test_system_tells_what_is_loaded_and_allowed(api: RunningApi) -> None:
    publish_compass(api.services.registry)
    api.classify(pictures.png())
    system = System.model_validate_json(api.http.get("/v1/system").content)
    (model,) = system.engine.loaded_models
    assert (model.reference, model.architecture, model.device) == ("compass/1", "garment_classifier", "cpu")
    assert model.size_bytes == 43_746 * 4
    assert system.queue.depth == 0
    assert system.limits.max_image_pixels == 100_000_000
    assert {"python", "torch", "fastapi"} <= set(system.libraries)
    assert system.memory.process_bytes
    assert system.disk.free_bytes > 0


def test_preloaded_model_is_there_before_anyone_asks(start_api: StartApi) -> None:
    first = start_api()
    publish_compass(first.services.registry)
    second = start_api(preload=("compass", "nothing"))
    wait_until(lambda: second.http.get("/readyz").status_code == 200)
    loaded = second.http.get("/v1/system").json()["engine"]["loaded_models"]
    assert [model["reference"] for model in loaded] == ["compass/1"]


def test_server_is_not_ready_before_its_models_are_loaded(api: RunningApi) -> None:
    api.services.preloading.add("ants-bees")
    answer = api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["engine"] == {"ok": False, "detail": "loading ants-bees"}
