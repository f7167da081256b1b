"""Request bodies that the client packed: `Content-Encoding: gzip` and `deflate`. Source: RFC 9110, section 8.4.1."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from app.errors import BodyTooLarge, MalformedBody, UnsupportedBody

PIECE_BYTES: Final = 1024**2  # unpacked at a time, so that a bomb of gigabytes is noticed after its first megabytes
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's numbers; deflate is zlib's own format


def unpacking_receive(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """`receive` for the request's body as it was before the client packed it; `receive` itself if it is not packed.

    Raises UnsupportedBody. What it returns raises MalformedBody, and BodyTooLarge if the packed body exceeds the limit.
    """
    values = ",".join(Headers(scope=scope).getlist("content-encoding")).lower().split(",")
    encodings = [value.strip() for value in values if value.strip() not in ("", "identity")]
    if not encodings:
        return receive
    if len(encodings) > 1 or encodings[0] not in _WINDOW_BITS:
        raise UnsupportedBody(
            f"A body with the Content-Encoding {', '.join(encodings)[:100]!r} is not read here.",
            hint="Send it as it is, or with one of gzip and deflate.",
            headers={"Accept-Encoding": "gzip, deflate"},
        )
    return _Unpacker(receive, encodings[0], limit_bytes).receive


class _Unpacker:
    """Unpacks a body piece by piece, each when it is asked for."""

    def __init__(self, receive: Receive, encoding: str, limit_bytes: int) -> None:
        self._receive = receive
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        self._packed = b""  # received and not yet unpacked
        self._packed_bytes = 0  # received in all
        self._has_output = False  # the stream may hold more output, without more input
        self._is_received = False

    async def receive(self) -> Message:
        """The next piece of the body. Raises MalformedBody, BodyTooLarge."""
        while True:
            if not self._packed and not self._has_output:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._note(message)
            if self._packed_bytes == 0 and self._is_received:
                return message  # a request without a body
            piece = await asyncio.to_thread(self._unpack)
            is_last = self._is_received and not self._packed and not self._has_output
            if is_last and not self._stream.eof:
                raise MalformedBody(f"The body ends before its {self._encoding} stream does.")
            if piece or is_last:
                return {"type": "http.request", "body": piece, "more_body": not is_last}

    def _note(self, message: Message) -> None:
        self._packed = message.get("body", b"")
        self._packed_bytes += len(self._packed)
        self._is_received = not message.get("more_body", False)
        if self._packed_bytes > self._limit_bytes:  # a stream of empty blocks would have no end
            raise BodyTooLarge(f"The packed body is larger than {self._limit_bytes} bytes, the limit of this route.")

    def _unpack(self) -> bytes:
        try:
            piece = self._stream.decompress(self._packed, PIECE_BYTES)
        except zlib.error as error:
            raise MalformedBody(f"The body is not {self._encoding}: {error}.") from error
        self._packed = self._stream.unconsumed_tail
        self._has_output = len(piece) == PIECE_BYTES and not self._stream.eof
        if self._stream.unused_data:
            raise MalformedBody(f"The body has more bytes behind its {self._encoding} stream.")
        return piece
