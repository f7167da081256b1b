"""Segmentation: which category every pixel of a picture belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from models.colours import colour_of
from models.manifest import AnyPreset, ScalePreset, Task
from models.predictions import Segment, Segmentation
from models.predictor import Predictor, Selection
from models.presets import normalise, scale
from models.resampling import enlarge
from models.run_lengths import encode_mask

NONE = 255  # where no category is answered with, in maps

_NONE_COLOUR = (224, 224, 192)  # Pascal VOC's
_STRIP_VALUES = 2**23  # logits enlarged at once: 32 MB

LabelMap = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SegmentationSelection(Selection[Segmentation]):
    """Which of a network's categories to answer with, and how it shall look."""

    task: ClassVar[Task] = "segmentation"

    score_threshold: float = 0.0  # pixels less sure of their category belong to none
    categories: frozenset[str] = frozenset()
    masks: Literal["rle", "png", "none"] = "rle"


class Segmenter(Predictor[SegmentationSelection, Tensor, Segmentation]):
    """A segmentation network. Its output is logits, float32 [K, h, w]."""

    task: ClassVar[Task] = "segmentation"
    preset: ScalePreset

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        assert isinstance(preset, ScalePreset)
        assert len(categories) <= NONE
        super().__init__(module, categories=categories, preset=preset, device=device)

    def prepare(self, image: Tensor, selection: SegmentationSelection) -> list[Tensor]:  # noqa: ARG002
        """The whole picture at the network's scale, uint8 [3, h, w]."""
        return [scale(self.preset, image)]

    @torch.inference_mode()
    def predict_prepared(self, batch: Tensor, selection: SegmentationSelection) -> list[Tensor]:  # noqa: ARG002
        """Logits, float32 [K, h, w] on the CPU, for each of a batch, uint8 [B, 3, h, w]."""
        logits = self.module(normalise(self.preset, batch.to(self.device)))["out"]  # [B, K, h, w]
        return list(logits.float().cpu())  # waits for the device here

    def finish(
        self, outputs: Sequence[Tensor], *, width: int, height: int, selection: SegmentationSelection
    ) -> Segmentation:
        """The picture's categories, those of the most pixels first."""
        (logits,) = outputs
        labels = label_map(logits, width=width, height=height, score_threshold=selection.score_threshold)
        if selection.categories:
            is_wanted = np.array([label in selection.categories for label in self.categories] + [False] * 256)[:256]
            labels[~is_wanted[labels]] = NONE
        counts = np.bincount(labels.reshape(-1), minlength=256)[:NONE]
        segments = tuple(
            Segment(
                label=self.categories[index],
                index=index,
                share=float(counts[index] / labels.size),
                mask=encode_mask(labels == index) if selection.masks == "rle" else None,
            )
            for index in np.argsort(-counts, kind="stable").tolist()
            if counts[index]
        )
        return Segmentation(
            segments=segments, map_png=map_png(labels, self.categories) if selection.masks == "png" else None
        )


@torch.inference_mode()
def label_map(logits: Tensor, *, width: int, height: int, score_threshold: float = 0.0) -> LabelMap:
    """The most probable category of every pixel of a picture of that size, uint8 [height, width].

    logits: float32 [K, h, w]. They are enlarged, not the labels, so edges are smooth; strip by strip, so memory does
    not grow with the picture. Pixels whose category is less probable than the threshold are 255.
    """
    categories, h, w = logits.shape
    labels = np.empty((height, width), np.uint8)
    strip = max(1, _STRIP_VALUES // (categories * width))
    for top in range(0, height, strip):
        rows = range(top, min(height, top + strip))
        values = enlarge(logits, rows=rows, columns=range(width), scale=(height / h, width / w))
        best, index = values.max(dim=0)
        if score_threshold > 0:
            index[(best - values.logsumexp(dim=0)).exp() < score_threshold] = NONE
        labels[rows.start : rows.stop] = index.to(torch.uint8).numpy()
    return labels


def map_png(labels: LabelMap, categories: Sequence[str]) -> bytes:
    """`labels`, uint8 [H, W], as an indexed PNG in the categories' colours; 255, for none, is pale."""
    height, width = labels.shape
    indexed = Image.frombytes("P", (width, height), labels.tobytes())
    colours = [colour_of(index, label) for index, label in enumerate(categories)]
    colours += [_NONE_COLOUR] * (NONE + 1 - len(colours))  # with fewer, Pillow packs the indices into fewer bits
    indexed.putpalette([channel for colour in colours for channel in colour])
    encoded = BytesIO()
    indexed.save(encoded, "PNG")
    return encoded.getvalue()
