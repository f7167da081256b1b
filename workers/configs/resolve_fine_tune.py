"""Resolves a fine-tuning job: names become versions, defaults become values, invalid configurations are refused.

Needs the catalogue of architectures, and so torch. The API and the command line use it, but not the worker process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.architectures import catalog
from models.architectures.architecture import Architecture
from models.errors import ModelsError, UnknownArchitecture
from models.images.presets import preset_with_size
from models.manifest import AnyPreset
from models.store.registry import ModelVersion, Registry
from workers.configs.fine_tune import (
    FineTuneConfig,
    ResolvedFineTune,
    Strategy,
)
from workers.configs.recipes import complete, small_data_options
from workers.configs.selection import selection_metrics
from workers.datasets.dataset import DatasetInfo
from workers.datasets.store import DatasetStore
from workers.errors import DatasetError, InvalidJob

NO_WEIGHTS = "none"
DEFAULT_WEIGHTS = "DEFAULT"
_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """The structure and the weights that training starts from."""

    architecture: Architecture
    reference: str | None  # None: random weights
    preset: AnyPreset
    options: dict[str, str]


def resolve_fine_tune(config: FineTuneConfig, *, datasets: DatasetStore, registry: Registry) -> ResolvedFineTune:
    """Returns the complete configuration for the trainer. Raises InvalidJob, which names the wrong field."""
    dataset = _dataset(config, datasets)
    base = _base(config, registry)
    _check_fit(config, base.architecture, dataset)
    if base.reference is None and config.backbone is config.width is config.backbone_weights is None:
        train_images = dataset.splits["train"].images
        base = replace(
            base, options=base.options | small_data_options(base.architecture.name, train_images=train_images)
        )
    backbone = _backbone_base(config, base, registry)
    strategy = _strategy(config, base, backbone)
    preset = _preset(config, base)
    return ResolvedFineTune(
        task=dataset.task,
        architecture=base.architecture.name,
        options=base.options,
        base=base.reference,
        backbone_base=backbone,
        strategy=strategy,
        dataset=dataset.reference,
        categories=dataset.categories,
        preset=preset,
        publish_as=_publish_as(config, dataset, registry),
        promote=config.promote,
        selection_metric=_selection_metric(config, base.architecture, dataset),
        hyperparameters=complete(
            config.hyperparameters,
            task=dataset.task,
            strategy=strategy,
            image_size_px=preset.image_size_px,
            train_images=dataset.splits["train"].images,
        ),
    )


def _can_learn(name: str, dataset: DatasetInfo) -> bool:
    architecture = catalog.get_architecture(name)
    return architecture.is_trainable and (dataset.has_masks or not architecture.makes_masks)


def _check_fit(config: FineTuneConfig, architecture: Architecture, dataset: DatasetInfo) -> None:
    """Raises InvalidJob if the network cannot learn from this dataset."""
    reference = f"{dataset.name}/{dataset.version}"
    if dataset.task not in architecture.tasks:
        fitting = [name for name in catalog.names(dataset.task) if _can_learn(name, dataset)]
        shown = ", ".join(fitting[:_SHOWN]) + (", …" if len(fitting) > _SHOWN else "")
        raise InvalidJob(
            f"{architecture.name} is for {' and '.join(architecture.tasks)}, but {reference} is for {dataset.task}.",
            field="model",
            hint=f"For this dataset use {shown}. GET /v1/architectures?task={dataset.task} lists all.",
        )
    if not architecture.is_trainable:
        hint = (
            "Use it with its pretrained weights: POST /v1/detect. To learn new categories, use maskrcnn or fasterrcnn."
        )
        raise InvalidJob(f"{architecture.name} cannot be trained.", field="model", hint=hint)
    if dataset.task != "classification" and config.hyperparameters.label_smoothing:
        raise InvalidJob(
            f"`label_smoothing` is only for classification; {reference} is for {dataset.task}.",
            field="hyperparameters.label_smoothing",
            hint="Leave it out.",
        )
    if architecture.makes_masks and not dataset.has_masks:
        hint = "Post a dataset with masks (COCO, or PNGs of instances), or use a detector of boxes, as fasterrcnn_fpn."
        raise InvalidJob(f"{architecture.name} learns masks, but {reference} has only boxes.", field="model", hint=hint)


def _dataset(config: FineTuneConfig, datasets: DatasetStore) -> DatasetInfo:
    try:
        return datasets.resolve(config.dataset).info
    except (DatasetError, ModelsError) as error:
        raise InvalidJob(str(error), field="dataset", hint=error.hint) from error


def _base(config: FineTuneConfig, registry: Registry) -> _Base:
    """Resolves `model` and `weights`: `model` names the structure, `weights` the parameters; a version names both."""
    try:
        architecture = catalog.get_architecture(config.model)
    except UnknownArchitecture as error:
        if config.weights is not None:
            hint = f"If {config.model!r} is a registered model, leave `weights` out: it has its own weights."
            raise InvalidJob(
                f"{error} A registered model cannot start from other weights.", field="model", hint=hint
            ) from error
        version = _registered(config.model, registry, field="model", unknown=error)
        base = _registered_base(version)
        _check_options(config, base)
        return base
    options = _options(config, architecture)
    wanted = config.weights
    if wanted is None:
        has_base = architecture.default_weights is not None and config.strategy != "from_scratch"
        wanted = DEFAULT_WEIGHTS if has_base else NO_WEIGHTS
    if wanted == NO_WEIGHTS:
        return _Base(architecture=architecture, reference=None, preset=architecture.preset, options=options)
    entries = {entry.name: entry for entry in architecture.weights}
    entry = entries.get(architecture.default_weights or "" if wanted == DEFAULT_WEIGHTS else wanted)
    if entry is not None:
        return _Base(architecture=architecture, reference=entry.reference, preset=entry.preset, options=options)
    valid = ", ".join([DEFAULT_WEIGHTS, *entries] if entries else []) or "no pretrained weights"
    hint = f"{architecture.name} has {valid}. Or use `{NO_WEIGHTS}` for random weights, or name a registered model."
    if wanted == DEFAULT_WEIGHTS:
        raise InvalidJob(f"{architecture.name} has no pretrained weights.", field="weights", hint=hint)
    unknown = InvalidJob(f"{architecture.name} has no weights {wanted!r}.", field="weights", hint=hint)
    base = _registered_base(_registered(wanted, registry, field="weights", unknown=unknown))
    if base.architecture.name != architecture.name:
        raise InvalidJob(
            f"{wanted} is a {base.architecture.name}, not a {architecture.name}.",
            field="weights",
            hint=f"Set `model` to {base.architecture.name!r}, or choose weights of {architecture.name}.",
        )
    _check_options(config, base)
    return base


def _wanted_options(config: FineTuneConfig) -> dict[str, str]:
    wanted = {"variant": config.variant, "backbone": config.backbone, "width": config.width}
    return {name: value for name, value in wanted.items() if value is not None}


def _options(config: FineTuneConfig, architecture: Architecture) -> dict[str, str]:
    wanted = _wanted_options(config)
    for name, value in wanted.items():
        try:
            architecture.complete_options({name: value})
        except ModelsError as error:
            raise InvalidJob(str(error), field=name, hint=error.hint) from error
    return architecture.complete_options(wanted)


def _check_options(config: FineTuneConfig, base: _Base) -> None:
    """Raises InvalidJob if the job wants other options than the registered model has."""
    for name, value in _wanted_options(config).items():
        if base.options.get(name) != value:
            hint = f"Leave `{name}` out, or start from other weights."
            present = base.options.get(name, "none")
            raise InvalidJob(f"The {name} of {base.reference} is {present}, not {value}.", field=name, hint=hint)


def _backbone_base(config: FineTuneConfig, base: _Base, registry: Registry) -> str | None:
    """Resolves `backbone_weights`: `resnet18.IMAGENET1K_V1`, `ants-bees/2`, or None for no separate weights."""
    wanted, architecture = config.backbone_weights, base.architecture
    if wanted in (None, NO_WEIGHTS):
        return None
    assert wanted is not None
    if base.reference is not None:
        hint = f"Leave one of them out, or set `weights` to {NO_WEIGHTS!r}."
        raise InvalidJob(f"{base.reference} includes the weights of its backbone.", field="backbone_weights", hint=hint)
    if architecture.backbone is None:
        raise InvalidJob(
            f"{architecture.name} has no separate backbone.", field="backbone_weights", hint="Use `weights` instead."
        )
    backbone = catalog.get_architecture(architecture.backbone(base.options).architecture)
    entries = {entry.name: entry for entry in backbone.weights}
    entry = entries.get(backbone.default_weights or "" if wanted == DEFAULT_WEIGHTS else wanted)
    if entry is not None:
        return entry.reference
    valid = ", ".join([DEFAULT_WEIGHTS, *entries])
    hint = f"{backbone.name} has {valid}. Or name a registered {backbone.name}."
    unknown = InvalidJob(f"{backbone.name} has no weights {wanted!r}.", field="backbone_weights", hint=hint)
    version = _registered(wanted, registry, field="backbone_weights", unknown=unknown)
    if version.manifest.architecture != backbone.name:
        raise InvalidJob(
            f"{wanted} is a {version.manifest.architecture}, but the backbone is a {backbone.name}.",
            field="backbone_weights",
            hint=f"Name a registered {backbone.name}, or choose another `backbone`.",
        )
    return version.manifest.reference


def _registered(reference: str, registry: Registry, *, field: str, unknown: Exception) -> ModelVersion:
    try:
        return registry.resolve(reference)
    except ModelsError as error:
        hints = [str(unknown), getattr(unknown, "hint", None), error.hint]
        raise InvalidJob(str(error), field=field, hint=" ".join(filter(None, hints))) from error


def _registered_base(version: ModelVersion) -> _Base:
    manifest = version.manifest
    architecture = catalog.get_architecture(manifest.architecture)
    return _Base(
        architecture=architecture,
        reference=manifest.reference,
        preset=manifest.preset,
        options=architecture.complete_options(manifest.options),
    )


def _strategy(config: FineTuneConfig, base: _Base, backbone: str | None) -> Strategy:
    reference = base.reference or backbone
    if config.strategy is None:
        return "fine_tune" if reference else "from_scratch"
    if config.strategy == "from_scratch" and reference is not None:
        hint = f"Leave `weights` out, set it to {NO_WEIGHTS!r}, or use the strategy 'fine_tune'."
        raise InvalidJob(f"`from_scratch` cannot start from {reference}.", field="strategy", hint=hint)
    if config.strategy != "from_scratch" and reference is None:
        hint = "Use 'from_scratch', or choose base weights: GET /v1/architectures lists them."
        raise InvalidJob(f"`{config.strategy}` needs weights to start from.", field="strategy", hint=hint)
    return config.strategy


def _preset(config: FineTuneConfig, base: _Base) -> AnyPreset:
    size_px = config.hyperparameters.image_size_px
    if size_px is None:
        return base.preset
    try:
        base.architecture.check_size(size_px)
    except ModelsError as error:
        raise InvalidJob(str(error), field="hyperparameters.image_size_px", hint=error.hint) from error
    return preset_with_size(base.preset, size_px)


def _selection_metric(config: FineTuneConfig, architecture: Architecture, dataset: DatasetInfo) -> str:
    has_masks = architecture.makes_masks and dataset.has_masks
    choices = selection_metrics(dataset.task, categories=dataset.categories, has_masks=has_masks)
    wanted = config.selection_metric or choices[0]
    if wanted not in choices:
        raise InvalidJob(
            f"{architecture.name} on {dataset.name}/{dataset.version} has no metric {wanted!r} to choose an epoch by.",
            field="selection_metric",
            hint=f"Use {', '.join(choices[:-1])} or {choices[-1]}, or leave it out for {choices[0]}.",
        )
    return wanted


def _publish_as(config: FineTuneConfig, dataset: DatasetInfo, registry: Registry) -> str:
    name = config.publish_as or dataset.name
    try:
        registry.check_new_name(name)
    except ModelsError as error:
        raise InvalidJob(str(error), field="publish_as", hint=error.hint) from error
    return name
