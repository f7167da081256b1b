"""Small makers of images as files, for tests."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HUGE_SIDE_PX = 20_000


def gradient_image(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """A smooth RGB image, another for every seed: what JPEG keeps well."""
    random = np.random.default_rng(seed)
    corners = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    return corners.resize((width, height), Image.Resampling.BILINEAR)


def gradient_tensor(width: int = 64, height: int = 48, *, seed: int = 0) -> Tensor:
    """The same image, uint8 [3, H, W]."""
    return torch.from_numpy(np.array(gradient_image(width, height, seed=seed))).permute(2, 0, 1).contiguous()


def encoded(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002 - Pillow's word
    """`image` as a file in Pillow's format of that name."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg_bytes(width: int = 64, height: int = 48, *, seed: int = 0) -> bytes:
    """A colour JPEG."""
    return encoded(gradient_image(width, height, seed=seed), "JPEG", quality=95)


def png_bytes(width: int = 64, height: int = 48, *, seed: int = 0) -> bytes:
    """A colour PNG."""
    return encoded(gradient_image(width, height, seed=seed), "PNG")


def truncated_jpeg() -> bytes:
    """A JPEG that ends in the middle of its pixels."""
    whole = encoded(Image.effect_noise((256, 256), 80).convert("RGB"), "JPEG", quality=95)
    return whole[: len(whole) // 2]


def cmyk_jpeg(cyan: int = 255, magenta: int = 0, yellow: int = 0, black: int = 0) -> bytes:
    """A JPEG of one colour in CMYK, 32 x 24."""
    return encoded(Image.new("CMYK", (32, 24), (cyan, magenta, yellow, black)), "JPEG", quality=95)


def png_16_bit(value: int = 32_768, width: int = 20, height: int = 10) -> bytes:
    """A grey PNG of 16 bits, all pixels `value`."""
    return encoded(Image.fromarray(np.full((height, width), value, dtype=np.uint16)), "PNG")


def animated_gif() -> bytes:
    """Two frames of 16 x 16: red, then blue."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def exif_rotated(orientation: int, image_format: str = "JPEG", width: int = 40, height: int = 20) -> bytes:
    """An image stored turned, with the EXIF orientation that says how to see it.

    Upright it is `width` x `height`: red in the upper left quarter, white elsewhere.
    """
    upright = Image.new("RGB", (width, height), "white")
    upright.paste("red", (0, 0, width // 2, height // 2))
    stored = upright if orientation == 1 else upright.transpose(_STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    return encoded(stored, image_format, exif=exif.tobytes(), **options)


# What was done to the image before it was stored: the inverse of what EXIF says to do.
_STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def huge_png(side_px: int = HUGE_SIDE_PX) -> bytes:
    """A valid black PNG of `side_px` squared; 20,000 x 20,000 takes about 100 kB and 1.2 GB decoded to RGB."""
    row = bytes(1 + side_px // 4)  # no filter, then 2 bits a pixel
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row * 1000) for _ in range(side_px // 1000)), packer.flush()])
    header = struct.pack(">IIBBBBB", side_px, side_px, 2, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
