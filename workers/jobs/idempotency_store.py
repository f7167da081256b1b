"""Stores the answers to requests with an idempotency key in Redis.

A value is either a claim (the first request is being answered; it expires unless it is renewed) or an answer (kept for
one day). Lua scripts complete, renew and release a claim, so only its owner can do that.
"""

from __future__ import annotations

import json
from typing import Final

from pydantic import BaseModel, ConfigDict

from workers.jobs.redis_connection import connect, translated_errors
from workers.jobs.redis_keys import idempotency

ANSWER_KEPT_S: Final = 24 * 3600

_IF_MINE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call({command}) end return 0"
_COMPLETE = _IF_MINE.format(command="'SET', KEYS[1], ARGV[2], 'EX', ARGV[3]")
_RELEASE = _IF_MINE.format(command="'DEL', KEYS[1]")
_RENEW = _IF_MINE.format(command="'PEXPIRE', KEYS[1], ARGV[2]")


class StoredAnswer(BaseModel):
    """The answer to the first request with a key."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str  # digest of the request
    status: int
    headers: dict[str, str]
    body: str


class InFlight:
    """The first request with this key is still being answered."""


class Claimed:
    """The caller has the first request with this key, and must complete or release the claim."""


class IdempotencyStore:
    """The stored answers. Every method raises StoreUnavailable if Redis is unreachable."""

    def __init__(self, redis_url: str, *, claim_s: float = 60.0) -> None:
        self._claim_ms = int(claim_s * 1000)
        self._redis = connect(redis_url)

    def claim(self, scope: str, key: str, *, owner: str) -> StoredAnswer | InFlight | Claimed:
        """Returns the stored answer to the key, or claims the key for `owner`."""
        name = idempotency(scope, key)
        with translated_errors():
            while True:
                if self._redis.set(name, _claim_of(owner), nx=True, px=self._claim_ms):
                    return Claimed()
                value = self._redis.get(name)
                if value is not None:  # None: the claim expired between the two commands
                    return InFlight() if "owner" in json.loads(value) else StoredAnswer.model_validate_json(value)

    def renew(self, scope: str, key: str, *, owner: str) -> None:
        """Prevents a claim from expiring."""
        with translated_errors():
            self._redis.eval(_RENEW, 1, idempotency(scope, key), _claim_of(owner), self._claim_ms)

    def complete(self, scope: str, key: str, answer: StoredAnswer, *, owner: str) -> None:
        """Replaces the claim by the answer, which is kept for one day."""
        with translated_errors():
            self._redis.eval(
                _COMPLETE, 1, idempotency(scope, key), _claim_of(owner), answer.model_dump_json(), ANSWER_KEPT_S
            )

    def release(self, scope: str, key: str, *, owner: str) -> None:
        """Releases a claim without an answer, so that the next request with the key is the first again."""
        with translated_errors():
            self._redis.eval(_RELEASE, 1, idempotency(scope, key), _claim_of(owner))

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()


def _claim_of(owner: str) -> str:
    return json.dumps({"owner": owner})
