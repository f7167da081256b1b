"""The copy of every job on disk, `runs/<id>/job.json`: a Redis that comes back empty is filled from it."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.store.storage import replace_file
from workers.jobs.job import Job
from workers.jobs.record import Record, now_ms
from workers.run_directory import RunDirectory

log = logging.getLogger(__name__)


def write_mirror(run: RunDirectory, record: Record) -> None:
    """Writes `job.json`, unless a later state is there already. A full disk costs the mirror, not the job."""
    try:
        with _locked(run.path / "job.lock"):
            present = read_mirror(run)
            if present is None or present.revision < record.revision:
                content = {
                    "revision": record.revision,
                    "token": record.token,
                    "job": record.job.model_dump(mode="json"),
                }
                replace_file(run.job, json.dumps(content, indent=1).encode())
    except FileNotFoundError:  # the job was deleted meanwhile
        return
    except OSError as error:
        log.warning("job %s was not mirrored to %s: %s", record.job.id, run.job, error)


def read_mirror(run: RunDirectory) -> Record | None:
    """The job as it was last mirrored; None if it is not there or cannot be read."""
    try:
        content = json.loads(run.job.read_bytes())
        return Record(
            job=Job.model_validate(content["job"]),
            revision=int(content["revision"]),
            token=int(content["token"]),
            queued_ms=now_ms(),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is passed over: %s", run.job, error)
        return None


def mirrored_in(runs_dir: Path) -> list[Record]:
    """Every job that can be read there."""
    if not runs_dir.is_dir():
        return []
    runs = (RunDirectory(path=path) for path in sorted(runs_dir.iterdir()) if path.is_dir())
    return [record for record in map(read_mirror, runs) if record is not None]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
