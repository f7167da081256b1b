"""Answers, counted by route and status: the part of the traffic that never reaches the engine is seen here."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class HttpRequests:
    """Counts answers. To be called from one event loop."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        """registry: None where the values are read from the files of many processes instead."""
        self._requests = Counter(
            "fovea_http_requests",
            "Requests by the route's template, empty where there is no such route. 499: the client went.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._series: dict[tuple[str, str, int], Counter] = {}

    def count(self, method: str, route: str, status: int) -> None:
        """route: as it is written in the API's documentation, never the path that was asked for."""
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._requests.labels(method, route, str(status))
        series.inc()
