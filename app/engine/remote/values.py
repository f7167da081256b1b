"""Selections, outputs and errors as JSON and bytes. There is no pickle: only the classes named here can be read.

A value that JSON lacks, such as a tuple, is an object with one key that names its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from app.engine.errors import InferenceError
from app.engine.remote.arena import Bytes
from models.errors import ModelsError
from models.predictor import Selection
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection, SoftMask, ViewOutput
from models.predictors.segmentation import SegmentationSelection

ALIGNED_TO = 16  # bytes: a tensor begins at a multiple of this

_CLASSES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (ClassSelection, DetectionSelection, SegmentationSelection, ViewOutput, SoftMask)
}


class Packed:
    """A value in two parts: JSON, and the bytes of its tensors."""

    def __init__(self, value: object) -> None:
        """Raises an error for a value that cannot be sent to another process; `write` then raises none."""
        self._tensors: list[tuple[int, Bytes]] = []
        self.size_bytes = 0  # of all tensors
        self.structure = self._pack(value)  # the part that JSON takes

    def write(self, memory: Bytes) -> None:
        """Writes the tensors into `memory`, uint8 [size_bytes]."""
        for offset, content in self._tensors:
            np.copyto(memory[offset : offset + content.nbytes], content)

    def _pack(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Tensor():
                return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), self._add(value)]}
            case list():
                return [self._pack(item) for item in value]
            case tuple():
                return {"tuple": [self._pack(item) for item in value]}
            case frozenset():
                return {"frozenset": sorted(value)}
        assert is_dataclass(value), f"{type(value).__name__} cannot be sent to another process"
        kind = type(value).__name__
        assert kind in _CLASSES
        return {kind: {field.name: self._pack(getattr(value, field.name)) for field in fields(value)}}

    def _add(self, tensor: Tensor) -> int:
        offset = self.size_bytes
        if tensor.nbytes:
            self._tensors.append((offset, tensor.reshape(-1).view(torch.uint8).numpy()))
        self.size_bytes += -(-tensor.nbytes // ALIGNED_TO) * ALIGNED_TO
        return offset


def unpack(structure: Any, memory: Bytes) -> Any:
    """Returns the value. Its tensors are views of `memory`, uint8, and keep it alive."""
    return _unpack(structure, torch.from_numpy(memory))


def _unpack(structure: Any, memory: Tensor) -> Any:
    if isinstance(structure, list):
        return [_unpack(item, memory) for item in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    match kind:
        case "tensor":
            return _tensor(memory, *content)
        case "tuple":
            return tuple(_unpack(item, memory) for item in content)
        case "frozenset":
            return frozenset(content)
    return _CLASSES[kind](**{name: _unpack(item, memory) for name, item in content.items()})


def _tensor(memory: Tensor, name: str, shape: list[int], offset: int) -> Tensor:
    dtype: torch.dtype = getattr(torch, name)
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return memory[offset : offset + prod(shape) * dtype.itemsize].view(dtype).view(shape)


@lru_cache(1024)
def pack_selection(selection: Selection[Any]) -> str:
    """Returns a selection as text. It is cached, because most requests repeat the previous one's."""
    return json.dumps(Packed(selection).structure)


@lru_cache(1024)
def unpack_selection(text: str) -> Selection[Any]:
    """Returns the selection of a text."""
    selection: Selection[Any] = unpack(json.loads(text), np.empty(0, np.uint8))
    return selection


def pack_error(error: BaseException) -> dict[str, Any]:
    """Returns an error as JSON: one of Fovea's with its attributes, of any other only the text."""
    known = isinstance(error, ModelsError | InferenceError)
    attributes = {name: Packed(value).structure for name, value in vars(error).items()} if known else {}
    text = str(error) if known else f"In the engine process: {type(error).__name__}: {error}"
    return {"kind": type(error).__name__, "text": text, "attributes": attributes}


def unpack_error(structure: dict[str, Any]) -> Exception:
    """Returns the error, as RuntimeError if it is not one of Fovea's."""
    nothing = np.empty(0, np.uint8)
    for kind in (*_below(ModelsError), *_below(InferenceError)):
        if kind.__name__ == structure["kind"]:
            error = kind.__new__(kind, structure["text"])
            vars(error).update({name: unpack(value, nothing) for name, value in structure["attributes"].items()})
            return error
    return RuntimeError(structure["text"])


def _below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _below(child)
