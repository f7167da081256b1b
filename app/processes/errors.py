"""Why `fovea up` or `fovea serve` cannot run here.

StackError
 ├─ RedisMissing              no redis-server anywhere on this machine
 ├─ RedisBroken               redis-server does not start
 ├─ PortTaken                 the port is in use, or the address is not one of this machine
 ├─ HomeNotWritable
 ├─ HomeInUse                 another `fovea up` runs on the same home
 └─ ChildDied                 a required process has ended
"""

from __future__ import annotations


class StackError(Exception):
    """An error of the local stack: `str()` says what is wrong, `hint` what to do, if anything."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RedisMissing(StackError):
    """No redis-server anywhere on this machine."""


class RedisBroken(StackError):
    """The redis-server does not start."""


class PortTaken(StackError):
    """The address cannot be listened on."""


class HomeNotWritable(StackError):
    """The home directory is not writable."""


class HomeInUse(StackError):
    """Another `fovea up` runs on the same home."""


class ChildDied(StackError):
    """A required process has ended."""
