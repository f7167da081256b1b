"""What the catalogue knows of a network structure before building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from torch import Tensor, nn

from models.errors import UnsupportedOption, UnsupportedPreset
from models.manifest import AnyPreset, Preset, ScalePreset, Task


class Builder(Protocol):
    """Makes the network with fresh weights. `options`: a value for each of `Architecture.options`."""

    def __call__(
        self, *, num_categories: int, image_size_px: int, auxiliary: bool, options: Mapping[str, str]
    ) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A choice of structure within one catalogue name."""

    name: str  # `variant`, `backbone`
    choices: tuple[str, ...]  # the first is the default
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """The feature extractor inside a detector: a classification network whose weights it can start from."""

    architecture: str  # catalogue name of the classification network
    prefix: str  # of its keys in the detector's state_dict: `backbone.body.`
    source_prefix: str = ""  # of the keys it takes from the classification network's state_dict: `features.`


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsEntry:
    """Pretrained weights of an architecture; preset and categories belong to them."""

    architecture: str
    name: str  # for instance IMAGENET1K_V1
    url: str
    size_bytes: int  # of the file, to 1 kB
    metrics: dict[str, float]  # `imagenet1k/top1` in [0, 1], ...
    preset: AnyPreset
    categories: tuple[str, ...] = field(repr=False)
    batch_norm_epsilon: float | None = None  # that the file was made with, if it is not the network's own

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
    preset: AnyPreset  # of its default weights
    options: tuple[Option, ...] = ()
    backbone: Callable[[Mapping[str, str]], Backbone] | None = field(default=None, repr=False, compare=False)
    makes_masks: bool = False  # of every object
    keypoints: tuple[str, ...] = ()  # of every object
    uses_proposals: bool = False  # takes `proposals`, see models.architectures.region_proposals
    is_trainable: bool = True  # False: serves its pretrained weights only
    weights: tuple[WeightsEntry, ...]
    default_weights: str | None  # name of an entry; None where there are none
    categories: tuple[str, ...] = field(repr=False)  # of its default weights, or of the data it was made for
    min_size_px: int  # smallest image side that trains, in batches of two or more
    max_size_px: int | None = None  # None: any that memory holds
    size_step_px: int = 1  # sides must be multiples of it
    auxiliary: tuple[str, ...] = ()  # prefixes of the state_dict keys of heads that only training uses
    auxiliary_weight: float = 0.0  # of each such head's loss beside that of the logits
    builder: Builder = field(repr=False, compare=False)

    @property
    def crop_preset(self) -> Preset:
        """The preset of a classification network."""
        assert isinstance(self.preset, Preset)
        return self.preset

    @property
    def scale_preset(self) -> ScalePreset:
        """The preset of a detector or a segmentation network."""
        assert isinstance(self.preset, ScalePreset)
        return self.preset

    def check_size(self, size_px: int) -> None:
        """Raises UnsupportedPreset if the network does not take square images of that side."""
        too_large = self.max_size_px is not None and size_px > self.max_size_px
        if size_px < self.min_size_px or too_large or size_px % self.size_step_px:
            raise UnsupportedPreset(
                f"{self.name} does not take images of {size_px} x {size_px} px.", hint=f"It takes {self._sizes()}."
            )

    def complete_options(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """A value for every option: the default where `wanted` has none. Raises UnsupportedOption."""
        for name, value in wanted.items():
            option = next((option for option in self.options if option.name == name), None)
            if option is None:
                known = ", ".join(option.name for option in self.options)
                raise UnsupportedOption(
                    f"{self.name} has no option {name[:64]!r}.", hint=f"It has {known}." if known else "It has none."
                )
            if value not in option.choices:
                raise UnsupportedOption(
                    f"{name} of {self.name} cannot be {value[:64]!r}.",
                    hint=f"It is one of {', '.join(option.choices)}.",
                )
        return {option.name: wanted.get(option.name, option.choices[0]) for option in self.options}

    def check_preset(self, preset: AnyPreset) -> None:
        """Raises UnsupportedPreset if the network does not take the images that `preset` makes."""
        if type(preset) is not type(self.preset):
            raise UnsupportedPreset(
                f"{self.name} takes a preset of another kind.",
                hint=f"Its fields are {', '.join(type(self.preset).model_fields)}.",
            )
        self.check_size(preset.image_size_px)
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
