"""`python -m benchmarks.serving.home ARCHIVE HOME MODEL=ARCHITECTURE ...`: models with random weights of a fixed seed.

The archive becomes the dataset `photos`, which int8 is calibrated on.

In a process of its own: the benchmark's own process does without torch, whose pages it would share with the servers
that are measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

CATEGORIES = 1000  # of classifiers
DATASET = "photos"
_SEED = 0
_LAST_LAYER_STD = 0.001


def make_home(home: Path, archive: Path, models: Mapping[str, str]) -> dict[str, Path]:
    """Publishes an architecture under each name; returns the versions' directories."""
    asked = [f"{name}={architecture}" for name, architecture in models.items()]
    subprocess.run([sys.executable, "-m", "benchmarks.serving.home", str(archive), str(home), *asked], check=True)
    return {name: home / "registry" / name / "1" for name in models}


def main() -> None:
    """Reads the command line and publishes."""
    import torch
    from torch import nn

    from models.architectures.catalog import build, get_architecture, names
    from models.manifest import ManifestDraft
    from models.store.registry import Registry
    from workers.datasets.intake import ingest_archive
    from workers.datasets.store import DatasetStore

    archive, home, *asked = sys.argv[1:]
    datasets = DatasetStore(Path(home) / "datasets")
    ingest_archive(Path(archive), name=DATASET, store=datasets, now=datetime.now(UTC))
    registry = Registry(Path(home) / "registry", reserved_names=frozenset(names()))
    for number, (name, architecture) in enumerate(pair.split("=") for pair in asked):
        entry = get_architecture(architecture)
        detects = entry.tasks[0] == "detection"
        labels = entry.categories if detects else tuple(f"category {index}" for index in range(CATEGORIES))
        torch.manual_seed(_SEED + number)
        module = build(architecture, num_categories=len(labels))
        if not detects:  # else it is sure of something by chance, and rounding changes of what
            last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
            nn.init.normal_(last.weight, std=_LAST_LAYER_STD)
        draft = ManifestDraft(
            task=entry.tasks[0],
            architecture=architecture,
            categories=labels,
            preset=entry.scale_preset if detects else entry.preset,
            origin="uploaded",
        )
        registry.publish(name, module.state_dict(), draft, now=datetime.now(UTC))


if __name__ == "__main__":
    main()
