"""Which processes run. One that has ended and waits for its parent to notice does not run."""

from __future__ import annotations

from pathlib import Path


def running_in_group(group: int) -> list[int]:
    """Processes of a process group."""
    return [pid for pid, _, its_group in _running() if its_group == group]


def running_below(ancestor: int) -> list[int]:
    """Children of a process, their children and so on."""
    found = {ancestor}
    processes = _running()
    while more := {pid for pid, parent, _ in processes if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})


def running_with(variable: str) -> list[int]:
    """Processes that were started with `NAME=value` in their environment."""
    return [pid for pid, _, _ in _running() if f"{variable}\0".encode() in _environment(pid)]


def name_of(pid: int) -> str:
    """The program's name, of at most 15 characters."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _running() -> list[tuple[int, int, int]]:
    """pid, parent and process group of each. Source: proc_pid_stat(5)."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                _, _, fields = (directory / "stat").read_text().rpartition(") ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent, group, *_ = fields.split()
            if state not in "ZX":
                found.append((int(directory.name), int(parent), int(group)))
    return found


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
