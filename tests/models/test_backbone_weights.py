"""Weights of classification networks in detectors, and torchvision's files of detectors as they are on its server."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from models.architectures.catalog import build, build_empty, get_architecture, names
from models.errors import IncompatibleWeights, UnsupportedOption
from models.store.state_dicts import modern_keys
from models.store.weights import load_backbone, with_batch_norm_epsilon

WITH_BACKBONE = [name for name in names() if get_architecture(name).backbone is not None]


def test_every_detector_but_ssd_takes_a_classifiers_weights() -> None:
    without = {name for name in (*names("detection"), *names("segmentation")) if name not in WITH_BACKBONE}

    assert without == {"ssd300_vgg16", "ssdlite320_mobilenet_v3_large"}


@pytest.mark.parametrize("name", WITH_BACKBONE)
def test_backbone_is_the_classifier_key_by_key(name: str) -> None:
    architecture = get_architecture(name)
    for option in next(((one.choices) for one in architecture.options if one.name == "backbone"), ("",)):
        options = architecture.complete_options({"backbone": option} if option else {})
        assert architecture.backbone is not None
        backbone = architecture.backbone(options)
        own = build_empty(name, num_categories=2, options=options).state_dict()
        classifier = build_empty(backbone.architecture, num_categories=2).state_dict()
        in_backbone = [key for key in own if key.startswith(backbone.prefix)]

        assert in_backbone
        for key in in_backbone:
            assert own[key].shape == classifier[backbone.source_prefix + key.removeprefix(backbone.prefix)].shape


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("yolo", {"backbone": "mobilenet_v3_small"}),
        ("yolo", {"backbone": "mobilenet_v3_small", "variant": "v1"}),
        ("fast_rcnn", {"backbone": "resnet18"}),
        ("fasterrcnn_fpn", {"backbone": "resnet18"}),
        ("lraspp_mobilenet_v3_large", {}),
        ("segnet", {"backbone": "vgg11_bn"}),
    ],
    ids=str,
)
def test_backbone_is_taken_over_and_nothing_else(name: str, options: dict[str, str]) -> None:
    architecture = get_architecture(name)
    assert architecture.backbone is not None
    backbone = architecture.backbone(architecture.complete_options(options))
    classifier = build(backbone.architecture, num_categories=7).state_dict()
    for tensor in classifier.values():
        tensor.fill_(3)
    module = build(name, num_categories=2, options=options)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}

    load_backbone(module, architecture, options, classifier)

    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, torch.full_like(tensor, 3) if key.startswith(backbone.prefix) else before[key]), key


def test_weights_of_another_classifier_are_refused_and_change_nothing() -> None:
    architecture = get_architecture("fasterrcnn_fpn")
    module = build("fasterrcnn_fpn", num_categories=2, options={"backbone": "resnet18"})
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}

    with pytest.raises(IncompatibleWeights) as raised:
        load_backbone(module, architecture, {"backbone": "resnet18"}, build("alexnet", num_categories=2).state_dict())

    assert "backbone.body.conv1.weight" in raised.value.missing
    assert "takes the weights of resnet18" in (raised.value.hint or "")
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_deeper_classifier_is_refused_with_what_does_not_fit() -> None:
    module = build("yolo", num_categories=2)

    with pytest.raises(IncompatibleWeights) as raised:
        load_backbone(module, get_architecture("yolo"), {}, build("resnet50", num_categories=2).state_dict())

    assert any("backbone.layer1.0.conv1.weight: [64, 64, 1, 1]" in key for key in raised.value.mismatched)


def test_narrow_segnet_takes_no_classifiers_weights() -> None:
    options = {"backbone": "vgg11_bn", "width": "quarter"}
    module = build("segnet", num_categories=2, options=options)

    with pytest.raises(IncompatibleWeights):
        load_backbone(
            module, get_architecture("segnet"), options, build_empty("vgg11_bn", num_categories=2).state_dict()
        )


def test_network_without_such_a_backbone_says_so() -> None:
    with pytest.raises(IncompatibleWeights, match="no backbone"):
        load_backbone(nn.Linear(1, 1), get_architecture("ssd300_vgg16"), {}, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("yolo", {"variant": "v9"}),
        ("yolo", {"depth": "5"}),
        ("resnet18", {"backbone": "resnet18"}),
        ("rcnn", {"x" * 999: ""}),
    ],
)
def test_option_that_is_not_is_refused(name: str, options: dict[str, str]) -> None:
    with pytest.raises(UnsupportedOption) as raised:
        build(name, num_categories=2, options=options)

    assert raised.value.hint
    assert len(str(raised.value)) < 200


OLDER = (
    ("fasterrcnn_resnet50_fpn", r"(\.fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
    ("fasterrcnn_resnet50_fpn", r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    ("maskrcnn_resnet50_fpn", r"mask_head\.(\d)\.0\.", lambda key: f"mask_head.mask_fcn{int(key[1]) + 1}."),
    ("keypointrcnn_resnet50_fpn", r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    ("retinanet_resnet50_fpn", r"(head\.\w+_head\.conv)\.(\d)\.0\.", lambda key: f"{key[1]}.{2 * int(key[2])}."),
)


@pytest.mark.parametrize(("name", "pattern", "older"), OLDER)
def test_older_names_in_torchvisions_files_are_read(name: str, pattern: str, older: str) -> None:
    module = build_empty(name, num_categories=2)
    own = module.state_dict()
    old = {
        re.sub(pattern, older, key): tensor for key, tensor in own.items() if not key.endswith("num_batches_tracked")
    }
    assert old.keys() - own.keys()

    modern = modern_keys(module, get_architecture(name), old)

    assert modern.keys() == own.keys()
    assert all(modern[key] is tensor or key.endswith("num_batches_tracked") for key, tensor in own.items())


def test_only_files_of_before_the_fix_are_given_an_epsilon() -> None:
    without = {
        entry.architecture
        for name in names()
        for entry in get_architecture(name).weights
        if entry.batch_norm_epsilon is not None
    }

    assert without == {
        "fasterrcnn_resnet50_fpn",
        "keypointrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn",
    }


def test_file_made_without_an_epsilon_computes_the_same() -> None:
    frozen = FrozenBatchNorm2d(3, eps=0.0).double()  # 500 less 500 has few digits in float32
    frozen.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    frozen.running_var.copy_(torch.tensor([1e-6, 1e-3, 1.0]))
    frozen.running_mean.copy_(torch.tensor([0.5, 0.1, -1.0]))
    ours, pixels = nn.BatchNorm2d(3).eval().double(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    state_dict: dict[str, Tensor] = {f"bn.{key}": tensor for key, tensor in frozen.state_dict().items()}

    changed = with_batch_norm_epsilon({**state_dict, "other": pixels}, was=0.0)
    ours.load_state_dict(
        {key.removeprefix("bn."): tensor for key, tensor in changed.items() if key != "other"}, strict=False
    )

    torch.testing.assert_close(ours(pixels), frozen(pixels))
    assert changed["other"] is pixels
