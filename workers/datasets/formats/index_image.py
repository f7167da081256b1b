"""Reads image files whose pixels are not colours but the numbers of instances or of categories.

PNG, BMP, TIFF and GIF keep numbers. JPEG changes them, so a JPEG is read only if its values are clearly two: near 0 and
near 255.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from models.images.decode import MAX_PIXELS

Indices = npt.NDArray[np.uint16]  # [H, W]
Colours = npt.NDArray[np.uint8]  # [H, W, 3]

_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}
_HIGHEST = 65535
_NEAR = 48  # values so close to 0 or 255 are that value: the noise of JPEG around an edge
_BETWEEN_SHARE = 0.02  # of the pixels may lie between the two values
_COLOUR_NOISE = 16  # difference of the channels of a grey pixel in a JPEG
_PLUGINS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"GIF8", GifImageFile),
    (b"II", TiffImageFile),
    (b"MM", TiffImageFile),
    (b"BM", BmpImageFile),
)


class BrokenIndexImage(ValueError):
    """The file is damaged, contains colours, or has lost its numbers; `str()` states the reason."""


def read_index_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Indices:
    """Returns the number at every pixel: the index for a palette, the common value for RGB with equal channels.

    A GIF with a grey palette has grey values instead of indices, because programs that write GIF renumber its palette.

    For a JPEG of two values, the numbers are 0 and 255. Raises BrokenIndexImage.
    """
    image, values = _loaded(data, max_pixels)
    if isinstance(image, JpegImageFile):
        return _two_values_of_jpeg(values)
    if isinstance(image, GifImageFile):
        values = _values_of_gif(image, values)
    elif image.mode not in _MODES:
        values = _single_channel(values, image.mode)
    if values.size and (int(values.min()) < 0 or int(values.max()) > _HIGHEST):
        raise BrokenIndexImage(f"the mask has values above {_HIGHEST}")
    return values.astype(np.uint16)


def with_two_values(indices: Indices) -> Indices:
    """Returns 0 and 255 for the grey values of a mask that was scaled or blurred."""
    return np.where(indices > 127, 255, 0).astype(np.uint16)


def read_colour_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[Colours, Indices | None]:
    """Returns the colour at every pixel; and the numbers, if the file is grey without a palette, else None.

    Raises BrokenIndexImage, also for a JPEG, which changes colours.
    """
    image, values = _loaded(data, max_pixels)
    if isinstance(image, JpegImageFile):
        raise BrokenIndexImage("the mask is a JPEG, which changes colours; save masks as PNG")
    numbers = values.astype(np.uint16) if image.mode in ("1", "L", "I;16") else None
    return np.asarray(image.convert("RGB")), numbers


def _loaded(data: bytes, max_pixels: int) -> tuple[ImageFile, npt.NDArray[np.generic]]:
    plugin = next((plugin for signature, plugin in _PLUGINS if data.startswith(signature)), None)
    if plugin is None:
        raise BrokenIndexImage("the mask is not a PNG, BMP, TIFF or GIF, or it is damaged")
    try:
        image = plugin(BytesIO(data))
        if image.width * image.height > max_pixels:
            raise BrokenIndexImage(f"the mask has {image.width} x {image.height} pixels, which is too many")
        image.load()
        return image, np.asarray(image)
    except (BrokenIndexImage, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds of errors on hostile bytes
        raise BrokenIndexImage("the mask is not a PNG, BMP, TIFF or GIF, or it is damaged") from error


def _single_channel(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.generic]:
    channels = {"LA": 1, "RGB": 3, "RGBA": 3}.get(mode)
    if channels is None or bool((values[:, :, :channels] != values[:, :, :1]).any()):
        raise BrokenIndexImage(
            "the mask contains colours, but each pixel must be the number of a category or an instance"
        )
    return values[:, :, 0]


def _values_of_gif(image: GifImageFile, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Returns the grey values of a GIF, whose writers renumber the palette; its indices if it has colours."""
    colours = np.asarray(image.convert("RGB"))
    return colours[:, :, 0] if bool((colours == colours[:, :, :1]).all()) else values


def _two_values_of_jpeg(values: npt.NDArray[np.generic]) -> Indices:
    grey = values.astype(np.int16)
    if grey.ndim == 3:
        if int(np.ptp(grey, axis=2).max(initial=0)) > _COLOUR_NOISE:
            raise BrokenIndexImage("the mask is a JPEG with colours, which JPEG changes; save masks as PNG")
        grey = grey.mean(axis=2).astype(np.int16)
    binary = _two_values(grey)
    if binary is None:
        raise BrokenIndexImage(
            "the mask is a JPEG with more than the two values 0 and 255, and JPEG changes values; save masks as PNG"
        )
    return binary


def _two_values(grey: npt.NDArray[np.integer]) -> Indices | None:
    """Returns 0 and 255 for values that are near one of them, or None if too many values lie between."""
    between = (grey > _NEAR) & (grey < 255 - _NEAR)
    if grey.size == 0 or int(grey.max()) > 255 or float(between.mean()) > _BETWEEN_SHARE:
        return None
    return with_two_values(grey.astype(np.uint16))
