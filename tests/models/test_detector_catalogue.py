"""The catalogue's detectors and segmentation networks: each builds, trains a step, is saved, loads and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from models.architectures.architecture import Architecture
from models.architectures.catalog import build, build_empty, get_architecture, head_parameter_names, layer_table, names
from models.images.presets import preset_with_size
from models.store.state_dicts import for_publishing, module_from_state_dict, read_state_dict, save_state_dict
from tests.builders import gradient_tensor

pytestmark = pytest.mark.usefixtures("one_thread")  # on images this small a second one only waits

NUM_CATEGORIES = 3
SIZE_PX = 64
SMALL = {"backbone": "mobilenet_v3_small"}
# Every structure of ours, small; torchvision's as they are.
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("fast_rcnn", SMALL),
    ("fasterrcnn_fpn", SMALL),
    ("fasterrcnn_fpn", {"backbone": "resnet18"}),
    ("maskrcnn_fpn", SMALL),
    ("rcnn", SMALL),
    ("yolo", SMALL),
    ("yolo", {"variant": "v1", **SMALL}),
    ("yolo", {"backbone": "resnet18"}),
    ("segnet", {"backbone": "vgg11_bn", "width": "quarter"}),
    *((name, {}) for name in (*names("detection"), *names("segmentation")) if not get_architecture(name).options),
)
OURS = ["fast_rcnn", "fasterrcnn_fpn", "maskrcnn_fpn", "rcnn", "yolo"]


def test_catalogue_has_torchvisions_and_ours() -> None:
    theirs = torchvision.models.list_models(module=torchvision.models.detection)
    for_pixels = torchvision.models.list_models(module=torchvision.models.segmentation)

    assert {*theirs, *OURS} <= set(names("detection"))
    assert {*for_pixels, "segnet"} <= set(names("segmentation"))
    assert len(names()) == len(set(names()))
    assert set(names()) == {*names("classification"), *names("detection"), *names("segmentation")}


@pytest.mark.parametrize("name", [*names("detection"), *names("segmentation")])
def test_entry_is_complete(name: str) -> None:
    architecture = get_architecture(name)

    assert architecture.name == name
    assert architecture.parameters == sum(layer.parameters for layer in layer_table(name))
    architecture.check_preset(architecture.preset)
    assert "__background__" not in architecture.categories or architecture.tasks == ("segmentation",)
    for entry in architecture.weights:
        assert len(entry.categories) == len(architecture.categories)
        assert all(0.1 < value < 1 for value in entry.metrics.values())
        assert entry.file_name.endswith(".pth")
        assert 0.9 < entry.size_bytes / (4 * architecture.parameters) < 1.1


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_labels_of_pretrained_detectors_are_positions_from_one(name: str) -> None:
    categories = get_architecture(name).categories

    assert (len(categories), categories[1 - 1], categories[90 - 1]) == (90, "person", "toothbrush")
    assert categories[12 - 1] == "N/A"


def test_only_the_keypoint_network_cannot_be_trained() -> None:
    assert [name for name in names() if not get_architecture(name).is_trainable] == ["keypointrcnn_resnet50_fpn"]
    assert len(get_architecture("keypointrcnn_resnet50_fpn").keypoints) == 17


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_detector_or_segmentation_network_trains_is_saved_loads_and_answers(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    architecture = get_architecture(name)
    size_px = architecture.max_size_px or SIZE_PX
    module = _with_few_regions(build(name, num_categories=NUM_CATEGORIES, image_size_px=size_px, options=options))
    head = head_parameter_names(name, options)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items() if key in head}

    learned = [parameter for key, parameter in module.named_parameters() if key in head]
    optimizer = torch.optim.SGD(learned, lr=0.01)
    loss = sum(_losses(module, architecture, size_px).values())
    assert isinstance(loss, Tensor)
    assert bool(loss.isfinite())
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert len(gradients) > len(learned)
    nn.utils.clip_grad_value_(learned, 0.1)
    optimizer.step()
    module.zero_grad()
    assert any(not torch.equal(tensor, module.state_dict()[key]) for key, tensor in before.items())

    save_state_dict(for_publishing(architecture, module.state_dict()), tmp_path / "weights")
    loaded = _with_few_regions(
        module_from_state_dict(
            architecture,
            read_state_dict(tmp_path / "weights"),
            num_categories=NUM_CATEGORIES,
            image_size_px=size_px,
            options=options,
        )
    )
    _assert_same(_answer(module.eval(), architecture, size_px), _answer(loaded, architecture, size_px))
    (tmp_path / "weights").unlink()


def _with_few_regions(module: nn.Module) -> nn.Module:
    """What a network with two stages does a thousand times is done thirty times."""
    for part in module.modules():
        if isinstance(part, RegionProposalNetwork):
            part._post_nms_top_n = {"training": 30, "testing": 30}
        if isinstance(part, RoIHeads):
            part.fg_bg_sampler.batch_size_per_image = 8
            part.detections_per_img = 4
    return module


def _losses(module: nn.Module, architecture: Architecture, size_px: int) -> dict[str, Tensor]:
    """A step on two images, one of them without an object; segmentation's of all pixels."""
    images = _images(size_px)
    if architecture.tasks == ("segmentation",):
        output = module(torch.stack(images))
        assert output["out"].shape == (2, NUM_CATEGORIES, size_px, size_px)
        labels = torch.arange(size_px).remainder(NUM_CATEGORIES).expand(2, size_px, size_px)
        return {head: nn.functional.cross_entropy(logits, labels) for head, logits in output.items()}
    target = {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0], [20, 8, 60, 30]]), "labels": torch.tensor([1, 3])}
    negative = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    if architecture.makes_masks:
        target["masks"] = torch.zeros(2, size_px, size_px, dtype=torch.uint8)
        target["masks"][:, 10:30, 20:40] = 1
        negative["masks"] = torch.zeros(0, size_px, size_px, dtype=torch.uint8)
    if architecture.keypoints:
        target["keypoints"] = torch.full((2, len(architecture.keypoints), 3), 30.0)
        negative["keypoints"] = torch.zeros(0, len(architecture.keypoints), 3)
    losses: dict[str, Tensor] = module(images, [target, negative], **_proposals(architecture))
    assert all(loss.shape == () for loss in losses.values())
    return losses


@torch.inference_mode()
def _answer(module: nn.Module, architecture: Architecture, size_px: int) -> list[dict[str, Tensor]]:
    image = _images(size_px)[0]
    if architecture.tasks == ("segmentation",):
        return [{"out": module(image[None])["out"]}]
    torch.manual_seed(1)
    answer: list[dict[str, Tensor]] = module([image], **_proposals(architecture, images=1))
    boxes, labels, scores = (answer[0][key] for key in ("boxes", "labels", "scores"))
    assert boxes.shape == (len(labels), 4)
    assert scores.shape == labels.shape
    assert bool(((boxes >= 0) & (boxes <= size_px)).all())
    assert bool(((labels >= 1) & (labels <= NUM_CATEGORIES)).all())
    if architecture.makes_masks:
        assert answer[0]["masks"].shape == (len(labels), 1, size_px, size_px)
    return answer


def _images(size_px: int) -> list[Tensor]:
    return [gradient_tensor(size_px, size_px, seed=seed).float() / 255 for seed in (1, 2)]


def _proposals(architecture: Architecture, images: int = 2) -> dict[str, list[Tensor]]:
    if not architecture.uses_proposals:
        return {}
    return {"proposals": [torch.tensor([[4.0, 5.0, 42.0, 50.0], [0, 0, 20, 20], [30, 30, 64, 64]])] * images}


def _assert_same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> None:
    (mine,), (theirs,) = one, other
    assert mine.keys() == theirs.keys()
    for key, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_head_is_what_the_categories_decide(name: str, options: dict[str, str]) -> None:
    head = head_parameter_names(name, options)
    five = build_empty(name, num_categories=5, options=options).state_dict()

    assert head
    assert not any(key.startswith("backbone.") for key in head)
    assert not any(key.startswith(get_architecture(name).auxiliary) for key in head if get_architecture(name).auxiliary)
    assert {
        key
        for key, tensor in build_empty(name, num_categories=6, options=options).state_dict().items()
        if tensor.shape != five[key].shape
    } == head


@pytest.mark.parametrize(("name", "size_px"), [("fasterrcnn_fpn", 128), ("retinanet_resnet50_fpn", 96)])
def test_detector_leaves_the_scale_of_pictures_alone(name: str, size_px: int) -> None:
    preset = preset_with_size(get_architecture(name).scale_preset, size_px)
    module = build_empty(name, num_categories=2, image_size_px=size_px)
    images = [torch.zeros(3, 40, 333), torch.zeros(3, preset.shorter_px, preset.longer_px)]
    boxes = torch.tensor([[1.0, 2, 30, 31]])

    batch, targets = module.transform(images, [{"boxes": boxes}, {"boxes": boxes}])  # type: ignore[operator]

    assert batch.image_sizes == [(40, 333), (preset.shorter_px, preset.longer_px)]
    assert torch.equal(targets[0]["boxes"], boxes)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fasterrcnn_fpn", 300),
        ("maskrcnn_fpn", 100),
        ("keypointrcnn_resnet50_fpn", 100),
        ("maskrcnn_resnet50_fpn", 100),
    ],
)
def test_two_stage_networks_keep_what_a_later_choice_needs(name: str, count: int) -> None:
    heads = build_empty(name, num_categories=2).roi_heads
    assert isinstance(heads, RoIHeads)

    assert (heads.detections_per_img, heads.nms_thresh, heads.score_thresh) == (count, 0.7, 0.05)


@pytest.mark.parametrize(
    "name", ["fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large"]
)
def test_one_stage_networks_keep_what_a_later_choice_needs(name: str) -> None:
    module: Any = build_empty(name, num_categories=2)

    assert (module.detections_per_img, module.nms_thresh, module.score_thresh) == (300, 0.7, 0.05)


def test_normalisation_of_detectors_is_their_presets() -> None:
    for name in names("detection"):
        if name in ("yolo", "rcnn", "fast_rcnn"):
            continue
        preset, transform = get_architecture(name).scale_preset, build_empty(name, num_categories=2).transform
        assert isinstance(transform, nn.Module)
        assert tuple(transform.image_mean) == pytest.approx(preset.mean)  # type: ignore[arg-type]
        assert tuple(transform.image_std) == pytest.approx(preset.std)  # type: ignore[arg-type]
