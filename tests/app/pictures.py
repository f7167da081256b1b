"""Encoded images that are brighter on the left: 192 against 64 of 255, 40 x 28 px."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

BRIGHT, DARK = 192, 64
WIDTH, HEIGHT = 40, 28
_ORIENTATION = 0x0112  # EXIF tag


def left_bright(mode: str = "RGB") -> Image.Image:
    """The image itself."""
    levels = np.full((HEIGHT, WIDTH), DARK, np.uint8)
    levels[:, : WIDTH // 2] = BRIGHT
    return Image.fromarray(levels).convert("RGB").convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """As a file."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png() -> bytes:
    return encoded(left_bright())


def jpeg() -> bytes:
    return encoded(left_bright(), "JPEG", quality=95)


def sixteen_bit() -> bytes:
    levels = np.asarray(left_bright("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(levels))


def transparent() -> bytes:
    """Black, and half transparent where it must look bright: on white that is the same image."""
    alpha = 255 - np.asarray(left_bright("L"))
    picture = Image.new("RGBA", (WIDTH, HEIGHT))
    picture.putalpha(Image.fromarray(alpha))
    return encoded(picture)


def animated(kind: str) -> bytes:
    """The image first, then its mirror image."""
    mirrored = left_bright().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return encoded(left_bright(), kind, save_all=True, append_images=[mirrored], duration=100)


def turned_with_exif() -> bytes:
    """Stored upside down; its EXIF says so."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 3
    return encoded(left_bright().rotate(180), "JPEG", quality=95, exif=exif)


def huge_png(side_px: int = 20_000) -> bytes:
    """A whole PNG of one colour: a file of tens of kilobytes, hundreds of millions of pixels."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + side_px // 8)) for _ in range(side_px)) + rows.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
