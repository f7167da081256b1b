"""The servers that answer on one port: each listens on a Unix socket for what the others ask.

A message is a JSON value; so is what it is answered with. Both end with their half of the connection.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

DIRECTORY_VARIABLE: Final = "FOVEA_SIBLINGS"  # in the environment of each of them

_LOOKS_WITHIN_S: Final = 0.3  # probes wait for it, and often not much longer than that
_SILENT_FOR_S: Final = 5.0
_LATE_AT: Final = "late_at"

_numbers = itertools.count()

Message = dict[str, Any]
Answer = Callable[[Message], Awaitable[Any]]


def siblings_directory() -> Path | None:
    """Where the servers beside this one are to be found; None if it is alone."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else None


def forget_sibling(directory: Path, pid: int) -> None:
    """Takes away what a server left that was killed; for whoever started it."""
    for path in directory.glob(f"{pid}-*.socket"):
        path.unlink(missing_ok=True)


class Siblings:
    """The others of this server's port; none if it has the port to itself."""

    def __init__(self, directory: Path | None) -> None:
        """directory: private to the user, for whoever can write there is believed."""
        self._directory = directory
        self._silent_until: dict[str, float] = {}
        self._own = f"{os.getpid()}-{next(_numbers)}.socket"  # short: a socket's path has 108 bytes at most

    @asynccontextmanager
    async def listen(self, answer: Answer) -> AsyncIterator[None]:
        """Answers what the others ask, as long as it is open."""
        if self._directory is None:
            yield
            return
        serving: set[asyncio.Task[None]] = set()

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(_serve(answer, reader, writer))
            serving.add(task)
            task.add_done_callback(serving.discard)

        path = self._directory / self._own
        try:
            server = await asyncio.start_unix_server(serve, path)
        except OSError as error:
            log.warning("the other servers of this port cannot ask this one: %s", error)
            yield
            return
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def tell(self, message: Message, *, timeout_s: float) -> list[Any]:
        """Has each of the others do what it says, all at once; what they answer.

        Who does not answer in time is left out, with a line in the log, and may do it later.
        """
        return await self._ask(self._paths(), message, timeout_s)

    async def look(self, message: Message) -> list[Any]:
        """What each of the others says to a question that is quickly answered.

        Who does not answer is left out, with a line in the log, and not asked again for some seconds.
        """
        now = time.monotonic()
        paths = [path for path in self._paths() if self._silent_until.get(path.name, now) <= now]
        return await self._ask(paths, {**message, _LATE_AT: now + _LOOKS_WITHIN_S}, _LOOKS_WITHIN_S)

    def _paths(self) -> list[Path]:
        if self._directory is None:
            return []
        return [path for path in self._directory.glob("*.socket") if path.name != self._own]

    async def _ask(self, paths: Sequence[Path], message: Message, timeout_s: float) -> list[Any]:
        answers = await asyncio.gather(*(self._ask_one(path, message, timeout_s) for path in paths))
        return [answer for answered in answers for answer in answered]

    async def _ask_one(self, path: Path, message: Message, timeout_s: float) -> list[Any]:
        """One answer, or none."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(json.dumps(message).encode())
                    writer.write_eof()
                    if said := await reader.read():
                        return [json.loads(said)]
                    log.warning("a server of the same port had no answer to %s", message)
                finally:
                    writer.close()
        except (ConnectionRefusedError, FileNotFoundError):
            pass  # it has ended, or is about to begin
        except TimeoutError:
            self._silent_until[path.name] = time.monotonic() + _SILENT_FOR_S
            log.warning("a server of the same port did not answer %s within %g s", message, timeout_s)
        except (OSError, ValueError) as error:
            log.warning("a server of the same port did not answer %s: %s", message, error)
        return []


async def _serve(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        message = json.loads(await reader.read())
        if message.pop(_LATE_AT, math.inf) < time.monotonic():  # one clock for all processes of a machine
            return  # this process stood still meanwhile
        writer.write(json.dumps(await answer(message)).encode())
        await writer.drain()
    except Exception as error:  # whoever asked hears nothing then, and says so
        log.warning("a server of the same port got no answer: %s", error)
    finally:
        writer.close()
