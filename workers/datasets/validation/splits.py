"""Chooses the images of the validation split if the archive has none."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable


def choose_validation(images: Iterable[tuple[str, str]], *, fraction: float, seed: int) -> frozenset[tuple[str, str]]:
    """Returns the part of `images`, pairs of label and content hash, that becomes the validation split.

    fraction: the share of every category, above 0 and below 1; rounded half up, at least one image but never all.
    A hash over seed and content ranks the images. So the choice depends neither on names nor on the order of the
    archive, identical images stay together, and most images keep their split when others are added later.
    """
    if not 0 < fraction < 1:
        msg = f"fraction is {fraction}, but must be above 0 and below 1"
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
