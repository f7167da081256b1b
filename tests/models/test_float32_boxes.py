"""Boxes under autocast: the layers compute in bfloat16 or float16, but boxes, AP and losses are those of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from models.architectures.catalog import build, get_architecture
from workers.datasets.dataset import DatasetImage, DatasetObject
from workers.training.detection.metrics import coco_scores

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"backbone": "mobilenet_v3_small"}
WIDTH_PX, HEIGHT_PX = 288, 192
CATEGORIES = ("ant", "bee", "cat")
# One network per kind of head. Their boxes are decoded by different code.
DETECTORS: tuple[tuple[str, dict[str, str]], ...] = (
    ("fasterrcnn_mobilenet_v3_large_320_fpn", {}),
    ("fasterrcnn_fpn", SMALL),
    ("maskrcnn_fpn", SMALL),
    ("retinanet_resnet50_fpn", {}),
    ("fcos_resnet50_fpn", {}),
    ("ssd300_vgg16", {}),
    ("ssdlite320_mobilenet_v3_large", {}),
    ("rcnn", SMALL),
    ("fast_rcnn", SMALL),
    ("yolo", SMALL),
    ("yolo", {"variant": "v1", **SMALL}),
)
CASES = [
    *((*each, torch.bfloat16) for each in DETECTORS),
    *(("fasterrcnn_fpn", SMALL, torch.float16), ("ssdlite320_mobilenet_v3_large", {}, torch.float16)),
]


class Layers:
    """All layers with weights of a network. In a second run they repeat their rounded answers of the first."""

    def __init__(self, module: nn.Module, low: torch.dtype) -> None:
        self._layers = [
            layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        self._low = low
        self._answers: list[Tensor] = []

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Answers in float32, but with values that the low precision can express."""

        def rounded(_: nn.Module, __: object, output: Tensor) -> Tensor:
            self._answers.append(output.detach().to(self._low))
            return self._answers[-1].float()

        handles = [layer.register_forward_hook(rounded) for layer in self._layers]
        yield
        for handle in handles:
            handle.remove()

    @contextmanager
    def repeated_under_autocast(self) -> Iterator[None]:
        """The same answers, in the low precision. Nothing is computed, because many CPUs emulate bfloat16 slowly."""
        rest = iter(self._answers)
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", self._low):
            for layer in self._layers:
                patch.setattr(layer, "forward", lambda _: next(rest))
            yield


def a_detector(name: str, options: dict[str, str]) -> tuple[nn.Module, list[Tensor], dict[str, Any]]:
    """A network whose answers are far from those of an untrained one, an image, and proposals if it needs them."""
    torch.manual_seed(0)
    size_px = get_architecture(name).max_size_px or HEIGHT_PX
    module = build(name, num_categories=len(CATEGORIES), image_size_px=size_px, options=options)
    for part in module.modules():
        if hasattr(part, "score_thresh") and not isinstance(part, RegionProposalNetwork):
            part.score_thresh = 0.0  # type: ignore[assignment]
    width = size_px if size_px != HEIGHT_PX else WIDTH_PX
    corners = torch.rand(12, 2) * torch.tensor([width - 90.0, size_px - 90.0])
    proposals = torch.cat((corners, corners + 20 + torch.rand(12, 2) * 69), dim=1)
    arguments = {"proposals": [proposals]} if get_architecture(name).uses_proposals else {}
    return module, [torch.rand(3, size_px, width)], arguments


@pytest.mark.parametrize(("name", "options", "low"), CASES, ids=str)
def test_boxes_and_ap_are_those_of_float32(
    name: str, options: dict[str, str], low: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.architectures.detector_parts.SCORE_THRESHOLD", 0.0)
    module, images, arguments = a_detector(name, options)
    module.eval()
    layers = Layers(module, low)
    with torch.inference_mode():
        with layers.rounded():
            (exact,) = module(images, None, **arguments)
        with layers.repeated_under_autocast():
            (found,) = module(images, None, **arguments)

    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert len(found["boxes"]) >= 5
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)
    assert average_precision(found, exact) == average_precision(exact, exact)


def average_precision(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """AP of the detections if the ten best ones of float32 with an area were the objects."""
    boxes, labels = truth["boxes"], truth["labels"]
    chosen = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(dim=1).nonzero().flatten()[:10]
    objects = tuple(
        DatasetObject(category=int(labels[index]) - 1, box=tuple(boxes[index].tolist())) for index in chosen
    )
    image = DatasetImage(path="", name="", objects=objects, width=WIDTH_PX, height=HEIGHT_PX, sha256="")
    return coco_scores([found], [image], CATEGORIES).summary["map"]


@pytest.mark.parametrize(
    ("name", "options", "low"), [each for each in CASES if get_architecture(each[0]).is_trainable], ids=str
)
def test_losses_are_those_of_float32(name: str, options: dict[str, str], low: torch.dtype) -> None:
    module, images, arguments = a_detector(name, options)
    boxes = torch.tensor([[150.3, 130.7, 260.2, 180.9], [180.4, 20.6, 280.1, 110.2], [10.2, 10.8, 60.5, 90.3]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2, 3])}
    if get_architecture(name).makes_masks:
        target["masks"] = (torch.rand(3, *images[0].shape[1:]) > 0.5).to(torch.uint8)
    batch = [images[0], images[0].flip(1)]
    arguments = {key: 2 * value for key, value in arguments.items()}
    layers = Layers(module, low)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    losses = []
    for context in (layers.rounded(), layers.repeated_under_autocast()):
        torch.manual_seed(1)  # the choice of regions
        with context, torch.no_grad():
            losses.append({key: float(value) for key, value in module(batch, [target] * 2, **arguments).items()})

    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", ["fasterrcnn_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16"])
def test_anchors_are_those_of_float32_and_stay_so(name: str) -> None:
    """torchvision would store rounded anchors in the network, and every later image in float32 would get them."""
    module, *_ = a_detector(name, SMALL if get_architecture(name).options else {})
    (generator,) = [part for part in module.modules() if isinstance(part, AnchorGenerator | DefaultBoxGenerator)]
    levels = len(generator.num_anchors_per_location())
    maps = [torch.zeros(1, 1, 40 // 2**level, 40 // 2**level) for level in range(levels)]
    images = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])

    (exact,) = generator(images, maps)
    (found,) = generator(images, [one.bfloat16() for one in maps])
    (again,) = generator(images, maps)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0)
    torch.testing.assert_close(again, exact, rtol=0, atol=0)


def test_perfect_codes_in_bfloat16_reach_an_ap_near_one() -> None:
    """Small objects of a 1333 x 800 image: decoded in bfloat16, even perfect codes reach an AP of 0.587 only."""
    torch.manual_seed(0)
    sides = torch.empty(400, 2).uniform_(12, 32)
    corners = torch.rand(400, 2) * (torch.tensor([1333.0, 800.0]) - sides)
    objects = torch.cat((corners, corners + sides), dim=1)
    proposals = objects + torch.randn(400, 4) * sides.repeat(1, 2) * 0.1
    codes = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(objects, proposals).bfloat16()
    module, *_ = a_detector("fasterrcnn_fpn", SMALL)
    heads = module.roi_heads
    assert isinstance(heads, RoIHeads)
    heads.box_predictor.forward = lambda _: (torch.zeros(400, 2), codes)
    _, answered = heads.box_predictor(None)
    boxes = heads.box_coder.decode(answered, [proposals])[:, 0]
    found = {"boxes": boxes, "labels": torch.ones(400, dtype=torch.int64), "scores": torch.rand(400)}
    image = DatasetImage(
        path="",
        name="",
        objects=tuple(DatasetObject(category=0, box=tuple(box)) for box in objects.tolist()),
        width=1333,
        height=800,
        sha256="",
    )
    parts = [{key: value[start : start + 100] for key, value in found.items()} for start in range(0, 400, 100)]
    images = [image.model_copy(update={"objects": image.objects[start : start + 100]}) for start in range(0, 400, 100)]

    assert coco_scores(parts, images, ("cell",)).summary["map_small"] > 0.98
