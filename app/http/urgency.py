"""How long a prediction is worth waiting for, and whether somebody waits: two request headers.

The refusal middleware parses them once, before the body is read. Routes receive the result as `UrgencyDep`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, get_args

from starlette.datastructures import Headers
from starlette.types import Scope

from app.engine.lane import Priority
from app.errors import InvalidValue

TIMEOUT_HEADER: Final = "x-request-timeout"
PRIORITY_HEADER: Final = "x-priority"
_PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)

# The two headers as OpenAPI parameters, for `openapi_extra` of the routes that predict.
URGENCY_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": "Seconds that the answer is worth waiting for; then 504. At most what the operator allows.",
        "schema": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}],
            "title": "X-Request-Timeout",
            "description": "Seconds that the answer is worth waiting for; then 504. At most what the operator allows.",
        },
    },
    {
        "name": PRIORITY_HEADER,
        "in": "header",
        "required": False,
        "description": "`bulk` requests run after all `interactive` ones, and are refused earlier.",
        "schema": {
            "type": "string",
            "enum": list(_PRIORITIES),
            "default": "interactive",
            "title": "X-Priority",
            "description": "`bulk` requests run after all `interactive` ones, and are refused earlier.",
        },
    },
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Urgency:
    """The deadline and the priority of a prediction."""

    timeout_s: float
    priority: Priority


def urgency_of(scope: Scope, *, longest_s: float) -> Urgency:
    """Parses `X-Request-Timeout` and `X-Priority`.

    longest_s: the timeout without the header, and the longest that is granted. Raises InvalidValue.
    """
    headers = Headers(scope=scope)
    timeout, priority = headers.get(TIMEOUT_HEADER), headers.get(PRIORITY_HEADER, "interactive")
    if priority not in _PRIORITIES:
        raise _invalid(PRIORITY_HEADER, priority, valid=" or ".join(_PRIORITIES))
    timeout_s = longest_s if timeout is None else min(_seconds(timeout), longest_s)
    return Urgency(timeout_s=timeout_s, priority=priority)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise _invalid(TIMEOUT_HEADER, text, valid="a number of seconds above 0")
    return seconds


def _invalid(header: str, value: str, *, valid: str) -> InvalidValue:
    message = f"The header {header} is {value[:100]!r}."
    return InvalidValue(
        message, field=header, where="header", value=value[:100], valid=valid, hint=f"Valid for {header}: {valid}."
    )
