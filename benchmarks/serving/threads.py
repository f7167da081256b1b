"""Processor time of a server's event loops and of its other threads. Linux only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_NS = 1e-9


@dataclass(frozen=True, kw_only=True)
class ThreadTimes:
    """Of all processes below a server's first one, in seconds since they began."""

    event_loops_s: float  # the main thread of each
    others_s: float

    @classmethod
    def below(cls, pid: int) -> Self:
        """Now. A process without children is looked at itself."""
        root = psutil.Process(pid)
        event_loops_s = others_s = 0.0
        for process in root.children(recursive=True) or [root]:
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError):  # it has ended
                    spent_s = int((task / "schedstat").read_text().split()[0]) * _NS
                    if task.name == str(process.pid):
                        event_loops_s += spent_s
                    else:
                        others_s += spent_s
        return cls(event_loops_s=event_loops_s, others_s=others_s)

    def since(self, before: ThreadTimes) -> ThreadTimes:
        """What was spent meanwhile."""
        return ThreadTimes(
            event_loops_s=self.event_loops_s - before.event_loops_s, others_s=self.others_s - before.others_s
        )
