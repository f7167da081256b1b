"""The histograms' upper bounds. Every bound is a series per model, version and backend, so there are few."""

from __future__ import annotations

from typing import Final

SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
VIEWS: Final = (1, 2, 4, 8, 16, 32, 64)
