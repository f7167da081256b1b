"""From what a caller asks for to what will run: names become versions, defaults become numbers, nonsense is refused.

Needs the catalogue of architectures, and so torch: for the API and for people at a prompt, not for the worker process.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.architectures import catalog
from models.architectures.architecture import Architecture
from models.errors import ModelsError, UnknownArchitecture
from models.manifest import AnyPreset
from models.presets import preset_with_size
from models.registry import ModelVersion, Registry
from workers.datasets.dataset import DatasetInfo
from workers.datasets.store import DatasetStore
from workers.errors import DatasetError, InvalidJob
from workers.fine_tune_config import (
    FineTuneConfig,
    Hyperparameters,
    ResolvedFineTune,
    ResolvedHyperparameters,
    Strategy,
)

NO_WEIGHTS = "none"
DEFAULT_WEIGHTS = "DEFAULT"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """What training starts from."""

    architecture: Architecture
    reference: str | None  # None: random weights
    preset: AnyPreset


def resolve_fine_tune(config: FineTuneConfig, *, datasets: DatasetStore, registry: Registry) -> ResolvedFineTune:
    """Everything the trainer needs to know, and nothing left to default. Raises InvalidJob, which names the field."""
    dataset = _dataset(config, datasets)
    base = _base(config, registry)
    strategy = _strategy(config, base)
    return ResolvedFineTune(
        architecture=base.architecture.name,
        base=base.reference,
        strategy=strategy,
        dataset=dataset.reference,
        categories=dataset.categories,
        preset=_preset(config, base),
        publish_as=_publish_as(config, dataset, registry),
        promote=config.promote,
        hyperparameters=_hyperparameters(config.hyperparameters, strategy, _preset(config, base)),
    )


def _dataset(config: FineTuneConfig, datasets: DatasetStore) -> DatasetInfo:
    try:
        return datasets.resolve(config.dataset).info
    except (DatasetError, ModelsError) as error:
        raise InvalidJob(str(error), field="dataset", hint=error.hint) from error


def _base(config: FineTuneConfig, registry: Registry) -> _Base:
    """`model` names the structure, `weights` the parameters; a registered model names both."""
    try:
        architecture = catalog.get_architecture(config.model)
    except UnknownArchitecture as error:
        if config.weights is not None:
            both = f"Leave `weights` out: the registered model {config.model!r} brings its own."
            raise InvalidJob(
                f"{error} A registered model cannot be given other weights.", field="model", hint=both
            ) from error
        version = _registered(config.model, registry, field="model", unknown=error)
        return _registered_base(version)
    wanted = config.weights
    if wanted is None:
        has_base = architecture.default_weights is not None and config.strategy != "from_scratch"
        wanted = DEFAULT_WEIGHTS if has_base else NO_WEIGHTS
    if wanted == NO_WEIGHTS:
        return _Base(architecture=architecture, reference=None, preset=architecture.preset)
    entries = {entry.name: entry for entry in architecture.weights}
    entry = entries.get(architecture.default_weights or "" if wanted == DEFAULT_WEIGHTS else wanted)
    if entry is not None:
        return _Base(architecture=architecture, reference=entry.reference, preset=entry.preset)
    valid = ", ".join([DEFAULT_WEIGHTS, *entries] if entries else []) or "no pretrained weights"
    hint = (
        f"{architecture.name} has: {valid}. `{NO_WEIGHTS}` trains from random weights; a registered model can be named."
    )
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
    return base


def _registered(reference: str, registry: Registry, *, field: str, unknown: Exception) -> ModelVersion:
    try:
        return registry.resolve(reference)
    except ModelsError as error:
        hints = [str(unknown), getattr(unknown, "hint", None), error.hint]
        raise InvalidJob(str(error), field=field, hint=" ".join(filter(None, hints))) from error


def _registered_base(version: ModelVersion) -> _Base:
    manifest = version.manifest
    architecture = catalog.get_architecture(manifest.architecture)
    return _Base(architecture=architecture, reference=manifest.reference, preset=manifest.preset)


def _strategy(config: FineTuneConfig, base: _Base) -> Strategy:
    if config.strategy is None:
        return "fine_tune" if base.reference else "from_scratch"
    if config.strategy == "from_scratch" and base.reference is not None:
        hint = f"Leave `weights` out or set it to {NO_WEIGHTS!r}, or use the strategy 'fine_tune'."
        raise InvalidJob(f"`from_scratch` cannot start from {base.reference}.", field="strategy", hint=hint)
    if config.strategy != "from_scratch" and base.reference is None:
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


def _publish_as(config: FineTuneConfig, dataset: DatasetInfo, registry: Registry) -> str:
    name = config.publish_as or dataset.name
    try:
        registry.check_new_name(name)
    except ModelsError as error:
        raise InvalidJob(str(error), field="publish_as", hint=error.hint) from error
    return name


def _hyperparameters(wanted: Hyperparameters, strategy: Strategy, preset: AnyPreset) -> ResolvedHyperparameters:
    learning_rate = wanted.learning_rate
    if learning_rate is None:
        learning_rate = 0.001 if wanted.optimizer == "adamw" else 0.01
        if strategy == "fine_tune":
            learning_rate /= 10  # large steps would forget what the base weights know
    values = {
        **wanted.model_dump(),
        "learning_rate": learning_rate,
        "warmup_steps": 0,
        "max_gradient_norm": 0.0,
        "image_size_px": preset.image_size_px,
    }
    return ResolvedHyperparameters.model_validate(values)
