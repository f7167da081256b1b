"""Paged lists, and names as segments of paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import quote

from app.schemas.page import Page

Item = TypeVar("Item")
PAGE_LIMIT = 100


def items(page_after: Callable[[str | None], Page[Item]]) -> Iterator[Item]:
    """The items of all pages. Each page is fetched when the previous one is used up."""
    after: str | None = None
    while True:
        page = page_after(after)
        yield from page.data
        if not page.has_more or page.next is None:
            return
        after = page.next


def segment(name: str) -> str:
    """`name` as one segment of a path, with any characters. The server validates it."""
    return quote(name, safe="")
