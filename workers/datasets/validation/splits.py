"""Chooses the images of the validation split if the archive has none."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

GroupBy = Literal["similar", "folder", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """How to choose the validation split."""

    fraction: float = 0.2  # the share of every category
    seed: int = 0
    group_by: GroupBy = "similar"  # images that stay together: near-duplicates, those of a folder, or only equal ones


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitImage:
    """What decides the split of an image."""

    label: str
    sha256: str
    group: str  # images of a group stay together; an image without a group has its sha256 here


def choose_validation(images: Iterable[SplitImage], *, fraction: float, seed: int) -> frozenset[str]:
    """Returns the groups of `images` that become the validation split.

    fraction: the share of every category, above 0 and below 1; rounded half up, at least one image but never all. If
    the groups do not add up to it, it is less, and at least the smallest group.
    A group counts for the label that most of its images have. A hash over seed and group ranks the groups. So the
    choice depends neither on names nor on the order of the archive, identical images stay together, and most images
    keep their split when others are added later.
    """
    if not 0 < fraction < 1:
        msg = f"fraction is {fraction}, but must be above 0 and below 1"
        raise ValueError(msg)
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)  # group -> label -> images
    contents: defaultdict[str, set[str]] = defaultdict(set)  # group -> different images
    for image in images:
        labels[image.group][image.label] += 1
        contents[image.group].add(image.sha256)
    groups: defaultdict[str, list[str]] = defaultdict(list)  # label -> groups
    for group, counts in labels.items():
        groups[min(counts, key=lambda label: (-counts[label], label))].append(group)
    chosen: set[str] = set()
    for of_label in groups.values():
        sizes = {group: len(contents[group]) for group in of_label}
        chosen |= _choose(sizes, fraction=fraction, seed=seed)
    return frozenset(chosen)


def _choose(sizes: dict[str, int], *, fraction: float, seed: int) -> set[str]:
    """Chooses among the groups of one label, given with their numbers of different images."""
    if len(sizes) < 2:
        return set()
    total = sum(sizes.values())
    wanted = min(max(1, math.floor(total * fraction + 0.5)), total - 1)
    ranked = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    chosen: set[str] = set()
    taken = 0
    for group in ranked:
        if taken + sizes[group] <= wanted:
            chosen.add(group)
            taken += sizes[group]
    return chosen or {min(ranked, key=lambda group: sizes[group])}
