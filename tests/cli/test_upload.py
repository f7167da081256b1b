"""Uploads come from the disk in pieces."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from pathlib import Path

import pytest

from app.client import Client, ProblemError
from tests.waiting import PATIENCE_S

ARCHIVE_BYTES = 96 * 1024**2
REFUSAL = b'{"type":"t","title":"t","status":422,"detail":"d","instance":"/","code":"broken_archive","request_id":"r"}'


def test_large_upload_takes_little_memory_and_tells_how_far_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with archive.open("wb") as file:
        file.truncate(ARCHIVE_BYTES)
    heard: list[tuple[int, int]] = []

    with _Drain() as drain, Client(drain.url) as client:
        tracemalloc.start()
        try:
            with pytest.raises(ProblemError):
                client.datasets.upload(archive, "photos", progress=lambda sent, size: heard.append((sent, size)))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert drain.received_bytes > ARCHIVE_BYTES
    assert peak_bytes < 16 * 1024**2
    assert heard[-1] == (ARCHIVE_BYTES, ARCHIVE_BYTES)
    assert heard == sorted(heard)


def test_refusal_before_the_end_of_an_upload_is_heard(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with archive.open("wb") as file:
        file.truncate(ARCHIVE_BYTES)

    with (
        _Drain(stop_reading_after_bytes=1024**2) as drain,
        Client(drain.url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.datasets.upload(archive, "photos")

    assert caught.value.code == "broken_archive"


class _Drain:
    """An HTTP server for one request: reads the body away and answers with a refusal."""

    def __init__(self, *, stop_reading_after_bytes: int | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._limit_bytes = stop_reading_after_bytes
        self._thread = threading.Thread(target=self._serve)
        self.received_bytes = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> _Drain:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE_S)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            headers, _, body = head.partition(b"\r\n\r\n")
            (length,) = (
                int(line[15:]) for line in headers.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            wanted = min(length, self._limit_bytes or length)
            self.received_bytes = len(body)
            while self.received_bytes < wanted:
                self.received_bytes += len(connection.recv(1 << 20))
            answer = b"HTTP/1.1 422 No\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
            connection.sendall(answer + b"Content-Length: %d\r\n\r\n" % len(REFUSAL) + REFUSAL)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):  # or the kernel would answer with a reset that overtakes the refusal
                pass
