"""The mirror of every job on the disk, `runs/<id>/job.json`. It restores the jobs if Redis loses its data."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from models.store.locks import hold_lock
from models.store.storage import replace_file
from workers.jobs.job import Job
from workers.jobs.record import JobRecord, now_ms
from workers.run_directory import RunDirectory

log = logging.getLogger(__name__)


def write_mirror(run: RunDirectory, record: JobRecord) -> None:
    """Writes `job.json`, unless it has a later revision. A full disk is only logged: the job itself goes on."""
    try:
        with hold_lock(run.path / "job.lock"):
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
        log.warning("cannot mirror job %s to %s: %s", record.job.id, run.job, error)


def read_mirror(run: RunDirectory) -> JobRecord | None:
    """Reads the mirror of a job. Returns None if the file does not exist or cannot be read."""
    try:
        content = json.loads(run.job.read_bytes())
        return JobRecord(
            job=Job.model_validate(content["job"]),
            revision=int(content["revision"]),
            token=int(content["token"]),
            queued_ms=now_ms(),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("cannot read %s, ignoring it: %s", run.job, error)
        return None


def read_mirrors(runs_dir: Path) -> list[JobRecord]:
    """Reads the mirrors of all jobs in `runs_dir`."""
    if not runs_dir.is_dir():
        return []
    runs = (RunDirectory(path=path) for path in sorted(runs_dir.iterdir()) if path.is_dir())
    return [record for record in map(read_mirror, runs) if record is not None]
