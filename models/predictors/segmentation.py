"""Segmentation: the category of every pixel of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from models.backends.graphs import SegmentationGraph
from models.drawing.colours import colour_of
from models.images.presets import scale, scaled_size
from models.images.resampling import enlarge_rows
from models.manifest import AnyPreset, ScalePreset, Task
from models.masks.regions import run_lengths_of
from models.predictions import Segment, Segmentation
from models.predictor import Predictor, Selection

NONE = 255  # in label maps: a pixel without a category

SHORTEST_PX = 32  # five halvings leave a pixel
_NONE_COLOUR = (224, 224, 192)  # Pascal VOC's
_STRIP_PIXELS = 2**19  # pixels that are enlarged at once: 2 MB per category

LabelMap = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class SegmentationSelection(Selection[Segmentation]):
    """Which of a network's categories to return, and in which form."""

    task: ClassVar[Task] = "segmentation"

    score_threshold: float = 0.0  # pixels with a lower score have no category
    categories: frozenset[str] = frozenset()
    masks: Literal["rle", "png", "none"] = "rle"


class Segmenter(Predictor[SegmentationSelection, Tensor, Segmentation]):
    """A segmentation network. Its output is logits, float32 [K, h, w]."""

    task: ClassVar[Task] = "segmentation"
    graph_type = SegmentationGraph
    has_large_outputs = True
    preset: ScalePreset

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        assert isinstance(preset, ScalePreset)
        assert len(categories) <= NONE
        super().__init__(module, categories=categories, preset=preset, device=device)

    def prepare(self, image: Tensor, selection: SegmentationSelection) -> list[Tensor]:  # noqa: ARG002
        """Scales the whole image for the network, uint8 [3, h, w], and pads a very thin one with black."""
        view = scale(self.preset, image)
        missing = [max(0, SHORTEST_PX - side) for side in view.shape[1:]]
        return [functional.pad(view, (0, missing[1], 0, missing[0]))]

    def predict_prepared(self, batch: Tensor, selections: Sequence[SegmentationSelection]) -> list[Tensor]:  # noqa: ARG002
        """Returns the logits, float32 [K, h, w] on the CPU, for each of a batch, uint8 [B, 3, h, w]."""
        return list(self.backend.run(batch))

    def finish(
        self, outputs: Sequence[Tensor], *, width: int, height: int, selection: SegmentationSelection
    ) -> Segmentation:
        """Returns the image's categories, those with the most pixels first."""
        (logits,) = outputs
        h, w = scaled_size(self.preset, height, width)
        labels = label_map(logits[:, :h, :w], width=width, height=height, score_threshold=selection.score_threshold)
        if selection.categories:
            is_wanted = np.array([label in selection.categories for label in self.categories] + [False] * 256)[:256]
            labels[~is_wanted[labels]] = NONE
        counts = np.bincount(labels.reshape(-1), minlength=256)[:NONE]
        segments = tuple(
            Segment(
                label=self.categories[index],
                index=index,
                share=float(counts[index] / labels.size),
                mask=run_lengths_of(labels == index) if selection.masks == "rle" else None,
            )
            for index in np.argsort(-counts, kind="stable").tolist()
            if counts[index]
        )
        return Segmentation(
            segments=segments, map_png=map_png(labels, self.categories) if selection.masks == "png" else None
        )


def label_map(logits: Tensor, *, width: int, height: int, score_threshold: float = 0.0) -> LabelMap:
    """Returns the most probable category of every pixel of an image of that size, uint8 [height, width].

    logits: float32 [K, h, w] on the CPU. This enlarges the logits, not the labels, so edges are smooth. It works strip
    by strip and category by category, so memory does not grow with the image. Pixels whose category is less probable
    than the threshold are 255.
    """
    labels = np.zeros((height, width), np.uint8)
    strip = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, strip):
        rows = range(top, min(height, top + strip))
        bands = enlarge_rows(logits.numpy(), rows, scale=height / logits.shape[1])  # [K, n, w]
        _label_strip(bands, labels[rows.start : rows.stop], score_threshold)
    return labels


def _label_strip(bands: npt.NDArray[np.float32], labels: LabelMap, score_threshold: float) -> None:
    """Writes the labels of a strip, [n, width], from logits of the network's width, [K, n, w]."""
    best = _widened(bands[0], labels.shape)
    for index, band in enumerate(bands[1:], 1):
        logit = _widened(band, labels.shape)
        labels[logit > best] = index
        np.maximum(best, logit, out=best)
    if score_threshold > 0:
        total = np.zeros_like(best)  # of all categories' odds against the best one: softmax is its inverse
        for band in bands:
            total += np.exp(_widened(band, labels.shape) - best)
        labels[total * score_threshold > 1] = NONE


def _widened(band: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    # takes half a second for 24 megapixels and 21 categories; indexing takes seconds
    return np.asarray(cv2.resize(band, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def map_png(labels: LabelMap, categories: Sequence[str]) -> bytes:
    """Encodes `labels`, uint8 [H, W], as an indexed PNG in the categories' colours; 255, for none, is pale."""
    height, width = labels.shape
    indexed = Image.frombytes("P", (width, height), labels.tobytes())
    colours = [colour_of(index, label) for index, label in enumerate(categories)]
    colours += [_NONE_COLOUR] * (NONE + 1 - len(colours))  # with fewer, Pillow packs the indices into fewer bits
    indexed.putpalette([channel for colour in colours for channel in colour])
    encoded = BytesIO()
    indexed.save(encoded, "PNG")
    return encoded.getvalue()
