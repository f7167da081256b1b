"""You Only Look Once (Redmon et al. 2016): boxes and categories in one pass, then and now."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from models.architectures.architecture import Architecture, Option
from models.architectures.backbones import backbone_keys
from models.architectures.torchvision_detection import coco_categories
from models.architectures.yolo_modern import YoloModern
from models.architectures.yolo_v1 import CELL_PX, YoloV1
from models.manifest import ScalePreset

NAME = "yolo"
_SIZE_PX = 416
_OPTIONS = (
    Option(
        name="variant",
        choices=("modern", "v1"),
        description="modern: three grids, no anchors, learned assignment. v1: the paper's one grid.",
    ),
    Option(
        name="backbone",
        choices=("resnet18", "resnet34", "resnet50", "mobilenet_v3_small"),
        description="Feature extractor; mobilenet_v3_small is for CPUs.",
    ),
)


def yolo() -> Architecture:
    """The catalogue's entry."""
    return Architecture(
        name=NAME,
        tasks=("detection",),
        family="yolo",
        parameters=12_620_634,
        preset=ScalePreset(shorter_px=_SIZE_PX, longer_px=_SIZE_PX),
        options=_OPTIONS,
        backbone=lambda options: backbone_keys(options["backbone"]),
        weights=(),
        default_weights=None,
        categories=coco_categories(),
        min_size_px=64,
        builder=_build,
    )


def _build(
    *,
    num_categories: int,
    image_size_px: int,
    auxiliary: bool,  # noqa: ARG001 - it has none
    options: Mapping[str, str],
) -> nn.Module:
    if options["variant"] == "v1":
        grid = -(-image_size_px // CELL_PX)
        return YoloV1(backbone=options["backbone"], num_categories=num_categories, grid=grid)
    return YoloModern(backbone=options["backbone"], num_categories=num_categories)
