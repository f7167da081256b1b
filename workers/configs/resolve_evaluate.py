"""Resolves an evaluation: names become versions, and invalid configurations are refused."""

from __future__ import annotations

from models.architectures import catalog
from models.errors import ModelsError, UnknownModel
from models.store.registry import Registry
from models.store.weights import find_pretrained
from workers.configs.evaluate import EvaluateConfig, ResolvedEvaluate
from workers.datasets.dataset import DatasetInfo
from workers.datasets.store import DatasetStore
from workers.errors import DatasetError, InvalidJob

_SHOWN = 10


def resolve_evaluate(config: EvaluateConfig, *, datasets: DatasetStore, registry: Registry) -> ResolvedEvaluate:
    """Returns the configuration for the trainer. Raises InvalidJob, which names the wrong field."""
    try:
        dataset = datasets.resolve(config.dataset).info
    except (DatasetError, ModelsError) as error:
        raise InvalidJob(str(error), field="dataset", hint=error.hint) from error
    if config.split not in dataset.splits:
        raise InvalidJob(
            f"{dataset.name}/{dataset.version} has no {config.split} split.",
            field="split",
            hint=f"It has {', '.join(dataset.splits)}.",
        )
    resolved = _model(config, dataset, registry)
    architecture = catalog.get_architecture(resolved.architecture)
    if dataset.task not in architecture.tasks:
        tasks = " and ".join(architecture.tasks)
        raise InvalidJob(
            f"{resolved.model} is for {tasks}, but {dataset.name}/{dataset.version} is for {dataset.task}.",
            field="dataset",
            hint=f"Choose a dataset for {tasks}, or a model for {dataset.task}.",
        )
    _check_categories(resolved, dataset)
    return resolved


def _model(config: EvaluateConfig, dataset: DatasetInfo, registry: Registry) -> ResolvedEvaluate:
    common = {
        "task": dataset.task,
        "dataset": dataset.reference,
        "split": config.split,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "data_workers": config.data_workers,
    }
    try:
        found = find_pretrained(config.model)
        if found is not None:
            architecture, entry = found
            options = architecture.complete_options({})
            own = {"model": entry.reference, "categories": entry.categories, "preset": entry.preset}
            return ResolvedEvaluate.model_validate(
                {**common, **own, "architecture": architecture.name, "options": options}
            )
        manifest = registry.resolve(config.model).manifest
    except ModelsError as error:
        hint = error.hint
        if isinstance(error, UnknownModel):
            hint = f"{hint} Name pretrained weights as in resnet50.IMAGENET1K_V2."
        raise InvalidJob(str(error), field="model", hint=hint) from error
    own = {"model": manifest.reference, "categories": manifest.categories, "preset": manifest.preset}
    return ResolvedEvaluate.model_validate(
        {**common, **own, "architecture": manifest.architecture, "options": manifest.options}
    )


def _check_categories(resolved: ResolvedEvaluate, dataset: DatasetInfo) -> None:
    unknown = [label for label in dataset.categories if label not in resolved.categories]
    reference = f"{dataset.name}/{dataset.version}"
    if unknown:
        raise InvalidJob(
            f"{resolved.model} does not know {len(unknown)} of the categories of {reference}: "
            f"{', '.join(unknown[:_SHOWN])}.",
            field="dataset",
            hint=f"It knows {', '.join(resolved.categories[:_SHOWN])}, {len(resolved.categories)} in all.",
        )
    if dataset.task == "segmentation" and dataset.categories != resolved.categories:
        raise InvalidJob(
            f"The categories of {reference} are not in the order of {resolved.model}.",
            field="dataset",
            hint=f"Use the order {', '.join(resolved.categories[:_SHOWN])}.",
        )
