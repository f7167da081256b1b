"""Answers counted by route and status, also of requests that never reach the engine."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class HttpRequests:
    """Counts answers. Used from one event loop."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        """registry: None if the values are read from the files of many processes."""
        self._requests = Counter(
            "fovea_http_requests",
            "Requests by the route's template, empty for an unknown route. 499: the client disconnected.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._series: dict[tuple[str, str, int], Counter] = {}

    def count(self, method: str, route: str, status: int) -> None:
        """route: the template of the route, never the path of the request."""
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._requests.labels(method, route, str(status))
        series.inc()
