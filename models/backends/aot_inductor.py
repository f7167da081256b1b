"""PyTorch's own ahead-of-time compiler: a network becomes a shared library, built once, loaded in milliseconds.

torch's loader holds Python's lock for as long as the network runs, so every other thread, the event loop among them,
stands still, and two threads take turns. The library's own C functions (torch/csrc/inductor/aoti_runtime/interface.h)
are called by ctypes instead, which lets go of the lock.
"""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import shlex
import shutil
import sys
import weakref
import zipfile
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_size_t, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from models.backends.backend import BackendName, Precision
from models.backends.compiler import CompiledBackend, export, parts_of
from models.backends.eager import EagerBackend
from models.backends.part import Part
from models.backends.views import ViewSize
from models.errors import BackendUnavailable

_RUNNERS = 2  # calls that may run at once; they share the weights


class AotInductor:
    """Builds packages with torch.export and Inductor. Needs a C++ compiler to build, and none to load."""

    name: BackendName = "aot_inductor"
    precisions: frozenset[Precision] = frozenset({"float32", "bfloat16"})
    libraries: tuple[str, ...] = ()

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        if device.type not in ("cpu", "cuda"):
            return f"AOTInductor makes no code for {device.type}"
        return None if find_compiler() else "no C++ compiler is installed (g++, or what CXX names)"

    def build(
        self,
        eager: EagerBackend,
        size: ViewSize,
        directory: Path,
        *,
        precision: Precision,
        examples: Sequence[Tensor] = (),  # noqa: ARG002
    ) -> None:
        """See Compiler.build."""
        for part in parts_of(eager, size):
            build_part(part, directory, precision=precision, device=eager.device)

    def load(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> CompiledBackend:
        """See Compiler.load."""
        networks = {
            part.name: AotInductorNetwork(directory, part.name, device=eager.device) for part in parts_of(eager, size)
        }
        return CompiledBackend(eager, size, networks, name=self.name, precision=precision)


class AotInductorNetwork:
    """A shared library that computes a network. At most two calls run at once, others wait."""

    def __init__(self, directory: Path, name: str, *, device: torch.device) -> None:
        """Raises BackendUnavailable."""
        self._device = device
        library = directory / f"{name}.so"
        try:
            self._outputs = int(json.loads((directory / f"{name}.json").read_bytes()))
            self._library = ctypes.CDLL(str(library))
            self.size_bytes = library.stat().st_size
        except (OSError, ValueError) as error:
            raise BackendUnavailable(f"The network {library} cannot be loaded: {error}") from error
        self._container = c_void_p()
        where = "cpu" if device.type == "cpu" else str(device)
        code = self._library.AOTInductorModelContainerCreateWithDevice(
            byref(self._container), c_size_t(_RUNNERS), c_char_p(where.encode()), c_char_p(str(directory).encode())
        )
        if code:
            raise BackendUnavailable(f"The network {library} does not start on {where}.")
        weakref.finalize(self, _let_go, self._library, self._container).atexit = False

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """See CompiledNetwork."""
        inputs = (c_void_p * 1)(*_handles([batch.contiguous()]))  # the call takes them over
        outputs = (c_void_p * self._outputs)()
        stream = None
        if self._device.type == "cuda":
            stream = c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        code = self._library.AOTInductorModelContainerRun(
            self._container, inputs, c_size_t(1), outputs, c_size_t(self._outputs), stream, None
        )
        if code:
            msg = "the compiled network failed; its words are on stderr"
            raise RuntimeError(msg)
        return tuple(_tensors(list(outputs)))


def find_compiler() -> str | None:
    """The C++ compiler that Inductor would take, if there is one, found without importing Inductor: that takes 2 s."""
    try:
        command = shlex.split(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))
    except ValueError:  # an open quotation: Inductor takes that for none, too
        return None
    return shutil.which(command[0]) if command else None


def build_part(part: Part, directory: Path, *, precision: Precision, device: torch.device) -> None:
    """Writes what `AotInductorNetwork` needs into `directory`. See Compiler.build."""
    import torch._inductor
    from torch._inductor.utils import fresh_cache

    program = export(part, precision, device)
    package = directory / f"{part.name}.pt2"
    with fresh_cache(), torch.no_grad():  # the cache is of no use to anyone else
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 -- torch documents it under this name
            program,
            package_path=str(package),
            inductor_configs={
                "compile_threads": 1,  # no pool of processes
                "max_autotune": device.type == "cuda",
            },
        )
    _unpack(package, directory / f"{part.name}.so")
    (directory / f"{part.name}.json").write_text(json.dumps(len(program.graph_signature.user_outputs)))


def _unpack(package: Path, library: Path) -> None:
    """Leaves of a package what it takes to run: the shared library, and a GPU's kernels. Raises BackendUnavailable."""
    with zipfile.ZipFile(package) as archive:
        for entry in archive.infolist():
            name = Path(entry.filename).name
            if name.endswith("_metadata.json"):
                continue
            if name.endswith(".json"):  # operators without a C function: only torch's own loader can call them
                operators = json.loads(archive.read(entry)).get("nodes", [])
                if operators:
                    raise BackendUnavailable(f"The network has {len(operators)} operators that AOTInductor leaves out.")
            if Path(name).suffix in (".so", ".cubin", ".hsaco"):
                place = library if name.endswith(".so") else library.with_name(name)
                with archive.open(entry) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)
    package.unlink()


def _let_go(library: ctypes.CDLL, container: c_void_p) -> None:
    """Frees the weights. The library may stay mapped (GNU's unique symbols): as pages of a file, free to be dropped."""
    library.AOTInductorModelContainerDelete(container)
    _ctypes.dlclose(library._handle)  # noqa: SLF001 -- ctypes has no other way


# Tensors cross over to C as Inductor's own C++ wrappers do it: by an owning pointer in a capsule.
_address_of = ctypes.pythonapi.PyCapsule_GetPointer
_address_of.restype, _address_of.argtypes = c_void_p, (ctypes.py_object, c_char_p)
_capsule_of = ctypes.pythonapi.PyCapsule_New
_capsule_of.restype, _capsule_of.argtypes = ctypes.py_object, (c_void_p, c_char_p, c_void_p)


def _handles(tensors: list[Tensor]) -> list[int]:
    """A new reference to each."""
    capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(tensors)  # noqa: SLF001
    return [_address_of(capsule, None) for capsule in capsules]


def _tensors(handles: list[int]) -> list[Tensor]:
    """The tensors of references, which are taken over."""
    capsules = [_capsule_of(handle, None, None) for handle in handles]
    found: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(capsules)  # noqa: SLF001
    return found
