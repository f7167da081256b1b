"""Answers kept under idempotency keys, in Redis.

A value is either a claim (someone is answering right now; it expires unless renewed) or an answer (kept for a day).
Giving up and completing are Lua, so that only the claim's owner does either.
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
    """What the first request with a key was answered, and the digest of what it asked."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    status: int
    headers: dict[str, str]
    body: str


class InFlight:
    """Someone else is answering the first request with this key."""


class Claimed:
    """The caller is the first, and must complete or release the key."""


class IdempotencyStore:
    """Every method raises StoreUnavailable while Redis is away."""

    def __init__(self, redis_url: str, *, claim_s: float = 60.0) -> None:
        self._claim_ms = int(claim_s * 1000)
        self._redis = connect(redis_url)

    def claim(self, scope: str, key: str, *, owner: str) -> StoredAnswer | InFlight | Claimed:
        """The answer under the key, or the right (of `owner` alone) to make it."""
        name = idempotency(scope, key)
        with translated_errors():
            while True:
                if self._redis.set(name, _claim_of(owner), nx=True, px=self._claim_ms):
                    return Claimed()
                value = self._redis.get(name)
                if value is not None:  # None: it expired between the two
                    return InFlight() if "owner" in json.loads(value) else StoredAnswer.model_validate_json(value)

    def renew(self, scope: str, key: str, *, owner: str) -> None:
        """Keeps a claim from expiring."""
        with translated_errors():
            self._redis.eval(_RENEW, 1, idempotency(scope, key), _claim_of(owner), self._claim_ms)

    def complete(self, scope: str, key: str, answer: StoredAnswer, *, owner: str) -> None:
        """Keeps the answer for a day."""
        with translated_errors():
            self._redis.eval(
                _COMPLETE, 1, idempotency(scope, key), _claim_of(owner), answer.model_dump_json(), ANSWER_KEPT_S
            )

    def release(self, scope: str, key: str, *, owner: str) -> None:
        """Gives the key back: nothing was made."""
        with translated_errors():
            self._redis.eval(_RELEASE, 1, idempotency(scope, key), _claim_of(owner))

    def close(self) -> None:
        """Gives the connections back."""
        self._redis.close()


def _claim_of(owner: str) -> str:
    return json.dumps({"owner": owner})
