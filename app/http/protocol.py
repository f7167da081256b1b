"""uvicorn's HTTP protocol with bounds on what comes before a body, a gate, and word of clients that go.

uvicorn reads heads of any length, for any time, and makes a task for every one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.http.disconnects import Departure
from app.http.gate import GATE, Gate, Refusal
from app.http.request_heads import ends_soon

log = logging.getLogger(__name__)

MOST_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 20.0
READ_OVER_S: Final = 20.0  # what comes of a request that is answered
_LINGER_S: Final = 2.0
_LINGER_AFTER_HEAD_S: Final = 1.0  # whoever sends a head without an end would hear nothing anyway

_REASON: Final = b"The request line and headers have more than %d bytes.\n" % MOST_HEAD_BYTES
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    % (len(_REASON), _REASON)
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 to a head that is too large, and closes a connection whose head does not come.

    A connection has `HEAD_TIMEOUT_S` for its first request, and for every other from the first part of its head;
    between requests it has uvicorn's `timeout_keep_alive`.

    Requests that the application's gate refuses are answered here. What still comes of a request that is answered is
    read over, for `READ_OVER_S`. Where that is much, has no length, or has yet to be called for, the connection of a
    refused one is closed after it, or after a moment: closed under a client that still sends it would be reset, and the
    answer lost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As uvicorn makes it, for every connection."""
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._heads = 0  # that are complete
        self._is_past_head = False
        self._is_refused = False
        self._is_last = False  # the request that is being read
        self._is_answering = False
        self._running: RequestResponseCycle | None = None  # those behind it wait; uvicorn knows the last one only
        self._timer: asyncio.TimerHandle | None = None
        self._departure = Departure()
        self._gate: Gate | None = self.app_state.get(GATE)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Time runs from here."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left behind."""
        self._stop_timer()
        if self._running is not None and not self._running.response_complete:  # it may wait to write
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        self._departure.happen()

    def data_received(self, data: bytes) -> None:
        """Parses it, and counts it if all of it is of a head that goes on."""
        if self._is_refused:
            return
        heads, was_past_head = self._heads, self._is_past_head
        super().data_received(data)
        if was_past_head or self._heads != heads or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._is_refused = True  # what still comes is read over: a reset would take the answer along
            self.transport.write(_TOO_LARGE)
            self.loop.call_later(_LINGER_AFTER_HEAD_S, self.transport.close)
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def on_message_begin(self) -> None:
        """The parser's: a request begins."""
        super().on_message_begin()
        self.scope["state"]["departure"] = self._departure

    def on_headers_complete(self) -> None:
        """The parser's: a body follows, were it empty."""
        self._stop_timer()
        self._head_bytes = 0
        self._heads += 1
        self._is_past_head = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser's: the next head may follow."""
        self._is_past_head = False
        super().on_message_complete()
        if self._is_last:
            self.transport.close()
            return
        self._stop_timer()
        if self.cycle is not None and self.cycle.response_complete:  # it was read over
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if not self.pipeline:  # uvicorn goes on reading only when it is asked for more, and then no departure is seen
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """uvicorn's: an answer is out, were it before the request's end."""
        super().on_response_complete()
        if self._is_past_head and self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(READ_OVER_S, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's, to what is no HTTP. The last request was answered already."""
        if self._is_last:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """uvicorn's, when the head is read and the requests before it are answered."""
        if self._is_last or self.transport.is_closing():  # nobody would hear of it
            return
        if self._is_answering:  # one of many that were sent together: they would go deeper and deeper
            self.loop.call_soon(self._start_asgi_task, cycle, app)
            return
        refusal = self._refusal(cycle)
        if refusal is not None:
            self._answer_at_once(cycle, refusal)
            return
        self._unset_keepalive_if_required()  # a refusal may have been answered in the same part of the stream
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refusal(self, cycle: RequestResponseCycle) -> Refusal | None:
        if self._gate is None or self.flow.write_paused:  # answers that nobody takes would pile up: a task waits
            return None
        scope: Any = cycle.scope
        try:
            _look_behind_proxies(scope, self.config)
            return self._gate.refusal(scope)
        except Exception:  # nobody is kept out by it: the engine refuses whom it must
            log.exception("the gate broke, and the request went on")
            return None

    def _answer_at_once(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        scope: Any = cycle.scope
        self._is_last = not (cycle.keep_alive and ends_soon(scope))
        lines = [STATUS_LINE[refusal.status], *(b"%b: %b\r\n" % header for header in cycle.default_headers)]
        lines += [refusal.header_lines, b"connection: close\r\n" if self._is_last else b"", b"\r\n", refusal.body]
        self.transport.write(b"".join(lines))
        cycle.response_complete = True
        if not self._is_last:
            self._is_answering = True
            self.on_response_complete()
            self._is_answering = False
        elif self._is_past_head:
            self.flow.resume_reading()
            self.loop.call_later(_LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # the next request came early, and not whole
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)
        else:
            self.transport.close()


def _look_behind_proxies(scope: Scope, config: Config) -> None:
    """Puts the client there, as uvicorn does before the application; doing it twice does no harm."""
    if config.proxy_headers and any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"]):
        looking = _proxies(config)(scope, None, None)
        with suppress(StopIteration):  # it waits for nothing
            looking.send(None)


@lru_cache(maxsize=8)
def _proxies(config: Config) -> Any:
    async def nothing(*_: Any) -> None:
        pass

    return ProxyHeadersMiddleware(nothing, trusted_hosts=config.forwarded_allow_ips)
