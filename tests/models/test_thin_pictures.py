"""Images so thin or small that a detector's networks see less than they were exported for.

torch.export takes for granted that every map is wider and higher than a pixel, as those of its example are: that a
network whose coarsest map has a 128th of the image's sides sees more than 128 px. Compilers may build on that, and no
view is refused for it: what they built has to find there, too, what eager finds.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from models.backends.compiler import BuildRequest, Compiler
from models.backends.eager import EagerBackend
from models.backends.openvino import OpenVino
from models.manifest import ScalePreset
from models.predictors.detection import DetectionSelection, Detector
from tests.models.detecting import assert_same_detections, smooth_pictures, that_detects

PRESET = ScalePreset(shorter_px=32, longer_px=160)
SIZES = ((1, 1), (1, 400), (400, 1), (5, 400), (400, 5), (20, 20), (60, 400))  # height and width, px
CHANNELS = 16


@pytest.mark.parametrize("network", ["retinanet", "fasterrcnn"])
def test_openvino_finds_the_same_as_eager_on_thin_and_small_pictures(network: str, tmp_path: Path) -> None:
    assert_finds_the_same(OpenVino(), network, tmp_path)


def assert_finds_the_same(compiler: Compiler, network: str, directory: Path) -> None:
    predictor = detector(network)
    eager = predictor.backend
    assert isinstance(eager, EagerBackend)
    request = BuildRequest(eager=eager, directory=directory, precision="float32")
    compiler.build(request)
    expected = [found(predictor, height, width) for height, width in SIZES]
    predictor.backend = compiler.load(request)
    assert min(len(one["boxes"]) for one in expected) > 20
    for (height, width), one in zip(SIZES, expected, strict=True):
        assert_same_detections([found(predictor, height, width)], [one], px=0.05, score=2e-4)


def found(predictor: Detector, height: int, width: int) -> dict[str, Tensor]:
    (objects,) = predictor.predict(list(smooth_pictures(1, height, width)), DetectionSelection(score_threshold=0.05))
    boxes = [(one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max) for one in objects]
    return {
        "boxes": torch.tensor(boxes),
        "labels": torch.tensor([one.index for one in objects]),
        "scores": torch.tensor([one.score for one in objects]),
    }


def detector(network: str) -> Detector:
    """torchvision's code around a backbone that is compiled in seconds."""
    torch.manual_seed(0)
    module: nn.Module
    if network == "retinanet":
        module = RetinaNet(pyramid(LastLevelP6P7(CHANNELS, CHANNELS)), num_classes=4, anchor_generator=anchors(5))
    else:
        module = FasterRCNN(
            pyramid(LastLevelMaxPool()),
            num_classes=4,
            rpn_anchor_generator=anchors(4),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        )
    module = that_detects(module.eval().requires_grad_(False), 96, 128)
    return Detector(module, categories=("red", "green", "blue"), preset=PRESET, device="cpu")


def pyramid(more: ExtraFPNBlock) -> BackboneWithFPN:
    """Maps of an 8th, a 16th and a 32nd of the image's sides, and those of `more`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        (name, nn.Sequential(nn.Conv2d(3 if name == "2" else CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.ReLU()))
        for name in ("2", "4", "8", "16", "32")
    )
    return_layers = {"8": "0", "16": "1", "32": "2"}
    return BackboneWithFPN(nn.Sequential(layers), return_layers, [CHANNELS] * 3, CHANNELS, more)


def anchors(levels: int) -> AnchorGenerator:
    """One a place."""
    return AnchorGenerator(tuple((8 * 2**level,) for level in range(levels)), ((1.0,),) * levels)
