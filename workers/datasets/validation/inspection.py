"""A look at every picture: it is decoded once, by the decoder that training uses, so a run meets no surprise."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from PIL.GifImagePlugin import GifImageFile
from torch import Tensor

from models.errors import ImageError, ImageTooLarge, NotAnImage
from models.images.decode import MAX_PIXELS, decode_image, read_image_size, read_orientation
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import image_kind
from workers.datasets.parallel_map import in_order

MIN_SIDE_PX = 8
_MAX_FILE_BYTES = 256 * 2**20  # read at once
# Above this many pixels pictures are decoded one at a time: 0.5 GB each at the limit of 179 million.
_BIG_PIXELS = 16_000_000

ProblemCode = Literal["empty_file", "not_an_image", "unreadable_image", "image_too_large", "tiny_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What a picture is, after EXIF orientation."""

    width: int
    height: int
    kind: str | None  # JPEG, PNG, …
    is_animated: bool
    is_blank: bool  # one colour all over
    orientation: int = 1  # EXIF's, 1 to 8: how it was turned to be upright


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageProblem:
    """Why a file cannot be used."""

    code: ProblemCode
    reason: str


def inspect_images(
    files: Sequence[ArchivedFile], *, max_pixels: int = MAX_PIXELS, threads: int | None = None
) -> Iterator[ImageFacts | ImageProblem]:
    """What each of `files` is, in their order. Decoders release the GIL, so threads use all cores.

    threads: null takes one a core, at most 8.
    """
    big_pictures = threading.Lock()
    return in_order(lambda file: _inspect(file, max_pixels, big_pictures), files, threads=threads)


def _inspect(file: ArchivedFile, max_pixels: int, big_pictures: threading.Lock) -> ImageFacts | ImageProblem:
    try:
        return _facts(file, max_pixels, big_pictures)
    except ImageTooLarge as error:
        return ImageProblem(code="image_too_large", reason=str(error))
    except NotAnImage as error:
        return ImageProblem(code="not_an_image" if file.size_bytes else "empty_file", reason=str(error))
    except ImageError as error:
        return ImageProblem(code="unreadable_image", reason=str(error))


def _facts(file: ArchivedFile, max_pixels: int, big_pictures: threading.Lock) -> ImageFacts | ImageProblem:
    if file.size_bytes > _MAX_FILE_BYTES:
        return ImageProblem(code="image_too_large", reason=f"The file has {file.size_bytes:,} bytes.")
    data = file.path.read_bytes()
    width, height = read_image_size(data)
    if min(width, height) < MIN_SIDE_PX:
        return ImageProblem(code="tiny_image", reason=f"It has {width} x {height} pixels.")
    with big_pictures if width * height > _BIG_PIXELS else contextlib.nullcontext():
        pixels = decode_image(data, max_pixels=max_pixels)  # [3, H, W]
        is_blank = _is_blank(pixels)
    kind = image_kind(file.name, file.head)
    return ImageFacts(
        width=pixels.shape[2],
        height=pixels.shape[1],
        kind=kind,
        is_animated=_is_animated(kind, data),
        is_blank=is_blank,
        orientation=read_orientation(data),
    )


def _is_blank(pixels: Tensor) -> bool:
    corner = pixels[:, :1, :1]
    if bool((pixels[:, ::16, ::16] != corner).any()):  # nearly always the answer, for a 256th of the cost
        return False
    return bool((pixels == corner).all())


def _is_animated(kind: str | None, data: bytes) -> bool:
    """Whether a decoded picture has further frames, which nothing here looks at."""
    if kind == "GIF":
        with contextlib.suppress(Exception):  # damage behind the first frame
            return bool(GifImageFile(BytesIO(data)).is_animated)
    if kind == "PNG":
        return b"acTL" in data[: max(0, data.find(b"IDAT"))]  # APNG's first chunk of its own, before the picture
    if kind == "WebP":
        return data[12:16] == b"VP8X" and bool(data[20] & 0x02)  # RFC 9649, section 2.7
    return False
