"""Connects to Redis and translates its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from workers.errors import StoreUnavailable


def connect(redis_url: str) -> Any:
    """Returns a client. Its type is Any, because redis-py types each result as a union with the asynchronous one."""
    return redis.Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_connect_timeout=2.0,
        socket_timeout=5.0,
        # Fails within a second if Redis is unreachable: the API answers 503 then, and workers try again later.
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
    )


def connect_async(redis_url: str) -> Any:
    """Returns a client for one event loop, without a time limit for results. The caller closes it with `aclose`."""
    return redis.asyncio.Redis.from_url(redis_url, decode_responses=True, socket_connect_timeout=2.0)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns the errors of redis-py into StoreUnavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis is unreachable: {str(error).rstrip('.')}.",
            hint="Start Redis, or check FOVEA_REDIS_URL. Predictions work without it.",
        ) from error
    except redis_errors.RedisError as error:
        raise StoreUnavailable(
            f"Redis refused the command: {str(error).rstrip('.')}.",
            hint="Look at the log of Redis: its memory or its disk may be full.",
        ) from error
