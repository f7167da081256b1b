"""Rules for names inside archives: which are refused, which are skipped, and how the rest is spelled.

Every name that leaves this file is relative, has only forward slashes, no `.`, no `..` and no control characters. It is
Unicode in the composed form (NFC), so names from macOS, Windows and Linux archives compare equal.
"""

from __future__ import annotations

import re
import unicodedata

from workers.errors import UnsafeArchive

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK_FOLDERS = frozenset({"__MACOSX"})
_JUNK_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r"})
_REPACK_HINT = "Pack the folder again with an ordinary zip or tar program. All paths must stay inside the folder."
_SHOWN_LENGTH = 160


def clean_entry_name(name: str) -> str | None:
    """Returns `name` as Fovea spells it, or None for a file that an operating system added by itself.

    Raises UnsafeArchive for absolute paths, `..` and control characters.
    """
    if name.rpartition("/")[2] == "Icon\r":  # macOS, for a folder with its own icon
        return None
    if _CONTROL.search(name):
        raise UnsafeArchive(f"A name in the archive contains control characters: {quoted(name)}.", hint=_REPACK_HINT)
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or _DRIVE.match(slashed):
        raise UnsafeArchive(f"The archive contains an absolute path: {quoted(name)}.", hint=_REPACK_HINT)
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeArchive(f"The archive contains a path that leads out of it: {quoted(name)}.", hint=_REPACK_HINT)
    if not parts or _is_junk(parts):
        return None
    return unicodedata.normalize("NFC", "/".join(parts))


def decode_entry_name(raw: bytes) -> str:
    """Decodes a name whose encoding the archive does not state: as UTF-8 if it is valid UTF-8, else as code page 437.

    The zip format prescribes code page 437, in which every byte is a character.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def quoted(name: str) -> str:
    """Quotes `name` for a message: escaped, and shortened if it is long."""
    return repr(name if len(name) <= _SHOWN_LENGTH else name[:_SHOWN_LENGTH] + "…")


def _is_junk(parts: list[str]) -> bool:
    return parts[-1] in _JUNK_FILES or parts[-1].startswith("._") or not _JUNK_FOLDERS.isdisjoint(parts)
