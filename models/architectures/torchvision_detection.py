"""torchvision's detectors, all of them, and the same two-stage networks on small backbones for CPUs.

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

from models.architectures.architecture import Architecture, Backbone, Option, WeightsEntry
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, ScalePreset

BOX_IOU_THRESHOLD = 0.7  # little is suppressed here: models.architectures.detection_outputs decides
_SCORE_THRESHOLD = 0.05
_MAX_DETECTIONS, _MAX_MASK_DETECTIONS = 300, 100  # masks are pasted at the image's size: 300 would take gigabytes

_MIN_SIZE_PX = 64
_SSD_SIZES_PX = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}  # the anchors are made for these
_SMALL = {"fasterrcnn_fpn": detection.FasterRCNN, "maskrcnn_fpn": detection.MaskRCNN}
_SMALL_BACKBONES = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small")

# torchvision's tables count networks whose batch normalization is frozen; here it learns until it is told not to.
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
# Made when frozen batch normalization added no epsilon to the variance (torchvision's pull request 2933).
_WITHOUT_EPSILON = {
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
}


def names() -> list[str]:
    """Catalogue names, sorted."""
    return sorted([*torchvision.models.list_models(module=detection), *_SMALL])


def torchvision_detection(name: str) -> Architecture:
    """The catalogue's entry of one of `names()`."""
    if name in _SMALL:
        return _small(name)
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


def coco_categories() -> tuple[str, ...]:
    """COCO's 90 indices without the background, `N/A` where COCO has no category."""
    return _categories(torchvision.models.get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT)


def _small(name: str) -> Architecture:
    return Architecture(
        name=name,
        tasks=("detection",),
        family="faster_rcnn" if name == "fasterrcnn_fpn" else "mask_rcnn",
        parameters=_PARAMETERS[name],
        preset=ScalePreset(shorter_px=480, longer_px=800),
        options=(Option(name="backbone", choices=_SMALL_BACKBONES, description="Feature extractor."),),
        backbone=lambda options: _fpn_backbone(options["backbone"]),
        makes_masks=name == "maskrcnn_fpn",
        weights=(),
        default_weights=None,
        categories=coco_categories(),
        min_size_px=_MIN_SIZE_PX,
        builder=partial(_build_small, name),
    )


def _build(
    name: str,
    *,
    num_categories: int,
    image_size_px: int,
    auxiliary: bool,  # noqa: ARG001 - they have none
    options: Mapping[str, str],  # noqa: ARG001 - they have none
) -> nn.Module:
    make = torchvision.models.get_model_builder(name)
    module: nn.Module = make(
        weights=None, weights_backbone=None, num_classes=num_categories + 1, **_limits(name), **_keypoints(name)
    )
    if name.startswith(("fcos", "retinanet")):
        module.register_forward_hook(_without_background)
    return module if name in _SSD_SIZES_PX else _without_resizing(module, image_size_px, _preset(name))


def _build_small(
    name: str,
    *,
    num_categories: int,
    image_size_px: int,
    auxiliary: bool,  # noqa: ARG001 - they have none
    options: Mapping[str, str],
) -> nn.Module:
    backbone = options["backbone"]
    if backbone.startswith("resnet"):
        features = resnet_fpn_backbone(
            backbone_name=backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        anchors = {}  # one size a level
    else:
        norm_layer = partial(nn.BatchNorm2d, eps=1e-3)  # the epsilon of its classification weights
        features = mobilenet_backbone(
            backbone_name=backbone, weights=None, fpn=True, norm_layer=norm_layer, trainable_layers=6
        )
        sizes = ((32, 64, 128, 256, 512),) * 3  # torchvision's for the large one
        anchors = {
            "rpn_anchor_generator": detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
        }
    module = _SMALL[name](features, num_categories + 1, **anchors, **_limits(name))
    return _without_resizing(module, image_size_px, _small(name).scale_preset)


def _without_background(_: nn.Module, __: Any, output: Any) -> Any:
    """Drops detections of label 0: these heads score it like any other, and what has not learned much may pick it."""
    if isinstance(output, dict):  # losses
        return output
    return [{key: tensor[of_image["labels"] > 0] for key, tensor in of_image.items()} for of_image in output]


class _AlreadyScaled(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Normalises and pads to a batch. Leaves the size alone: images are at the preset's scale, or jittered from it."""

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
        return None  # SSD's VGG takes other numbers than 0 to 1, SSDLite's MobileNet is narrower: no classifier's fit
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
    if name == "ssd300_vgg16":  # values of 0 to 255, as Caffe's VGG had them
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
