"""Precision has one vocabulary; jobs, runs and clients from before it say `fp32` and `bf16`, and are understood."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from models.precision import FloatPrecision
from tests.workers.jobs_builders import a_config, a_job
from workers.configs.evaluate import EvaluateConfig
from workers.configs.fine_tune import FineTuneConfig, ResolvedFineTune
from workers.jobs.job import Job
from workers.training.checkpoint import config_hash
from workers.training.device import autocast

# `config_hash(a_config(hyperparameters={"precision": ...}))` of the code before, as checkpoints of its runs hold it.
HASHES_OF_EARLIER_RUNS = {
    "fp32": "35fd487db73b4f186758d16ad7241bc6697b2da34927de5b2d9a7185f692fb74",
    "bf16": "e193cbd67fe943bfe97365ada5db4dcfa58c0ab8757acabd3c3d20e321921f8d",
    "auto": "c1f75df1eba1e7b43ccca577ff642589e74a80cfa2607974c9aa32be72d0cc88",
}
SPELLINGS = pytest.mark.parametrize(("older", "today"), [("fp32", "float32"), ("bf16", "bfloat16"), ("auto", "auto")])


@SPELLINGS
def test_older_spelling_in_a_job_is_read_and_comes_out_as_todays(older: str, today: str) -> None:
    fine_tune = {"model": "resnet18", "dataset": "ants-bees", "hyperparameters": {"precision": older}}
    evaluate = {"type": "evaluate", "model": "ants-bees", "dataset": "ants-bees", "precision": older}

    assert FineTuneConfig.model_validate(fine_tune).model_dump()["hyperparameters"]["precision"] == today
    assert EvaluateConfig.model_validate(evaluate).model_dump()["precision"] == today


@SPELLINGS
def test_job_that_an_earlier_version_stored_is_read(older: str, today: str) -> None:
    job = a_job(config=a_config(hyperparameters={"precision": today}))
    stored = job.model_dump_json().replace(f'"precision":"{today}"', f'"precision":"{older}"')

    assert f'"{older}"' in stored
    assert Job.model_validate_json(stored) == job


@pytest.mark.parametrize("older", HASHES_OF_EARLIER_RUNS)
def test_checkpoint_of_an_earlier_version_belongs_to_its_run(older: str) -> None:
    stored = a_config().model_dump_json().replace('"precision":"float32"', f'"precision":"{older}"')

    assert config_hash(ResolvedFineTune.model_validate_json(stored)) == HASHES_OF_EARLIER_RUNS[older]


@pytest.mark.parametrize("unknown", ["float16", "int8", "half", 32, None])
def test_other_precision_is_refused(unknown: object) -> None:
    with pytest.raises(ValidationError, match="'auto', 'float32' or 'bfloat16'"):
        EvaluateConfig.model_validate({"type": "evaluate", "model": "m", "dataset": "d", "precision": unknown})


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_matrix_products_have_the_precision_of_the_run(precision: FloatPrecision, dtype: torch.dtype) -> None:
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
