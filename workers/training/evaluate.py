"""A run that trains nothing: evaluates a model on a dataset and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from models.errors import RegistryError
from models.predictors import loading
from models.store.library_versions import library_versions
from models.store.registry import Registry
from models.store.storage import replace_file
from models.store.weights import find_pretrained, pretrained
from workers.configs.evaluate import ResolvedEvaluate
from workers.datasets.dataset import DatasetImage
from workers.datasets.store import DatasetStore
from workers.run_directory import RunConfig, RunDirectory, RunResult
from workers.training.device import describe_device
from workers.training.fence import check_fence
from workers.training.journal import Journal
from workers.training.network import is_registered
from workers.training.run_inputs import RunInputs, make_run_inputs
from workers.training.task import named_after
from workers.training.tasks import make_task


def evaluate_run(run: RunDirectory, *, token: int | None = None) -> None:
    """Evaluates the model, and writes the report and `result.json`.

    token: the fencing token of this attempt; None if a person runs it by hand.
    Raises FenceLost, and the errors that `failures.explain_failure` explains.
    """
    config, home = run.read_config(), run.path.parent.parent
    job = config.job
    assert isinstance(job, ResolvedEvaluate)
    inputs = _with_model_categories(make_run_inputs(config, home), DatasetStore(home / "datasets"), job)
    task = make_task(inputs)
    module = _load_module(config, job, run).to(inputs.device)
    module = module.to(memory_format=torch.channels_last)  # as in training, so the metrics are exactly the same
    with Journal(run, first_step=0) as journal:
        where = f"{describe_device(inputs.device)} in {inputs.precision}"
        journal.message(f"Evaluating {job.model} on {len(inputs.val_images)} images; {where}.")
        evaluation = task.evaluate(module)
        check_fence(run, token)
        task.write_report(run, evaluation, None)
        journal.message("The report is written.")
        if evaluation.weakness is not None:
            journal.message(evaluation.weakness)
    result = RunResult(
        metrics=named_after(job.split, evaluation.metrics),
        decisive_metric=f"{job.split}/{task.decisive_metric.removeprefix('val/')}",
        best_epoch=0,
        epochs=0,
        stopped_early=False,
        device=describe_device(inputs.device),
        precision=inputs.precision,
        libraries=library_versions(),
        weakness=evaluation.weakness,
    )
    check_fence(run, token)
    replace_file(run.result, result.model_dump_json(indent=1).encode())


def _load_module(config: RunConfig, job: ResolvedEvaluate, run: RunDirectory) -> nn.Module:
    home = run.path.parent.parent
    registry = Registry(home / "registry")
    if is_registered(job.model):
        return loading.load_module(registry, registry.resolve(job.model))
    found = find_pretrained(job.model)
    assert found is not None
    architecture, entry = found
    return pretrained(architecture, entry, weights_dir=home / "weights", allow_download=config.allow_download)


def _with_model_categories(inputs: RunInputs, store: DatasetStore, job: ResolvedEvaluate) -> RunInputs:
    """Returns `inputs` with only the images of the split, and with the category indices of the model."""
    labels = store.get(job.dataset.name, job.dataset.version).info.categories
    unknown = [label for label in labels if label not in job.categories]
    if unknown:
        raise RegistryError(f"{job.model} does not know {', '.join(unknown[:10])}.")
    indices = [job.categories.index(label) for label in labels]  # index in the dataset -> index in the model
    images = {"train": inputs.train_images, "val": inputs.val_images, "test": inputs.test_images}[job.split]
    return replace(
        inputs, train_images=(), test_images=(), val_images=[_with_indices(image, indices) for image in images]
    )


def _with_indices(image: DatasetImage, indices: Sequence[int]) -> DatasetImage:
    objects = tuple(each.model_copy(update={"category": indices[each.category]}) for each in image.objects)
    category = None if image.category is None else indices[image.category]
    return image.model_copy(update={"objects": objects, "category": category})
