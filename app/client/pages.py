"""Lists that come in pages, and names that go into paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import quote

from app.schemas.page import Page

Item = TypeVar("Item")
PAGE_LIMIT = 100


def items(page_after: Callable[[str | None], Page[Item]]) -> Iterator[Item]:
    """The items of every page; a page is fetched when the one before is used up."""
    after: str | None = None
    while True:
        page = page_after(after)
        yield from page.data
        if not page.has_more or page.next is None:
            return
        after = page.next


def segment(name: str) -> str:
    """`name` as one segment of a path, whatever it holds; the server judges it."""
    return quote(name, safe="")
