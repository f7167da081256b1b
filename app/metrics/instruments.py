"""The metrics of this process, created before anything that counts."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics

from app.metrics.http_requests import HttpRequests
from app.metrics.predictions import PredictionMetrics
from app.metrics.process_gauges import ProcessGauges
from app.metrics.shared_values import share_values


class Instruments:
    """The counters, histograms and gauges of this process, and the registry that reads them."""

    def __init__(self, *, directory: Path | None) -> None:
        """directory: the directory of the replicas' metrics; None if this process has the port alone.

        Raises OSError if it cannot write there.
        """
        # the `_created` series have no use in this text format
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.shared = None if directory is None else share_values(directory)
        self.registry = CollectorRegistry()
        own = None if self.shared else self.registry
        if self.shared is not None:
            self.registry.register(self.shared)
        self.predictions = PredictionMetrics(own)
        self.http_requests = HttpRequests(own)
        self.gauges = ProcessGauges(own, predictions=self.predictions)
