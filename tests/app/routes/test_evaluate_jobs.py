"""Jobs that measure a model on a dataset, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from app.schemas.jobs import JobDetails, JobPlan
from models.architectures.catalog import build, get_architecture
from models.manifest import ManifestDraft
from tests.app.http.test_requests import problem_of
from tests.app.running_api import RunningApi
from workers.configs.evaluate import EvaluateConfig, ResolvedEvaluate

PRETRAINED: dict[str, Any] = {"type": "evaluate", "model": "resnet18", "dataset": "shades"}


@pytest.fixture
def published_shades(shades: RunningApi) -> str:
    """A registered model of the dataset's categories: its `name/version`."""
    architecture = get_architecture("garment_classifier")
    draft = ManifestDraft(architecture=architecture.name, categories=("dark", "light"), preset=architecture.preset)
    weights = build(architecture.name, num_categories=2).state_dict()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return shades.services.registry.publish("shades", weights, draft, now=now).manifest.reference


def test_evaluation_needs_a_model_that_knows_the_categories(shades: RunningApi) -> None:
    problem = problem_of(shades.http.post("/v1/jobs", json=PRETRAINED))

    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field == "dataset"
    assert "does not know 2 of the categories" in problem.detail
    assert "dark, light" in problem.detail


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "nothing"}, "model"),
        ({"model": "resnet18.IMAGENET1K_V9"}, "model"),
        ({"dataset": "nothing"}, "dataset"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "dataset"),
        ({"split": "test"}, "split"),
        ({"batch_size": 0}, "batch_size"),
        ({"strategy": "fine_tune"}, "strategy"),
    ],
)
def test_evaluation_that_makes_no_sense_names_the_field(shades: RunningApi, change: dict[str, Any], field: str) -> None:
    problem = problem_of(shades.http.post("/v1/jobs", json={**PRETRAINED, **change}))

    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field == field
    assert problem.errors[0].valid or problem.hint


def test_config_says_what_it_is() -> None:
    with pytest.raises(ValidationError):
        EvaluateConfig.model_validate({"model": "a", "dataset": "b"})


def test_dry_run_and_job_of_a_registered_model(shades: RunningApi, published_shades: str) -> None:
    body = {"type": "evaluate", "model": published_shades, "dataset": "shades", "split": "train"}
    plan = JobPlan.model_validate_json(shades.http.post("/v1/jobs", json={**body, "dry_run": True}).content)
    assert isinstance(plan.config, ResolvedEvaluate)
    assert (plan.config.model, plan.config.split, plan.estimate) == (published_shades, "train", None)

    job = JobDetails.model_validate_json(shades.http.post("/v1/jobs", json=body).content)
    assert (job.type, job.status) == ("evaluate", "queued")
    listed = shades.http.get("/v1/jobs", params={"type": "evaluate"}).json()["data"]
    assert [row["id"] for row in listed] == [job.id]
    in_use = problem_of(shades.http.delete(f"/v1/models/shades/versions/{published_shades.partition('/')[2]}"))
    assert (in_use.status, in_use.code) == (409, "version_in_use")
