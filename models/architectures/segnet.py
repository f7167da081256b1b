"""SegNet: a category for every pixel, from an encoder and a decoder that mirrors it (Badrinarayanan et al. 2017).

The encoder's 2 x 2 max pooling remembers the position of each maximum. The decoder puts the value back there, and
convolutions fill in the rest. Remembered positions are from Zeiler and Fergus (2014), mirrored networks from Noh et al.
(2015).

B images of H x W, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation

from models.architectures.architecture import Architecture, NetworkRequest, Option, register
from models.architectures.backbones import backbone_keys
from models.architectures.torchvision_segmentation import voc_categories
from models.manifest import ScalePreset

# Convolutions and channels of each level, as in VGG (Simonyan and Zisserman 2015, table 1, B with normalization).
_LEVELS = {
    "vgg16_bn": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg11_bn": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
}
_NARROWER = {"full": 1, "quarter": 4}


class SegNet(nn.Module):
    """The network, with the interface of torchvision's segmentation networks."""

    def __init__(self, *, backbone: str, narrower: int, num_categories: int) -> None:
        super().__init__()
        levels = [(convolutions, channels // narrower) for convolutions, channels in _LEVELS[backbone]]
        # Layers have the names and numbers of the classification network, so that its weights fit.
        self.backbone = make_layers(
            [layer for convolutions, channels in levels for layer in (*[channels] * convolutions, "M")], batch_norm=True
        )
        finer = [levels[0][1], *(channels for _, channels in levels[:-1])]
        self.decoder = nn.ModuleList(
            _level(channels, out, convolutions) for (convolutions, channels), out in zip(levels, finer, strict=True)
        )
        self.head = nn.Conv2d(finer[0], num_categories, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: float32 [B, 3, H, W], normalised, sides of at least 32 px. `out`: logits, float32 [B, K, H, W]."""
        maps, remembered = images, []
        for layer in self.backbone:
            if isinstance(layer, nn.MaxPool2d):
                size = maps.shape[-2:]
                maps, positions = functional.max_pool2d(maps, 2, return_indices=True)
                remembered.append((positions, size))
            else:
                maps = layer(maps)
        for level, (positions, size) in zip(reversed(self.decoder), reversed(remembered), strict=True):
            maps = level(unpool(maps, positions, size))
        return {"out": self.head(maps)}


def unpool(maps: Tensor, positions: Tensor, size: Sequence[int]) -> Tensor:
    """Maps with every maximum at its remembered position and zeros elsewhere: float32 [B, C, *size].

    maps: float32 [B, C, h, w]; positions: int64 [B, C, h, w], from `max_pool2d` on maps of `size`.
    """
    return functional.max_unpool2d(maps, positions, [2, 2], output_size=list(size))


@register("segnet", task="segmentation")
def segnet(name: str) -> Architecture:
    """The catalogue's entry."""
    return Architecture(
        name=name,
        tasks=("segmentation",),
        family="segnet",
        parameters=29_488_405,
        preset=ScalePreset(shorter_px=360, longer_px=480),  # section 4: CamVid's
        options=(
            Option(name="backbone", choices=tuple(_LEVELS), description="Encoder; the decoder is its mirror."),
            Option(
                name="width",
                choices=tuple(_NARROWER),
                description="quarter: a fourth of the channels, for CPUs; a classifier's weights do not fit then.",
            ),
        ),
        backbone=lambda options: backbone_keys(options["backbone"]),
        categories=voc_categories(),
        min_size_px=64,
        builder=_build,
    )


def _build(wanted: NetworkRequest) -> nn.Module:
    backbone, width = wanted.options["backbone"], wanted.options["width"]
    return SegNet(backbone=backbone, narrower=_NARROWER[width], num_categories=wanted.num_categories)


def _level(channels: int, out: int, convolutions: int) -> nn.Sequential:
    """A level of the decoder: as many convolutions as in the encoder, the last one to the finer level's channels."""
    widths = [channels] * convolutions + [out]
    return nn.Sequential(*(Conv2dNormActivation(before, after, 3) for before, after in pairwise(widths)))
