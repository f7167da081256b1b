"""Detectors taken apart give what torchvision's own forward gives."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from models.architectures.catalog import build, names
from models.backends.compiler import export
from models.backends.detection.candidates import best_of_groups
from models.backends.detection.folding import folded
from models.backends.detection.grids import SIZES_KEPT, Grids
from models.backends.detection.parts import Detections, SplitDetector
from models.backends.detection.region_pooling import Pooling
from models.backends.detection.split import split
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.part import Part
from models.manifest import ScalePreset
from tests.models.detecting import assert_same_detections, smooth_pictures, that_detects
from tests.models.test_yolo import rectangles

pytestmark = pytest.mark.usefixtures("one_thread")  # on images this small a second one only waits

SMALL = {"backbone": "mobilenet_v3_small"}
WHOLE = ("rcnn", "fast_rcnn")  # selective search is most of them
TAKEN_APART = [name for name in names("detection") if name not in WHOLE]
SIZES = {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320)}
ODD = (91, 133)  # px
ALONE = ("fasterrcnn_fpn", "maskrcnn_fpn", "ssdlite320_mobilenet_v3_large", "yolo")  # the light ones, one of each kind
STEPS = {"yolo": 40, "fasterrcnn_fpn": 5}
PRESET = ScalePreset(shorter_px=64, longer_px=64)


def _built(name: str, *, image_size_px: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    options = SMALL if name in ("yolo", "fasterrcnn_fpn", "maskrcnn_fpn") else {}
    module = build(name, num_categories=3, options=options, image_size_px=image_size_px).eval().requires_grad_(False)
    for part in module.modules():
        if isinstance(part, RegionProposalNetwork):
            part._post_nms_top_n = {"training": 40, "testing": 40}  # what is done a thousand times is done forty times
        if isinstance(part, RoIHeads) and (part.has_mask() or part.has_keypoint()):
            part.detections_per_img = 5
    return module


def _apart(module: nn.Module) -> SplitDetector:
    detector = split(module.to(memory_format=torch.channels_last))
    assert detector is not None
    return detector


@torch.inference_mode()
def _both(detector: SplitDetector, batch: Tensor) -> tuple[Detections, Detections]:
    """What the parts give, and what torchvision's forward does with the same weights.

    Its backbone gets the same order of channels, so that both see the same maps to the last bit.
    """
    theirs = copy.deepcopy(detector.module)
    backbone = cast("nn.Module", theirs.backbone)
    backbone.register_forward_pre_hook(lambda _, args: args[0].contiguous(memory_format=torch.channels_last))
    return detector.detect(batch, detector.networks), theirs(list(batch.float() / 255))


@pytest.mark.parametrize("name", TAKEN_APART)
def test_detector_taken_apart_gives_what_its_forward_gives(name: str) -> None:
    size = SIZES.get(name, ODD)
    detector = _apart(that_detects(_built(name), *size))
    pictures = smooth_pictures(2 if name == "ssd300_vgg16" else 3, *size)  # a VGG takes its time

    mine, theirs = _both(detector, pictures)
    assert_same_detections(mine, theirs)
    assert sum(len(one["boxes"]) for one in theirs) >= 5

    if name in ALONE:
        assert_same_detections(*_both(detector, pictures[:1]))


@pytest.mark.parametrize("name", ["fasterrcnn_fpn", "maskrcnn_fpn", "yolo", "ssdlite320_mobilenet_v3_large"])
def test_picture_without_an_object_has_none(name: str) -> None:
    module = _built(name)
    for key, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and key.rpartition(".")[2] in ("cls_score", "category_logits"):
            layer.weight.zero_()
            assert layer.bias is not None
            layer.bias.fill_(-20.0)
            layer.bias[0] = 20.0 if key.endswith("cls_score") else -20.0

    mine, theirs = _both(_apart(module), smooth_pictures(2, *SIZES.get(name, ODD)))

    assert_same_detections(mine, theirs)
    if "ssdlite" not in name:  # from random weights it is sure of nothing: a fourth for each category
        assert [len(one["boxes"]) for one in mine] == [0, 0]


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "yolo", "fasterrcnn_fpn"])
def test_of_thousands_of_candidates_the_same_are_kept(name: str) -> None:
    size = SIZES.get(name, (256, 224))
    module = that_detects(_built(name), *size)
    for part in module.modules():
        if hasattr(part, "score_thresh"):
            cast("Any", part).score_thresh = 1e-4

    mine, theirs = _both(_apart(module), smooth_pictures(2, *size))

    assert_same_detections(mine, theirs)
    assert min(len(one["boxes"]) for one in theirs) >= 60


@pytest.mark.parametrize("name", list(STEPS))
def test_trained_detector_is_served_as_torchvision_runs_it(name: str) -> None:
    torch.manual_seed(0)
    module = _built(name, image_size_px=64).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for step in range(STEPS[name]):
        images, targets = zip(*(rectangles(4 * step + one) for one in range(4)), strict=True)
        optimizer.zero_grad()
        sum(module(list(images), list(targets)).values()).backward()
        optimizer.step()
    module.eval().requires_grad_(False)
    pictures = torch.stack([(rectangles(seed, size_px=96)[0] * 255).to(torch.uint8) for seed in (900, 901)])

    with torch.inference_mode():
        theirs = module(list(pictures.float() / 255))
    served = EagerBackend(DetectionGraph(module, PRESET), "cpu")

    assert_same_detections(served.run(pictures), theirs)
    assert any(len(one["boxes"]) for one in theirs)


def test_networks_that_cannot_be_taken_apart_run_whole() -> None:
    module = build("yolo", num_categories=2, image_size_px=64, options={"variant": "v1", **SMALL}).eval()
    graph = DetectionGraph(module, PRESET)

    assert graph.split is None
    assert graph.module is module
    with torch.inference_mode():
        (found,) = graph(smooth_pictures(1, 64, 64))
    assert found.keys() == {"boxes", "labels", "scores"}


def test_folded_network_has_no_normalization_left_and_computes_the_same() -> None:
    module = that_detects(_built("fasterrcnn_fpn"), *ODD)
    resnet = build("fasterrcnn_fpn", num_categories=2, options={"backbone": "resnet18"}).eval()
    pictures = smooth_pictures(1, *ODD).float() / 255

    for one in (module, resnet):
        light = folded(one)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in light.modules())
        with torch.inference_mode():
            mine, theirs = (list(cast("nn.Module", net.backbone)(pictures).values()) for net in (light, one))
        for ours, its in zip(mine, theirs, strict=True):
            torch.testing.assert_close(ours, its, rtol=1e-3, atol=1e-4 * float(its.abs().max()))


@pytest.mark.parametrize("name", ["yolo", "fasterrcnn_fpn"])
def test_parts_are_exported_with_any_number_of_rows(name: str) -> None:
    detector = _apart(_built(name))

    for part in detector.parts():
        exported = export(part, "float32", torch.device("cpu"))
        rows = torch.rand(3, *_other_sides(part))
        with torch.inference_mode():
            wanted = part.module(rows)
            for mine, its in zip(exported.module()(rows), wanted, strict=True):
                torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def _other_sides(part: Part) -> list[int]:
    """Those of the example, larger where they vary."""
    return [side + 32 if at in part.varies else side for at, side in enumerate(part.example.shape)][1:]


def test_regions_are_pooled_as_roi_align_pools_them() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, 96 // stride, 128 // stride, generator=generator) for stride in (4, 8, 16, 32)]
    corners = torch.rand(60, 2, generator=generator) * torch.tensor([120.0, 90.0])
    boxes = torch.cat((corners, corners + torch.rand(60, 2, generator=generator) * 300), dim=1)
    boxes = torch.cat((boxes, torch.tensor([[0.0, 0, 128, 96], [127.5, 95.5, 128, 96], [-9, -9, -5, -5]])))
    images = torch.arange(len(boxes)) // 32
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)

    channels_last = [one.permute(0, 2, 3, 1).contiguous() for one in maps]
    pooled = Pooling.of(theirs).pool(channels_last, boxes, images, height=96).permute(0, 3, 1, 2)

    named = {str(level): one for level, one in enumerate(maps)}
    wanted = theirs(named, [boxes[images == 0], boxes[images == 1]], [(96, 128), (96, 128)])
    torch.testing.assert_close(pooled, wanted, rtol=1e-5, atol=1e-5)


def test_no_region_is_pooled_to_none() -> None:
    pool = Pooling(cells=7, samples=2, canonical_scale=224, canonical_level=4)

    pooled = pool.pool([torch.zeros(1, 4, 4, 8)] * 2, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), height=16)

    assert pooled.shape == (0, 7, 7, 8)


def test_scale_of_the_maps_does_not_depend_on_the_first_picture() -> None:
    """torchvision rounds it from the first image that it sees, without its padding, and keeps it."""
    detector = _apart(that_detects(_built("fasterrcnn_fpn"), *ODD))
    wanted = detector.detect(pictures := smooth_pictures(1, *ODD), detector.networks)

    detector.detect(smooth_pictures(1, 40, 200), detector.networks)

    assert_same_detections(detector.detect(pictures, detector.networks), wanted)


def test_sizes_of_maps_are_worked_out_once_although_their_anchors_are_not_kept() -> None:
    meta_runs = []

    class Backbone(nn.Conv2d):
        def forward(self, batch: Tensor) -> Any:
            meta_runs.append(tuple(batch.shape[-2:]))
            return {"0": super().forward(batch)}

    made = Grids(Backbone(3, 1, 1, stride=8), AnchorGenerator(((16,),), ((1.0,),)))
    sizes = [(64, 8 * columns) for columns in range(1, 2 * SIZES_KEPT)]
    cpu = torch.device("cpu")

    first = [made.at(*size, cpu) for size in sizes]
    again = [made.at(*size, cpu) for size in sizes]

    assert meta_runs == sizes
    assert [one.counts for one in again] == [(width,) for _, width in sizes]  # 8 rows of a column for 8 px
    for before, after in zip(first, again, strict=True):
        assert torch.equal(before.anchors, after.anchors)


def test_best_of_groups_are_chosen_in_the_groups_that_have_too_many() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2])
    groups = torch.tensor([1, 0, 1, 1, 3])

    assert best_of_groups(scores, groups, count=4, most=2).tolist() == [1, 3, 2, 4]
    assert best_of_groups(scores, groups, count=4, most=3).tolist() == [1, 0, 2, 3, 4]
    assert best_of_groups(scores[:0], groups[:0], count=4, most=3).tolist() == []
