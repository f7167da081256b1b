"""`python -m benchmarks`: every benchmark there is, one after the other."""

from __future__ import annotations

from benchmarks import metrics, service

service.main()
metrics.main()
