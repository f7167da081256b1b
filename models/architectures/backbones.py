"""Feature extractors inside our own detectors: torchvision's classification networks without their heads.

Their state_dict keys are those of the classification network, so its weights fit: see `backbone_keys` and
`models.store.weights.load_backbone`.
"""

from __future__ import annotations

from functools import partial

import torchvision.models
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from models.architectures.architecture import Backbone, Option

PREFIX = "backbone."

# The last layer of each stage and its channels, by the stride of its feature map in pixels of the image.
_STAGES: dict[str, dict[int, tuple[str, int]]] = {
    "resnet18": {8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet34": {8: ("layer2", 128), 16: ("layer3", 256), 32: ("layer4", 512)},
    "resnet50": {8: ("layer2", 512), 16: ("layer3", 1024), 32: ("layer4", 2048)},
    "mobilenet_v3_small": {8: ("3", 24), 16: ("8", 48), 32: ("12", 576)},
}


def feature_maps(name: str, strides: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """`name` with fresh weights, up to the last of the feature maps with `strides`, and the channels of these maps.

    The module takes float32 [B, 3, H, W] and returns a dict: `"8"` is float32 [B, C, H / 8, W / 8].
    """
    stages = _STAGES[name]
    if name.startswith("resnet"):
        network = torchvision.models.get_model_builder(name)(weights=None)
    else:
        # The epsilon is that of the classification network. Its momentum, 0.01, is too slow for runs of a few hundred
        # steps.
        norm_layer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)
        network = torchvision.models.get_model_builder(name)(weights=None, norm_layer=norm_layer).features
    wanted = {stages[stride][0]: str(stride) for stride in strides}
    return IntermediateLayerGetter(network, wanted), tuple(stages[stride][1] for stride in strides)


def backbone_option(description: str) -> Option:
    """The option `backbone`, for networks that take any of the feature extractors here."""
    return Option(name="backbone", choices=tuple(_STAGES), description=description)


def backbone_keys(name: str) -> Backbone:
    """Where the classification network `name` is in a detector whose `backbone` is `feature_maps(name, ...)`."""
    source = "" if name.startswith("resnet") else "features."
    return Backbone(architecture=name, prefix=PREFIX, source_prefix=source)
