"""Decodes images. Training and serving use this one decoder, so both see the same pixels.

libjpeg-turbo (through simplejpeg) decodes JPEGs. Pillow decodes everything else, with a fixed list of formats. A server
with a GPU decodes plain JPEGs there (`models.images.nvjpeg`). Limits and orientation are always handled here.
The size is read from the header and checked before a pixel is decoded. ICC profiles are ignored, as torchvision and
Pillow do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from models.errors import BrokenImage, ImageTooLarge, NotAnImage

MAX_PIXELS = 178_956_970  # Pillow's own limit: 0.5 GB as RGB

_MOST_PLAIN_PIXELS = 2**24  # takes 50 MB on a GPU, and four times that as floats, per decode thread
_ORIENTATION = 0x0112  # EXIF tag
_FLIPS = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}  # dimensions to flip; 5 to 8 are transposed first
_FORMATS_HINT = "Send a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or PPM image."

# The plugin classes replace Image.open, which warns from half of its pixel limit on and tries every format in turn.
_MAGIC: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"II+\0", TiffImageFile),
    (b"MM\0+", TiffImageFile),
    *((b"P" + digit, PpmImageFile) for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
)


DecodeJpeg = Callable[
    [bytes], Tensor | None
]  # uint8 [3, H, W] on any device, without EXIF rotation; None if it cannot decode


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, decode_jpeg: DecodeJpeg | None = None) -> Tensor:
    """Decodes an image to RGB, uint8 [3, H, W], rotated by its EXIF orientation.

    decode_jpeg: tried first for JPEGs that all decoders read alike. Its result stays on its device.

    On the CPU, the channels of a pixel are adjacent in memory.
    Grey, palette and CMYK images become RGB. Transparent pixels become white. 16 bits are scaled to 8. Only the first
    frame of an animation is decoded.
    Raises NotAnImage, BrokenImage, ImageTooLarge.
    """
    header = _open(data)
    _check_pixels(header.size, max_pixels)
    orientation = _orientation(header, data)
    if decode_jpeg is not None and _is_plain_jpeg(header, data):
        decoded = decode_jpeg(data)
        if decoded is not None and decoded.shape == (3, *reversed(header.size)):
            return _upright(decoded, orientation).contiguous()
    try:
        pixels = torch.from_numpy(_decode(header, data)).permute(2, 0, 1)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # a frame or tile is larger than the header says
        raise ImageTooLarge(str(error), hint="Scale it down first.") from error
    except Exception as error:  # decoders may raise anything on hostile bytes
        raise BrokenImage(
            f"The image is damaged: {error}".rstrip("."), hint="Open it in a viewer and save it again."
        ) from error
    turned = _upright(pixels, orientation).permute(1, 2, 0).contiguous()
    return turned.permute(2, 0, 1)  # adjacent channels halve the time of resizing


def read_image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, after EXIF rotation. Reads only the header.

    Raises NotAnImage, BrokenImage; ImageTooLarge for a WebP above MAX_PIXELS.
    """
    header = _open(data)
    width, height = header.size
    return (height, width) if _orientation(header, data) >= 5 else (width, height)


def read_orientation(data: bytes) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 if it is missing or damaged. Reads only the header.

    Raises NotAnImage, BrokenImage; ImageTooLarge for a WebP above MAX_PIXELS.
    """
    return _orientation(_open(data), data)


def encode_image(image: Tensor, format: Literal["png", "jpeg"]) -> bytes:  # noqa: A002 - the word callers expect
    """Encodes `image`, uint8 [3, H, W] or [1, H, W]. JPEG quality is 90.

    PNGs use compression level 3, which takes a third of the time of Pillow's level 6 for a tenth more bytes.
    """
    pixels = image.cpu().permute(1, 2, 0).numpy()  # [H, W, C]
    encoded = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        encoded, format, quality=90, compress_level=3
    )
    return encoded.getvalue()


def _is_plain_jpeg(header: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the JPEG is complete, in one scan, and stores luma and both chroma values for every pixel."""
    return (
        isinstance(header, JpegImageFile)
        and header.mode == "RGB"
        and header.width * header.height <= _MOST_PLAIN_PIXELS
        and "progressive" not in header.info
        and header.info.get("adobe_transform", 1) == 1  # 0 means RGB
        and [layer[:3] for layer in header.layer] == [(1, 1, 1), (2, 1, 1), (3, 1, 1)]
        and data.endswith(b"\xff\xd9")
    )


def _decode(header: ImageFile.ImageFile, data: bytes) -> npt.NDArray[np.uint8]:
    """Decodes to RGB, uint8 [H, W, 3], without EXIF rotation. Releases the interpreter's lock."""
    if isinstance(header, JpegImageFile) and header.mode in ("L", "RGB"):
        with contextlib.suppress(ValueError):  # simplejpeg is strict; Pillow also reads files with small mistakes
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    header.load()
    return np.array(_rgb(header))


def _open(data: bytes) -> ImageFile.ImageFile:
    plugin = _plugin(data)
    if plugin is None:
        raise NotAnImage(
            "The data is empty." if not data else "The data is not an image in a format that Fovea reads.",
            hint=_FORMATS_HINT,
        )
    if plugin is WebPImageFile:
        _check_pixels(_webp_canvas(data), MAX_PIXELS)  # older versions of Pillow allocate the canvas on opening
    try:
        return plugin(BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # decoders may raise anything on hostile bytes
        raise BrokenImage(
            "The image's header is damaged or ends early.", hint="Open it in a viewer and save it again."
        ) from error


def _plugin(data: bytes) -> type[ImageFile.ImageFile] | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1"):
        return AvifImageFile
    return next((plugin for magic, plugin in _MAGIC if data.startswith(magic)), None)


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk; (0, 0) if it is missing. Source: RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"The image has {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}.",
            hint="Scale it down first.",
        )


def _orientation(header: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 if it is missing or damaged."""
    if isinstance(header, TiffImageFile):
        return 1  # Pillow rotates these itself
    if isinstance(header, PngImageFile) and b"eXIf" not in data and b"Raw profile type exif" not in data:
        return 1  # to look for EXIF data after the pixels, Pillow would decode the whole image
    value: object = None
    with contextlib.suppress(Exception):  # an image with damaged EXIF data is still an image
        value = header.getexif().get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """`pixels` [C, H, W], rotated by EXIF orientation. Source: EXIF 2.32, tag 0x0112."""
    turned = pixels.transpose(1, 2) if orientation >= 5 else pixels
    return turned.flip(_FLIPS[orientation]) if orientation in _FLIPS else turned


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, coloured).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts a grey image with deep pixels to 8 bits. Pillow's own conversion would clip at 255.

    Integers range from 0 to 65535, floats from 0 to 1. An image that exceeds this is scaled by its own range.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
    low, high = (0.0, 1.0) if image.mode == "F" else (0.0, 65535.0)
    if values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
