"""A network on a device that predicts for images. It is synchronous, and the other images of a batch change nothing.

A prediction has three parts, so that a server can run each where it belongs. `prepare` (decoding threads) cuts an image
into views. `predict_prepared` (the device) runs the network on a batch of views. `finish` (any thread) turns the
outputs of an image's views into a prediction. `predict` does all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from models.backends.backend import Backend
from models.backends.eager import EagerBackend
from models.backends.graphs import Graph
from models.backends.views import largest_batch
from models.manifest import AnyPreset, Task

Prediction = TypeVar("Prediction")
Output = TypeVar("Output")


class Selection(Generic[Prediction]):
    """What a caller asks for. Its subclasses are frozen dataclasses, one per task."""

    task: ClassVar[Task]
    categories: frozenset[str]  # only these categories; empty: all of them

    @property
    def is_tiled(self) -> bool:
        """Whether an image may take several views."""
        return False

    def count_views(self, width: int, height: int) -> int:  # noqa: ARG002
        """How many views an image of that size, px, is cut into. Raises ImageError."""
        return 1


Wanted = TypeVar("Wanted", bound=Selection[Any])


class Predictor(ABC, Generic[Wanted, Output, Prediction]):
    """A network in evaluation mode with its preset and categories. Thread-safe."""

    task: ClassVar[Task]
    graph_type: ClassVar[type[Graph]]
    finishes_quickly: ClassVar[bool] = False  # `finish` takes microseconds and needs no thread
    has_large_outputs: ClassVar[bool] = False  # outputs take megabytes, so only a few may wait for `finish`

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        """The network runs eagerly in float32, until another backend with the same results replaces `backend`."""
        self.categories = tuple(categories)
        self.preset = preset
        self.backend: Backend = EagerBackend(self.graph_type(module, preset), device)

    @property
    def module(self) -> nn.Module:
        """The network itself. Only available while it runs eagerly."""
        assert isinstance(self.backend, EagerBackend)
        return self.backend.graph.module

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take on the device."""
        return self.backend.size_bytes

    def check(self, selection: Wanted) -> None:
        """Raises ModelsError if this network cannot give what `selection` asks for."""

    @abstractmethod
    def prepare(self, image: Tensor, selection: Wanted) -> list[Tensor]:
        """The views of `image`, uint8 [3, H, W] of any size: uint8 [C, h, w] each, on the CPU.

        Raises ImageError.
        """

    @abstractmethod
    def predict_prepared(self, batch: Tensor, selections: Sequence[Wanted]) -> list[Output]:
        """The network's output for each view of a batch, uint8 [B, C, h, w]: compact, on the CPU.

        selections: one per view; views of several requests may share a batch.
        """

    @abstractmethod
    def finish(self, outputs: Sequence[Output], *, width: int, height: int, selection: Wanted) -> Prediction:
        """The prediction for an image of that size, px, from the outputs of all its views, in order."""

    def predict(self, images: Sequence[Tensor], selection: Wanted) -> list[Prediction]:
        """The prediction for each of `images`, uint8 [3, H, W] of any size. Raises ImageError."""
        views: list[Tensor] = []
        owners: list[range] = []
        for image in images:
            made = self.prepare(image, selection)
            owners.append(range(len(views), len(views) + len(made)))
            views += made
        outputs: dict[int, Output] = {}
        for batch in batches(views):
            found = self.predict_prepared(torch.stack([views[number] for number in batch]), [selection] * len(batch))
            outputs.update(zip(batch, found, strict=True))
        return [
            self.finish(
                [outputs[number] for number in numbers],
                width=image.shape[2],
                height=image.shape[1],
                selection=selection,
            )
            for image, numbers in zip(images, owners, strict=True)
        ]


AnyPredictor = Predictor[Any, Any, Any]


def batches(views: Sequence[Tensor]) -> Iterator[list[int]]:
    """Groups the views, [C, h, w], into batches of bounded size, and gives the positions of each batch.

    Only views of one size share a batch, because padding a view would change its prediction.
    """
    by_shape: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for number, view in enumerate(views):
        by_shape[view.shape].append(number)
    for shape, numbers in by_shape.items():
        most = largest_batch(shape)
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]
