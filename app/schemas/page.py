"""Lists come in pages: `?limit=20&after=<id>` leads to the next one."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """A slice of a list."""

    data: list[Item]
    has_more: bool = Field(description="Whether anything comes after this page.")
    next: str | None = Field(description="The `after` of the next page; null on the last one.")
