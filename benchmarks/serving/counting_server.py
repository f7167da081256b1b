"""`python -m benchmarks.serving.counting_server PORT`: reads requests and counts their bytes.

What the load generator costs by itself is measured against it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.serving.load import HOST


class _Counting(asyncio.Protocol):
    def __init__(self) -> None:
        self._head = bytearray()
        self._missing_bytes: int | None = None
        self._counted_bytes = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._counted_bytes += len(data)
        if self._missing_bytes is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            _, _, after = bytes(self._head[:end]).lower().partition(b"\r\ncontent-length:")
            self._missing_bytes = int(after.partition(b"\r\n")[0] or 0) - (len(self._head) - end - 4)
        else:
            self._missing_bytes -= len(data)
        if self._missing_bytes <= 0 and self._transport is not None:
            body = b'{"bytes": %d}' % self._counted_bytes
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            self._head.clear()
            self._missing_bytes, self._counted_bytes = None, 0


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Counting, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(_serve(int(sys.argv[1])))
