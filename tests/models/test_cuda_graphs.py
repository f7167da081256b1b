"""Recorded networks: which batch sizes there are, how batches are filled, and on a GPU that they compute the same."""

from __future__ import annotations

import copy
import gc
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.backends import choosing, cuda_graphs
from models.backends.building import Pictures, build
from models.backends.choosing import Candidate, Policy, candidates, choose, identify, why_not
from models.backends.cuda_graphs import CudaGraphs, CudaGraphsBackend, batch_sizes, next_size, record
from models.backends.eager import EagerBackend
from models.backends.exports import Exports
from models.backends.graphs import DetectionGraph
from models.backends.machine import best_precision
from models.backends.verification import TOLERANCES
from models.backends.views import ViewSize, natural_views
from tests.cuda import GPU, needs_cuda
from tests.models.small_networks import PRESET, SCALE_PRESET, small_classifier, small_segmenter
from tests.waiting import PATIENCE_S

CPU = torch.device("cpu")
SIZE = ViewSize.of(PRESET)


class Recorded:
    """What a recording does, by the network itself; it remembers what it was given and when it was busy."""

    def __init__(self, network: EagerBackend, size: int, busy: threading.Semaphore) -> None:
        self.counts: list[int] = []
        self._network = network
        self._views = torch.zeros(size, 3, 32, 32, dtype=torch.uint8)
        self._busy = busy

    def __call__(self, batch: Tensor) -> Tensor:
        assert self._busy.acquire(blocking=False), "two replays at the same time"
        self.counts.append(len(batch))
        self._views[: len(batch)] = batch
        outputs: Tensor = self._network.run(self._views)[: len(batch)]
        self._busy.release()
        return outputs


def recorded(network: EagerBackend, *, most: int) -> tuple[CudaGraphsBackend, dict[int, Recorded]]:
    busy = threading.Semaphore(1)
    recordings = {size: Recorded(network, size, busy) for size in batch_sizes(most)}
    return CudaGraphsBackend(network, SIZE, recordings), recordings


def pictures(count: int, *, device: torch.device = CPU) -> Tensor:
    return torch.stack(natural_views(PRESET, count)).to(device)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (11, [1, 2, 4, 8]), (32, [1, 2, 4, 8, 16, 32])])
def test_recorded_sizes_are_powers_of_two_within_what_a_batch_may_be(most: int, sizes: list[int]) -> None:
    assert batch_sizes(most) == sizes


def test_batches_are_filled_up_to_the_next_size() -> None:
    assert [next_size(count) for count in (1, 2, 3, 4, 5, 8, 9, 17, 32)] == [1, 2, 4, 4, 8, 8, 16, 32, 32]


def test_batch_of_any_size_takes_the_smallest_recordings_that_hold_it_and_answers_for_itself_alone() -> None:
    eager = small_classifier()
    backend, recordings = recorded(eager, most=8)
    for count in (1, 3, 8, 21):
        batch = pictures(count)
        torch.testing.assert_close(backend.run(batch), eager.run(batch))
    assert {size: recording.counts for size, recording in recordings.items()} == {
        1: [1],
        2: [],
        4: [3],
        8: [8, 8, 8, 5],
    }
    assert (backend.name, backend.precision, backend.size_bytes) == ("cuda_graphs", "float32", eager.size_bytes)


def test_calls_of_several_threads_wait_for_each_other() -> None:
    eager = small_classifier(width=32)
    backend, _ = recorded(eager, most=4)
    batches = [pictures(count) for count in (1, 2, 3, 4)]
    found: dict[int, Tensor] = {}

    def run(number: int) -> None:
        for _ in range(10):
            found[number] = backend.run(batches[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in enumerate(batches):
        torch.testing.assert_close(found[number], eager.run(batch))


class WatchedLock:
    """A lock that says when it is asked for."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> bool:
        self.asked.release()
        return self._lock.acquire(timeout=PATIENCE_S)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_memory_goes_back_when_no_network_is_being_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, emptied = WatchedLock(), threading.Event()
    monkeypatch.setattr(cuda_graphs, "_RECORDING", recording)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.empty_cache", emptied.set)
    other = threading.Thread(target=cuda_graphs.empty_cache)
    with recording:
        assert recording.asked.acquire(timeout=PATIENCE_S)
        other.start()
        assert recording.asked.acquire(timeout=PATIENCE_S)
        assert not emptied.is_set()
    other.join(PATIENCE_S)
    assert emptied.is_set()


@pytest.mark.parametrize("shape", [(1, 3, 32, 31), (1, 1, 32, 32), (65, 3, 32, 32)])
def test_views_that_were_not_recorded_are_refused(shape: tuple[int, ...]) -> None:
    backend, _ = recorded(small_classifier(), most=2)
    with pytest.raises(ValueError, match="takes"):
        backend.run(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("graph", ["segmentation", "detection"])
def test_networks_without_fixed_work_are_written_down_as_failed(tmp_path: Path, graph: str) -> None:
    eager = small_segmenter()
    if graph == "detection":
        eager = EagerBackend(DetectionGraph(torch.nn.Identity(), SCALE_PRESET), "cpu")
    identity = identify(CudaGraphs(), "float32", CPU, weights="w")
    report = build(
        Candidate(compiler=CudaGraphs(), identity=identity),
        Exports(tmp_path / "exports"),
        eager,
        task="segmentation",
        pictures=Pictures(to_verify_on=natural_views(SCALE_PRESET, 2), source="generated"),
        now=lambda: datetime.now(UTC),
    )
    assert (report.status, report.speeds) == ("failed", ())
    assert "CUDA graph" in str(report.reason)


def test_processor_has_none_and_says_so() -> None:
    policy = Policy(backend="cuda_graphs")
    assert candidates(CPU, policy, weights="w") == []
    assert list(why_not(CPU, policy)) == [
        ("cuda_graphs", best_precision(CPU), "CUDA graphs are for NVIDIA GPUs, not for cpu")
    ]


def test_gpu_is_asked_for_them_in_the_precision_that_suits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr("models.backends.choosing.describe_machine", lambda _: {"gpu": "of a test"})
    found = candidates(torch.device("cuda", 0), Policy(backend="cuda_graphs"), weights="w")
    assert [(each.identity.backend, each.identity.precision, each.identity.device) for each in found] == [
        ("cuda_graphs", "bfloat16", "cuda")
    ]


@needs_cuda
def test_recordings_compute_what_eager_does_for_every_size_and_in_any_order() -> None:
    eager = on_gpu()
    backend = CudaGraphsBackend(eager, SIZE, record(eager, SIZE))
    for count in (32, 1, 33, 5, 2, 1, 64):
        for device in (CPU, GPU):
            batch = pictures(count, device=device)
            torch.testing.assert_close(backend.run(batch), eager.run(batch), atol=1e-4, rtol=1e-3)


@needs_cuda
def test_answer_does_not_depend_on_what_was_asked_beside_it_or_before() -> None:
    eager = on_gpu()
    backend = CudaGraphsBackend(eager, SIZE, record(eager, SIZE))
    views = pictures(8, device=GPU)
    alone = [backend.run(views[number : number + 3])[0] for number in range(3)]
    torch.testing.assert_close(backend.run(views[:4])[:3], torch.stack(alone), atol=0, rtol=0)
    torch.testing.assert_close(backend.run(views[1:4])[0], alone[1], atol=0, rtol=0)


@needs_cuda
def test_best_precision_is_verified_stored_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "COMPILERS", (CudaGraphs(),))
    eager, exports = on_gpu(), Exports(tmp_path / "exports")
    (candidate,) = candidates(GPU, Policy(), weights="w")
    report = build(
        candidate,
        exports,
        eager,
        task="classification",
        pictures=Pictures(to_verify_on=natural_views(PRESET, 7), source="generated"),
        now=lambda: datetime.now(UTC),
    )
    assert (report.status, report.reason, report.files) == ("verified", None, {})
    chosen = choose(exports, eager, Policy(backend="cuda_graphs"), weights="w")
    assert chosen is not None
    assert (chosen.backend.name, chosen.backend.precision) == ("cuda_graphs", best_precision(GPU))
    batch, most = pictures(3), TOLERANCES[best_precision(GPU)][0]
    torch.testing.assert_close(chosen.backend.run(batch), eager.run(batch), atol=most, rtol=0)


@needs_cuda
def test_other_threads_serve_on_while_a_network_is_recorded() -> None:
    serving, recording = on_gpu(), on_gpu()
    batch = pictures(4)
    expected = serving.run(batch)
    over = threading.Event()
    broken: list[Exception] = []

    def serve() -> None:
        while not over.is_set():
            try:
                torch.testing.assert_close(serving.run(batch), expected)
            except Exception as error:
                broken.append(error)
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(3):
            CudaGraphsBackend(recording, SIZE, record(recording, SIZE)).run(batch)
    finally:
        over.set()
        thread.join()
    assert broken == []


@needs_cuda
def test_memory_of_others_goes_back_between_recordings_and_disturbs_none() -> None:
    eager, batch = on_gpu(), pictures(4)
    over = threading.Event()
    broken: list[Exception] = []

    def give_back() -> None:
        while not over.is_set():
            try:
                cuda_graphs.empty_cache()
            except Exception as error:
                broken.append(error)
                return

    thread = threading.Thread(target=give_back)
    thread.start()
    try:
        for _ in range(3):
            backend = CudaGraphsBackend(eager, SIZE, record(eager, SIZE))
            torch.testing.assert_close(backend.run(batch), eager.run(batch), atol=1e-4, rtol=1e-3)
    finally:
        over.set()
        thread.join()
    assert broken == []


@needs_cuda
def test_memory_goes_back_with_the_backend() -> None:
    eager = on_gpu()
    backend = CudaGraphsBackend(eager, SIZE, record(eager, SIZE))  # what libraries keep for themselves is taken now
    del backend
    before = reserved_bytes()
    backend = CudaGraphsBackend(eager, SIZE, record(eager, SIZE))
    assert reserved_bytes() > before
    del backend
    assert reserved_bytes() == before


def on_gpu() -> EagerBackend:
    return EagerBackend(copy.deepcopy(small_classifier(width=64).graph), GPU)


def reserved_bytes() -> int:
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(GPU)
