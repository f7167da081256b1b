"""Which model a foreign protocol's name and version mean, and what it is like. Nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import InvalidName, UnknownVersion
from models.manifest import AnyPreset, Task
from models.store.registry import ModelVersion, Registry
from models.store.weights import find_pretrained

PRETRAINED_VERSION = 1  # these protocols know numbers only; the catalogue's weights have one version each


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """One version of a model."""

    name: str  # as it was asked for
    version: int
    versions: tuple[int, ...]  # that can be asked for under this name, ascending
    reference: str  # names this very version, whatever aliases do meanwhile
    task: Task
    architecture: str
    categories: tuple[str, ...]
    preset: AnyPreset


def find_served(registry: Registry, name: str, version: str | None = None) -> ServedModel:
    """The version asked for; without one, what Fovea's own API takes for the name. Reads the registry: in a thread.

    name: `ants-bees`, `ants-bees@staging`, `resnet50`, `resnet50.IMAGENET1K_V2`.
    version: a number; TorchServe's `2.0` is 2. Raises ModelsError.
    """
    number = None if version is None else _number(name, version)
    found = find_pretrained(name)
    if found is not None:
        architecture, entry = found
        if number not in (None, PRETRAINED_VERSION):
            hint = f"Pretrained weights have the version {PRETRAINED_VERSION}."
            raise UnknownVersion(f"{name} has no version {number}.", hint=hint)
        return ServedModel(
            name=name,
            version=PRETRAINED_VERSION,
            versions=(PRETRAINED_VERSION,),
            reference=entry.reference,
            task=architecture.tasks[0],
            architecture=architecture.name,
            categories=tuple(entry.categories),
            preset=entry.preset,
        )
    if "/" in name:
        raise InvalidName(f"{name[:100]!r} is no model name.", hint="The version stands in a place of its own.")
    return _described(registry, name, registry.resolve(name) if number is None else registry.get(name, number))


def _described(registry: Registry, name: str, found: ModelVersion) -> ServedModel:
    manifest = found.manifest
    is_alias = name != manifest.name
    return ServedModel(
        name=name,
        version=manifest.version,
        versions=(manifest.version,) if is_alias else tuple(registry.versions(manifest.name)),
        reference=manifest.reference,
        task=manifest.task,
        architecture=manifest.architecture,
        categories=manifest.categories,
        preset=manifest.preset,
    )


def _number(name: str, version: str) -> int:
    digits = version.removesuffix(".0")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise UnknownVersion(f"{name} has no version {version[:100]!r}.", hint="Versions are whole numbers from 1 on.")
    return int(digits)
