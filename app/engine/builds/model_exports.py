"""The location of a model's built backends, and the weights that they were built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.backends.exports import Exports
from models.manifest import DatasetReference
from models.store.registry import Registry
from models.store.storage import sha256_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelExports:
    """The built backends of one set of weights."""

    exports: Exports
    weights: str  # digest
    dataset: DatasetReference | None = None  # the model's training data


def exports_of(registry: Registry, weights_dir: Path, *, name: str, version: int | None) -> ModelExports:
    """The exports of a registered version; version None selects pretrained weights. Reads the disk, in a thread.

    Raises ModelsError; OSError if the pretrained weights are gone.
    """
    if version is not None:
        found = registry.get(name, version)
        manifest = found.manifest
        return ModelExports(exports=Exports(found.exports_dir), weights=manifest.sha256, dataset=manifest.dataset)
    from models.store.weights import (  # imports torch, which a process that waits for the lock does not need
        find_pretrained,
        weights_path,
    )

    pretrained = find_pretrained(name)
    assert pretrained is not None
    digest = sha256_of(weights_path(pretrained[1], weights_dir))
    directory = exports_dir(weights_dir)
    directory.mkdir(exist_ok=True)
    return ModelExports(exports=Exports(directory / pretrained[1].reference), weights=digest)


def exports_dir(weights_dir: Path) -> Path:
    """The directory for exports of pretrained weights, and for the lock of the builder."""
    return weights_dir / "exports"
