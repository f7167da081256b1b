"""What every request gets, wherever it is answered: an id, its duration, a line in the log, a count."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from app.http.problems import instance_of, route_path

access_log = logging.getLogger("fovea.access")

Count = Callable[[str, str, int], None]  # called with the method, the route's template and the status of every answer

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_QUIET_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"})


class AccessLogEntry:
    """The record of one request, from its arrival to its answer."""

    __slots__ = ("_count", "_scope", "_started_at", "request_id")

    def __init__(self, scope: Scope, count: Count) -> None:
        """Takes the id of the `X-Request-ID` header if it is usable, else makes one, and puts it into the state."""
        self._started_at = time.perf_counter()
        self._scope = scope
        self._count = count
        given_id = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given_id if _REQUEST_ID.fullmatch(given_id) else os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = self.request_id

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer carries. Called when the answer begins."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"server-timing", b"total;dur=%.1f" % ((time.perf_counter() - self._started_at) * 1000)),
        ]

    def end(self, status: int) -> None:
        """Logs and counts the answer."""
        self._log(status)
        self._count(self._scope["method"], getattr(self._scope.get("route"), "path_format", ""), status)

    def _log(self, status: int) -> None:
        level = logging.DEBUG if route_path(self._scope) in _QUIET_PATHS else logging.INFO
        if not access_log.isEnabledFor(level):
            return
        extra = {
            "request_id": self.request_id,
            "method": self._scope["method"],
            "path": instance_of(self._scope),
            "status": status,
            "duration_ms": round((time.perf_counter() - self._started_at) * 1000, 1),
            "client": (self._scope.get("client") or ("-",))[0],
        }
        access_log.log(
            level, "%(method)s %(path)s %(status)d %(duration_ms).1f ms %(client)s %(request_id)s", extra, extra=extra
        )
