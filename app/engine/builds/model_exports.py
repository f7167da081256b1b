"""Where the built networks of a model lie, and which weights they were built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.backends.exports import Exports
from models.manifest import DatasetReference
from models.store.registry import Registry
from models.store.storage import sha256_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelExports:
    """The built networks of one set of weights."""

    exports: Exports
    weights: str  # digest
    dataset: DatasetReference | None = None  # that the model learned from


def exports_of(registry: Registry, weights_dir: Path, *, name: str, version: int | None) -> ModelExports:
    """Of a registered version, or with None of pretrained weights of the catalogue. Reads the disk: in a thread.

    Raises ModelsError; OSError if the pretrained weights are gone.
    """
    if version is not None:
        found = registry.get(name, version)
        manifest = found.manifest
        return ModelExports(exports=Exports(found.exports_dir), weights=manifest.sha256, dataset=manifest.dataset)
    from models.store.weights import find_pretrained, weights_path  # torch, which who waits for the lock does without

    pretrained = find_pretrained(name)
    assert pretrained is not None
    digest = sha256_of(weights_path(pretrained[1], weights_dir))
    directory = exports_dir(weights_dir)
    directory.mkdir(exist_ok=True)
    return ModelExports(exports=Exports(directory / pretrained[1].reference), weights=digest)


def exports_dir(weights_dir: Path) -> Path:
    """Where those of pretrained weights lie, a directory each, and the lock of whoever builds."""
    return weights_dir / "exports"
