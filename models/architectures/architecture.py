"""What the catalogue knows about a network structure before it builds it, and the decorator that adds one.

A file of this package adds its architecture to the catalogue like this; nothing else has to be edited:

    @register("segnet", task="segmentation")
    def segnet(name: str) -> Architecture:
        return Architecture(name=name, tasks=("segmentation",), ..., builder=_build)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from torch import Tensor, nn

from models.errors import UnsupportedOption, UnsupportedPreset
from models.manifest import AnyPreset, Preset, ScalePreset, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRequest:
    """What a builder needs to know about the network it builds."""

    num_categories: int  # for detectors without the background
    image_size_px: int  # the side of the square images it takes, or the preset's `shorter_px`
    auxiliary: bool  # whether heads that only training uses are built
    options: Mapping[str, str]  # a value for each of `Architecture.options`


Builder = Callable[[NetworkRequest], nn.Module]  # returns the network with fresh weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A choice of structure within one catalogue name, for instance of the backbone."""

    name: str  # `variant`, `backbone`
    choices: tuple[str, ...]  # the first is the default
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """The feature extractor inside a detector: a classification network whose weights it can start from."""

    architecture: str  # catalogue name of the classification network
    prefix: str  # of its keys in the detector's state_dict, for instance `backbone.body.`
    source_prefix: str = ""  # of the same keys in the classification network's state_dict, for instance `features.`


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsEntry:
    """Pretrained weights of an architecture, with the preset and the categories they were trained with."""

    architecture: str
    name: str  # for instance IMAGENET1K_V1
    url: str
    size_bytes: int  # size of the file, to 1 kB
    metrics: dict[str, float]  # by name and in [0, 1], for instance `imagenet1k/top1`
    preset: AnyPreset
    categories: tuple[str, ...] = field(repr=False)
    batch_norm_epsilon: float | None = None  # the epsilon the weights need; None: the network's own

    @property
    def reference(self) -> str:
        """The spelling in requests and manifests, for instance `resnet18.IMAGENET1K_V1`."""
        return f"{self.architecture}.{self.name}"

    @property
    def file_name(self) -> str:
        """Name of the file, the same in the cache and on the server."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A network structure by its catalogue name."""

    name: str
    tasks: tuple[Task, ...]
    family: str
    parameters: int  # number of learnable values with `categories`, without auxiliary heads
    preset: AnyPreset  # the preset of its default weights
    options: tuple[Option, ...] = ()
    backbone: Callable[[Mapping[str, str]], Backbone] | None = field(default=None, repr=False, compare=False)
    makes_masks: bool = False  # whether it gives each object a mask
    keypoints: tuple[str, ...] = ()  # names of the keypoints it gives each object
    uses_proposals: bool = False  # takes `proposals`, see models.architectures.region_proposals
    is_trainable: bool = True  # False: only its pretrained weights can be served
    weights: tuple[WeightsEntry, ...] = ()
    default_weights: str | None = None  # name of an entry of `weights`; None if there are none
    categories: tuple[str, ...] = field(repr=False)  # of its default weights, or of the data it was designed for
    min_size_px: int  # smallest image side that can be trained, in batches of two or more
    max_size_px: int | None = None  # None: no limit but memory
    size_step_px: int = 1  # image sides must be multiples of this
    auxiliary: tuple[str, ...] = ()  # state_dict prefixes of the heads that only training uses
    auxiliary_weight: float = 0.0  # weight of each such head's loss; the loss of the logits has 1
    builder: Builder = field(repr=False, compare=False)

    @property
    def crop_preset(self) -> Preset:
        """The preset, for classification networks."""
        assert isinstance(self.preset, Preset)
        return self.preset

    @property
    def scale_preset(self) -> ScalePreset:
        """The preset, for detectors and segmentation networks."""
        assert isinstance(self.preset, ScalePreset)
        return self.preset

    def check_size(self, size_px: int) -> None:
        """Raises UnsupportedPreset if the network does not take square images with this side."""
        too_large = self.max_size_px is not None and size_px > self.max_size_px
        if size_px < self.min_size_px or too_large or size_px % self.size_step_px:
            raise UnsupportedPreset(
                f"{self.name} does not take images of {size_px} x {size_px} px.", hint=f"It takes {self._sizes()}."
            )

    def complete_options(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """`wanted` completed with the default of every option it leaves out. Raises UnsupportedOption."""
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


Description = Callable[[str], Architecture]  # describes the architecture with this catalogue name

REGISTERED: Final[dict[Task, dict[str, Description]]] = {"classification": {}, "detection": {}, "segmentation": {}}


def register(*names: str, task: Task) -> Callable[[Description], Description]:
    """Adds the decorated function to the catalogue, as the description of all `names`.

    The catalogue imports every file of this package (see `catalog.names`) and calls the function with one of `names`
    when somebody asks for it. Raises ValueError if a name is taken.
    """

    def add(describe: Description) -> Description:
        for name in names:
            if any(name in described for described in REGISTERED.values()):
                msg = f"two architectures are called {name!r}"
                raise ValueError(msg)
            REGISTERED[task][name] = describe
        return describe

    return add


def split_outputs(output: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [B, K] and the logits of the auxiliary heads, which GoogLeNet and Inception v3 add in training mode.

    The training loss adds the loss of each auxiliary head times `Architecture.auxiliary_weight`.
    """
    if isinstance(output, Tensor):
        return output, ()
    logits, *auxiliary = output
    assert logits is not None
    return logits, tuple(head for head in auxiliary if head is not None)
