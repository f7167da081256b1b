"""The rule for names of models, datasets and aliases. They become directory names, so every entry point checks them."""

from __future__ import annotations

import re

from models.errors import InvalidName

MAX_NAME_LENGTH = 64
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_HINT = (
    f"Use 1 to {MAX_NAME_LENGTH} letters, digits, '-', '_' and '.', with a letter or digit first and last "
    "and no two dots in a row, for instance 'ants-bees'."
)


def checked_name(name: str, *, kind: str) -> str:
    """Returns `name` if it can be the name of a `kind` ("model", "dataset", "alias").

    Raises InvalidName.
    """
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name) or ".." in name:
        shown = name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH] + "…"
        raise InvalidName(f"{shown!r} cannot be a {kind} name.", hint=_HINT)
    return name
