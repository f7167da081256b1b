"""The engine's observer: what is counted under which labels, and that their number stays bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prometheus_client import generate_latest

from app.engine.model_source import ModelSource
from app.engine.observer import Observer, Outcome
from app.metrics.http_requests import HttpRequests
from app.metrics.instruments import Instruments
from app.metrics.predictions import OUTCOMES
from app.metrics.shared_values import DIRECTORY_VARIABLE, shared_directory
from models.predictor import AnyPredictor
from tests.app.exposed import Exposed


def a_source(name: str = "ants", version: int | None = 3) -> ModelSource:
    def load() -> AnyPredictor:
        raise NotImplementedError

    return ModelSource(
        name=name, version=version, architecture="resnet18", digest=f"{name}/{version} d", size_bytes=1, load=load
    )


@pytest.fixture
def instruments() -> Instruments:
    return Instruments(directory=None)


def exposed(instruments: Instruments) -> Exposed:
    return Exposed.read(generate_latest(instruments.registry).decode())


def test_batch_is_timed_by_model_version_and_backend(instruments: Instruments) -> None:
    observer: Observer = instruments.predictions
    observer.batch_predicted(a_source(), backend="openvino", queue_s=[0.003, 0.004, 0.3], inference_s=0.04)
    observer.batch_predicted(a_source(version=4), backend="eager", queue_s=[0.0], inference_s=0.1)
    told = exposed(instruments)
    labels = {"model": "ants", "version": "3", "backend": "openvino"}
    assert told.value("fovea_queue_seconds_count", **labels) == 3
    assert told.value("fovea_queue_seconds_bucket", le="0.005", **labels) == 2
    assert told.value("fovea_inference_seconds_sum", **labels) == pytest.approx(0.04)
    assert told.value("fovea_batch_size_sum", **labels) == 3
    assert told.value("fovea_batch_size_sum", version="4", backend="eager") == 1


def test_image_is_timed_by_model_version_and_backend(instruments: Instruments) -> None:
    instruments.predictions.image_predicted(a_source(version=None), backend="eager", decode_s=0.002, finish_s=0.001)
    instruments.predictions.image_predicted(a_source(version=None), backend="openvino", decode_s=0.004, finish_s=0.003)
    told = exposed(instruments)
    labels = {"model": "ants", "version": "", "backend": "openvino"}
    assert told.value("fovea_decode_seconds_sum", **labels) == pytest.approx(0.004)
    assert told.value("fovea_postprocess_seconds_sum", **labels) == pytest.approx(0.003)
    assert told.value("fovea_decode_seconds_count") == 2


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_request_is_counted_by_outcome_and_timed_if_it_was_answered(instruments: Instruments, outcome: Outcome) -> None:
    backend = "eager" if outcome == "ok" else None
    instruments.predictions.request_ended("ants", a_source(), outcome=outcome, images=5, seconds=0.2, backend=backend)
    told = exposed(instruments)
    labels = {"model": "ants", "version": "3"}
    assert told.value("fovea_predictions_total", outcome=outcome, **labels) == 1
    assert told.value("fovea_images_total", outcome=outcome, **labels) == 5
    assert told.value("fovea_predictions_total", **labels) == 1, "the other outcomes are there, and 0"
    assert told.has("fovea_prediction_seconds_sum", backend="eager", **labels) == (outcome == "ok")


def test_reference_that_nobody_knows_is_no_label(instruments: Instruments) -> None:
    for number in range(100):
        instruments.predictions.request_ended(f"made-up-{number}", None, outcome="failed", images=1, seconds=0.0)
    told = exposed(instruments)
    assert told.value("fovea_predictions_total", model="", version="", outcome="failed") == 100
    assert b"made-up" not in generate_latest(instruments.registry)


def test_models_beyond_the_limit_share_their_series(instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.metrics.predictions.MOST_MODELS", 3)
    for version in range(3 + 50):
        source = a_source(version=version)
        instruments.predictions.image_predicted(source, backend="eager", decode_s=0.01, finish_s=0.01)
        instruments.predictions.batch_predicted(source, backend="eager", queue_s=[0.0], inference_s=0.1)
        instruments.predictions.request_ended("ants", source, outcome="ok", images=1, seconds=0.2, backend="eager")
    told = exposed(instruments)
    assert told.value("fovea_predictions_total", model="(other)", version="") == 50
    assert told.value("fovea_inference_seconds_count", model="(other)") == 50
    assert told.value("fovea_decode_seconds_count") == 3 + 50
    first = a_source(version=0)  # those that came in time keep theirs
    instruments.predictions.image_predicted(first, backend="eager", decode_s=0.01, finish_s=0.01)
    assert exposed(instruments).value("fovea_decode_seconds_count", version="0") == 2


def test_answers_are_counted_by_route(instruments: Instruments) -> None:
    requests: HttpRequests = instruments.http_requests
    requests.count("GET", "/v1/models/{name}", 200)
    requests.count("GET", "/v1/models/{name}", 200)
    requests.count("GET", "", 404)
    told = exposed(instruments)
    assert told.value("fovea_http_requests_total", route="/v1/models/{name}", status="200") == 2
    assert told.value("fovea_http_requests_total", route="", status="404", method="GET") == 1


def test_directory_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=rf"{DIRECTORY_VARIABLE} is '.*nowhere'"):
        Instruments(directory=tmp_path / "nowhere")


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("", None), ("/somewhere", Path("/somewhere"))])
def test_directory_is_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: Path | None
) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(DIRECTORY_VARIABLE, value)
    assert shared_directory() == expected


def test_memory_of_a_gpu_is_told_of_once_the_process_uses_it(
    instruments: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    instruments.gauges._set_device(gpu)
    assert not exposed(instruments).has("fovea_device_memory_total_bytes")
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (30, 100))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 50)
    instruments.gauges._set_device(gpu)
    told = exposed(instruments)
    memory = [
        told.value(f"fovea_device_memory_{kind}_bytes", device="cuda:1") for kind in ("used", "total", "reserved")
    ]
    assert memory == [70, 100, 50]
