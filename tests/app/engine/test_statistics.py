"""Statistics of model versions: what an observer hears, counted."""

from __future__ import annotations

from datetime import UTC, datetime

from app.engine.model_source import ModelSource
from app.engine.statistics import Duration, Statistics
from models.predictor import AnyPredictor

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def never() -> AnyPredictor:
    raise NotImplementedError


def source(version: int) -> ModelSource:
    return ModelSource(
        name="ants", version=version, architecture="resnet18", digest=f"ants/{version}", size_bytes=1, load=never
    )


def statistics() -> Statistics:
    return Statistics(now=lambda: NOW)


def test_views_of_a_batch_each_take_as_long_as_the_batch() -> None:
    seen = statistics()
    seen.batch_predicted(source(1), backend="eager", queue_s=[0.25, 0.5, 0.75], inference_s=2.0)
    seen.batch_predicted(source(1), backend="eager", queue_s=[0.5], inference_s=1.0)

    found = seen.all()["ants/1"]
    assert found.execution_count == 2
    assert found.queue == Duration(count=4, ns=2_000_000_000)
    assert found.compute_infer == Duration(count=4, ns=7_000_000_000)
    assert dict(found.by_batch_size) == {
        3: Duration(count=1, ns=2_000_000_000),
        1: Duration(count=1, ns=1_000_000_000),
    }


def test_requests_that_were_not_answered_failed() -> None:
    seen = statistics()
    seen.request_ended("ants", source(1), outcome="ok", images=3, seconds=0.5)
    seen.request_ended("ants", source(1), outcome="expired", images=2, seconds=1.0)
    seen.request_ended("ants", source(1), outcome="failed", images=2, seconds=0.5)

    found = seen.all()["ants/1"]
    assert (found.success, found.fail) == (Duration(count=1, ns=500_000_000), Duration(count=2, ns=1_500_000_000))
    assert found.inference_count == 3
    assert found.last_inference_ms == round(NOW.timestamp() * 1000)


def test_versions_are_counted_apart() -> None:
    seen = statistics()
    seen.image_predicted(source(2), backend="eager", decode_s=0.1, finish_s=0.2)
    seen.request_ended("ants", source(1), outcome="expired", images=1, seconds=0.5)

    assert sorted(seen.all()) == ["ants/1", "ants/2"]
    assert seen.all()["ants/2"].compute_input == Duration(count=1, ns=100_000_000)
    assert seen.all()["ants/2"].compute_output == Duration(count=1, ns=200_000_000)
    assert seen.all()["ants/1"].compute_input.count == 0


def test_request_of_no_known_model_belongs_to_none() -> None:
    seen = statistics()
    seen.request_ended("bees", None, outcome="rejected", images=1, seconds=0.0)

    assert seen.all() == {}
