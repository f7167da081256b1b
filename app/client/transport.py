"""Sends requests and reads answers: retries, idempotency keys, errors. It knows no resources."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

import httpx
from pydantic import JsonValue, TypeAdapter, ValidationError

from app.client.errors import ProblemError, ServerUnreachable, UnexpectedAnswer
from app.schemas.problem import Problem

Answer = TypeVar("Answer")
Params = Mapping[str, str | int | float | bool | None]
Part = tuple[str, bytes | BinaryIO, str]  # file name, content, media type

_LONGEST_RETRY_AFTER_S = 3.0
_IN_PROGRESS = "request_in_progress"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, described so that it can be sent again."""

    method: str
    path: str
    params: Params = field(default_factory=dict)
    json: JsonValue = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, Part]] = ()  # httpx rewinds files before every try
    creates: bool = False  # a POST that creates something: all tries share one Idempotency-Key
    only_asks: bool = False  # a POST that changes nothing
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None  # None: the transport's own


class Transport:
    """Sends calls to one server."""

    def __init__(
        self,
        http: httpx.Client,
        *,
        retries: int = 2,
        sleep: Callable[[float], None] = time.sleep,
        new_key: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._http = http
        self._retries = retries
        self._sleep = sleep
        self._new_key = new_key

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def answer(self, call: Call, kind: type[Answer]) -> Answer:
        """Sends the call and parses the JSON answer as `kind`.

        Raises ProblemError, ServerUnreachable, UnexpectedAnswer.
        """
        return parsed(self.send(call), kind)

    def send(self, call: Call) -> httpx.Response:
        """Sends the call and returns the complete successful answer.

        Raises ProblemError, ServerUnreachable.
        """
        headers = dict(call.headers)
        if call.creates:
            headers["Idempotency-Key"] = self._new_key()
        tries_left = self._retries if call.creates or call.only_asks or call.method in ("GET", "PUT") else 0
        while True:
            try:
                return self.send_once(call, headers)
            except (ServerUnreachable, ProblemError) as error:
                wait_s = _wait_before_retry_s(error)
                is_in_progress = isinstance(error, ProblemError) and error.code == _IN_PROGRESS
                if wait_s is None or (tries_left == 0 and not is_in_progress):
                    raise
                tries_left -= not is_in_progress  # the first try is still in progress, which is not a failure
            self._sleep(wait_s)

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """Sends the call and yields the answer while it arrives.

        Raises ProblemError, ServerUnreachable; the latter also while the body is read.
        """
        with _unreachable_named(str(self._http.base_url)):
            request = self._http.build_request(
                call.method,
                call.path,
                params=_said(call.params),
                headers=dict(call.headers),
                timeout=self._timeout(call),
            )
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise problem_of(response)
                yield response
            finally:
                response.close()

    def look(self, call: Call) -> httpx.Response:
        """Sends the call once and returns the answer with any status. Raises ServerUnreachable."""
        with _unreachable_named(str(self._http.base_url)):
            return self._http.request(call.method, call.path)

    def send_once(self, call: Call, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Sends the call once. headers: sent instead of the call's own. Threads may call it.

        Raises ProblemError, ServerUnreachable, UnexpectedAnswer.
        """
        with _unreachable_named(str(self._http.base_url)):
            request = self._http.build_request(
                call.method,
                call.path,
                params=_said(call.params),
                json=call.json,
                data=dict(call.form) or None,
                files=list(call.files) or None,
                headers=dict(call.headers if headers is None else headers),
                timeout=self._timeout(call),
            )
            if call.only_asks:
                request.read()  # images are already in memory: one write to the socket instead of five per image
            response = self._http.send(request)
        if not response.is_success:
            raise problem_of(response)
        return response

    def _timeout(self, call: Call) -> httpx.Timeout:
        usual = self._http.timeout
        return usual if call.timeout_s is None else httpx.Timeout(call.timeout_s, connect=usual.connect)


def parsed(response: httpx.Response, kind: type[Answer]) -> Answer:
    """Parses the body as `kind`.

    Raises UnexpectedAnswer.
    """
    try:
        return TypeAdapter(kind).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise UnexpectedAnswer(
            f"{response.request.method} {response.request.url} answered {response.status_code} with something "
            f"this client cannot read ({where}: {first['msg']}).",
            hint="Check that it is a Fovea server of the client's version: GET /v1/system.",
        ) from error


def problem_of(response: httpx.Response) -> ProblemError | UnexpectedAnswer:
    """The error of an unsuccessful answer that was read completely."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return UnexpectedAnswer(
            f"{response.request.method} {response.request.url} answered {response.status_code} "
            f"{response.reason_phrase} without a reason.",
            hint="Check that it is a Fovea server and not a proxy.",
            status=response.status_code,
        )
    return ProblemError(problem, retry_after_s=_seconds(response.headers.get("Retry-After")))


@contextmanager
def _unreachable_named(base_url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise ServerUnreachable(
            f"No Fovea server answers at {base_url} ({error}).",
            hint="Start one with `fovea up`, or name another with --url or FOVEA_URL.",
        ) from error
    except httpx.TimeoutException as error:
        raise ServerUnreachable(
            f"{base_url} did not answer in time ({type(error).__name__}).",
            hint="It may be busy or stuck: read its log, or use a longer timeout.",
        ) from error
    except httpx.TransportError as error:
        raise ServerUnreachable(
            f"The connection to {base_url} was lost ({str(error) or type(error).__name__}).", hint="Try again."
        ) from error


def _wait_before_retry_s(error: ServerUnreachable | ProblemError) -> float | None:
    """Seconds to wait before another try; None if another try cannot help soon."""
    if isinstance(error, ServerUnreachable):
        # If nothing listens there, fail at once.
        is_hopeless = isinstance(error.__cause__, httpx.ConnectError | httpx.TimeoutException)
        return None if is_hopeless else 0.5
    if error.code == _IN_PROGRESS or error.status == httpx.codes.SERVICE_UNAVAILABLE:
        wait_s = error.retry_after_s
        return wait_s if wait_s is not None and wait_s <= _LONGEST_RETRY_AFTER_S else None
    return None


def _said(params: Params) -> dict[str, str | int | float | bool]:
    return {key: value for key, value in params.items() if value is not None}


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header) if header is not None else math.nan
    except ValueError:  # an HTTP date, which Fovea does not send
        return None
    return seconds if 0 <= seconds < math.inf else None
