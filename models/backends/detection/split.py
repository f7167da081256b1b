"""Takes detectors apart into networks and the code around them."""

from __future__ import annotations

from torch import nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from models.architectures.yolo_modern import YoloModern
from models.backends.detection.folding import folded
from models.backends.detection.parts import SplitDetector
from models.backends.detection.sigmoid_heads import SplitSigmoid
from models.backends.detection.ssd import SplitSSD
from models.backends.detection.two_stage import SplitTwoStage
from models.backends.detection.yolo import SplitYolo


def split(module: nn.Module) -> SplitDetector | None:
    """A copy of the detector, folded and taken apart; None if it can only be run as it is."""
    if isinstance(module, SSD):
        return SplitSSD(folded(module))
    if isinstance(module, RetinaNet | FCOS):
        return SplitSigmoid(folded(module))
    if isinstance(module, GeneralizedRCNN):
        return SplitTwoStage(folded(module))
    if isinstance(module, YoloModern):
        return SplitYolo(folded(module))
    return None
