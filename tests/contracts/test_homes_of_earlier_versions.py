"""A home that an earlier Fovea wrote is read, and goes on: its files are written here byte for byte as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import UnknownVersion
from models.store.registry import Registry
from tests.datasets.test_store import publish as publish_dataset
from tests.models.test_registry import publish as publish_model
from workers.configs.fine_tune import ResolvedHyperparameters
from workers.datasets.store import DatasetStore

DATASET = """{
  "format_version": 1, "name": "shapes", "version": %d, "created_at": "2026-01-02T03:04:05Z",
  "task": "classification", "format": "image_folder", "categories": ["ants", "bees"], "has_masks": false,
  "splits": {
    "train": {"images": 1, "images_by_category": {"ants": 1, "bees": 0}, "objects_by_category": {}},
    "val": {"images": 0, "images_by_category": {"ants": 0, "bees": 0}, "objects_by_category": {}}
  },
  "sizes": {
    "width_min": 1, "width_median": 1, "width_max": 1, "height_min": 1, "height_median": 1, "height_max": 1
  },
  "size_bytes": 7, "fingerprint": "f", "validation_fraction": null, "seed": 0, "report": []
}
"""
IMAGE = (
    '{"path":"train/ants/1.png","name":"ants/1.png","category":0,"objects":[],"label_map":null,"width":16,"height":12,'
    '"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}\n'
)
MANIFEST = """{
  "task": "classification", "architecture": "garment_classifier", "options": {}, "categories": ["ant", "bee"],
  "preset": {
    "channels": 1, "resize_px": 28, "crop_px": 28, "interpolation": "bilinear", "mean": [0.5], "std": [0.5]
  },
  "metrics": {}, "dataset": null, "base": null, "strategy": null, "config": {}, "seed": null, "job_id": null,
  "origin": "trained", "device": null, "libraries": {}, "description": null, "format_version": 1,
  "name": "needle", "version": %d, "created_at": "2030-01-02T03:04:05Z", "parameters": 43746, "size_bytes": 8,
  "sha256": "c0d3d671417b714571cac4431548b014e0e0222f2ac964ce01c482cfc119ef7b"
}"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """`shapes` has versions 1 and 2, `needle` has 1, in production; each had one more, which was deleted."""
    files = {
        "datasets/.locks/shapes": "3",
        "datasets/.locks/shapes.lock": "",
        "registry/.locks/needle": "00000000000000000002",
        "registry/needle/1/manifest.json": MANIFEST % 1,
        "registry/needle/1/state_dict.safetensors": "8 bytes.",
        "registry/needle/aliases/production": "1",
    }
    for version in (1, 2):
        files[f"datasets/shapes/{version}/dataset.json"] = DATASET % version
        files[f"datasets/shapes/{version}/train.jsonl"] = IMAGE
        files[f"datasets/shapes/{version}/val.jsonl"] = ""
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_datasets_are_read(home: Path) -> None:
    store = DatasetStore(home / "datasets")
    newest = store.resolve("shapes")

    assert (store.names(), store.versions("shapes")) == (["shapes"], [1, 2])
    assert (newest.info.version, newest.info.categories) == (2, ("ants", "bees"))
    assert [image.path for image in store.images(newest, "train")] == ["train/ants/1.png"]


def test_deleted_numbers_of_datasets_are_remembered(home: Path) -> None:
    store = DatasetStore(home / "datasets")

    assert publish_dataset(store, "shapes").info.version == 4
    store.delete("shapes", 4)
    assert publish_dataset(store, "shapes").info.version == 5


def test_models_are_read(home: Path) -> None:
    registry = Registry(home / "registry")
    version = registry.resolve("needle")

    assert (registry.names(), registry.versions("needle")) == (["needle"], [1])
    assert registry.aliases("needle") == {"production": 1}
    assert (version.manifest.reference, version.manifest.categories) == ("needle/1", ("ant", "bee"))


def test_deleted_numbers_of_models_are_remembered(home: Path) -> None:
    registry = Registry(home / "registry")

    with pytest.raises(UnknownVersion):
        registry.get("needle", 2)
    assert publish_model(registry, "needle").manifest.version == 3


def test_hyperparameters_of_an_earlier_job_are_read() -> None:
    earlier = {"epochs": 1, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1, "image_size_px": 64}

    assert ResolvedHyperparameters.model_validate(earlier).max_gradient_norm == 0
