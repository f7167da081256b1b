"""JPEGs decoded by an NVIDIA GPU with torchvision's nvJPEG, in batches, so that bytes cross the bus and not pixels.

nvJPEG repeats chroma samples where libjpeg interpolates them, so `models.images.decode` offers only JPEGs without
chroma subsampling, and compares its output for those before anything is served.
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
_MOST_LEVELS = 4  # that a value may differ from libjpeg's: each of both transformations may round another way

DecodeFiles = Callable[[list[Tensor]], Sequence[Tensor]]  # files, uint8 [n] on the CPU: images, uint8 [3, H, W]


def open_nvjpeg(device: torch.device) -> NvJpeg | None:
    """A decoder on that GPU; None, and a line in the log, if there is none here or it decodes something else."""
    try:
        decoder = NvJpeg(on_gpu(device))
        largest = largest_difference(decoder)
    except RuntimeError as error:
        log.warning("JPEGs are decoded by the processor: nvJPEG does not work on %s: %s", device, error)
        return None
    if largest > _MOST_LEVELS:
        log.warning(
            "JPEGs are decoded by the processor: nvJPEG differs by %d levels; %d are the most", largest, _MOST_LEVELS
        )
        return None
    log.info("JPEGs whose colours are whole are decoded on %s", device)
    return decoder


class NvJpeg:
    """Decodes files for several threads: those that come while it is busy are its next batch, and none waits longer."""

    def __init__(self, decode: DecodeFiles) -> None:
        """decode: raises RuntimeError if one of the files cannot be decoded."""
        self._decode = decode
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def __call__(self, data: bytes) -> Tensor | None:
        """The image as RGB, uint8 [3, H, W] on the GPU, not yet upright; None if nvJPEG cannot decode it."""
        waiting = _Waiting(data)
        self._waiting.append(waiting)
        with self._lock:
            if not waiting.is_done:  # else another thread took it along
                self._decode_batch([self._waiting.popleft() for _ in range(len(self._waiting))])
        return waiting.pixels

    def _decode_batch(self, batch: Sequence[_Waiting]) -> None:
        pictures: Sequence[Tensor | None] = [None] * len(batch)
        try:
            pictures = self._decode([waiting.file for waiting in batch])
        except RuntimeError:  # all fail with one: alone each gets what it would have got in any company
            pictures = [self._alone(waiting) for waiting in batch]
        finally:  # whatever else is raised is for who called; the others go to the processor
            for waiting, picture in zip(batch, pictures, strict=True):
                waiting.pixels, waiting.is_done = picture, True

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
    """torchvision's decoder. One of its batches is under way at a time in a process."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def decode(files: list[Tensor]) -> Sequence[Tensor]:
        # nvJPEG writes on a stream of its own and does not wait for what still reads the memory that it is given: here
        # that is memory which only images get, and get again when all that was asked of the last one is done
        with torch.cuda.device(device), torch.cuda.stream(stream):
            pictures: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device=device)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for picture in pictures:
            picture.record_stream(current)
        return pictures

    return decode


def largest_difference(decoder: NvJpeg) -> int:
    """Levels by which values differ from the processor's on made-up photos. Raises RuntimeError if it decodes none."""
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
