"""Base64 as clients write it."""

from __future__ import annotations

import binascii


def bytes_of_base64(text: str) -> bytes:
    """Decodes the standard or the url-safe alphabet, with or without padding and whitespace, also as a `data:` URL.

    Raises ValueError for any other character: without that, a typo makes another image.
    """
    if text.startswith("data:"):
        text = text.partition("base64,")[2]
    text = "".join(text.split()).replace("-", "+").replace("_", "/")
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)
    return binascii.a2b_base64(text, strict_mode=True)
