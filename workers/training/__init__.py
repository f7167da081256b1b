"""The trainer: one run, from a directory to a directory. It uses no Redis, no Celery and no HTTP."""
