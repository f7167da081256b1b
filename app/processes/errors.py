"""Why `fovea up` or `fovea serve` cannot run here.

StackError
 ├─ RedisMissing              no redis-server anywhere on this machine
 ├─ RedisBroken               there is one, and it does not start
 ├─ PortTaken                 something else listens there, or the address is not this machine's
 ├─ HomeNotWritable
 ├─ HomeInUse                 another `fovea up` runs on the same home
 └─ ChildDied                 a process that all depends on has ended
"""

from __future__ import annotations


class StackError(Exception):
    """An error of the local stack: `str()` says what is wrong, `hint` the way out, if there is one."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RedisMissing(StackError):
    """No redis-server anywhere on this machine."""


class RedisBroken(StackError):
    """The redis-server found does not start."""


class PortTaken(StackError):
    """The address cannot be listened on."""


class HomeNotWritable(StackError):
    """Nothing can be written where all state should be."""


class HomeInUse(StackError):
    """Another `fovea up` runs on the same home."""


class ChildDied(StackError):
    """A process that all depends on has ended."""
