"""Messages over a stream. A message is a JSON object and the bytes that it carries."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any, cast

Message = dict[str, Any]

_HEAD = struct.Struct("<II")  # bytes of the JSON, bytes carried


class Wire(asyncio.Protocol):
    """One end of a stream. It runs on the event loop and awaits nothing, so a message costs one turn of the loop."""

    def __init__(self, on_message: Callable[[Message, bytearray], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def send(self, message: Message, carried: bytes | bytearray = b"") -> None:
        """Sends a message. Does nothing if the connection is lost; `on_lost` has told of that."""
        if self._transport is not None and not self._transport.is_closing():
            text = json.dumps(message, separators=(",", ":")).encode()
            self._transport.write(b"".join((_HEAD.pack(len(text), len(carried)), text, carried)))

    def close(self) -> None:
        """Ends the stream at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received += data
        start = 0
        while len(self._received) - start >= _HEAD.size:
            text_bytes, carried_bytes = _HEAD.unpack_from(self._received, start)
            text_at = start + _HEAD.size
            carried_at = text_at + text_bytes
            end = carried_at + carried_bytes
            if len(self._received) < end:
                break
            # these slices are copies: tensors keep the bytes that a message carries
            self._on_message(json.loads(self._received[text_at:carried_at]), self._received[carried_at:end])
            start = end
        del self._received[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See asyncio.Protocol."""
        self._transport = None
        self._on_lost()
