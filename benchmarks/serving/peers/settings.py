"""What every peer is told by the environment: which network, how it runs, with how many threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from benchmarks.serving.networks import Backend, Network, make_network, preset_of
from benchmarks.serving.peers import variables
from models.manifest import Preset


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """Of one peer."""

    architecture: str
    weights: Path  # safetensors
    pictures: Path  # a directory of JPEGs
    categories: int
    backend: Backend  # only where it is tuned
    processes: int  # that predict, each with one thread, where it is tuned

    @classmethod
    def from_environment(cls) -> Self:
        """As `variables.environment` wrote them."""
        return cls(
            architecture=os.environ[variables.ARCHITECTURE],
            weights=Path(os.environ[variables.WEIGHTS]),
            pictures=Path(os.environ[variables.PICTURES]),
            categories=int(os.environ[variables.CATEGORIES]),
            backend=cast("Backend", os.environ[variables.BACKEND]),
            processes=int(os.environ[variables.PROCESSES]),
        )

    @property
    def preset(self) -> Preset:
        return preset_of(self.architecture)

    def single_threaded_network(self, *, sizes: Sequence[int]) -> Network:
        """The fastest backend of this machine on one thread."""
        return make_network(
            self.backend,
            self.architecture,
            self.weights,
            categories=self.categories,
            threads=1,
            sizes=sizes,
            pictures=self.pictures,
        )
