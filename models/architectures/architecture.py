"""What the catalogue knows of a network structure before building it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from torch import Tensor, nn

from models.errors import UnsupportedPreset
from models.manifest import Preset, Task


class Builder(Protocol):
    """Makes the network with fresh weights."""

    def __call__(self, *, num_categories: int, image_size_px: int, auxiliary: bool) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsEntry:
    """Pretrained weights of an architecture; preset and categories belong to them."""

    architecture: str
    name: str  # for instance IMAGENET1K_V1
    url: str
    size_bytes: int  # of the file, to 1 kB
    metrics: dict[str, float]  # `imagenet1k/top1` in [0, 1], ...
    preset: Preset
    categories: tuple[str, ...] = field(repr=False)

    @property
    def reference(self) -> str:
        """`resnet18.IMAGENET1K_V1`, as requests and manifests spell it."""
        return f"{self.architecture}.{self.name}"

    @property
    def file_name(self) -> str:
        """Name of the file, in the cache as on the server."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A network structure by its catalogue name."""

    name: str
    tasks: tuple[Task, ...]
    family: str
    parameters: int  # learnable numbers with the categories it was published with; auxiliary heads not counted
    preset: Preset  # of its default weights
    weights: tuple[WeightsEntry, ...]
    default_weights: str | None  # name of an entry; None where there are none
    categories: tuple[str, ...] = field(repr=False)  # of its default weights, or of the data it was made for
    min_size_px: int  # smallest image side that trains, in batches of two or more
    max_size_px: int | None = None  # None: any that memory holds
    size_step_px: int = 1  # sides must be multiples of it
    auxiliary: tuple[str, ...] = ()  # prefixes of the state_dict keys of heads that only training uses
    auxiliary_weight: float = 0.0  # of each such head's loss beside that of the logits
    builder: Builder = field(repr=False, compare=False)

    def check_size(self, size_px: int) -> None:
        """Raises UnsupportedPreset if the network does not take square images of that side."""
        too_large = self.max_size_px is not None and size_px > self.max_size_px
        if size_px < self.min_size_px or too_large or size_px % self.size_step_px:
            raise UnsupportedPreset(
                f"{self.name} does not take images of {size_px} x {size_px} px.", hint=f"It takes {self._sizes()}."
            )

    def check_preset(self, preset: Preset) -> None:
        """Raises UnsupportedPreset if the network does not take the images that `preset` makes."""
        self.check_size(preset.crop_px)
        if preset.channels != self.preset.channels:
            raise UnsupportedPreset(
                f"{self.name} does not take images of {preset.channels} channel(s).",
                hint=f"It takes {self.preset.channels}: set `channels` in the preset to that.",
            )

    def _sizes(self) -> str:
        if self.min_size_px == self.max_size_px:
            return f"{self.min_size_px} px only"
        multiples = f"multiples of {self.size_step_px} px " if self.size_step_px > 1 else "sides "
        return f"{multiples}from {self.min_size_px} px" + (f" to {self.max_size_px} px" if self.max_size_px else "")


def split_outputs(output: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [B, K] and the logits of the auxiliary heads, which GoogLeNet and Inception v3 add in training mode.

    Each auxiliary loss counts `Architecture.auxiliary_weight` beside the loss of the logits.
    """
    if isinstance(output, Tensor):
        return output, ()
    logits, *auxiliary = output
    assert logits is not None
    return logits, tuple(head for head in auxiliary if head is not None)
