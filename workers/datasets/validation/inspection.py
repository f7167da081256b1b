"""Inspects every image: decodes it once, with the same decoder as training, so a run never meets a broken file."""

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
from workers.datasets.parallel_map import parallel_map
from workers.datasets.validation.similar_images import brightness_signs

MIN_SIDE_PX = 8
_MAX_FILE_BYTES = 256 * 2**20  # a file is read as a whole
# Larger images are decoded one at a time: at the limit of 179 million pixels, each takes 0.5 GB.
_LARGE_PIXELS = 16_000_000

ProblemCode = Literal["empty_file", "not_an_image", "unreadable_image", "image_too_large", "tiny_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """The facts about an image that inspection finds. Width and height are those of the upright image."""

    width: int
    height: int
    kind: str | None  # JPEG, PNG, …
    is_animated: bool
    is_blank: bool  # all pixels have the same colour
    orientation: int = 1  # EXIF orientation, 1 to 8, that turned the stored pixels upright
    signs: bytes | None = None  # for the search for near-duplicates: the result of `brightness_signs`


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageProblem:
    """The reason why a file cannot be used."""

    code: ProblemCode
    reason: str


def inspect_images(
    files: Sequence[ArchivedFile], *, max_pixels: int = MAX_PIXELS, threads: int | None = None
) -> Iterator[ImageFacts | ImageProblem]:
    """Inspects `files` in parallel, and yields the results in their order.

    threads: None means one per core, at most 8.
    """
    one_large_image = threading.Lock()
    return parallel_map(lambda file: _inspect(file, max_pixels, one_large_image), files, threads=threads)


def _inspect(file: ArchivedFile, max_pixels: int, one_large_image: threading.Lock) -> ImageFacts | ImageProblem:
    try:
        return _facts(file, max_pixels, one_large_image)
    except ImageTooLarge as error:
        return ImageProblem(code="image_too_large", reason=str(error))
    except NotAnImage as error:
        return ImageProblem(code="not_an_image" if file.size_bytes else "empty_file", reason=str(error))
    except ImageError as error:
        return ImageProblem(code="unreadable_image", reason=str(error))


def _facts(file: ArchivedFile, max_pixels: int, one_large_image: threading.Lock) -> ImageFacts | ImageProblem:
    if file.size_bytes > _MAX_FILE_BYTES:
        return ImageProblem(code="image_too_large", reason=f"The file has {file.size_bytes:,} bytes.")
    data = file.path.read_bytes()
    width, height = read_image_size(data)
    if min(width, height) < MIN_SIDE_PX:
        return ImageProblem(code="tiny_image", reason=f"It has {width} x {height} pixels.")
    with one_large_image if width * height > _LARGE_PIXELS else contextlib.nullcontext():
        pixels = decode_image(data, max_pixels=max_pixels)  # [3, H, W]
        is_blank = _is_blank(pixels)
        signs = brightness_signs(pixels)
    kind = image_kind(file.name, file.head)
    return ImageFacts(
        width=pixels.shape[2],
        height=pixels.shape[1],
        kind=kind,
        is_animated=_is_animated(kind, data),
        is_blank=is_blank,
        orientation=read_orientation(data),
        signs=signs,
    )


def _is_blank(pixels: Tensor) -> bool:
    corner = pixels[:, :1, :1]
    if bool((pixels[:, ::16, ::16] != corner).any()):  # nearly always decides, at 1/256 of the cost
        return False
    return bool((pixels == corner).all())


def _is_animated(kind: str | None, data: bytes) -> bool:
    """Returns True if the image has more than one frame; only the first one is decoded."""
    if kind == "GIF":
        with contextlib.suppress(Exception):  # damage after the first frame does not matter
            return bool(GifImageFile(BytesIO(data)).is_animated)
    if kind == "PNG":
        return b"acTL" in data[: max(0, data.find(b"IDAT"))]  # the APNG chunk that precedes the pixels
    if kind == "WebP":
        return data[12:16] == b"VP8X" and bool(data[20] & 0x02)  # RFC 9649, section 2.7
    return False
