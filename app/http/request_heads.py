"""What a request's head says, as ASGI's scope has it."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

_READ_TO_THE_END_BYTES: Final = 1024**2  # a body so small costs less to read than a new connection


def header(scope: Scope, name: bytes) -> str:
    """The first of that name, which is in small letters; empty if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1").strip()
            return text
    return ""


def declared_bytes(scope: Scope) -> int:
    """Of the body; 0 where nothing is said."""
    declared = header(scope, b"content-length")
    return int(declared) if declared.isdecimal() else 0


def ends_soon(scope: Scope) -> bool:
    """Whether the body says that it is small, and comes without being called for."""
    declared: bytes = b""
    for name, value in scope["headers"]:
        if name in (b"transfer-encoding", b"expect"):
            return False
        if name == b"content-length":
            declared = value.strip()
    return not declared.isdigit() or int(declared) <= _READ_TO_THE_END_BYTES
