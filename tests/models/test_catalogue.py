"""The whole catalogue: every architecture builds with a new head, trains a step, is published, loads and serves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn

from models.architectures.architecture import Architecture, split_outputs
from models.architectures.catalog import build, get_architecture, head_parameter_names, names
from models.images.presets import apply_preset, normalise, preset_with_size
from models.manifest import ManifestDraft, Preset
from models.predictors import loading
from models.predictors.classification import Classifier
from models.store.registry import Registry
from tests.builders import gradient_tensor

pytestmark = pytest.mark.usefixtures("one_thread")  # on images this small a second one only waits

CATEGORIES = ("ant", "bee", "fly", "moth", "wasp")  # as many as no other layer has of anything
GIANT_PARAMETERS = 300_000_000  # of these only the head learns: gradients of everything would take gigabytes more


def test_catalogue_has_all_classifiers_of_torchvision() -> None:
    theirs = torchvision.models.list_models(module=torchvision.models)

    assert set(theirs) <= set(names("classification"))
    assert names("classification") == sorted(names("classification"))
    assert len(theirs) >= 80


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    yield Registry(tmp_path)
    shutil.rmtree(tmp_path)  # pytest keeps the directories of the last runs, and these are gigabytes


@pytest.mark.parametrize("name", names("classification"))
def test_architecture_trains_is_published_loads_and_serves(name: str, registry: Registry) -> None:
    torch.manual_seed(0)
    architecture = get_architecture(name)
    preset = preset_with_size(architecture.crop_preset, architecture.min_size_px)
    module = build(name, num_categories=len(CATEGORIES), image_size_px=preset.crop_px)
    before = {key: tensor.clone() for key, tensor in _head(module, architecture).items()}

    _train_step(module, architecture, preset)
    assert any(not torch.equal(before[key], tensor) for key, tensor in _head(module, architecture).items())

    draft = ManifestDraft(architecture=name, categories=CATEGORIES, preset=preset)
    version = registry.publish("model", module.state_dict(), draft, now=datetime.now(UTC))
    predictor = loading.load_version(registry, version, "cpu")
    assert isinstance(predictor, Classifier)

    image = gradient_tensor(preset.crop_px + 9, preset.crop_px + 5)
    (scores,) = predictor.scores([image])
    assert scores.shape == (len(CATEGORIES),)
    assert float(scores.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(scores, _scores(module, apply_preset(preset, image)), rtol=1e-4, atol=1e-5)
    assert version.manifest.parameters == sum(parameter.numel() for parameter in predictor.module.parameters())


def _head(module: nn.Module, architecture: Architecture) -> dict[str, torch.Tensor]:
    """The last layer, found by its number of categories."""
    parameters = {
        key: parameter.detach()
        for key, parameter in module.named_parameters()
        if parameter.shape[0] == len(CATEGORIES) and not key.startswith(architecture.auxiliary)
    }
    assert 1 <= len(parameters) <= 2, parameters.keys()
    return parameters


def _train_step(module: nn.Module, architecture: Architecture, preset: Preset) -> None:
    """One update of SGD on two images that differ."""
    if sum(parameter.numel() for parameter in module.parameters()) > GIANT_PARAMETERS:
        head = head_parameter_names(architecture.name)
        for key, parameter in module.named_parameters():
            parameter.requires_grad_(key in head)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    side = preset.crop_px
    pixels = torch.stack([gradient_tensor(side, side, seed=seed)[: preset.channels] for seed in (1, 2)])
    optimizer = torch.optim.SGD(learned, lr=0.01)
    logits, auxiliary = split_outputs(module(normalise(preset, pixels)))
    loss = sum(
        (architecture.auxiliary_weight * nn.functional.cross_entropy(head, torch.tensor([0, 1])) for head in auxiliary),
        nn.functional.cross_entropy(logits, torch.tensor([0, 1])),
    )
    loss.backward()  # type: ignore[no-untyped-call]
    # Batch normalization over two images makes the gradients of deep networks with fresh weights enormous.
    nn.utils.clip_grad_value_(learned, 0.1)
    optimizer.step()
    optimizer.zero_grad()


@torch.inference_mode()
def _scores(module: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = module.eval()(pixels.unsqueeze(0))[0].softmax(0)
    return scores
