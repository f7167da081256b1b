"""Loading, unloading and counting, as clients know them that ask a server for it: by all the processes of one port.

Fovea loads what it is asked for, so every version is ready; but for one that was unloaded on purpose, until something
loads it again, and one that could not be loaded, until that is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from app.inference.device_access import ModelMemory
from app.inference.statistics import ModelStatistics, Statistics
from app.siblings import Message, Siblings

_LOOKS_WITHIN_S: Final = 1.0  # probes wait for it, and often no longer than that
_STATISTICS: Final = TypeAdapter(dict[str, ModelStatistics])


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStates:
    """Of versions, by their pinned references."""

    loaded: frozenset[str]  # in the memory of any process
    unloaded: frozenset[str]  # taken out of memory on purpose, and asked of no process since
    failing: frozenset[str]  # could not be loaded by one of them

    def answers(self, reference: str) -> bool:
        """Whether the version is in memory, or was not taken out of it on purpose and may be loaded."""
        return reference in self.loaded or not (reference in self.unloaded or reference in self.failing)


class ModelControl:
    """What is in memory, and what each version has done. To be used from one event loop."""

    def __init__(self, models: ModelMemory, statistics: Statistics, siblings: Siblings, *, timeout_s: float) -> None:
        """timeout_s: the longest that the other processes may take to load a model."""
        self._models = models
        self._statistics = statistics
        self._siblings = siblings
        self._timeout_s = timeout_s
        self._unloaded: set[str] = set()

    async def load(self, reference: str) -> None:
        """Loads it everywhere. Raises what loading it here raises; what another process lacks is in the log."""
        await self._load(reference)
        await self._siblings.ask({"load": reference}, timeout_s=self._timeout_s)

    async def unload(self, references: Sequence[str]) -> None:
        """Takes them out of memory everywhere. Raises ModelsError."""
        await self._unload(references)
        await self._siblings.ask({"unload": references})

    def note_use(self, reference: str) -> None:
        """It was asked for, and so it is in memory again."""
        self._unloaded.discard(reference)

    async def states(self) -> ModelStates:
        """As they are in all processes."""
        states = [self._states(), *await self._siblings.ask({"states": None}, timeout_s=_LOOKS_WITHIN_S)]
        return ModelStates(
            loaded=frozenset[str]().union(*(state["loaded"] for state in states)),
            unloaded=frozenset(states[0]["unloaded"]).intersection(*(state["unloaded"] for state in states)),
            failing=frozenset[str]().union(*(state["failing"] for state in states)),
        )

    async def statistics(self) -> dict[str, ModelStatistics]:
        """Of every version that was asked of any process since it started, in the order of their names."""
        found: dict[str, ModelStatistics] = {}
        for answer in (
            self._told_statistics(),
            *await self._siblings.ask({"statistics": None}, timeout_s=_LOOKS_WITHIN_S),
        ):
            for reference, statistics in _STATISTICS.validate_python(answer).items():
                found.setdefault(reference, ModelStatistics()).add(statistics)
        return dict(sorted(found.items()))

    async def answer(self, message: Message) -> Any:
        """To another process, what concerns this one. Raises ModelsError, ValueError."""
        match message:
            case {"load": str(reference)}:
                return await self._load(reference)
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

    def _states(self) -> dict[str, list[str]]:
        return {
            "loaded": [model.source.reference for model in self._models.all()],
            "unloaded": list(self._unloaded),
            "failing": list(self._models.failing_s()),
        }

    def _told_statistics(self) -> Any:
        return _STATISTICS.dump_python(self._statistics.all(), mode="json")
