"""Decodes JPEGs in batches on an NVIDIA GPU, with torchvision's nvJPEG. Only compressed bytes cross the bus.

nvJPEG repeats chroma samples where libjpeg interpolates them. So `models.images.decode` passes only JPEGs without
chroma subsampling, and `open_nvjpeg` compares its output for such files before anything is served.
Source: torchvision's decode_jpegs_cuda.cpp, 0.26 to 0.29.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from models.backends.views import natural_views
from models.images.decode import decode_image
from models.manifest import ScalePreset

log = logging.getLogger(__name__)

_TRIED_ON = ScalePreset(shorter_px=240, longer_px=320)
_TRIED_PICTURES = 3
_MOST_LEVELS = 4  # largest difference from libjpeg; the two transformations may each round differently

DecodeFiles = Callable[
    [list[Tensor]], Sequence[Tensor]
]  # takes files, uint8 [n] on the CPU; returns images, uint8 [3, H, W]


def open_nvjpeg(device: torch.device) -> NvJpeg | None:
    """Opens a decoder on that GPU. Logs why and returns None if there is none or its output differs from libjpeg's."""
    try:
        decoder = NvJpeg(on_gpu(device))
        largest = largest_difference(decoder)
    except RuntimeError as error:
        log.warning("JPEGs are decoded on the CPU: nvJPEG does not work on %s: %s", device, error)
        return None
    if largest > _MOST_LEVELS:
        log.warning(
            "JPEGs are decoded on the CPU: nvJPEG differs by %d levels, and the limit is %d", largest, _MOST_LEVELS
        )
        return None
    log.info("JPEGs without chroma subsampling are decoded on %s", device)
    return decoder


class NvJpeg:
    """Decodes files for several threads. Files that arrive while it is busy form the next batch."""

    def __init__(self, decode: DecodeFiles) -> None:
        """decode: raises RuntimeError if one of the files cannot be decoded."""
        self._decode = decode
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def __call__(self, data: bytes) -> Tensor | None:
        """The image as RGB, uint8 [3, H, W] on the GPU, without EXIF rotation; None if nvJPEG cannot decode it."""
        waiting = _Waiting(data)
        self._waiting.append(waiting)
        with self._lock:
            if not waiting.is_done:  # another thread may have decoded it in its batch
                self._decode_batch([self._waiting.popleft() for _ in range(len(self._waiting))])
        return waiting.pixels

    def _decode_batch(self, batch: Sequence[_Waiting]) -> None:
        images: Sequence[Tensor | None] = [None] * len(batch)
        try:
            images = self._decode([waiting.file for waiting in batch])
        except RuntimeError:  # one bad file fails the whole batch, so each is decoded alone
            images = [self._alone(waiting) for waiting in batch]
        finally:  # any other error reaches this caller; the other threads decode on the CPU
            for waiting, image in zip(batch, images, strict=True):
                waiting.pixels, waiting.is_done = image, True

    def _alone(self, waiting: _Waiting) -> Tensor | None:
        try:
            return self._decode([waiting.file])[0]
        except RuntimeError:
            return None


class _Waiting:
    """A file until it is decoded."""

    def __init__(self, data: bytes) -> None:
        self.file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.pixels: Tensor | None = None
        self.is_done = False


def on_gpu(device: torch.device) -> DecodeFiles:
    """torchvision's decoder. A process runs one batch at a time."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def decode(files: list[Tensor]) -> Sequence[Tensor]:
        # nvJPEG writes on its own stream and does not wait for earlier readers of its output memory. On this stream the
        # memory is only used for images, and is reused only after all work on the last image is done.
        with torch.cuda.device(device), torch.cuda.stream(stream):
            images: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device=device)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for image in images:
            image.record_stream(current)
        return images

    return decode


def largest_difference(decoder: NvJpeg) -> int:
    """Largest difference from the CPU's pixels, on generated photos. Raises RuntimeError if it cannot decode one."""
    largest = 0
    for view in natural_views(_TRIED_ON, _TRIED_PICTURES):
        file = BytesIO()
        Image.fromarray(view.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90, subsampling="4:4:4")
        found = decoder(file.getvalue())
        expected = decode_image(file.getvalue())
        if found is None or found.shape != expected.shape:
            msg = "it does not decode a plain JPEG"
            raise RuntimeError(msg)
        largest = max(largest, int((found.cpu().int() - expected.int()).abs().max()))
    return largest
