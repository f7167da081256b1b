"""A network on a device that answers for images: synchronous, and the same for an image in any company.

A prediction has three parts, so that a server can run each where it belongs: `prepare` (decoding threads) makes views
of an image, `predict_prepared` (the device) looks at a batch of views, `finish` (any thread) makes of the outputs of a
image's views what was asked for. `predict` does all three.
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
    """What a caller wants of an image. Its subclasses are frozen dataclasses, one a task."""

    task: ClassVar[Task]
    categories: frozenset[str]  # only these; empty: all

    @property
    def is_tiled(self) -> bool:
        """Whether an image may take several views."""
        return False

    def count_views(self, width: int, height: int) -> int:  # noqa: ARG002
        """How many views of an image of that size, px, the network will look at. Raises ImageError."""
        return 1


Wanted = TypeVar("Wanted", bound=Selection[Any])


class Predictor(ABC, Generic[Wanted, Output, Prediction]):
    """A network in evaluation mode with its preset and categories. May be used by several threads at once."""

    task: ClassVar[Task]
    graph_type: ClassVar[type[Graph]]
    finishes_quickly: ClassVar[bool] = False  # in microseconds: `finish` needs no thread
    has_large_outputs: ClassVar[bool] = False  # megabytes: not many should wait to be finished

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        """The network runs eagerly, in float32, until `backend` is replaced by another that computes the same."""
        self.categories = tuple(categories)
        self.preset = preset
        self.backend: Backend = EagerBackend(self.graph_type(module, preset), device)

    @property
    def module(self) -> nn.Module:
        """The network itself, while it runs eagerly."""
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
        """`image`, uint8 [3, H, W] of any size, as the network looks at it: views, uint8 [C, h, w], on the CPU.

        Raises ImageError.
        """

    @abstractmethod
    def predict_prepared(self, batch: Tensor, selections: Sequence[Wanted]) -> list[Output]:
        """What the network says of each of a batch of views, uint8 [B, C, h, w]: on the CPU, in small.

        selections: one a view; views of several requests may share a batch.
        """

    @abstractmethod
    def finish(self, outputs: Sequence[Output], *, width: int, height: int, selection: Wanted) -> Prediction:
        """The prediction for an image of that size, px, from the outputs of all its views in their order."""

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
    """Positions of the views, [C, h, w], that go through the network together, in batches of bounded size.

    Only views of one size share a batch: padding one to another's size would change what the network says of it.
    """
    by_shape: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for number, view in enumerate(views):
        by_shape[view.shape].append(number)
    for shape, numbers in by_shape.items():
        most = largest_batch(shape)
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]
