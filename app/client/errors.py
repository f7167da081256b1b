"""Everything the client raises on purpose.

ClientError
 ├─ ServerUnreachable         no answer: refused, no such host, timed out, connection lost
 ├─ ProblemError              the server refused, with a reason: status, code, detail, hint, request_id
 ├─ UnexpectedAnswer          an answer that is not Fovea's: another server on that port, or a proxy's page
 ├─ JobFailed                 the awaited job failed; carries the job
 ├─ JobCancelled              the awaited job was cancelled; carries the job
 └─ WaitTimedOut              the awaited job did not end in time; it continues
"""

from __future__ import annotations

from app.schemas.problem import Problem
from workers.jobs.job import Job


class ClientError(Exception):
    """An error of the client: `str()` says what is wrong, `hint` what to do, if anything."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ServerUnreachable(ClientError):
    """No answer came from the server."""


class ProblemError(ClientError):
    """The server answered with problem details (RFC 9457)."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem.detail, hint=problem.hint)
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.detail = problem.detail
        self.request_id = problem.request_id
        self.retry_after_s = retry_after_s

    @property
    def details(self) -> tuple[str, ...]:
        """One line per fault, if the server lists several."""
        problem = self.problem
        return (
            *(f"{error.field}: {error.message}" for error in problem.errors or ()),
            *(f"{finding.severity}: {finding.message}" for finding in problem.findings or ()),
            *(f"missing: {key}" for key in problem.missing or ()),
            *(f"unexpected: {key}" for key in problem.unexpected or ()),
            *(f"another shape: {key}" for key in problem.mismatched or ()),
        )


class UnexpectedAnswer(ClientError):
    """The server's answer cannot be read."""

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        """status: the status of an unsuccessful answer."""
        super().__init__(message, hint=hint)
        self.status = status


class JobFailed(ClientError):
    """The job ended as failed."""

    def __init__(self, job: Job) -> None:
        why = job.error.message if job.error else "it does not say why"
        super().__init__(f"Job {job.id} failed: {why}", hint=job.error.hint if job.error else None)
        self.job = job


class JobCancelled(ClientError):
    """The job was cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} was cancelled.", hint=f"Queue it again with `fovea jobs retry {job.id}`.")
        self.job = job


class WaitTimedOut(ClientError):
    """The job did not end within the given time."""
