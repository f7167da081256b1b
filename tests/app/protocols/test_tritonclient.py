"""The unmodified `tritonclient[http]`, sync and aio, against a running API: everything that its users do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from tritonclient import http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from models.images.decode import decode_image
from models.images.presets import apply_preset
from models.manifest import ManifestDraft, Preset
from tests.app import finders as found_pictures
from tests.app import pictures
from tests.app.compass import CATEGORIES, compass_weights, publish_compass
from tests.app.conftest import StartApi
from tests.app.running_api import RunningApi
from tests.app.triton import client_of, files_input
from tests.models.spotter import Rectangle

RED: Rectangle = ("red", 20, 30, 120, 90)
BLUE: Rectangle = ("blue", 200, 10, 260, 70)


def with_aio_client(api: RunningApi, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{api.port}") as client:
            await work(client)

    asyncio.run(run())


def array_input(array: np.ndarray[Any, Any], datatype: str, *, binary: bool = True) -> Any:
    tensor = http.InferInput("image", list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def picture_array() -> np.ndarray[Any, Any]:
    """The image of `pictures`, uint8 [1, H, W, 3]."""
    return np.asarray(pictures.left_bright())[None]


def scores_by_v1(api: RunningApi, content: bytes, **params: Any) -> list[float]:
    """Scores by category from Fovea's own API."""
    (found,) = api.classify(content, **params).json()["predictions"]
    by_index = {entry["index"]: entry["score"] for entry in found["classes"]}
    return [by_index[index] for index in sorted(by_index)]


def test_server_and_models_describe_themselves(compass: RunningApi) -> None:
    with client_of(compass) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("compass")
        assert client.is_model_ready("compass", "1")
        assert not client.is_model_ready("compass", "2")
        server = client.get_server_metadata()
        assert server["name"] == "fovea"
        assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= set(server["extensions"])
        metadata = client.get_model_metadata("compass", "1")
        config = client.get_model_config("compass")
    assert (metadata["name"], metadata["versions"]) == ("compass", ["1"])
    (image,), (scores,) = metadata["inputs"], metadata["outputs"]
    assert (image["name"], image["datatype"], image["shape"]) == ("image", "BYTES", [-1, 1])
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP32", [-1, 2])
    assert config["max_batch_size"] == 64
    assert config["input"][0]["dims"] == [1]
    assert config["output"] == [{"name": "scores", "data_type": "TYPE_FP32", "dims": [2]}]
    assert json.loads(config["parameters"]["categories"]["string_value"]) == list(CATEGORIES)


def test_encoded_images_are_decoded_and_scored_like_fovea_does(compass: RunningApi) -> None:
    with client_of(compass) as client:
        result = client.infer("compass", [files_input(pictures.png(), pictures.turned_with_exif())], request_id="r-1")

    scores = result.as_numpy("scores")
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[0], scores_by_v1(compass, pictures.png()), atol=1e-6)
    np.testing.assert_allclose(scores[1], scores_by_v1(compass, pictures.turned_with_exif()), atol=1e-6)
    assert result.get_response()["id"] == "r-1"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_pictures_as_uint8_give_what_the_file_gives(compass: RunningApi, binary: bool) -> None:
    outputs = [http.InferRequestedOutput("scores", binary_data=binary)]
    with client_of(compass) as client:
        batch = np.concatenate([picture_array(), picture_array()[:, :, ::-1]])
        result = client.infer("compass", [array_input(batch, "UINT8", binary=binary)], outputs=outputs)

    straight, mirrored = result.as_numpy("scores")
    np.testing.assert_allclose(straight, scores_by_v1(compass, pictures.png()), atol=1e-6)
    np.testing.assert_allclose(mirrored, straight[::-1], atol=1e-6)


def test_classification_extension_names_the_best(compass: RunningApi) -> None:
    with client_of(compass) as client:
        asked = [http.InferRequestedOutput("scores", class_count=1)]
        (best,) = client.infer("compass", [files_input(pictures.png())], outputs=asked).as_numpy("scores")[0]
        asked = [http.InferRequestedOutput("scores", class_count=9, binary_data=False)]
        both = client.infer("compass", [files_input(pictures.png())], outputs=asked).as_numpy("scores")

    score, index, label = best.decode().split(":")
    assert (index, label) == ("0", "left")
    assert float(score) == pytest.approx(scores_by_v1(compass, pictures.png())[0], abs=1e-6)
    assert both.shape == (1, 2)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_requests_are_unpacked(compass: RunningApi, algorithm: str) -> None:
    with client_of(compass) as client:
        result = client.infer(
            "compass",
            [files_input(pictures.png())],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )

    np.testing.assert_allclose(result.as_numpy("scores")[0], scores_by_v1(compass, pictures.png()), atol=1e-6)


def test_requests_in_flight_together_are_all_answered(compass: RunningApi) -> None:
    with http.InferenceServerClient(f"127.0.0.1:{compass.port}", concurrency=4) as client:
        asked = [client.async_infer("compass", [files_input(pictures.png())], priority=2) for _ in range(8)]
        scores = [one.get_result().as_numpy("scores") for one in asked]

    assert len({tuple(row[0].round(5)) for row in scores}) == 1


def test_detections_are_padded_to_the_most(finders: RunningApi) -> None:
    both, none = found_pictures.png(320, 160, RED, BLUE), found_pictures.png(320, 160)
    with client_of(finders) as client:
        result = client.infer("boxes", [files_input(none, both)])
        surest = client.infer("boxes", [files_input(both)], parameters={"score_threshold": 0.85})
        alone = client.infer("boxes", [files_input(none)])

    assert result.as_numpy("num_detections").tolist() == [[0], [2]]
    red, blue = result.as_numpy("boxes")[1].tolist()
    assert red == pytest.approx(RED[1:], abs=1)
    assert blue == pytest.approx(BLUE[1:], abs=1)
    assert result.as_numpy("labels").tolist() == [[0, 0], [1, 2]]
    np.testing.assert_allclose(result.as_numpy("scores"), np.array([[0, 0], [0.9, 0.8]]), atol=1e-6)
    assert surest.as_numpy("labels").tolist() == [[1]]
    assert alone.as_numpy("boxes").shape == (1, 0, 4)


def test_label_maps_are_padded_to_the_largest(finders: RunningApi) -> None:
    large, small = found_pictures.png(320, 160, RED), found_pictures.png(160, 200)
    with client_of(finders) as client:
        result = client.infer("painter", [files_input(large, small)])

    assert result.as_numpy("sizes").tolist() == [[160, 320], [200, 160]]
    maps = result.as_numpy("label_map")
    assert (maps.dtype, maps.shape) == (np.uint8, (2, 200, 320))
    assert (maps[0, 30:90, 20:120] == 1).all()
    assert (maps[0, 160:] == 255).all()
    assert (maps[1, :, 160:] == 255).all()
    assert (maps[1, :, :160] == 0).all()


def test_floats_of_the_network_give_what_the_file_gives(start_api: StartApi) -> None:
    preset = Preset(channels=1, resize_px=33, crop_px=28, mean=(0.3,), std=(0.2,))
    draft = ManifestDraft(architecture="garment_classifier", categories=CATEGORIES, preset=preset)
    api = start_api()
    api.services.registry.publish("cut", compass_weights(), draft, now=datetime.now(UTC))
    seen = apply_preset(preset, decode_image(pictures.png())).unsqueeze(0).numpy()
    with client_of(api) as client:
        result = client.infer("cut", [array_input(seen, "FP32")])
        in_json = client.infer("cut", [array_input(seen, "FP32", binary=False)])
        with pytest.raises(InferenceServerException, match=r"from \[-1.5\] to \[3.5\]"):
            client.infer("cut", [array_input(seen * 255, "FP32")])

    expected = scores_by_v1(api, pictures.png(), model="cut")
    np.testing.assert_allclose(result.as_numpy("scores")[0], expected, atol=1e-6)
    np.testing.assert_allclose(in_json.as_numpy("scores")[0], expected, atol=1e-6)


def test_models_are_unloaded_and_loaded(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    publish_compass(api.services.registry, gain=-2.0)
    engine = api.services.engine
    with client_of(api) as client:
        assert client.is_model_ready("compass")
        client.load_model("compass")
        assert [model.source.reference for model in engine.models.all()] == ["compass/2"]
        client.infer("compass", [files_input(pictures.png())], model_version="1")
        client.unload_model("compass")
        assert engine.models.all() == []
        assert not client.is_model_ready("compass")
        states = [(entry["version"], entry["state"]) for entry in client.get_model_repository_index()]
        assert states == [("1", "UNAVAILABLE"), ("2", "UNAVAILABLE")]
        client.infer("compass", [files_input(pictures.png())])
        assert client.is_model_ready("compass")
        assert not client.is_model_ready("compass", "1")
        with pytest.raises(InferenceServerException, match="cannot be sent with the request"):
            client.load_model("compass", config="{}")
    ready = api.http.post("/v2/repository/index", json={"ready": True}).json()
    assert [(entry["version"], entry["state"], entry["reason"]) for entry in ready] == [("2", "READY", "")]


def test_versions_and_aliases_are_told_apart(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    publish_compass(api.services.registry, gain=-2.0)
    api.services.registry.set_alias("compass", "old", 1)
    with client_of(api) as client:
        newest, first, alias = (
            client.infer(name, [files_input(pictures.png())], model_version=version)
            for name, version in (("compass", ""), ("compass", "1"), ("compass@old", ""))
        )
        assert client.get_model_metadata("compass")["versions"] == ["1", "2"]
        assert client.get_model_metadata("compass@old")["versions"] == ["1"]

    assert [result.get_response()["model_version"] for result in (newest, first, alias)] == ["2", "1", "1"]
    np.testing.assert_allclose(newest.as_numpy("scores")[0], first.as_numpy("scores")[0][::-1], atol=1e-6)
    np.testing.assert_array_equal(alias.as_numpy("scores"), first.as_numpy("scores"))


def test_statistics_count_what_was_asked(start_api: StartApi) -> None:
    api = start_api()
    publish_compass(api.services.registry)
    with client_of(api) as client:
        assert client.get_inference_statistics() == {"model_stats": []}
        client.infer("compass", [files_input(pictures.png(), pictures.jpeg())])
        client.infer("compass", [files_input(pictures.png())])
        (found,) = client.get_inference_statistics()["model_stats"]
        assert client.get_inference_statistics("compass", "1")["model_stats"] == [found]

    assert (found["name"], found["version"], found["inference_count"]) == ("compass", "1", 3)
    assert found["inference_stats"]["success"]["count"] == 2
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert found["inference_stats"][part]["count"] == 3, part
        assert found["inference_stats"][part]["ns"] > 0, part
    assert sum(entry["batch_size"] * entry["compute_infer"]["count"] for entry in found["batch_stats"]) == 3


def test_errors_are_the_clients_own_exceptions(compass: RunningApi) -> None:
    with client_of(compass) as client:
        with pytest.raises(InferenceServerException, match=r"no model 'compas'\. Available: compass") as unknown:
            client.infer("compas", [files_input(pictures.png())])
        with pytest.raises(InferenceServerException, match="Image 2 of 2: The data is not an image") as broken:
            client.infer("compass", [files_input(pictures.png(), b"no image")])
        with pytest.raises(InferenceServerException, match="Shared memory"):
            client.infer("compass", [files_input(pictures.png()).set_shared_memory("region", 4)])

    assert unknown.value.status() == "404"
    assert broken.value.status() == "400"


def test_aio_client_does_the_same(compass: RunningApi) -> None:
    expected = scores_by_v1(compass, pictures.png())

    async def work(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("compass")
        assert (await client.get_model_metadata("compass"))["versions"] == ["1"]
        assert (await client.get_model_config("compass"))["name"] == "compass"
        assert (await client.get_model_repository_index())[0]["name"] == "compass"
        await client.load_model("compass")
        asked = [client.infer("compass", [files_input(pictures.png())]) for _ in range(4)]
        for result in await asyncio.gather(*asked):
            np.testing.assert_allclose(result.as_numpy("scores")[0], expected, atol=1e-6)
        packed = await client.infer(
            "compass",
            [array_input(picture_array(), "UINT8")],
            request_compression_algorithm="gzip",
            outputs=[http.InferRequestedOutput("scores", class_count=1)],
        )
        assert packed.as_numpy("scores")[0, 0].endswith(b":0:left")
        assert (await client.get_inference_statistics("compass"))["model_stats"]
        with pytest.raises(InferenceServerException, match="no version 7"):
            await client.infer("compass", [files_input(pictures.png())], model_version="7")

    with_aio_client(compass, work)
