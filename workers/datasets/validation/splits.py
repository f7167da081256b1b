"""Which images are set aside for validation, when the archive does not say."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable


def choose_validation(images: Iterable[tuple[str, str]], *, fraction: float, seed: int) -> frozenset[tuple[str, str]]:
    """The part of `images`, pairs of label and content hash, that becomes the validation split.

    `fraction` of every category, rounded half up: at least one image and never the last one. The order is that of a
    hash over seed and content, so it depends neither on names nor on the archive's order; identical images stay
    together, and when images are added later most of the others stay where they are.
    fraction: above 0 and below 1.
    """
    if not 0 < fraction < 1:
        msg = f"fraction is {fraction}; it is above 0 and below 1"
        raise ValueError(msg)
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for label, sha256 in images:
        contents[label].add(sha256)
    chosen: set[tuple[str, str]] = set()
    for label, hashes in contents.items():
        wanted = min(max(1, math.floor(len(hashes) * fraction + 0.5)), len(hashes) - 1)
        ranked = sorted(hashes, key=lambda sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).digest())
        chosen.update((label, sha256) for sha256 in ranked[:wanted])
    return frozenset(chosen)
