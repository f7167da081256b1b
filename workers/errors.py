"""All errors that `workers` raises on purpose.

WorkersError
 ├─ DatasetError
 │   ├─ UnknownDataset, UnknownDatasetVersion
 │   ├─ DamagedDataset        the files of a version are not those that were published
 │   ├─ DatasetInUse          a job that has not ended uses the dataset
 │   ├─ UnsafeArchive         paths outside, links, passwords, bombs
 │   ├─ BrokenArchive         not a zip or tar archive, or a damaged one
 │   ├─ CannotExport          the requested format cannot express the dataset
 │   └─ UnusableDataset       no format fits, or validation leaves nothing; has the report
 ├─ JobError
 │   ├─ UnknownJob
 │   ├─ IllegalTransition     the status of the job does not allow it
 │   └─ InvalidJob            an invalid configuration; names the field
 ├─ StoreUnavailable          Redis is unreachable
 └─ DiskFull                  no space is left for data
"""

from __future__ import annotations

import errno
from typing import Any

# The operating system's errors for a full disk. EFBIG: a file reached the limit of ulimit -f or of the file system.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class WorkersError(Exception):
    """An error of this package: `str()` states what is wrong, `hint` how to solve it, if there is a way."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DatasetError(WorkersError):
    """An error about a dataset."""


class UnknownDataset(DatasetError):
    """There is no dataset with this name."""


class UnknownDatasetVersion(DatasetError):
    """The dataset has no such version."""


class DamagedDataset(DatasetError):
    """The files of a version are damaged, or a later Fovea wrote them."""


class DatasetInUse(DatasetError):
    """A job that has not ended uses the dataset."""


class UnsafeArchive(DatasetError):
    """The archive is refused, because it could do harm."""


class BrokenArchive(DatasetError):
    """The file is not an archive that Fovea reads, or it is damaged."""


class CannotExport(DatasetError):
    """The format cannot express the task of the dataset."""


class UnusableDataset(DatasetError):
    """The dataset has nothing to learn from; `problems` lists all findings."""

    def __init__(self, message: str, *, problems: list[dict[str, Any]], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class JobError(WorkersError):
    """An error about a job."""


class UnknownJob(JobError):
    """There is no job with this id."""


class IllegalTransition(JobError):
    """The status of the job does not allow the request."""


class InvalidJob(JobError):
    """The configuration of a job is invalid; `field` is the path of the wrong value."""

    def __init__(self, message: str, *, field: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class StoreUnavailable(WorkersError):
    """Redis is unreachable."""


class DiskFull(WorkersError):
    """No space is left on the disk for the data of Fovea."""
