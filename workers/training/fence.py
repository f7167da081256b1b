"""Only the newest attempt at a run may write what counts: a checkpoint, a report, a result."""

from __future__ import annotations

from workers.run_directory import RunDirectory


class FenceLost(Exception):
    """A newer attempt owns the run: this one may write nothing that counts."""


def check_fence(run: RunDirectory, token: int | None) -> None:
    """Raises FenceLost if a newer attempt owns the run. token: None when a person runs the trainer by hand."""
    if token is not None and run.read_fence() != token:
        raise FenceLost(f"The attempt with token {token} may no longer write to {run.path}: a newer one owns the run.")
