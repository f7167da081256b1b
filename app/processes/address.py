"""Addresses of servers: free ports, sockets, URLs."""

from __future__ import annotations

import errno
import os
import socket
import tempfile

from app.processes.errors import PortTaken

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (not listened on)
_LONGEST_PARENT = 60  # bytes


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on. Another process may take it before it is used, which is rare."""
    with bound_socket(host, 0) as held:
        port: int = held.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Raises PortTaken if a server could not listen there."""
    if port:
        with bound_socket(host, port) as held:
            held.listen()


def base_url(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on `host`."""
    reachable = _EVERYWHERE.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def bound_socket(host: str, port: int, *, shares_port: bool = False) -> socket.socket:
    """A TCP socket that is bound but does not listen. shares_port: other sockets may use the port too.

    Raises PortTaken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortTaken(f"{host!r} is not an address of this machine ({error.strerror}).", hint=_HOST_HINT) from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _refusal(host, port, error) from error
    return bound


_HOST_HINT = "Use --host 127.0.0.1 for this machine only, or 0.0.0.0 for all its interfaces."


def _refusal(host: str, port: int, error: OSError) -> PortTaken:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"Port {port} on {host} is taken by another process.",
            hint="Stop it, choose another with --port (FOVEA_PORT), or let --port 0 find a free one.",
        )
    if error.errno == errno.EACCES:
        return PortTaken(
            f"Port {port} needs privileges that this user lacks.", hint="Choose one above 1023 with --port."
        )
    return PortTaken(f"Nothing can listen on {host}:{port} ({error.strerror}).", hint=_HOST_HINT)


def sockets_parent() -> str:
    """The parent for directories of Unix sockets, whose paths have at most 108 bytes (104 on macOS)."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST_PARENT else "/tmp"  # noqa: S108 -- only for what mkdtemp makes there
