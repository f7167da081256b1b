"""Finds faster backends of loaded models on disk, and builds missing ones in the background.

A model serves eagerly until its faster backend is ready. A child process builds one backend at a time. A build that
crashes, hangs or computes something else leaves the model as it is, and is recorded so that it is not tried again.
A waiting build does not keep its model in memory, and is dropped if the model is evicted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from app.engine.builds.build_backend import EXIT_NOTHING_BUILT, STARTED
from app.engine.builds.calibration_dataset import stand_in_for
from app.engine.builds.model_exports import ModelExports, exports_of
from app.engine.loaded_models import LoadedModel
from app.engine.model_source import ModelSource
from models.backends.backend import Backend
from models.backends.choosing import (
    Candidate,
    Policy,
    can_be_built,
    candidates,
    choose,
    why_not,
)
from models.backends.eager import EagerBackend
from models.backends.report import ExportIdentity, ExportReport
from models.errors import ModelsError, NothingToCalibrateOn
from models.store.registry import Registry
from workers.datasets.store import DatasetStore
from workers.supervision.child_process import code_environment

log = logging.getLogger(__name__)

BUILDER: Final = (sys.executable, "-m", "app.engine.builds.build_backend")
_LAST_WORDS_BYTES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildLimits:
    """Limits of one build."""

    time_s: float = 7200.0  # a large network on a busy machine; the wait for another build does not count
    memory_bytes: int = 8 * 1024**3  # on a CPU; 0 is no limit


class _BuildFailed(Exception):
    """The builder ended without a report. is_remembered: another try would end in the same way."""

    def __init__(self, reason: str, *, is_remembered: bool) -> None:
        super().__init__(reason)
        self.is_remembered = is_remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """The backends to build for a model."""

    stand_in: str | None  # dataset version to use instead of the model's own
    missing: list[Candidate]


class BackendBuilds:
    """Finds and builds backends for models on one device. Used from one event loop.

    on_ready: called on the event loop with a model and its new backend; it must return at once.
    builder: the command of the process that builds.
    """

    def __init__(
        self,
        registry: Registry,
        datasets: DatasetStore,
        *,
        weights_dir: Path,
        device: torch.device,
        policy: Policy,
        on_ready: Callable[[LoadedModel, Backend], None],
        limits: BuildLimits | None = None,
        builder: Sequence[str] = BUILDER,
    ) -> None:
        self._registry = registry
        self._datasets = datasets
        self._weights_dir = weights_dir
        self._device = device
        self._policy = policy
        self._on_ready = on_ready
        self._limits = limits or BuildLimits()
        self._builder = tuple(builder)
        self._running: dict[weakref.ref[LoadedModel], asyncio.Task[None]] = {}
        # (digest of a model, key of a backend) that this process has requested
        self._tried: set[tuple[str, str]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._has_said_why_not = False
        self._said: set[str] = set()  # digests of models without calibration images, whose warning was logged

    def start(self, loaded: LoadedModel) -> None:
        """Starts the search for faster backends of a newly loaded model. Returns at once."""
        model = weakref.ref(loaded)  # the model may be evicted and loaded again during other builds
        if model in self._running:
            return
        work = self._make_ready(loaded.source, model)
        task = asyncio.create_task(work, name=f"backends of {loaded.source.reference}")
        self._running[model] = task
        task.add_done_callback(lambda _: self._running.pop(model, None))

    async def idle(self) -> None:
        """Waits until no search and no build runs."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        """Stops the running build, which starts again at the next start of the server."""
        for task in list(self._running.values()):
            task.cancel()
        await self.idle()

    async def _make_ready(self, source: ModelSource, model: weakref.ref[LoadedModel]) -> None:
        try:
            await self._find_and_build(source, model)
        except (ModelsError, OSError) as error:
            log.warning("%s stays eager: %s", source.reference, error)
        except Exception:  # a background task: the model continues to serve
            log.exception("%s stays eager: the search for a faster backend failed", source.reference)

    async def _find_and_build(self, source: ModelSource, model: weakref.ref[LoadedModel]) -> None:
        eager = _eager_networks(model)
        if not eager:
            return
        self._say_why_not()
        found = await asyncio.to_thread(self._exports_of, source)
        plan = await asyncio.to_thread(self._plan, source, found)
        current = await self._take_best(model, eager, found, plan, current=None)
        for candidate in plan.missing:
            async with self._one_at_a_time:
                if model() is None:  # it was evicted during other builds
                    return
                await self._build(source, found, plan, candidate)
            current = await self._take_best(model, eager, found, plan, current=current)

    def _plan(self, source: ModelSource, found: ModelExports) -> _Plan:
        """The calibration dataset and the missing backends; logs if images are missing. Reads the disk, in a thread."""
        own = candidates(self._device, self._policy, weights=found.weights)
        integers = [each for each in own if each.identity.precision == "int8"]
        named = self._policy.calibration_dataset
        # a backend that was calibrated on the model's own dataset stays in use after the dataset was deleted
        if all(_is_verified(found, each) for each in integers) if integers else named is None:
            return _Plan(stand_in=None, missing=_missing(found, own, source))
        try:
            stand_in = stand_in_for(found.dataset, named, self._datasets)
        except NothingToCalibrateOn as nothing:
            self._say_once(nothing)
            others = [each for each in own if each.identity.precision != "int8"]
            return _Plan(stand_in=None, missing=_missing(found, others, source))
        wanted = candidates(self._device, self._policy, weights=found.weights, calibration=stand_in)
        return _Plan(stand_in=stand_in, missing=_missing(found, wanted, source))

    async def _take_best(
        self,
        model: weakref.ref[LoadedModel],
        eager: weakref.WeakKeyDictionary[LoadedModel, EagerBackend],
        found: ModelExports,
        plan: _Plan,
        *,
        current: ExportIdentity | None,
    ) -> ExportIdentity | None:
        """Adopts the fastest stored backend if it differs from `current`, and returns it."""
        loaded = model()
        if loaded is None:
            return current
        best = await asyncio.to_thread(
            choose,
            found.exports,
            eager[loaded],
            self._policy,
            weights=found.weights,
            calibration=plan.stand_in,
            current=current,
        )
        if best is None:
            return current
        log.info("%s now runs on %s in %s", loaded.source.reference, best.backend.name, best.backend.precision)
        self._on_ready(loaded, best.backend)
        return best.report.identity

    def _exports_of(self, source: ModelSource) -> ModelExports:
        return exports_of(self._registry, self._weights_dir, name=source.name, version=source.version)

    async def _build(self, source: ModelSource, found: ModelExports, plan: _Plan, candidate: Candidate) -> None:
        """Builds one backend, unless this process or another has already tried."""
        key = candidate.identity.key
        if (source.digest, key) in self._tried:
            return
        if await asyncio.to_thread(found.exports.find, candidate.identity) is not None:
            return
        self._tried.add((source.digest, key))
        try:
            await self._run_builder(source, plan, candidate)
            report = await asyncio.to_thread(found.exports.find, candidate.identity)
            if report is None:
                raise _BuildFailed("the builder left no report", is_remembered=False)
        except _BuildFailed as failure:
            log.warning("%s of %s was not built: %s", key, source.reference, failure)
            if failure.is_remembered:
                await asyncio.to_thread(_remember, found, candidate, str(failure))
            return
        if report.status == "verified":
            log.info("built %s of %s in %.0f s", key, source.reference, report.build_s or 0)
        else:
            log.warning("%s of %s is not used: %s: %s", key, source.reference, report.status, report.reason)

    async def _run_builder(self, source: ModelSource, plan: _Plan, candidate: Candidate) -> None:
        """Raises _BuildFailed."""
        process = await asyncio.create_subprocess_exec(
            *self._builder,
            *self._arguments(source, plan, candidate),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=code_environment(),
            start_new_session=True,  # its own process group; uvloop has no other option for it
        )
        assert process.stdout is not None
        words = _LastWords()
        reading: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as limit:
                ends_in_s = self._limits.time_s
                reading = asyncio.create_task(words.read(process.stdout, lambda: _end_in(limit, ends_in_s)))
                code = await process.wait()
        except TimeoutError as error:
            msg = f"it took longer than {self._limits.time_s:g} s and was killed"
            raise _BuildFailed(msg, is_remembered=True) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all its children
            await process.wait()
            if reading is not None:
                await asyncio.wait([reading])
        if code < 0:
            raise _BuildFailed(f"it was killed by {signal.Signals(-code).name}. {words}", is_remembered=True)
        if code:
            msg = f"it ended with exit code {code}. {words}"
            raise _BuildFailed(msg, is_remembered=code != EXIT_NOTHING_BUILT)

    def _arguments(self, source: ModelSource, plan: _Plan, candidate: Candidate) -> list[str]:
        values: dict[str, object] = {
            "registry": self._registry.root,
            "datasets": self._datasets.root,
            "weights": self._weights_dir,
            "name": source.name,
            "key": candidate.identity.key,
            "precision": self._policy.precision,
            "device": self._device,
            "threads": candidate.identity.threads,
            "memory-bytes": self._limits.memory_bytes if self._device.type == "cpu" else 0,
            "parent": os.getpid(),
        }
        if source.version is not None:
            values["version"] = source.version
        if plan.stand_in is not None:
            values["stand-in"] = plan.stand_in
        return [f"--{name}={value}" for name, value in values.items()]

    def _say_why_not(self) -> None:
        if not self._has_said_why_not:
            self._has_said_why_not = True
            for name, precision, reason in why_not(self._device, self._policy):
                log.info("no %s backends are built in %s: %s", name, precision, reason)

    def _say_once(self, nothing: NothingToCalibrateOn) -> None:
        words = f"{nothing} {nothing.hint or ''}".rstrip()
        if words not in self._said:
            self._said.add(words)
            log.warning("%s", words)


class _LastWords:
    """The last output of a process."""

    def __init__(self) -> None:
        self._tail = b""

    def __str__(self) -> str:
        text = self._tail.decode(errors="replace").replace(STARTED, "").strip()
        return f"Its last output: {text}" if text else "It printed nothing."

    async def read(self, stream: asyncio.StreamReader, on_start: Callable[[], None]) -> None:
        """Reads to the end. on_start: called at the line STARTED."""
        has_started = False
        while chunk := await stream.read(_LAST_WORDS_BYTES):
            seen = self._tail + chunk
            if not has_started and STARTED.encode() in seen:
                has_started = True
                on_start()
            self._tail = seen[-_LAST_WORDS_BYTES:]


def _eager_networks(model: weakref.ref[LoadedModel]) -> weakref.WeakKeyDictionary[LoadedModel, EagerBackend]:
    """The eager network of the model, if other backends can run it. It lives as long as the model."""
    loaded = model()
    networks: weakref.WeakKeyDictionary[LoadedModel, EagerBackend] = weakref.WeakKeyDictionary()
    if loaded is not None:
        backend = loaded.predictor.backend
        if isinstance(backend, EagerBackend) and can_be_built(backend):
            networks[loaded] = backend
    return networks


def _is_verified(found: ModelExports, candidate: Candidate) -> bool:
    report = found.exports.find(candidate.identity)
    return report is not None and report.status == "verified"


def _missing(found: ModelExports, wanted: Sequence[Candidate], source: ModelSource) -> list[Candidate]:
    """The backends that were never tried. Reads the disk, in a thread."""
    missing = []
    for candidate in wanted:
        report = found.exports.find(candidate.identity)
        if report is None:
            missing.append(candidate)
        elif report.status != "verified":
            key = candidate.identity.key
            log.info("%s is not built for %s: it %s before", key, source.reference, report.status)
    return missing


def _end_in(limit: asyncio.Timeout, seconds: float) -> None:
    with suppress(RuntimeError):  # the process has already ended
        limit.reschedule(asyncio.get_running_loop().time() + seconds)


def _remember(found: ModelExports, candidate: Candidate, reason: str) -> None:
    """Records a failed build, unless the version was deleted in the meantime."""
    report = ExportReport(identity=candidate.identity, status="failed", reason=reason, created_at=datetime.now(UTC))
    with suppress(FileNotFoundError):
        found.exports.note_failure(report)
