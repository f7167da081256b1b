"""CUDA graphs: the kernels of the eager network, recorded once per batch size and replayed with one call.

Python starts a network's kernels one by one, so a fast GPU waits for Python at small batches. A recording has fixed
shapes and addresses. So views are copied to where it reads, a batch is filled up to the next recorded size, and calls
wait for each other. The recording runs the kernels of eager PyTorch, so nothing is stored: loading records again.
Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from models.backends.backend import BackendName
from models.backends.compiler import BuildRequest
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.views import ViewSize, largest_batch
from models.errors import BackendUnavailable
from models.precision import Precision

_WARM_UPS = 3  # before recording: libraries choose algorithms and allocate memory in the first calls
_RECORDING: Final = threading.Lock()  # PyTorch records one graph at a time in a process

# takes uint8 [B, C, h, w], at most the recorded number of views; returns results on the CPU
Replay = Callable[[Tensor], Tensor]


class CudaGraphs:
    """Records networks whose views have one size."""

    name: BackendName = "cuda_graphs"
    precisions: frozenset[Precision] = frozenset({"float32", "bfloat16"})
    libraries: tuple[str, ...] = ()

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        return None if device.type == "cuda" else f"CUDA graphs are for NVIDIA GPUs, not for {device.type}"

    def build(self, request: BuildRequest) -> None:
        """Writes nothing. Raises BackendUnavailable for a network that cannot be recorded."""
        if isinstance(request.eager.graph, DetectionGraph):  # the CPU chooses the boxes between its networks
            raise BackendUnavailable("A CUDA graph cannot run a detector: its work depends on the image.")
        _sides(request.eager.view_size)

    def load(self, request: BuildRequest) -> CudaGraphsBackend:
        """See Compiler.load. Recording takes about a second, and memory for the largest batch."""
        network = eager = request.eager
        size = eager.view_size
        if request.precision != "float32":
            network = EagerBackend(copy.deepcopy(eager.graph), eager.device, request.precision)
        before_bytes = torch.cuda.memory_reserved(eager.device)
        recordings = record(network, size)
        # an estimate: other models may allocate meanwhile
        taken_bytes = torch.cuda.memory_reserved(eager.device) - before_bytes
        return CudaGraphsBackend(network, size, recordings, recorded_bytes=max(0, taken_bytes))


class CudaGraphsBackend:
    """A network on an NVIDIA GPU. Calls wait for each other."""

    name: BackendName = "cuda_graphs"

    def __init__(
        self, network: EagerBackend, size: ViewSize, recordings: Mapping[int, Replay], *, recorded_bytes: int = 0
    ) -> None:
        """recordings: by the sizes of `batch_sizes`. recorded_bytes: memory of all recordings together."""
        self.precision: Precision = network.precision
        self.size_bytes = network.size_bytes + recorded_bytes
        self._network = network  # keeps the weights that the recordings read
        self._size = size
        self._recordings = dict(recordings)
        self._largest = max(recordings)
        self._lock = threading.Lock()

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Any:
        """See Backend.run."""
        if not self._size.takes(batch):
            msg = f"the recorded network takes {self._size}, not {batch.dtype} {list(batch.shape)}"
            raise ValueError(msg)
        outputs = [self._replay(part) for part in torch.split(batch, self._largest)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _replay(self, batch: Tensor) -> Tensor:
        with self._lock:
            return self._recordings[next_size(len(batch))](batch)


class Recording:
    """A network on batches of one size. Recordings that share memory must not be replayed at the same time."""

    def __init__(self, network: EagerBackend, views: Tensor, *, stream: torch.cuda.Stream, pool: Any) -> None:
        """views: the buffer that the recording reads, uint8 [B, C, h, w] on the GPU. pool: memory for its results."""
        self._views = views
        current = torch.cuda.current_stream(views.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                network.graph(views)
        current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other models may allocate memory in their threads meanwhile
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._output: Tensor = network.graph(views)

    def __call__(self, batch: Tensor) -> Tensor:
        """See Replay. The result is copied to the CPU, because the next replay overwrites it."""
        count = len(batch)
        with torch.cuda.device(self._views.device):
            self._views[:count].copy_(batch)
            self._views[count:].zero_()  # removes images of earlier requests
            self._graph.replay()
            return self._output[:count].cpu()  # waits for the device here


@torch.inference_mode()
def record(network: EagerBackend, size: ViewSize) -> dict[int, Replay]:
    """Records the network for every size of `batch_sizes`. Raises BackendUnavailable, RuntimeError."""
    height, width = _sides(size)
    shape = torch.Size([size.channels, height, width])
    with _RECORDING, torch.cuda.device(network.device):
        stream = torch.cuda.Stream(network.device)  # type: ignore[no-untyped-call]
        pool = torch.cuda.graph_pool_handle()
        recordings: dict[int, Replay] = {}
        for count in reversed(batch_sizes(largest_batch(shape))):  # smaller ones reuse the memory of the largest
            views = torch.zeros(count, *shape, dtype=torch.uint8, device=network.device)
            recordings[count] = Recording(network, views, stream=stream, pool=pool)
        return recordings


def empty_cache() -> None:
    """Returns the GPU memory that PyTorch caches.

    Waits until no network is being recorded, because PyTorch's own call fails during a recording in any thread.
    """
    if torch.cuda.is_available():
        with _RECORDING:
            torch.cuda.empty_cache()


def batch_sizes(most: int) -> list[int]:
    """Returns the powers of two up to `most`, ascending. At most half of a batch is then padding."""
    return [2**power for power in range(most.bit_length())]


def next_size(count: int) -> int:
    """Returns the smallest power of two that is at least `count`, which is 1 or more."""
    return 1 << (count - 1).bit_length()


def _sides(size: ViewSize) -> tuple[int, int]:
    """Raises BackendUnavailable."""
    if size.height is None or size.width is None:
        raise BackendUnavailable("CUDA graphs have fixed sizes, and the views of this network vary.")
    return size.height, size.width
