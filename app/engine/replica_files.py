"""The files through which the replicas of one port agree on models.

    unloaded/<reference>~<id>   a client unloaded this model, and no request has asked for it since
    <number>.json               what replica <number> has in memory, could not load, and has counted

Files make nobody wait for an answer, so a replica that hangs does not hold up the others.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from pydantic import TypeAdapter

from app.engine.statistics import ModelStatistics

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaState:
    """One replica's models, by their pinned references."""

    loaded: frozenset[str]
    failing_until: dict[str, float]  # by time.monotonic(), one clock for all processes of a machine
    statistics: dict[str, ModelStatistics]

    def as_json(self) -> bytes:
        """The content of the replica's file."""
        return _STATE.dump_json(self)


_STATE: Final = TypeAdapter(ReplicaState)


class ReplicaFiles:
    """The files, as one replica sees them. To be used in a thread."""

    def __init__(self, directory: Path, number: str | None) -> None:
        """number: None for a server that has the port to itself. It tells nobody, so `directory` need not exist."""
        self._own = None if number is None else directory / f"{number}.json"
        self._directory = directory
        self._markers = directory / "unloaded"

    def unloaded(self) -> dict[str, str]:
        """Reads the references that clients unloaded, by the names of their markers. A reference may have several."""
        with suppress(FileNotFoundError):  # nothing has been unloaded yet
            return {path.name: unquote(path.name.rpartition("~")[0]) for path in self._markers.iterdir()}
        return {}

    def mark_unloaded(self, references: Iterable[str]) -> None:
        """Writes a new marker for each, which no replica can mistake for one that it has seen."""
        self._markers.mkdir(parents=True, exist_ok=True)
        for reference in references:
            (self._markers / f"{quote(reference, safe='')}~{uuid.uuid4().hex}").touch()

    def remove(self, markers: Iterable[str]) -> None:
        """Removes the markers, unless another replica was faster."""
        for name in markers:
            (self._markers / name).unlink(missing_ok=True)

    def tell(self, state: bytes) -> None:
        """Replaces this replica's file, if it has one."""
        if self._own is not None:
            new = self._own.with_suffix(".new")
            new.write_bytes(state)
            new.replace(self._own)

    def others(self) -> list[ReplicaState]:
        """Reads the states of the other replicas. Leaves out a file that cannot be read, with a warning."""
        found = []
        for path in self._directory.glob("*.json"):
            if path != self._own:
                try:
                    found.append(_STATE.validate_json(path.read_bytes()))
                except (OSError, ValueError) as error:
                    log.warning("%s is left out: %s", path, error)
        return found
