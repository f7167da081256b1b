"""All of torchvision's networks that give every pixel a category.

FCN: Long et al. 2015; DeepLabv3: Chen et al. 2017; LR-ASPP: Howard et al. 2019.
"""

from __future__ import annotations

from functools import partial

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum, segmentation

from models.architectures.architecture import Architecture, Backbone, NetworkRequest, WeightsEntry, register
from models.manifest import ScalePreset

_SHORTER_PX = 520  # the size at which torchvision measured all of them
_MIN_SIZE_PX = 64
_AUXILIARY_WEIGHT = 0.5  # as in torchvision's training script
_AUXILIARY = "aux_classifier."
# Numbers of parameters without auxiliary heads; torchvision's tables count these heads.
_PARAMETERS = {
    "deeplabv3_mobilenet_v3_large": 11_025_477,
    "deeplabv3_resnet101": 58_630_997,
    "deeplabv3_resnet50": 39_638_869,
    "fcn_resnet101": 51_949_141,
    "fcn_resnet50": 32_957_013,
}


@register(*torchvision.models.list_models(module=segmentation), task="segmentation")
def torchvision_segmentation(name: str) -> Architecture:
    """The catalogue's entry of one of them."""
    enum = torchvision.models.get_model_weights(name)
    default = enum.DEFAULT
    has_auxiliary = not name.startswith("lraspp")
    return Architecture(
        name=name,
        tasks=("segmentation",),
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        parameters=_PARAMETERS.get(name, default.meta["num_params"]),
        preset=_preset(),
        backbone=lambda _: _backbone(name),
        weights=tuple(_entry(name, member) for member in enum),
        default_weights=default.name,
        categories=tuple(default.meta["categories"]),
        min_size_px=_MIN_SIZE_PX,
        auxiliary=(_AUXILIARY,) if has_auxiliary else (),
        auxiliary_weight=_AUXILIARY_WEIGHT if has_auxiliary else 0.0,
        builder=partial(_build, name),
    )


def voc_categories() -> tuple[str, ...]:
    """Pascal VOC's 21 categories, the background first."""
    return tuple(torchvision.models.get_model_weights("fcn_resnet50").DEFAULT.meta["categories"])


def _build(name: str, wanted: NetworkRequest) -> nn.Module:
    make = torchvision.models.get_model_builder(name)
    heads = {} if name.startswith("lraspp") else {"aux_loss": wanted.auxiliary}
    module: nn.Module = make(weights=None, weights_backbone=None, num_classes=wanted.num_categories, **heads)
    return module


def _backbone(name: str) -> Backbone:
    architecture = name.partition("_")[2]
    source = "features." if architecture.startswith("mobilenet") else ""
    return Backbone(architecture=architecture, prefix="backbone.", source_prefix=source)


def _entry(name: str, member: WeightsEnum) -> WeightsEntry:
    (reported,) = member.meta["_metrics"].values()
    return WeightsEntry(
        architecture=name,
        name=member.name,
        url=member.url,
        size_bytes=round(member.meta["_file_size"] * 2**20),
        metrics={
            "coco_voc/mean_iou": reported["miou"] / 100,
            "coco_voc/pixel_accuracy": reported["pixel_acc"] / 100,
        },
        preset=_preset(),
        categories=tuple(member.meta["categories"]),
    )


def _preset() -> ScalePreset:
    # torchvision does not limit the longer side. No camera's images are more than twice as long as they are high.
    return ScalePreset(shorter_px=_SHORTER_PX, longer_px=2 * _SHORTER_PX)
