"""Names inside archives: what is refused, what is skipped, and how the rest is spelled.

Every name that leaves this file is relative, has forward slashes only, no `.` or `..`, no control characters, and is
Unicode in the composed form (NFC), so that names of macOS, Windows and Linux archives compare equal.
"""

from __future__ import annotations

import re
import unicodedata

from workers.errors import UnsafeArchive

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK_FOLDERS = frozenset({"__MACOSX"})
_JUNK_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r"})
_REPACK_HINT = "Pack the folder again with an ordinary zip or tar program, without paths that lead out of it."
_SHOWN_LENGTH = 160


def clean_entry_name(name: str) -> str | None:
    """`name` as Fovea spells it; None for what operating systems leave in archives by themselves.

    Raises UnsafeArchive for absolute paths, `..` and control characters.
    """
    if name.rpartition("/")[2] == "Icon\r":  # macOS, for a folder with its own icon
        return None
    if _CONTROL.search(name):
        raise UnsafeArchive(f"A name in the archive has control characters: {shown(name)}.", hint=_REPACK_HINT)
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or _DRIVE.match(slashed):
        raise UnsafeArchive(f"The archive holds an absolute path: {shown(name)}.", hint=_REPACK_HINT)
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeArchive(f"The archive holds a path that leads out of it: {shown(name)}.", hint=_REPACK_HINT)
    if not parts or _is_junk(parts):
        return None
    return unicodedata.normalize("NFC", "/".join(parts))


def decode_entry_name(raw: bytes) -> str:
    """A name whose encoding the archive does not tell: UTF-8 if it is that, else code page 437.

    Code page 437 is what the zip format prescribes, and it gives every byte a character of its own.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def shown(name: str) -> str:
    """`name` quoted for a message: escaped, and shortened if it is long."""
    return repr(name if len(name) <= _SHOWN_LENGTH else name[:_SHOWN_LENGTH] + "…")


def _is_junk(parts: list[str]) -> bool:
    return parts[-1] in _JUNK_FILES or parts[-1].startswith("._") or not _JUNK_FOLDERS.isdisjoint(parts)
