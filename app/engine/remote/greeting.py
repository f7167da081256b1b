"""The handshake: each end sends the descriptor of its arena over a Unix socket that only their user can open."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress

_MAGIC = b"fovea/1\n"  # the version of the messages. The ends differ only if an operator mixes releases
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of unix(7)


async def exchange_arenas(link: socket.socket, descriptor: int) -> int:
    """Sends the descriptor of this arena and returns that of the other. `link` must not block.

    Raises ConnectionError if the other end is closed, belongs to another user, or is not this release of Fovea.
    """
    _, uid, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid != os.geteuid():
        msg = f"the other end of the engine's socket belongs to user {uid}, not to user {os.geteuid()}"
        raise ConnectionRefusedError(msg)
    socket.send_fds(link, [_MAGIC], [descriptor])
    await _readable(link)
    said, descriptors, _, _ = socket.recv_fds(link, len(_MAGIC), 1)
    if said == _MAGIC and len(descriptors) == 1:
        return descriptors[0]
    for received in descriptors:
        os.close(received)
    msg = "the other end of the engine's socket is another release" if said else "the other end is closed"
    raise ConnectionAbortedError(msg)


async def _readable(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(link.fileno(), is_readable.set)
    try:
        await is_readable.wait()
    finally:
        with suppress(OSError, ValueError):
            loop.remove_reader(link.fileno())
