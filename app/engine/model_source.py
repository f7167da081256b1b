"""The current meaning of a model reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from models.predictor import AnyPredictor
from models.predictors import loading
from models.store.registry import Registry
from models.store.weights import find_pretrained


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """The weights that a reference means, and how to load them."""

    name: str
    version: int | None  # None: pretrained weights of the catalogue
    architecture: str
    digest: str  # identifies the weights, even if a version number were used again
    size_bytes: int  # size of the weights file
    options: frozenset[tuple[str, str]] = frozenset()  # options of the architecture
    load: Callable[[], AnyPredictor]

    @property
    def reference(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"


class ModelFinder:
    """Finds models in a registry and in the catalogue. It reads files, so it is used in a thread."""

    def __init__(
        self,
        registry: Registry,
        *,
        architectures: frozenset[str],
        weights_dir: Path,
        allow_download: bool,
        device: torch.device,
    ) -> None:
        self._registry = registry
        self._architectures = architectures
        self._weights_dir = weights_dir
        self._allow_download = allow_download
        self.device = device

    def find(self, reference: str) -> ModelSource:
        """The source that `reference` means now. Raises ModelsError."""
        if reference.partition(".")[0] in self._architectures:
            return self._pretrained(reference)
        version = self._registry.resolve(reference)
        manifest = version.manifest
        return ModelSource(
            name=manifest.name,
            version=manifest.version,
            architecture=manifest.architecture,
            digest=f"{manifest.reference} {manifest.sha256}",
            size_bytes=manifest.size_bytes,
            options=frozenset(manifest.options.items()),
            load=lambda: loading.load_version(self._registry, version, self.device),
        )

    def _pretrained(self, reference: str) -> ModelSource:
        found = find_pretrained(reference)
        assert found is not None
        architecture, entry = found
        return ModelSource(
            name=entry.reference,
            version=None,
            architecture=architecture.name,
            digest=entry.reference,
            size_bytes=entry.size_bytes,
            load=lambda: loading.load_pretrained(
                architecture,
                entry,
                weights_dir=self._weights_dir,
                allow_download=self._allow_download,
                device=self.device,
            ),
        )
