"""Reads PNG files whose pixels are not colours but the numbers of instances or of categories."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from models.images.decode import MAX_PIXELS

Indices = npt.NDArray[np.uint16]  # [H, W]

_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}
_HIGHEST = 65535


class BrokenIndexPng(ValueError):
    """The file is not a PNG, is damaged, or contains colours; `str()` states the reason."""


def read_index_png(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Indices:
    """Returns the number at every pixel: the index for a palette, the common value for RGB with equal channels.

    Raises BrokenIndexPng.
    """
    try:
        image = PngImageFile(BytesIO(data))
        if image.width * image.height > max_pixels:
            raise BrokenIndexPng(f"the mask has {image.width} x {image.height} pixels, which is too many")
        image.load()
        values = np.asarray(image)
    except (BrokenIndexPng, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds of errors on hostile bytes
        raise BrokenIndexPng("the mask is not a PNG, or it is damaged") from error
    if image.mode not in _MODES:
        values = _single_channel(values, image.mode)
    if values.size and (int(values.min()) < 0 or int(values.max()) > _HIGHEST):
        raise BrokenIndexPng(f"the mask has values above {_HIGHEST}")
    return values.astype(np.uint16)


def _single_channel(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.generic]:
    channels = {"LA": 1, "RGB": 3, "RGBA": 3}.get(mode)
    if channels is None or bool((values[:, :, :channels] != values[:, :, :1]).any()):
        raise BrokenIndexPng(
            "the mask contains colours, but each pixel must be the number of a category or an instance"
        )
    return values[:, :, 0]
