from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import nn

from models.architectures.catalog import build, get_architecture
from models.errors import IncompatibleWeights, UnknownArchitecture, UnsupportedPreset
from models.images.presets import apply_preset, preset_with_size
from models.manifest import ManifestDraft
from models.predictions import ClassScore
from models.predictors import loading
from models.predictors.classification import Classifier, top_classes
from models.store.registry import ModelVersion, Registry
from models.store.weights import get_weights, weights_path
from tests.builders import gradient_tensor

CATEGORIES = ("ant", "bee", "wasp")
PRESET = preset_with_size(get_architecture("mobilenet_v3_small").crop_preset, 64)


def trained_module() -> nn.Module:
    """A network whose batch normalization has seen something."""
    torch.manual_seed(0)
    module = build("mobilenet_v3_small", num_categories=3, image_size_px=64)
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, 3, 64, 64))
    return module


@pytest.fixture(scope="module")
def predictor() -> Classifier:
    return Classifier(trained_module(), categories=CATEGORIES, preset=PRESET, device="cpu")


def publish(root: Path, **changes: object) -> tuple[Registry, ModelVersion]:
    registry = Registry(root)
    draft = ManifestDraft(architecture="mobilenet_v3_small", categories=CATEGORIES, preset=PRESET)
    changed = draft.model_copy(update=changes)
    return registry, registry.publish("m", trained_module().state_dict(), changed, now=datetime.now(UTC))


def test_scores_are_the_modules_own_probabilities(predictor: Classifier) -> None:
    image = gradient_tensor(120, 90)
    module = trained_module().eval()

    (scores,) = predictor.scores([image])

    with torch.inference_mode():
        wanted = module(apply_preset(PRESET, image).unsqueeze(0))[0].softmax(0)
    torch.testing.assert_close(scores, wanted)
    assert scores.dtype == torch.float32


def test_prediction_does_not_depend_on_batch_mates(predictor: Classifier) -> None:
    images = [gradient_tensor(80 + 10 * seed, 100, seed=seed) for seed in range(6)]

    together = predictor.scores(images)

    for image, scores in zip(images, together, strict=True):
        torch.testing.assert_close(scores, predictor.scores([image])[0], rtol=1e-4, atol=1e-6)


def test_predictions_leave_the_module_as_it_was(predictor: Classifier) -> None:
    before = copy.deepcopy(predictor.module.state_dict())

    predictor.scores([gradient_tensor()] * 3)

    assert all(torch.equal(tensor, before[key]) for key, tensor in predictor.module.state_dict().items())


def test_threads_predict_what_one_thread_predicts(predictor: Classifier) -> None:
    images = [gradient_tensor(seed=seed) for seed in range(8)]
    alone = [predictor.scores([image])[0] for image in images]

    with ThreadPoolExecutor(4) as pool:
        together = [scores[0] for scores in pool.map(lambda image: predictor.scores([image]), images)]

    assert all(torch.allclose(one, other) for one, other in zip(alone, together, strict=True))


def test_no_images_give_no_predictions(predictor: Classifier) -> None:
    assert predictor.scores([]) == []


def test_size_counts_parameters_and_buffers(predictor: Classifier) -> None:
    assert predictor.size_bytes == sum(tensor.nbytes for tensor in predictor.module.state_dict().values())


def test_registered_version_predicts_as_the_trained_module(tmp_path: Path, predictor: Classifier) -> None:
    registry, version = publish(tmp_path)

    served = loading.load_version(registry, version, "cpu")

    assert isinstance(served, Classifier)
    assert served.categories == CATEGORIES
    assert served.preset == PRESET
    assert torch.equal(served.scores([gradient_tensor()])[0], predictor.scores([gradient_tensor()])[0])


def test_grey_model_predicts_on_colour_images(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    architecture = get_architecture("garment_classifier")
    draft = ManifestDraft(
        architecture=architecture.name, categories=architecture.categories, preset=architecture.crop_preset
    )
    module = build("garment_classifier", num_categories=10)
    version = registry.publish("garments", module.state_dict(), draft, now=datetime.now(UTC))

    served = loading.load_version(registry, version, "cpu")
    assert isinstance(served, Classifier)
    (scores,) = served.scores([gradient_tensor(300, 200)])

    assert scores.shape == (10,)


def test_version_of_an_architecture_that_is_gone_is_refused(tmp_path: Path) -> None:
    registry, version = publish(tmp_path)
    gone = ModelVersion(
        path=version.path, manifest=version.manifest.model_copy(update={"architecture": "mobilenet_v9"})
    )

    with pytest.raises(UnknownArchitecture):
        loading.load_version(registry, gone, "cpu")


def test_version_with_weights_of_another_architecture_is_refused(tmp_path: Path) -> None:
    registry, version = publish(tmp_path, architecture="mobilenet_v2")

    with pytest.raises(IncompatibleWeights):
        loading.load_version(registry, version, "cpu")


def test_version_with_a_preset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    registry, version = publish(tmp_path, preset=get_architecture("garment_classifier").crop_preset)

    with pytest.raises(UnsupportedPreset):
        loading.load_version(registry, version, "cpu")


def test_pretrained_architecture_predicts_its_categories(tmp_path: Path) -> None:
    architecture = get_architecture("squeezenet1_1")
    entry = get_weights(architecture, "DEFAULT")
    path = weights_path(entry, tmp_path)
    path.parent.mkdir(parents=True)
    torch.save(build(architecture.name, num_categories=1000).state_dict(), path)

    served = loading.load_pretrained(architecture, entry, weights_dir=tmp_path, allow_download=False, device="cpu")

    assert isinstance(served, Classifier)
    assert served.scores([gradient_tensor()])[0].shape == (1000,)
    assert served.categories[0] == "tench"


def test_top_classes_are_the_best_first() -> None:
    scores = torch.tensor([0.2, 0.7, 0.1])

    assert [(found.label, found.index) for found in top_classes(scores, CATEGORIES, k=2)] == [("bee", 1), ("ant", 0)]


def test_more_classes_than_there_are_gives_all() -> None:
    assert len(top_classes(torch.tensor([0.2, 0.7, 0.1]), CATEGORIES, k=5)) == 3


def test_no_limit_gives_all() -> None:
    assert len(top_classes(torch.tensor([0.2, 0.7, 0.1]), CATEGORIES)) == 3


def test_scores_under_the_threshold_are_left_away() -> None:
    found = top_classes(torch.tensor([0.25, 0.5, 0.125]), CATEGORIES, threshold=0.25)

    assert [score.score for score in found] == [0.5, 0.25]


def test_equal_scores_keep_the_order_of_categories() -> None:
    found = top_classes(torch.tensor([0.25, 0.5, 0.25]), CATEGORIES)

    assert found[1:] == [
        ClassScore(label="ant", index=0, score=0.25),
        ClassScore(label="wasp", index=2, score=0.25),
    ]
