"""How Redis is reached, and what its errors become."""

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
    """A client. Any: redis-py types every answer as a union with the asynchronous client's."""
    return redis.Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_connect_timeout=2.0,
        socket_timeout=5.0,
        # answers within a second when Redis is away: callers turn that into 503, workers try again later
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
    )


def connect_async(redis_url: str) -> Any:
    """A client for one event loop, that may wait for an answer as long as it takes. To be closed by `aclose`."""
    return redis.asyncio.Redis.from_url(redis_url, decode_responses=True, socket_connect_timeout=2.0)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns what redis-py raises into StoreUnavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis is away: {error}", hint="Start Redis, or check FOVEA_REDIS_URL. Predictions go on without it."
        ) from error
    except redis_errors.RedisError as error:
        raise StoreUnavailable(
            f"Redis refused: {error}", hint="Look at Redis's log: its memory or its disk may be full."
        ) from error
