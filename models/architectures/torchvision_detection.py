"""All of torchvision's detectors, and its two-stage networks with small backbones for CPUs.

Faster R-CNN: Ren et al. 2015; Mask R-CNN: He et al. 2017; FPN: Lin et al. 2017; RetinaNet: Lin et al. 2017; FCOS: Tian
et al. 2019; SSD: Liu et al. 2016; SSDLite: Sandler et al. 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torchvision.models
from torch import Tensor, nn
from torchvision.models import WeightsEnum, detection
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.architectures.architecture import Architecture, Backbone, NetworkRequest, Option, WeightsEntry, register
from models.architectures.float32_boxes import keep_boxes_in_float32
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, ScalePreset

BOX_IOU_THRESHOLD = 0.7  # suppresses little; models.architectures.detection_outputs chooses what remains
_SCORE_THRESHOLD = 0.05
_MAX_DETECTIONS, _MAX_MASK_DETECTIONS = 300, 100  # masks are pasted at the image's size: 300 would take gigabytes

_MIN_SIZE_PX = 64
_SSD_SIZES_PX = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}  # the anchors are made for these
_SMALL = {"fasterrcnn_fpn": detection.FasterRCNN, "maskrcnn_fpn": detection.MaskRCNN}
_SMALL_PRESET = ScalePreset(shorter_px=480, longer_px=800)
_SMALL_BACKBONES = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small")

# torchvision's tables leave out batch normalization, which is frozen there. Here it learns unless a job freezes it.
_PARAMETERS = {
    "fasterrcnn_fpn": 28_739_606,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 19_410_754,
    "fasterrcnn_mobilenet_v3_large_fpn": 19_410_754,
    "fasterrcnn_resnet50_fpn": 41_808_406,
    "fcos_resnet50_fpn": 32_322_720,
    "keypointrcnn_resnet50_fpn": 59_190_378,
    "maskrcnn_fpn": 31_385_713,
    "maskrcnn_resnet50_fpn": 44_454_513,
    "retinanet_resnet50_fpn": 34_068_119,
}
# Weights from a time when frozen batch normalization added no epsilon (torchvision's pull request 2933).
_WITHOUT_EPSILON = {
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
}


@register(*torchvision.models.list_models(module=detection), task="detection")
def torchvision_detection(name: str) -> Architecture:
    """The catalogue's entry of one of torchvision's."""
    enum = torchvision.models.get_model_weights(name)
    default = enum.DEFAULT
    fixed_px = _SSD_SIZES_PX.get(name)
    return Architecture(
        name=name,
        tasks=("detection",),
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        parameters=_PARAMETERS.get(name, default.meta["num_params"]),
        preset=_preset(name),
        backbone=_backbone_of(name),
        makes_masks=name.startswith("maskrcnn"),
        keypoints=tuple(default.meta.get("keypoint_names", ())),
        is_trainable=not name.startswith("keypointrcnn"),
        weights=tuple(_entry(name, member) for member in enum),
        default_weights=default.name,
        categories=_categories(default),
        min_size_px=fixed_px or _MIN_SIZE_PX,
        max_size_px=fixed_px,
        builder=partial(_build, name),
    )


@register(*_SMALL, task="detection")
def small_detection(name: str) -> Architecture:
    """The catalogue's entry of one with a small backbone."""
    return Architecture(
        name=name,
        tasks=("detection",),
        family="faster_rcnn" if name == "fasterrcnn_fpn" else "mask_rcnn",
        parameters=_PARAMETERS[name],
        preset=_SMALL_PRESET,
        options=(Option(name="backbone", choices=_SMALL_BACKBONES, description="Feature extractor."),),
        backbone=lambda options: _fpn_backbone(options["backbone"]),
        makes_masks=name == "maskrcnn_fpn",
        categories=coco_categories(),
        min_size_px=_MIN_SIZE_PX,
        builder=partial(_build_small, name),
    )


def coco_categories() -> tuple[str, ...]:
    """COCO's 90 indices without the background; `N/A` if COCO has no category for an index."""
    return _categories(torchvision.models.get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT)


def _build(name: str, wanted: NetworkRequest) -> nn.Module:
    make = torchvision.models.get_model_builder(name)
    module: nn.Module = make(
        weights=None, weights_backbone=None, num_classes=wanted.num_categories + 1, **_limits(name), **_keypoints(name)
    )
    if name.startswith(("fcos", "retinanet")):
        module.register_forward_hook(_without_background)
    keep_boxes_in_float32(module)
    return module if name in _SSD_SIZES_PX else _without_resizing(module, wanted.image_size_px, _preset(name))


def _build_small(name: str, wanted: NetworkRequest) -> nn.Module:
    backbone = wanted.options["backbone"]
    if backbone.startswith("resnet"):
        features = resnet_fpn_backbone(
            backbone_name=backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        anchors = {}  # torchvision's: one size per level
    else:
        norm_layer = partial(nn.BatchNorm2d, eps=1e-3)  # the epsilon of the backbone's classification weights
        features = mobilenet_backbone(
            backbone_name=backbone, weights=None, fpn=True, norm_layer=norm_layer, trainable_layers=6
        )
        sizes = ((32, 64, 128, 256, 512),) * 3  # as torchvision has for mobilenet_v3_large
        anchors = {
            "rpn_anchor_generator": detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
        }
    module = keep_boxes_in_float32(_SMALL[name](features, wanted.num_categories + 1, **anchors, **_limits(name)))
    return _without_resizing(module, wanted.image_size_px, _SMALL_PRESET)


def _without_background(_: nn.Module, __: Any, output: Any) -> Any:
    """Drops detections with label 0. These heads score the background too, and with little training it may win."""
    if isinstance(output, dict):  # losses
        return output
    return [{key: tensor[of_image["labels"] > 0] for key, tensor in of_image.items()} for of_image in output]


class _AlreadyScaled(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Normalises images and pads them to a batch. Does not resize: the caller has already scaled the images."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def _without_resizing(module: nn.Module, image_size_px: int, preset: ScalePreset) -> nn.Module:
    longer_px = round(preset.longer_px * image_size_px / preset.shorter_px)
    module.transform = _AlreadyScaled(image_size_px, longer_px, list(preset.mean), list(preset.std))
    return module


def _limits(name: str) -> dict[str, Any]:
    most = _MAX_MASK_DETECTIONS if name.startswith(("maskrcnn", "keypointrcnn")) else _MAX_DETECTIONS
    if name.partition("_")[0] in ("fasterrcnn", "maskrcnn", "keypointrcnn"):
        return {
            "box_score_thresh": _SCORE_THRESHOLD,
            "box_nms_thresh": BOX_IOU_THRESHOLD,
            "box_detections_per_img": most,
        }
    return {"score_thresh": _SCORE_THRESHOLD, "nms_thresh": BOX_IOU_THRESHOLD, "detections_per_img": most}


def _keypoints(name: str) -> dict[str, int]:
    if not name.startswith("keypointrcnn"):
        return {}
    enum = torchvision.models.get_model_weights(name)
    return {"num_keypoints": len(enum.DEFAULT.meta["keypoint_names"])}


def _backbone_of(name: str) -> Callable[[Mapping[str, str]], Backbone] | None:
    if name in _SSD_SIZES_PX:
        # No classifier's weights fit: SSD's VGG takes values from 0 to 255, SSDLite's MobileNet is narrower.
        return None
    return lambda _: _fpn_backbone("mobilenet_v3_large" if "mobilenet" in name else "resnet50")


def _fpn_backbone(architecture: str) -> Backbone:
    source = "features." if architecture.startswith("mobilenet") else ""
    return Backbone(architecture=architecture, prefix="backbone.body.", source_prefix=source)


def _entry(name: str, member: WeightsEnum) -> WeightsEntry:
    (reported,) = member.meta["_metrics"].values()
    words = {"box_map": "coco/map", "mask_map": "coco/mask_map", "kp_map": "coco/keypoint_map"}
    return WeightsEntry(
        architecture=name,
        name=member.name,
        url=member.url,
        size_bytes=round(member.meta["_file_size"] * 2**20),
        metrics={words[key]: value / 100 for key, value in reported.items()},
        preset=_preset(name),
        categories=_categories(member),
        batch_norm_epsilon=0.0 if name in _WITHOUT_EPSILON else None,
    )


def _categories(member: WeightsEnum) -> tuple[str, ...]:
    background, *categories = member.meta["categories"]
    assert background in ("__background__", "no person")
    return tuple(categories)


def _preset(name: str) -> ScalePreset:
    if name == "ssd300_vgg16":  # values from 0 to 255, as in Caffe's VGG
        size_px = _SSD_SIZES_PX[name]
        return ScalePreset(
            shorter_px=size_px,
            longer_px=size_px,
            keeps_aspect=False,
            mean=(0.48235, 0.45882, 0.40784),
            std=(1 / 255, 1 / 255, 1 / 255),
        )
    if name == "ssdlite320_mobilenet_v3_large":
        size_px = _SSD_SIZES_PX[name]
        return ScalePreset(
            shorter_px=size_px, longer_px=size_px, keeps_aspect=False, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        )
    shorter_px, longer_px = (320, 640) if name == "fasterrcnn_mobilenet_v3_large_320_fpn" else (800, 1333)
    return ScalePreset(shorter_px=shorter_px, longer_px=longer_px, mean=IMAGENET_MEAN, std=IMAGENET_STD)
