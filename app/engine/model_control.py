"""Loading, unloading and counting, as clients know them that ask a server for it: by all the processes of one port.

Fovea loads what it is asked for, so every version is ready; but for one that was unloaded on purpose, until something
loads it again, and one that could not be loaded, until that is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from app.engine.device_access import ModelMemory
from app.engine.errors import InferenceError, ModelLoading
from app.engine.statistics import ModelStatistics, Statistics
from app.processes.siblings import Message, Siblings
from models.errors import ModelsError

_LEAST_MORE_S: Final = 5.0
_UNLOADS_WITHIN_S: Final = 5.0
_STATISTICS: Final = TypeAdapter(dict[str, ModelStatistics])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStates:
    """Of versions, by their pinned references."""

    loaded: frozenset[str]  # in the memory of any process
    unloaded: frozenset[str]  # taken out of memory on purpose, and asked of no process since
    failing: frozenset[str]  # could not be loaded by one of them

    @property
    def pretrained(self) -> list[str]:
        """Weights of the catalogue that are in memory, sorted."""
        return sorted(reference for reference in self.loaded if "/" not in reference)

    def answers(self, reference: str) -> bool:
        """Whether every process can answer with it: loaded, or to be loaded and not taken out of memory on purpose."""
        return reference not in self.failing and (reference in self.loaded or reference not in self.unloaded)


class ModelControl:
    """What is in memory, and what each version has done. To be used from one event loop."""

    def __init__(self, models: ModelMemory, statistics: Statistics, siblings: Siblings, *, timeout_s: float) -> None:
        """timeout_s: the longest that loading a model may take."""
        self._models = models
        self._statistics = statistics
        self._siblings = siblings
        self._timeout_s = timeout_s
        self._unloaded: set[str] = set()
        self._telling: set[asyncio.Task[Any]] = set()

    async def begin(self) -> None:
        """Takes over what the other processes, which were there before, have unloaded on purpose."""
        states = await self._siblings.look({"states": None})
        if states:
            self._unloaded |= set(states[0]["unloaded"]).intersection(*(state["unloaded"] for state in states))

    async def load(self, reference: str) -> None:
        """Loads it everywhere, at the same time.

        Raises what loading it here raises; ModelLoading if that takes too long, or if another process says that it
        cannot. One that does not say anything is left out, some seconds after the others are done.
        """
        began_at = time.monotonic()
        telling = asyncio.create_task(self._siblings.tell({"load": reference}, timeout_s=self._timeout_s))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._load(reference)
        except TimeoutError as error:
            raise ModelLoading(f"{reference} is still being loaded.", hint="Ask again: loading goes on.") from error
        longest_s = max(_LEAST_MORE_S, time.monotonic() - began_at)  # as long again: they share the cores
        done, _ = await asyncio.wait([telling], timeout=longest_s)
        refused = [answer for task in done for answer in task.result() if answer is not None]
        if refused:
            raise ModelLoading(
                f"Another process of this server did not load {reference}: {refused[0]}",
                hint="It may be tried again after half a minute.",
            )

    async def unload(self, references: Sequence[str]) -> None:
        """Takes them out of memory everywhere. Raises ModelsError."""
        await self._unload(references)
        await self._siblings.tell({"unload": references}, timeout_s=_UNLOADS_WITHIN_S)

    def note_use(self, reference: str) -> None:
        """It was asked for; unless it was unloaded while it answered, it is in memory again."""
        if reference in self._unloaded:
            self._forget_what_came_back()

    async def states(self) -> ModelStates:
        """As they are in all processes."""
        states = [self._states(), *await self._siblings.look({"states": None})]
        return ModelStates(
            loaded=frozenset[str]().union(*(state["loaded"] for state in states)),
            unloaded=frozenset(states[0]["unloaded"]).intersection(*(state["unloaded"] for state in states)),
            failing=frozenset[str]().union(*(state["failing"] for state in states)),
        )

    async def statistics(self) -> dict[str, ModelStatistics]:
        """Of every version that was asked of any process since it started, in the order of their names."""
        found: dict[str, ModelStatistics] = {}
        for answer in (self._told_statistics(), *await self._siblings.look({"statistics": None})):
            for reference, statistics in _STATISTICS.validate_python(answer).items():
                found.setdefault(reference, ModelStatistics()).add(statistics)
        return dict(sorted(found.items()))

    async def answer(self, message: Message) -> Any:
        """To another process, what concerns this one. Raises ModelsError, ValueError."""
        match message:
            case {"load": str(reference)}:
                try:
                    return await self._load(reference)
                except (ModelsError, InferenceError) as error:
                    return str(error)
            case {"unload": list(references)}:
                return await self._unload(references)
            case {"states": None}:
                return self._states()
            case {"statistics": None}:
                return self._told_statistics()
        raise ValueError(f"not understood: {message}")

    async def _load(self, reference: str) -> None:
        await self._models.get(reference)
        self._unloaded.discard(reference)

    async def _unload(self, references: Sequence[str]) -> None:
        for reference in references:
            await self._models.unload(reference)
            self._unloaded.add(reference)

    def _forget_what_came_back(self) -> None:
        self._unloaded.difference_update(model.source.reference for model in self._models.all())

    def _states(self) -> dict[str, list[str]]:
        self._forget_what_came_back()
        return {
            "loaded": [model.source.reference for model in self._models.all()],
            "unloaded": list(self._unloaded),
            "failing": list(self._models.failing_s()),
        }

    def _told_statistics(self) -> Any:
        return _STATISTICS.dump_python(self._statistics.all(), mode="json")
