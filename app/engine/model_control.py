"""Loading, unloading and counting models: the same for a client, whichever replica of a port its connection reaches.

Fovea loads what a request asks for, so every version is ready, with two exceptions: one that a client unloaded, until a
client loads it or asks it for a prediction; and one that could not be loaded, until that may be tried again.

Each replica looks twice per second at the files that all of them share. What a client does through one replica holds in
all of them half a second later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from app.engine.device_access import ModelMemory
from app.engine.errors import InferenceError, ModelLoading
from app.engine.replica_files import ReplicaFiles, ReplicaState
from app.engine.statistics import ModelStatistics, Statistics
from models.errors import ModelsError

log = logging.getLogger(__name__)

_LOOKS_EVERY_S: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStates:
    """The states of versions on all replicas, by their pinned references."""

    loaded: frozenset[str]  # in the memory of at least one replica
    unloaded: frozenset[str]  # a client unloaded them, and no request has asked for them since
    failing: frozenset[str]  # at least one replica could not load them

    @property
    def pretrained(self) -> list[str]:
        """Weights of the catalogue that are in memory, sorted."""
        return sorted(reference for reference in self.loaded if "/" not in reference)

    def answers(self, reference: str) -> bool:
        """True if every replica can answer with the model, perhaps after loading it."""
        return reference not in self.failing and reference not in self.unloaded


class ModelControl:
    """Loads, unloads and counts models for the clients of one replica. To be used from one event loop."""

    def __init__(self, models: ModelMemory, statistics: Statistics, files: ReplicaFiles, *, timeout_s: float) -> None:
        """timeout_s: the longest that loading a model may take."""
        self._models = models
        self._statistics = statistics
        self._files = files
        self._timeout_s = timeout_s
        self._seen: dict[str, str] = {}  # references by the markers for which this replica has unloaded them
        self._catching_up = asyncio.Lock()

    async def keep_in_step(self) -> None:
        """Looks again and again, until it is cancelled."""
        last_error = ""
        while True:
            try:
                await self.look()
                last_error = ""
            except Exception as error:  # the boundary of a background task: half a second later it may go well
                if str(error) != last_error:
                    log.exception("the replicas of this port may not agree on which models are loaded")
                last_error = str(error)
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def look(self) -> None:
        """Does what clients asked of other replicas, and tells the others what this one has. Raises OSError."""
        await self._catch_up()
        await asyncio.to_thread(self._files.tell, self._state().as_json())

    async def load(self, reference: str) -> None:
        """Loads it in this replica; the others load it with their next request.

        Raises what loading it raises; ModelLoading if that takes too long.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._catch_up()  # an unload that this replica has not seen yet would undo the load
                markers = [name for name, unloaded in self._seen.items() if unloaded == reference]
                await self._models.get(reference)
        except TimeoutError as error:
            raise ModelLoading(f"{reference} is still being loaded.", hint="Ask again: loading goes on.") from error
        await asyncio.to_thread(self._files.remove, markers)

    async def unload(self, references: Sequence[str]) -> None:
        """Takes them out of this replica's memory now, and out of that of the others half a second later."""
        await asyncio.to_thread(self._files.mark_unloaded, references)
        await self._catch_up()

    async def states(self) -> ModelStates:
        """Reads the states of all replicas."""
        markers = await asyncio.to_thread(self._files.unloaded)
        others = await asyncio.to_thread(self._files.others)
        own = self._state()
        states = [own, *others]
        unloaded = {
            reference for name, reference in markers.items() if name not in self._seen or reference not in own.loaded
        }
        now = time.monotonic()
        failing = {reference for state in states for reference, until in state.failing_until.items() if now < until}
        loaded = frozenset[str]().union(*(state.loaded for state in states))
        return ModelStates(loaded=loaded - unloaded, unloaded=frozenset(unloaded), failing=frozenset(failing))

    async def statistics(self) -> dict[str, ModelStatistics]:
        """Adds up what every version has done on all replicas since they started. Sorted by the version's reference."""
        found: dict[str, ModelStatistics] = {}
        for state in (*await asyncio.to_thread(self._files.others), self._state()):
            for reference, statistics in state.statistics.items():
                found.setdefault(reference, ModelStatistics()).add(statistics)
        return dict(sorted(found.items()))

    async def _catch_up(self) -> None:
        """Unloads what clients unloaded through any replica, and removes the markers of what a request loaded again."""
        async with self._catching_up:
            markers = await asyncio.to_thread(self._files.unloaded)
            for name in markers.keys() - self._seen.keys():
                with suppress(ModelsError, InferenceError):  # it was deleted, or the engine restarts: it is not loaded
                    await self._models.unload(markers[name])
            self._seen = markers
            loaded = self._state().loaded
            back = [name for name, reference in markers.items() if reference in loaded]
            await asyncio.to_thread(self._files.remove, back)

    def _state(self) -> ReplicaState:
        now = time.monotonic()
        return ReplicaState(
            loaded=frozenset(model.source.reference for model in self._models.all()),
            failing_until={reference: now + seconds for reference, seconds in self._models.failing_s().items()},
            statistics=self._statistics.all(),
        )
