"""Reads the header of a safetensors file. Needs no torch, so the worker's parent process can publish.

Source: the format as the safetensors project documents it: 8 bytes of length, JSON, then the tensors' bytes.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from models.errors import UnsafeWeights

_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
# Last parts of keys that are not learnable: BatchNorm's statistics, and the position tables of Swin and MaxViT.
_BUFFERS = frozenset(
    {"running_mean", "running_var", "num_batches_tracked", "relative_position_index", "relative_coords_table"}
)


class _Entry(BaseModel):
    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data_offsets: tuple[int, int]


def count_parameters(path: Path) -> int:
    """The number of learnable parameters in the file.

    Raises UnsafeWeights if it is not a complete safetensors file.
    """
    entries = _read_header(path)
    return sum(prod(entry.shape) for key, entry in entries.items() if key.rpartition(".")[2] not in _BUFFERS)


def _read_header(path: Path) -> dict[str, _Entry]:
    hint = "Publish a file written by safetensors.torch.save_file."
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _LONGEST_HEADER_BYTES else b""
    try:
        content = TypeAdapter(dict[str, JsonValue]).validate_json(header)
        content.pop("__metadata__", None)
        entries = TypeAdapter(dict[str, _Entry]).validate_python(content)
    except ValidationError as error:
        raise UnsafeWeights(f"{path.name} is not a safetensors file.", hint=hint) from error
    end = max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if path.stat().st_size != 8 + length + end:
        raise UnsafeWeights(f"{path.name} is incomplete: it ends early.", hint=hint)
    return entries
