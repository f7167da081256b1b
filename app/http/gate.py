"""Refuses predictions that a full engine would refuse, by their heads alone.

With more requests than fit, a server is as good as its refusals are cheap: for one that is refused here no task is
made, no layer is asked and its body is read over, and its words are put together once for many that get the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from app.engine.errors import EngineFull
from app.http.access_log import Count, RequestNotes
from app.http.predicting_routes import PredictingRoute, predicting_route
from app.http.problems import answer

GATE: Final = "gate"  # where the application's state has it

_MOST_WORDINGS, _LONGEST_PATH = 256, 200  # that are remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A whole answer."""

    status: int
    header_lines: bytes  # each with its end
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wording:
    """What refusals of one path for one reason have in common."""

    status: int
    header_lines: bytes  # without the length, the id and the time
    around_ids: list[bytes]  # the body, cut where the request's id belongs


class Gate:
    """What the HTTP protocol asks before it hands a request on."""

    def __init__(self, check_room: Callable[[Scope, PredictingRoute], None], count: Count) -> None:
        """check_room: raises EngineFull."""
        self._check_room = check_room
        self._count = count
        self._wordings: dict[tuple[bytes, str, int | None], _Wording] = {}
        self._stand_in = os.urandom(16).hex()  # for ids: nobody can write it into a path

    def refusal(self, scope: Scope) -> Refusal | None:
        """The answer, noted as every answer is; None where there is room, or nothing to be predicted."""
        route = predicting_route(scope)
        if route is None:
            return None
        try:
            self._check_room(scope, route)
        except EngineFull as error:
            notes = RequestNotes(scope, self._count)
            scope["route"] = route  # as routing would, for whoever counts
            wording = self._wording(error, scope)
            body = notes.request_id.encode().join(wording.around_ids)
            own_lines = _lines([(b"content-length", b"%d" % len(body)), *notes.headers()])
            notes.end(wording.status)
            return Refusal(status=wording.status, header_lines=wording.header_lines + own_lines, body=body)
        return None

    def _wording(self, error: EngineFull, scope: Scope) -> _Wording:
        key = (scope["raw_path"], str(error), error.retry_after_s)
        wording = self._wordings.get(key)
        if wording is None:
            response = answer(error, {**scope, "state": {"request_id": self._stand_in}})
            wording = _Wording(
                status=response.status_code,
                header_lines=_lines([pair for pair in response.raw_headers if pair[0] != b"content-length"]),
                around_ids=bytes(response.body).split(self._stand_in.encode()),
            )
            if len(self._wordings) >= _MOST_WORDINGS:
                self._wordings.clear()
            if len(key[0]) < _LONGEST_PATH:
                self._wordings[key] = wording
        return wording


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])
