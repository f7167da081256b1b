"""Intel's inference runtime for x86-64 and Arm processors (Apache-2.0).

Fovea depends on it on Linux; on other systems `pip install openvino` adds it. Its Python package reports to its maker
as soon as it is imported, through the distribution `openvino-telemetry`. Where that distribution is missing, OpenVINO
uses a stub instead, so `import_openvino` makes it look missing. Networks are stored in OpenVINO's own format. They are
compiled when they are loaded, in a fraction of a second.
"""

from __future__ import annotations

import importlib.util
import queue
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.backends.backend import BackendName
from models.backends.compiler import BuildRequest, CompiledBackend, export, parts_of
from models.backends.eager import EagerBackend
from models.backends.part import Part
from models.backends.views import LARGEST_BATCH
from models.errors import BackendUnavailable
from models.precision import Precision

_TELEMETRY = "openvino_telemetry"


class OpenVino:
    """Converts exported networks."""

    name: BackendName = "openvino"
    precisions: frozenset[Precision] = frozenset({"float32", "bfloat16"})
    libraries: tuple[str, ...] = ("openvino",)

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        if device.type != "cpu":
            return f"Fovea uses OpenVINO on CPUs only, not on {device.type}"
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed: pip install openvino"
        return None

    def build(self, request: BuildRequest) -> None:
        """See Compiler.build. Weights are stored in float32 for every precision."""
        for part in parts_of(request.eager):
            store(convert(part, request.eager.device), request.directory, part)

    def load(self, request: BuildRequest) -> CompiledBackend:
        """See Compiler.load."""
        networks = load_networks(request.eager, request.directory, hint=request.precision)
        return CompiledBackend(request.eager, networks, name=self.name, precision=request.precision)


class OpenVinoNetwork:
    """A network on the CPU. A call uses all threads, so calls wait for each other."""

    def __init__(self, path: Path, *, hint: Precision, threads: int, has_few_shapes: bool) -> None:
        """hint: the precision of layers that are not quantised. has_few_shapes: whether its input has few shapes;
        OpenVINO then caches what each needs. Raises BackendUnavailable.
        """
        # the cache would take megabytes for every size of image
        cache = {} if has_few_shapes else {"CPU_RUNTIME_CACHE_CAPACITY": 0}
        try:
            core = import_openvino().Core()
            compiled = core.compile_model(
                core.read_model(path),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32" if hint == "float32" else "bf16",
                    "NUM_STREAMS": 1,  # calls run one at a time: a second stream would halve the threads of the first
                    "INFERENCE_NUM_THREADS": threads,
                    "ENABLE_CPU_PINNING": False,  # it would pin several processes to the same cores
                    **cache,
                },
            )
            self.size_bytes = path.with_suffix(".bin").stat().st_size
        except (RuntimeError, OSError) as error:
            raise BackendUnavailable(f"The network {path} cannot be loaded: {error}") from error
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle.put(compiled.create_infer_request())

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """See CompiledNetwork."""
        request = self._idle.get()
        try:
            found = request.infer([batch.contiguous().numpy()], share_inputs=True)  # the results are copied
        finally:
            self._idle.put(request)
        return tuple(torch.from_numpy(found[number]) for number in range(len(found)))


def convert(part: Part, device: torch.device) -> Any:
    """Converts the part, whose weights are on `device`, to OpenVINO's `Model` in float32."""
    openvino = import_openvino()
    model = openvino.convert_model(export(part, "float32", device))
    (network_input,) = model.inputs
    sides = [-1 if at in part.varies else side for at, side in enumerate(part.example.shape)][1:]
    model.reshape({network_input: openvino.PartialShape([openvino.Dimension(1, part.most_rows), *sides])})
    return model


def store(model: Any, directory: Path, part: Part) -> None:
    """Writes the model for `load_networks`."""
    import_openvino().save_model(model, _file(directory, part), compress_to_fp16=False)


def load_networks(eager: EagerBackend, directory: Path, *, hint: Precision) -> dict[str, OpenVinoNetwork]:
    """Loads the networks from `directory`, by the names of `parts_of`. Raises BackendError."""
    return {
        part.name: OpenVinoNetwork(
            _file(directory, part),
            hint=hint,
            threads=torch.get_num_threads(),
            has_few_shapes=not part.varies and part.most_rows <= LARGEST_BATCH,
        )
        for part in parts_of(eager)
    }


def _file(directory: Path, part: Part) -> Path:
    return directory / f"{part.name}.xml"


def import_openvino() -> ModuleType:
    """Imports the package without its telemetry.

    Raises BackendUnavailable if it is not installed, or if other code imported it with its telemetry.
    """
    if sys.modules.get(_TELEMETRY) is not None:
        raise BackendUnavailable(
            "Other code imported OpenVINO with its telemetry.", hint="Import it with `import_openvino` only."
        )
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # Python then treats it as not installed
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            "OpenVINO is not installed.", hint="Run `pip install openvino`, or set FOVEA_BACKEND=auto."
        ) from error
    module: ModuleType = openvino
    return module
