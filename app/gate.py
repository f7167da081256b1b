"""Refuses predictions that a full engine would refuse, by their heads alone.

With more requests than fit, a server is as good as its refusals are cheap: for one that is refused here no task is
made, no layer is asked, and nothing of its body is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from app.inference.errors import EngineFull
from app.predicting_routes import PredictingRoute, predicting_route
from app.problems import answer
from app.request_notes import Count, RequestNotes

GATE: Final = "gate"  # where the application's state has it


class Gate:
    """What the HTTP protocol asks before it hands a request on."""

    def __init__(self, check_room: Callable[[Scope, PredictingRoute], None], count: Count) -> None:
        """check_room: raises EngineFull."""
        self._check_room = check_room
        self._count = count

    def refusal(self, scope: Scope) -> Response | None:
        """The whole answer, noted as every answer is; None where there is room, or nothing to be predicted."""
        route = predicting_route(scope)
        if route is None:
            return None
        try:
            self._check_room(scope, route)
        except EngineFull as error:
            notes = RequestNotes(scope, self._count)
            scope["route"] = route  # as routing would, for whoever counts
            response = answer(error, scope)
            response.raw_headers += notes.headers()
            notes.end(response.status_code)
            return response
        return None
