"""PNGs whose pixels are numbers, not colours: of instances, or of categories."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from models.images.decode import MAX_PIXELS

Indices = npt.NDArray[np.uint16]  # [H, W]

_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}
_HIGHEST = 65535


class BadIndexPng(ValueError):
    """No PNG, a damaged one, or one of colours; `str()` says which."""


def read_index_png(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Indices:
    """The number at every pixel; of a palette its indices, and of RGB whose channels are equal one of them.

    Raises BadIndexPng.
    """
    try:
        picture = PngImageFile(BytesIO(data))
        if picture.width * picture.height > max_pixels:
            raise BadIndexPng(f"the mask has {picture.width} x {picture.height} pixels")
        picture.load()
        values = np.asarray(picture)
    except (BadIndexPng, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise BadIndexPng("the mask is no PNG, or damaged") from error
    if picture.mode not in _MODES:
        values = _single_channel(values, picture.mode)
    if values.size and (int(values.min()) < 0 or int(values.max()) > _HIGHEST):
        raise BadIndexPng(f"the mask has values above {_HIGHEST}")
    return values.astype(np.uint16)


def _single_channel(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.generic]:
    channels = {"LA": 1, "RGB": 3, "RGBA": 3}.get(mode)
    if channels is None or bool((values[:, :, :channels] != values[:, :, :1]).any()):
        raise BadIndexPng("the mask is of colours, where the number of the category or instance should be")
    return values[:, :, 0]
