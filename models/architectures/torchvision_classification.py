"""All of torchvision's classification networks, described from torchvision's own tables of weights."""

from __future__ import annotations

from functools import partial

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode

from models.architectures.architecture import Architecture, NetworkRequest, WeightsEntry, register
from models.manifest import Preset

# Images below this size are enlarged: their last feature maps would be single pixels, and batch normalization over a
# small batch of these makes gradients explode. Some networks need more. The tests train each at its smallest size.
_SMALLEST_PX = 32
_MIN_SIZE_PX = {"alexnet": 63, "inception": 75, "maxvit": 224}
_INCEPTION_AUXILIARY_PX = 299  # its auxiliary head needs a feature map of 17 x 17

# GoogLeNet: Szegedy et al. 2015, section 5. Inception v3: 0.4 is the value of torchvision's fine-tuning tutorial.
_AUXILIARY_WEIGHT = {"googlenet": 0.3, "inception_v3": 0.4}
_PARAMETERS = {"inception_v3": 23_834_568}  # torchvision's table counts its auxiliary head, unlike GoogLeNet's
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


@register(*torchvision.models.list_models(module=torchvision.models), task="classification")
def torchvision_classification(name: str) -> Architecture:
    """The catalogue's entry of one of them."""
    enum = torchvision.models.get_model_weights(name)
    default = enum.DEFAULT
    step_px = _size_step_px(name)
    return Architecture(
        name=name,
        tasks=("classification",),
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        parameters=_PARAMETERS.get(name, default.meta["num_params"]),
        preset=_preset(name, default),
        # Weights without categories are those of half a network: the VGG16 that detectors start from.
        weights=tuple(_entry(name, member) for member in enum if member.meta["categories"]),
        default_weights=default.name,
        categories=tuple(default.meta["categories"]),
        min_size_px=_min_size_px(name, step_px),
        size_step_px=step_px,
        auxiliary=_AUXILIARY.get(name, ()),
        auxiliary_weight=_AUXILIARY_WEIGHT.get(name, 0.0),
        builder=partial(_build, name),
    )


def _build(name: str, wanted: NetworkRequest) -> nn.Module:
    make = torchvision.models.get_model_builder(name)
    module: nn.Module = make(weights=None, num_classes=wanted.num_categories, **_arguments(name, wanted))
    return module


def _arguments(name: str, wanted: NetworkRequest) -> dict[str, object]:
    # transform_input would change ImageNet's normalisation to mean and deviation 0.5, which the preset already has.
    if name == "googlenet":
        return {"transform_input": False, "init_weights": True, "aux_logits": wanted.auxiliary}
    if name == "inception_v3":
        auxiliary = wanted.auxiliary and wanted.image_size_px >= _INCEPTION_AUXILIARY_PX
        return {"transform_input": False, "init_weights": True, "aux_logits": auxiliary}
    if name.startswith("vit_"):
        return {"image_size": wanted.image_size_px}
    if name == "maxvit_t":
        return {"input_size": (wanted.image_size_px, wanted.image_size_px)}
    return {}


def _size_step_px(name: str) -> int:
    if name.startswith("vit_"):
        return int(name.rpartition("_")[2])  # the patch size, 16 for vit_b_16
    return 224 if name == "maxvit_t" else 1  # maxvit: windows of 7 on maps of 1/32


def _min_size_px(name: str, step_px: int) -> int:
    known = (side for prefix, side in _MIN_SIZE_PX.items() if name.startswith(prefix))
    return next(known, -(-_SMALLEST_PX // step_px) * step_px)


def _entry(name: str, member: WeightsEnum) -> WeightsEntry:
    accuracy = member.meta["_metrics"]["ImageNet-1K"]
    return WeightsEntry(
        architecture=name,
        name=member.name,
        url=member.url,
        size_bytes=round(member.meta["_file_size"] * 2**20),
        metrics={"imagenet1k/top1": accuracy["acc@1"] / 100, "imagenet1k/top5": accuracy["acc@5"] / 100},
        preset=_preset(name, member),
        categories=tuple(member.meta["categories"]),
    )


def _preset(name: str, member: WeightsEnum) -> Preset:
    reference = member.transforms()
    assert reference.antialias
    interpolation: InterpolationMode = reference.interpolation
    half = name in ("googlenet", "inception_v3")  # what transform_input=True would produce
    return Preset.model_validate(
        {
            "resize_px": reference.resize_size[0],
            "crop_px": reference.crop_size[0],
            "interpolation": interpolation.value,
            "mean": (0.5,) * 3 if half else tuple(reference.mean),
            "std": (0.5,) * 3 if half else tuple(reference.std),
        }
    )
