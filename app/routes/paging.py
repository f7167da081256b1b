"""Pages of a list that is sorted by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class NamePage:
    """One page of names."""

    names: list[str]
    has_more: bool

    @property
    def next(self) -> str | None:
        return self.names[-1] if self.has_more else None


def page_of_names(names: Sequence[str], *, limit: int, after: str | None) -> NamePage:
    """The first `limit` of the sorted `names` after `after`, which need not exist any more."""
    rest = [name for name in names if after is None or name > after]
    return NamePage(names=rest[:limit], has_more=len(rest) > limit)
