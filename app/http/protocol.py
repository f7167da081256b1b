"""uvicorn's HTTP protocol with bounds on heads, early notice of clients that disconnect, and no upgrades.

The application does not need it: under another server, heads have that server's bounds, work for a client that
disconnected runs to its end, and `Upgrade` is what that server makes of it.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http.client_connection import ClientConnection

MOST_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 20.0
READ_OVER_S: Final = 20.0  # for the rest of a body whose request is answered
_LINGER_S: Final = 1.0  # before a connection with an endless head is closed, so that the client can read the answer

_REASON: Final = b"The request line and headers have more than %d bytes.\n" % MOST_HEAD_BYTES
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    % (len(_REASON), _REASON)
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too large, and closes a connection whose head does not arrive.

    The first head of a connection has `HEAD_TIMEOUT_S`, every other one as long from its first part. Between requests
    uvicorn's `timeout_keep_alive` runs. What arrives of a body after the answer is read and dropped for `READ_OVER_S`.
    The header `Upgrade` is ignored.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn for every connection."""
        super().__init__(*args, **kwargs)
        self.parser = _RequestParser(self)
        self._head_bytes = 0
        self._complete_heads = 0
        self._is_past_head = False
        self._is_refused = False
        self._running: RequestResponseCycle | None = None  # uvicorn itself knows only the last one of a pipeline
        self._timer: asyncio.TimerHandle | None = None
        self._client = ClientConnection()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time of the first head."""
        super().connection_made(transport)
        self._start_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what runs for the client."""
        self._stop_timer()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._client.close()

    def data_received(self, data: bytes) -> None:
        """Parses the data, and counts it when all of it belongs to a head that is not complete."""
        if self._is_refused:
            return
        heads, was_past_head = self._complete_heads, self._is_past_head
        super().data_received(data)
        if was_past_head or self._complete_heads != heads or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._is_refused = True  # the rest is read and dropped: closing now would reset the answer away
            self.transport.write(_TOO_LARGE)
            self.loop.call_later(_LINGER_S, self.transport.close)
        elif self._timer is None:
            self._start_timer(HEAD_TIMEOUT_S)

    def on_message_begin(self) -> None:
        """Parser callback: a request begins."""
        super().on_message_begin()
        self.scope["state"]["client_connection"] = self._client

    def on_headers_complete(self) -> None:
        """Parser callback: all headers have been read; the body, possibly empty, comes next."""
        if self.parser.should_upgrade():  # the same head comes again without `Upgrade`
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("CONNECT is for proxies")
            return
        self._stop_timer()
        self._head_bytes = 0
        self._complete_heads += 1
        self._is_past_head = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Parser callback: the body is complete; the next head may follow."""
        if self.parser.should_upgrade():
            return
        self._is_past_head = False
        super().on_message_complete()
        self._stop_timer()
        if self.cycle is not None and self.cycle.response_complete:  # uvicorn stopped its own timer at the last data
            self._start_timer(self.timeout_keep_alive)
        if not self.pipeline:  # uvicorn pauses behind a large body, and a paused transport reports no disconnect
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """uvicorn callback: the response has been sent, perhaps before the request was fully read."""
        super().on_response_complete()
        if self._is_past_head and self._timer is None and not self.transport.is_closing():
            self._start_timer(READ_OVER_S)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # part of the next head came during a request
            self._start_timer(HEAD_TIMEOUT_S)
        else:
            self.transport.close()


class _RequestParser(httptools.HttpRequestParser):
    """httptools' parser for a server that never changes the protocol of a connection.

    httptools takes a request with `Upgrade` for complete at the end of its head. uvicorn then drops what the segment
    has of the body, and parses the rest of the body as another request. This parser reads such a head once more without
    the header instead, and then the body.
    """

    def __init__(self, protocol: BoundedHttpProtocol) -> None:
        super().__init__(protocol)
        # As uvicorn does: a client that gets `Connection: close` may have sent its next request already.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._protocol = protocol

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        feed, parser = httptools.HttpRequestParser.feed_data, self
        while True:
            try:
                feed(parser, data)
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
                head = parser._head_without_upgrade()
                # A new one: after a request that closes its connection, the old parser reads no other.
                parser = self._protocol.parser = _RequestParser(self._protocol)
                feed(parser, head)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        start = b"%b %b HTTP/%b" % (self.get_method(), self._protocol.url, self.get_http_version().encode())
        lines = [b"%b: %b" % header for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join([start, *lines, b"", b""])
