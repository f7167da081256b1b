"""The input of a request as images for the engine.

There is one, `image`, in any of three datatypes: BYTES holds encoded files, UINT8 holds images [B, H, W, 3], and
FP32, for classifiers, holds what the network itself sees, [B, C, crop, crop], normalised as the preset says. The
engine's images are bytes, so FP32 is taken back to the nearest of 256 levels: exact, if it was made from bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import InvalidTensor, TooManyImages
from app.protocols.open_inference.messages import InputTensor
from app.protocols.open_inference.request_body import IMAGE, Body
from app.protocols.served_models import ServedModel
from app.schemas.base64_text import bytes_of_base64
from models.errors import ImageTooLarge
from models.images.presets import frame_view, levels_of
from models.manifest import Preset

_OVERSHOOT_LEVELS: Final = 64  # resizing floats may leave the range a little; what is further out is another scale

Image = bytes | Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLimits:
    """What a request may hold."""

    max_images: int
    max_pixels: int  # of an image


def images_of(body: Body, served: ServedModel, limits: InputLimits) -> list[Image]:
    """The images, encoded or as uint8 [3, H, W]. Raises InvalidTensor, TooManyImages, ImageTooLarge."""
    tensor, binary = _only_input(body, served)
    if tensor.datatype not in ("BYTES", "UINT8", "FP32"):
        raise InvalidTensor(
            f"The input 'image' cannot have the datatype {tensor.datatype[:100]!r}.", hint=f"It is {_listed(served)}."
        )
    if not tensor.shape or tensor.shape[0] == 0:
        raise InvalidTensor(f"The shape {list(tensor.shape)} holds no image.", hint=f"It is {_listed(served)}.")
    if tensor.shape[0] > limits.max_images:
        raise TooManyImages(
            f"The request has {tensor.shape[0]} images, and the limit is {limits.max_images}.",
            hint="Send them in several requests.",
        )
    match tensor.datatype:
        case "BYTES":
            return list(_files(tensor, binary, served))
        case "UINT8":
            return list(_pictures(tensor, binary, served, limits))
        case _:
            return list(_views(tensor, binary, served))


def input_shapes(served: ServedModel) -> dict[str, list[int]]:
    """Shape of the input by each datatype that it may have; -1 is any number."""
    shapes = {"BYTES": [-1, 1], "UINT8": [-1, -1, -1, 3]}
    if isinstance(served.preset, Preset) and served.preset.crop_px <= served.preset.resize_px:
        shapes["FP32"] = [-1, served.preset.channels, served.preset.crop_px, served.preset.crop_px]
    return shapes


def _only_input(body: Body, served: ServedModel) -> tuple[InputTensor, memoryview | None]:
    names = [tensor.name for tensor in body.message.inputs]
    if names != [IMAGE]:
        sent = ", ".join(repr(name[:100]) for name in names[:10]) or "none"
        raise InvalidTensor(
            f"The model {served.name} has one input, 'image', and the request has {sent}.",
            hint=f"It is {_listed(served)}.",
        )
    (tensor,), (binary,) = body.message.inputs, body.binary
    if tensor.parameters.shared_memory_region is not None:
        raise InvalidTensor("Shared memory is not served.", hint="Send the tensor in the request.")
    if (binary is None) == (tensor.data is None):
        raise InvalidTensor(
            "The input 'image' needs its elements in `data`, or as binary data behind the JSON, and not both."
        )
    return tensor, binary


def _files(tensor: InputTensor, binary: memoryview | None, served: ServedModel) -> list[bytes]:
    count = tensor.shape[0]
    if tensor.shape not in ((count,), (count, 1)):
        raise _wrong_shape(tensor, served)
    files = _elements(binary, most=count) if binary is not None else _decoded(tensor)
    if len(files) != count:
        raise _wrong_count(tensor, len(files))
    return files


def _pictures(tensor: InputTensor, binary: memoryview | None, served: ServedModel, limits: InputLimits) -> list[Tensor]:
    if len(tensor.shape) != 4 or tensor.shape[3] != 3 or 0 in tensor.shape:
        raise _wrong_shape(tensor, served)
    height, width = tensor.shape[1:3]
    if height * width > limits.max_pixels:
        raise ImageTooLarge(
            f"The image has {width} x {height} = {width * height:,} pixels; the limit is {limits.max_pixels:,}.",
            hint="Scale it down first.",
        )
    pixels = _array(tensor, binary, np.dtype(np.uint8)).transpose(0, 3, 1, 2)  # [B, 3, H, W]
    return [torch.from_numpy(np.array(picture, order="C")) for picture in pixels]


def _views(tensor: InputTensor, binary: memoryview | None, served: ServedModel) -> list[Tensor]:
    shape = input_shapes(served).get("FP32")
    if shape is None:
        raise InvalidTensor(
            f"The model {served.name} does not accept FP32: it makes its own views of an image.",
            hint=f"It is {_listed(served)}.",
        )
    if list(tensor.shape[1:]) != shape[1:]:
        raise _wrong_shape(tensor, served)
    preset = served.preset
    assert isinstance(preset, Preset)
    normalised = torch.from_numpy(np.array(_array(tensor, binary, np.dtype("<f4")), np.float32))  # [B, C, crop, crop]
    levels = levels_of(preset, normalised)
    if not bool((levels.sub(127.5).abs() <= 127.5 + _OVERSHOOT_LEVELS).all()):  # also refuses NaN
        low, high = (_normalised(preset, value) for value in (0.0, 1.0))
        raise InvalidTensor(
            f"The values are not those of an image normalised for {served.name}: these lie from {low} to {high}.",
            hint=f"mean is {list(preset.mean)} and std {list(preset.std)}, of values from 0 to 1. Or send UINT8.",
        )
    views = levels.round_().clamp_(0, 255).to(torch.uint8)
    return [frame_view(preset, view) for view in views]


def _normalised(preset: Preset, value: float) -> list[float]:
    """The network's input for black, 0, or white, 1, per channel."""
    return [round((value - mean) / std, 3) for mean, std in zip(preset.mean, preset.std, strict=True)]


def _array(tensor: InputTensor, binary: memoryview | None, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The elements in the tensor's shape."""
    count = prod(tensor.shape)
    if binary is not None:
        if len(binary) != count * dtype.itemsize:
            raise InvalidTensor(
                f"A {tensor.datatype} tensor of shape {list(tensor.shape)} has {count * dtype.itemsize} bytes, and "
                f"{len(binary)} were sent."
            )
        return np.frombuffer(binary, dtype).reshape(tensor.shape)
    numbers = _numbers(tensor, dtype)
    if numbers.size != count:
        raise _wrong_count(tensor, numbers.size)
    return numbers.reshape(tensor.shape)


def _numbers(tensor: InputTensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        numbers = np.asarray(tensor.data)
    except ValueError as error:
        raise InvalidTensor("`data` is nested unevenly.", hint="Write it flat, row by row.") from error
    is_whole = numbers.dtype.kind in "iu"
    if dtype.kind == "u" and not (is_whole and numbers.size and numbers.min() >= 0 and numbers.max() <= 255):
        raise InvalidTensor("`data` of a UINT8 tensor are whole numbers from 0 to 255.")
    if not is_whole and numbers.dtype.kind != "f":
        raise InvalidTensor(f"`data` of a {tensor.datatype} tensor are numbers.")
    with np.errstate(over="ignore"):  # what is too large for FP32 becomes infinite, and is refused as such
        return numbers.astype(dtype)


def _elements(binary: memoryview, *, most: int) -> list[bytes]:
    """The elements of BYTES: each with its length before it, 4 bytes, little-endian. Stops above `most`."""
    found: list[bytes] = []
    at = 0
    while at < len(binary) and len(found) <= most:
        start = at + 4
        at = start + int.from_bytes(binary[at:start], "little")
        if at > len(binary):
            raise InvalidTensor(
                f"Element {len(found) + 1} of the BYTES tensor ends {at - len(binary)} bytes behind the data.",
                hint="Each element has its length before it, as 4 bytes, little-endian.",
            )
        found.append(bytes(binary[start:at]))
    return found


def _decoded(tensor: InputTensor) -> list[bytes]:
    """The elements of BYTES in `data`, flat or nested as [B, 1]."""
    entries = [entry for row in tensor.data or () for entry in (row if isinstance(row, list) else [row])]
    try:
        return [bytes_of_base64(entry) for entry in entries]
    except (AttributeError, ValueError) as error:  # not text, or not valid base64
        raise InvalidTensor(
            "`data` of a BYTES tensor must be base64 text, because JSON has no bytes.",
            hint="Or send encoded images as binary data.",
        ) from error


def _wrong_count(tensor: InputTensor, sent: int) -> InvalidTensor:
    return InvalidTensor(f"The shape {list(tensor.shape)} is of {prod(tensor.shape)} elements, and {sent} were sent.")


def _wrong_shape(tensor: InputTensor, served: ServedModel) -> InvalidTensor:
    return InvalidTensor(
        f"The input 'image' cannot have the shape {list(tensor.shape)} as {tensor.datatype}.",
        hint=f"It is {_listed(served)}.",
    )


def _listed(served: ServedModel) -> str:
    return " or ".join(f"{datatype} {shape}" for datatype, shape in input_shapes(served).items())
