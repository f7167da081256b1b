"""A Python client of Fovea's HTTP API, on httpx alone.

with Client("http://127.0.0.1:8000") as fovea:
    print(fovea.classify(Path("ant.jpg"), model="ants-bees").predictions[0].classes)
    for outcome in fovea.classify_many(Path("photos").rglob("*.jpg"), model="ants-bees"):
        print(outcome.path, outcome.prediction.classes)
"""

from app.client.asking import Outcome
from app.client.bulk import Pace
from app.client.client import Client
from app.client.errors import (
    ClientError,
    JobCancelled,
    JobFailed,
    ProblemError,
    ServerUnreachable,
    UnexpectedAnswer,
    WaitTimedOut,
)

__all__ = [
    "Client",
    "ClientError",
    "JobCancelled",
    "JobFailed",
    "Outcome",
    "Pace",
    "ProblemError",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "WaitTimedOut",
]
