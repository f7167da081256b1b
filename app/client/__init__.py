"""A Python client of Fovea's HTTP API, on httpx alone.

with Client("http://127.0.0.1:8000") as fovea:
    print(fovea.classify(Path("ant.jpg"), model="ants-bees").predictions[0].classes)
"""

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
    "ProblemError",
    "ServerUnreachable",
    "UnexpectedAnswer",
    "WaitTimedOut",
]
