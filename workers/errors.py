"""Everything `workers` raises on purpose.

WorkersError
 ├─ DatasetError
 │   ├─ UnknownDataset, UnknownDatasetVersion
 │   ├─ DamagedDataset        a version whose files are not what was published
 │   ├─ DatasetInUse          a job that has not ended needs it
 │   ├─ UnsafeArchive         paths outside, links, passwords, bombs
 │   ├─ BrokenArchive         no zip or tar, or a damaged one
 │   ├─ CannotExport          the format asked for has no room for what the data set is
 │   └─ UnusableDataset       no format fits or nothing is left after validation; carries the report
 ├─ JobError
 │   ├─ UnknownJob
 │   ├─ IllegalTransition     the job's status does not allow it
 │   └─ InvalidJob            a configuration that makes no sense; names the field
 ├─ StoreUnavailable          Redis is away
 └─ DiskFull                  no space left where data is kept
"""

from __future__ import annotations

import errno
from typing import Any

# How the operating system says that a disk is full; EFBIG: a file reached its limit (ulimit -f, or the file system's).
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class WorkersError(Exception):
    """An error of this package: `str()` says what is wrong, `hint` the way out, if there is one."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DatasetError(WorkersError):
    """An error about a data set."""


class UnknownDataset(DatasetError):
    """No data set of that name."""


class UnknownDatasetVersion(DatasetError):
    """The data set has no such version."""


class DamagedDataset(DatasetError):
    """The files of a version are not those that were published, or of a later Fovea."""


class DatasetInUse(DatasetError):
    """A job that has not ended uses it."""


class UnsafeArchive(DatasetError):
    """An archive that is refused before anything of it is used."""


class BrokenArchive(DatasetError):
    """The file is no archive Fovea reads, or a damaged one."""


class CannotExport(DatasetError):
    """The data set is of a task that the format cannot express."""


class UnusableDataset(DatasetError):
    """Nothing to learn from is left; `problems` lists everything found."""

    def __init__(self, message: str, *, problems: list[dict[str, Any]], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class JobError(WorkersError):
    """An error about a job."""


class UnknownJob(JobError):
    """No job of that id."""


class IllegalTransition(JobError):
    """The job's status does not allow what was asked."""


class InvalidJob(JobError):
    """A job configuration that makes no sense: `field` is the path of the value at fault."""

    def __init__(self, message: str, *, field: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class StoreUnavailable(WorkersError):
    """Redis cannot be reached."""


class DiskFull(WorkersError):
    """No space is left where Fovea keeps its data."""
