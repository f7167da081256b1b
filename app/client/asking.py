"""Sends a group of images, again if the server was full or unreachable, and in halves if the group fails.

A group that the server refuses or fails on is halved until the cause is found: that image gets an error, and the
others get their predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, cast

import httpx

from app.client.errors import ClientError, ProblemError, ServerUnreachable, UnexpectedAnswer
from app.client.patience import Patience, backoff_s
from app.client.questions import Answer, Entry, Priority, Question, Value, question_call
from app.client.transport import Call, Transport, parsed
from app.schemas.predict import ImageInfo, Timing, UsedModel
from app.schemas.problem import Problem
from app.schemas.system import Limits

_MOST_BYTES_PER_REQUEST = 16 * 1024**2  # more only costs memory
_BYTES_AROUND_A_PICTURE = 1024  # in a form: boundary, name, type
_TRIES = 3
_FAULTS_OF_A_PICTURE: Final = frozenset({"not_an_image", "broken_image", "image_too_large", "too_many_tiles"})
_FAULTS_OF_A_GROUP: Final = frozenset({"body_too_large", "too_many_images"})
_FAILURES_ON_A_PICTURE: Final = frozenset({"internal_error", "deadline_exceeded", "out_of_device_memory"})
_WAITING_IS_VAIN: Final = frozenset({"weights_unavailable"})  # only a person can change that


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Generic[Entry]):
    """The outcome for one file."""

    path: Path
    prediction: Entry  # with `error`, if it could not be read here or there


@dataclass(kw_only=True, slots=True)
class Answered(Generic[Entry]):
    """The outcomes of several files that were sent together."""

    model: UsedModel | None = None  # None if no file was an image
    outcomes: list[Outcome[Entry]] = field(default_factory=list)
    times: list[Timing] = field(default_factory=list)  # one per request

    def add(self, other: Answered[Entry]) -> None:
        """Appends the outcomes of `other`."""
        self.model = self.model or other.model
        self.outcomes += other.outcomes
        self.times += other.times


class _Blamed(Exception):
    """The server cannot answer this group of images, but perhaps a part of it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class GroupAsker(Generic[Entry]):
    """Sends one group of files after another. Several threads may use it."""

    def __init__(
        self,
        transport: Transport,
        question: Question[Entry],
        limits: Limits,
        patience: Patience,
        options: Mapping[str, Value],
        *,
        priority: Priority,
    ) -> None:
        self._transport = transport
        self._question = question
        self._limits = limits
        self._patience = patience
        self._priority: Priority = priority
        self._options = options

    def pin(self, model: UsedModel) -> None:
        """Uses exactly this model version from now on."""
        self._options = {**self._options, "model": model.reference}

    def ask(self, group: Sequence[Path]) -> Answered[Entry]:
        """The outcome of each file.

        Raises ClientError if no file is the cause, Stopped.
        """
        answered = Answered[Entry]()
        pack: list[tuple[Path, bytes]] = []
        room = most = min(_MOST_BYTES_PER_REQUEST, self._limits.max_body_bytes)
        for path in group:
            data = self._read(path)
            if isinstance(data, Problem):
                answered.outcomes.append(self._error(path, data))
                continue
            taken = len(data) + _BYTES_AROUND_A_PICTURE
            if pack and taken > room:
                answered.add(self._ask_or_split(pack))
                pack, room = [], most
            pack.append((path, data))
            room -= taken
        if pack:
            answered.add(self._ask_or_split(pack))
        return answered

    def _read(self, path: Path) -> bytes | Problem:
        most = min(self._limits.max_image_bytes, self._limits.max_body_bytes - _BYTES_AROUND_A_PICTURE)
        try:
            size = path.stat().st_size
            if size <= most:
                return path.read_bytes()
        except OSError as error:
            detail = f"The file cannot be read: {error.strerror or error}."
            return self._problem("unreadable_file", 0, "The file cannot be read", detail)
        detail = f"The image has {size} bytes, and the limit is {most}."
        return self._problem("image_too_large", 413, "The image is too large", detail)

    def _ask_or_split(self, pack: Sequence[tuple[Path, bytes]]) -> Answered[Entry]:
        try:
            answer = self._ask(pack)
        except _Blamed as blamed:
            if len(pack) == 1:
                return Answered(outcomes=[self._error(pack[0][0], blamed.problem)])
            half = len(pack) // 2
            answered = self._ask_or_split(pack[:half])
            answered.add(self._ask_or_split(pack[half:]))
            return answered
        outcomes = [
            Outcome(path=path, prediction=entry) for (path, _), entry in zip(pack, answer.predictions, strict=True)
        ]
        return Answered(model=answer.model, outcomes=outcomes, times=[answer.timing_ms])

    def _ask(self, pack: Sequence[tuple[Path, bytes]]) -> Answer[Entry]:
        """Raises _Blamed, ClientError, Stopped."""
        call = question_call(
            self._question.verb,
            [(path.name, data) for path, data in pack],
            self._options,
            priority=self._priority,
        )
        tries = 0
        while True:
            self._patience.check()
            try:
                answer = self._answer(call, len(pack))
            except ServerUnreachable as error:
                is_refused = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
                self._wait_until_alive(error)
                if is_refused:  # the server has not processed these images
                    continue
                failure: ClientError = error
                problem = self._problem("connection_lost", 0, "The connection was lost", str(error))
            except (ProblemError, UnexpectedAnswer) as error:
                wait_s = _busy_s(error)
                if wait_s is not None:
                    self._patience.wait(error, wait_s)
                    continue
                failure, problem = error, self._blame(error)
            else:
                self._patience.answered()
                return answer
            tries += 1
            if len(pack) > 1:
                raise _Blamed(problem)
            if tries == _TRIES:
                self._patience.fault(failure)
                raise _Blamed(problem)
            self._patience.wait(failure, backoff_s(tries))

    def _answer(self, call: Call, images: int) -> Answer[Entry]:
        kind = cast("type[Answer[Entry]]", self._question.answer)
        answer = parsed(self._transport.send_once(call), kind)
        if len(answer.predictions) != images:
            raise UnexpectedAnswer(f"{images} images were sent, and {len(answer.predictions)} predictions came back.")
        return answer

    def _wait_until_alive(self, failure: ClientError) -> None:
        """Waits for a server that refuses or breaks connections because it restarts."""
        tries = 1
        while True:
            self._patience.wait(failure, backoff_s(tries))
            tries += 1
            try:
                if self._transport.look(Call(method="GET", path="/healthz")).is_success:
                    return
            except ServerUnreachable as error:
                failure = error

    def _blame(self, error: ProblemError | UnexpectedAnswer) -> Problem:
        """The problem with the images that were sent. Raises `error` if they are not the cause.

        Raises _Blamed at once if the server's answer is clear.
        """
        if isinstance(error, UnexpectedAnswer):
            if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE:  # a proxy may send it
                raise error
            self._patience.answered()
            raise _Blamed(self._problem("body_too_large", 413, "The body is too large", str(error)))
        if error.code in _FAULTS_OF_A_PICTURE | _FAULTS_OF_A_GROUP:
            self._patience.answered()
            raise _Blamed(error.problem)
        if error.code not in _FAILURES_ON_A_PICTURE:
            raise error
        return error.problem

    def _error(self, path: Path, problem: Problem) -> Outcome[Entry]:
        entry = self._question.entry(image=ImageInfo(name=path.name), error=problem)
        return Outcome(path=path, prediction=entry)

    def _problem(self, code: str, status: int, title: str, detail: str) -> Problem:
        """A problem in the server's form. status: 0 if the server was not asked or did not answer."""
        return Problem(
            type=f"urn:fovea:problem:{code}",
            title=title,
            status=status,
            detail=detail,
            instance=f"/v1/{self._question.verb}",
            code=code,
            request_id="none",
        )


def _busy_s(error: ProblemError | UnexpectedAnswer) -> float | None:
    """Seconds until a busy server may accept the request; None if it is not busy, or busy for long."""
    if isinstance(error, UnexpectedAnswer):
        away = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
        return backoff_s(2) if error.status in away else None  # a proxy may send it
    if error.status not in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
        return None
    return None if error.code in _WAITING_IS_VAIN else error.retry_after_s
