"""The trainer: one run, from a directory to a directory. Knows no Redis, no Celery and no HTTP."""
