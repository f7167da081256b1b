"""A connection on which a test writes the bytes of its requests itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S


class RawClient:
    """Sends bytes, and reads answers that may come one behind the other, as those of requests sent together do."""

    def __init__(self, connection: socket.socket, received: BinaryIO) -> None:
        self.socket = connection
        self._received = received

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self) -> bytes:
        """The head of the next answer, in small letters; its body is read over."""
        return self.answer()[0]

    def answer(self) -> tuple[bytes, bytes]:
        """The next answer's head, in small letters, and its body, which has to have a length."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._received.readline().lower()
            assert line, f"the connection was closed before the answer was whole: {head!r}"
            head += line
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = self._received.read(length)
        assert len(body) == length, f"the connection was closed before the answer was whole: {body!r}"
        return head, body

    def rest(self) -> bytes:
        """Everything that comes until the server closes the connection."""
        return self._received.read()


@contextmanager
def raw_client(api: RunningApi, *, buffer_bytes: int | None = None) -> Iterator[RawClient]:
    """Connects to the server; what does not come within PATIENCE_S raises TimeoutError.

    buffer_bytes: how much the kernel keeps of what this client sends, and of what it does not read. None: megabytes.
    """
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_S)
        if buffer_bytes is not None:
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                connection.setsockopt(socket.SOL_SOCKET, buffer, buffer_bytes)
        connection.connect(("127.0.0.1", api.port))
        with connection.makefile("rb") as received:
            yield RawClient(connection, received)
