"""What Prometheus is told: counted and timed where it happens, read and written out when `GET /metrics` asks."""
