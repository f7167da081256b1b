"""Detectors from random weights that find much: what the last layers say is spread as widely as training spreads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_SCORES = ("cls_logits", "classification_head.module_list", "cls_score", "category_logits", "bbox_ctrness")
_BOXES = ("bbox_pred", "bbox_reg", "regression_head.module_list", "distances")
_SPREADS = {**dict.fromkeys(_SCORES, 2.0), **dict.fromkeys(_BOXES, 0.5)}


def smooth_pictures(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Clouds of three sizes, uint8 [B, 3, h, w]."""
    generator = torch.Generator().manual_seed(seed)
    clouds = [
        functional.interpolate(
            torch.rand(count, 3, max(2, height // grain), max(2, width // grain), generator=generator),
            (height, width),
            mode="bilinear",
        )
        for grain in (4, 16, 48)
    ]
    return (torch.stack(clouds).mean(0) * 255).to(torch.uint8)


@torch.no_grad()
def that_detects(module: nn.Module, height: int, width: int) -> nn.Module:
    """`module`, with statistics of images of that size and last layers that disagree about them."""
    pictures = list(smooth_pictures(2, height, width, seed=9).float() / 255)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    module(pictures)
    module.eval()
    hooks = [
        part.register_forward_hook(_spread_to(spread))
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
        and (spread := next((_SPREADS[key] for key in _SPREADS if key in name), None)) is not None
        and not (isinstance(part, nn.Conv2d) and part.groups > 1)
    ]
    module(pictures[:1])
    for hook in hooks:
        hook.remove()
    return module


def assert_same_detections(
    mine: Sequence[dict[str, Tensor]],
    theirs: Sequence[dict[str, Tensor]],
    *,
    px: float = 1e-3,
    score: float = 1e-5,
    other: float = 1e-3,
) -> None:
    """As many boxes, each with its own counterpart: to that many px and that much score, masks and points to `other`.

    Those whose scores are nearly the same may have changed places.
    """
    assert len(mine) == len(theirs)
    for one, its in zip(mine, theirs, strict=True):
        assert one.keys() == its.keys()
        assert one["boxes"].shape == its["boxes"].shape
        match = _counterparts(one, its, px)
        assert torch.equal(match.sort().values, torch.arange(len(match)))
        assert torch.equal(one["labels"], its["labels"][match])
        torch.testing.assert_close(one["boxes"], its["boxes"][match], rtol=0, atol=px)
        torch.testing.assert_close(one["scores"], its["scores"][match], rtol=0, atol=score)
        for name in one.keys() - {"boxes", "scores", "labels"}:
            torch.testing.assert_close(one[name], its[name][match], rtol=other, atol=other)


def _counterparts(one: dict[str, Tensor], other: dict[str, Tensor], px: float) -> Tensor:
    """Which of `other` each of `one` is: that of its place, or where they differ the nearest of those left over."""
    match = torch.arange(len(one["boxes"]))
    differs = ((one["boxes"] - other["boxes"]).abs() > px).any(1) | (one["labels"] != other["labels"])
    (moved,) = differs.nonzero(as_tuple=True)
    if len(moved):
        apart = torch.cdist(one["boxes"][moved].double(), other["boxes"][moved].double(), p=torch.inf)
        apart += 1e6 * (one["labels"][moved][:, None] != other["labels"][moved])
        match[moved] = moved[apart.argmin(1)]
    return match


def _spread_to(spread: float) -> Callable[[Any, Any, Tensor], Tensor]:
    """Scales the layer's weights so that its answers have that deviation, and no bias; at its first call only."""
    factors: list[Tensor] = []

    def scale(layer: nn.Conv2d | nn.Linear, _: Any, answers: Tensor) -> Tensor:
        if factors:  # a head of several maps, scaled by the finest
            return answers
        factors.append(spread / answers.std())
        if layer.bias is not None:
            answers = answers - (layer.bias[:, None, None] if answers.dim() == 4 else layer.bias)
            layer.bias.zero_()
        layer.weight.mul_(factors[0])
        return answers * factors[0]

    return scale
