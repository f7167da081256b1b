"""Files of other people's training scripts: what is read beside tensors, and what to do with the others.

A checkpoint of torchvision's or timm's scripts keeps the arguments of the script, and many keep a number of NumPy's.
Both are values without code. TorchScript and pickled classes are programs: they are refused, with the line of Python
that makes a file of tensors out of them.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
import torch

from models.errors import UnsafeWeights

WRAPPER_KEYS: Final = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep the state_dict
SAVE_HINT: Final = (
    "Save one with torch.save(model.state_dict(), path) or safetensors.torch.save_file(model.state_dict(), path); "
    "not the whole model."
)
_CLASS: Final = re.compile(r"(?:GLOBAL|class|type) `?([A-Za-z_][\w.]*\.\w+)")
_SCALAR: Final = "_core.multiarray.scalar"  # numpy 1 called the package `core`
_SEARCHED_BYTES: Final = 16 * 2**20


def allow_harmless_classes() -> None:
    """Lets `torch.load(weights_only=True)` read argparse.Namespace and NumPy's numbers, in this process."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # noqa: SLF001 - what a pickled number names
    numbers = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")}
    named = [(scalar, f"numpy.{_SCALAR}"), (scalar, f"numpy.{_SCALAR[1:]}")]
    torch.serialization.add_safe_globals([argparse.Namespace, np.dtype, *numbers, *named])


def refuse_torchscript(path: Path, name: str) -> None:
    """Raises UnsafeWeights if the file is TorchScript. name: what the message calls the file."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.endswith("/constants.pkl") for entry in archive.namelist()):
            hint = 'torch.save(torch.jit.load("model.pt").state_dict(), "weights.pth") makes a file that is taken.'
            raise UnsafeWeights(f"{name} is TorchScript, a program, and not a state_dict.", hint=hint)


def explained(path: Path, name: str, error: Exception) -> UnsafeWeights:
    """The refusal of a file that torch could not read. name: what the message calls the file."""
    found = _CLASS.search(str(error))
    if found is None:
        return UnsafeWeights(
            f"{name} is not a state_dict: neither torch.save nor safetensors wrote it, or it is damaged.",
            hint=SAVE_HINT,
        )
    key = _wrapper_key(path)
    taken = f'["{key}"]' if key else ".state_dict()"
    return UnsafeWeights(
        f"{name} is not a state_dict that contains only tensors: it has a {found[1]}, and reading that could run code.",
        hint="If you trust the file, this makes one that is taken: "
        f'torch.save(torch.load("checkpoint.pth", weights_only=False){taken}, "weights.pth"); or save the tensors '
        f"alone: {SAVE_HINT}",
    )


def _wrapper_key(path: Path) -> str | None:
    """The key that seems to hold the state_dict, found among the texts of the pickle, which is not run."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entry = next(entry for entry in archive.namelist() if entry.endswith("data.pkl"))
                with archive.open(entry) as file:
                    content = file.read(_SEARCHED_BYTES)
        else:
            with path.open("rb") as plain:
                content = plain.read(_SEARCHED_BYTES)
    except (OSError, StopIteration, zipfile.BadZipFile):
        return None
    texts = {key: b"X" + len(key).to_bytes(4, "little") + key.encode() for key in WRAPPER_KEYS}
    return next((key for key, text in texts.items() if text in content), None)
