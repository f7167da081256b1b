"""Decodes the run lengths of Label Studio's brush: bytes of a bit stream, as the JavaScript library rle-pack has them.

The stream begins with the number of values (32 bits), the width of a value less one (5 bits), and four widths of a
length less one (4 bits each). Blocks follow: a bit that is 1 for a run of one value, two bits that choose the width of
the length, the length less one, and the value of the run, or each value. The values are the RGBA channels of the
pixels, row by row.
Source: github.com/thi-ng/umbrella, packages/rle-pack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_MAX_PIXELS = 2**26
_MAX_BYTES = 2**24


class BrokenBrush(ValueError):
    """The bytes do not describe a mask of this size; `str()` states the reason."""


def decode_brush(written: Any, *, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Returns the mask, [height, width]: the pixels whose alpha is not 0. Raises BrokenBrush."""
    is_bytes = isinstance(written, list) and all(type(each) is int and 0 <= each < 256 for each in written)
    if not is_bytes or len(written) > _MAX_BYTES or width * height > _MAX_PIXELS:
        raise BrokenBrush("a brush has no list of bytes, or it is too large")
    bits = _Bits(bytes(written))
    count = bits.read(32)
    if count != 4 * width * height:
        raise BrokenBrush("the run lengths of a brush do not fill the image")
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        is_run = bits.read(1)
        end = at + bits.read(length_bits[bits.read(2)]) + 1
        if end > count:
            raise BrokenBrush("the run lengths of a brush do not fill the image")
        if is_run:
            values[at:end] = bits.read(value_bits) & 255
        else:
            values[at:end] = [bits.read(value_bits) & 255 for _ in range(end - at)]
        at = end
    return values.reshape(height, width, 4)[:, :, 3] > 0


class _Bits:
    """Reads numbers from bytes, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0  # in bits

    def read(self, count: int) -> int:
        first, last = self._at // 8, (self._at + count + 7) // 8
        if last > len(self._data):
            raise BrokenBrush("the run lengths of a brush end early")
        piece = int.from_bytes(self._data[first:last], "big")
        self._at += count
        return piece >> (8 * last - self._at) & ((1 << count) - 1)
