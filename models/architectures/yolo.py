"""You Only Look Once (Redmon et al. 2016): boxes and categories in one pass, as in the paper and modernised."""

from __future__ import annotations

from torch import nn

from models.architectures.architecture import Architecture, NetworkRequest, Option, register
from models.architectures.backbones import backbone_keys, backbone_option
from models.architectures.torchvision_detection import coco_categories
from models.architectures.yolo_modern import YoloModern
from models.architectures.yolo_v1 import CELL_PX, YoloV1
from models.manifest import ScalePreset

_SIZE_PX = 416


@register("yolo", task="detection")
def yolo(name: str) -> Architecture:
    """The catalogue's entry."""
    return Architecture(
        name=name,
        tasks=("detection",),
        family="yolo",
        parameters=12_620_634,
        preset=ScalePreset(shorter_px=_SIZE_PX, longer_px=_SIZE_PX),
        options=(
            Option(
                name="variant",
                choices=("modern", "v1"),
                description="modern: three grids, no anchors, learned assignment. v1: the paper's one grid.",
            ),
            backbone_option("Feature extractor; mobilenet_v3_small is for CPUs."),
        ),
        backbone=lambda options: backbone_keys(options["backbone"]),
        categories=coco_categories(),
        min_size_px=64,
        builder=_build,
    )


def _build(wanted: NetworkRequest) -> nn.Module:
    backbone = wanted.options["backbone"]
    if wanted.options["variant"] == "v1":
        grid = -(-wanted.image_size_px // CELL_PX)
        return YoloV1(backbone=backbone, num_categories=wanted.num_categories, grid=grid)
    return YoloModern(backbone=backbone, num_categories=wanted.num_categories)
