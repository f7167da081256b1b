"""Downloads: content of a known size, whole or the part that a Range header asks for, so that `curl -C -` goes on.

Source: RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges). Starlette's FileResponse answers ranges too, but only of
files that have a name and do not grow, and not with problem details.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from os import SEEK_END
from typing import IO, Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import RangeNotSatisfiable

_PIECE_BYTES: Final = 1024**2
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


class Download(StreamingResponse):
    """Answers 200 with the whole content, or 206 with the one range that the request asks for.

    A Range header with several ranges, with another unit or with bad syntax is ignored, as the RFC allows.
    """

    def __init__(
        self,
        request: Request,
        read: Callable[[int], Iterator[bytes]],
        *,
        size_bytes: int,
        media_type: str,
        etag: str | None = None,
        file_name: str | None = None,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        """read: makes the pieces of the content from an offset on. etag: differs whenever a byte of the content does.

        close: called when the response has ended, also if the client left. Raises RangeNotSatisfiable.
        """
        self._close = close
        asked = _asked_range(request.headers, size_bytes, etag)
        start, end = (0, size_bytes) if asked is None else asked
        if asked is not None and start >= end:
            close()
            raise RangeNotSatisfiable(size_bytes)
        headers = {**download_headers(etag, file_name), "Content-Length": str(end - start)}
        if asked is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
        status = 200 if asked is None else 206
        super().__init__(_first(end - start, read(start)), status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def file_download(request: Request, file: IO[bytes], **options: Any) -> Download:
    """The bytes that the open file has now; it is closed at the end. Takes the options of `Download`."""
    size_bytes = file.seek(0, SEEK_END)
    return Download(request, partial(_file_pieces, file), size_bytes=size_bytes, close=file.close, **options)


def download_headers(etag: str | None, file_name: str | None) -> dict[str, str]:
    """The headers that every download has, whatever part of it is sent."""
    headers = {"Accept-Ranges": "bytes"}
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    if file_name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return headers


def skip(count: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces without their first `count` bytes."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def _first(count: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The first `count` bytes of the pieces."""
    while count > 0 and (piece := next(pieces, b"")):
        yield piece[:count]
        count -= len(piece)


def _file_pieces(file: IO[bytes], start: int) -> Iterator[bytes]:
    file.seek(start)
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _asked_range(headers: Headers, size_bytes: int, etag: str | None) -> tuple[int, int] | None:
    """Start and end of the part to send, empty if nothing of it is there; None if the whole content is to be sent."""
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or ("if-range" in headers and (etag is None or headers["if-range"] != f'"{etag}"')):
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size_bytes - int(last)), size_bytes) if last else None  # the last bytes
    if last and int(last) < int(first):
        return None
    return int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
