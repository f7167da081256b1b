"""Metrics for Prometheus: counted and timed where things happen, written out by `GET /metrics`."""
