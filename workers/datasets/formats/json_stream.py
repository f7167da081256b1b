"""Reads large JSON files item by item: memory holds the text and one item, not a tree of millions of objects.

The scanner of the standard library parses each item, and every error states its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


class BadJson(ValueError):
    """The file is not valid JSON; `str()` states the reason, and `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class JsonFile:
    """A JSON object whose values are lists of items."""

    def __init__(self, path: Path) -> None:
        """Reads the text of the file. Raises BadJson if it is not UTF-8."""
        data = path.read_bytes()
        try:
            self._text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadJson("it is not UTF-8", data.count(b"\n", 0, error.start) + 1) from error
        self._decoder = json.JSONDecoder()
        self._line, self._line_at = 1, 0

    def items(self, keys: Collection[str]) -> Iterator[tuple[str, Any, int]]:
        """Yields the key, the item and the line of each item of the lists under `keys`, in the order of the file.

        Everything else is parsed and dropped, lists item by item. Raises BadJson.
        """
        at = self._expect("{", self._skip(0))
        at = self._skip(at)
        if self._char(at) != "}":
            while True:
                key, at = self._key(at)
                if self._char(at) == "[":
                    at = yield from self._list(key, at, is_wanted=key in keys)
                else:
                    _, at = self._value(at)
                at = self._skip(at)
                if self._char(at) != ",":
                    break
                at = self._skip(at + 1)
        end = self._skip(self._expect("}", at))
        if end < len(self._text):
            raise self._error("the file goes on after the end of the JSON object", end)

    def _list(self, key: str, at: int, *, is_wanted: bool) -> Generator[tuple[str, Any, int], None, int]:
        at = self._skip(at + 1)
        if self._char(at) == "]":
            return at + 1
        while True:
            start = at
            item, at = self._value(at)
            if is_wanted:
                yield key, item, self._line_of(start)
            at = self._skip(at)
            if self._char(at) != ",":
                return self._expect("]", at)
            at = self._skip(at + 1)

    def _key(self, at: int) -> tuple[str, int]:
        if self._char(at) != '"':
            raise self._error("the file ends early" if at >= len(self._text) else "expected a key in quotes", at)
        key, at = self._value(at)
        assert isinstance(key, str)
        return key, self._skip(self._expect(":", self._skip(at)))

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            is_end = error.pos >= len(self._text.rstrip())
            raise self._error("the file ends early" if is_end else error.msg, error.pos) from error
        except RecursionError as error:
            raise self._error("lists or objects are nested too deep", at) from error
        except ValueError as error:  # a number with thousands of digits
            raise self._error(str(error), at) from error

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()

    def _char(self, at: int) -> str:
        return self._text[at : at + 1]

    def _expect(self, character: str, at: int) -> int:
        if self._char(at) != character:
            raise self._error("the file ends early" if at >= len(self._text) else f"expected {character}", at)
        return at + 1

    def _line_of(self, at: int) -> int:
        """Returns the line of a position; fast if the positions of successive calls increase."""
        if at < self._line_at:
            self._line, self._line_at = 1, 0
        self._line += self._text.count("\n", self._line_at, at)
        self._line_at = at
        return self._line

    def _error(self, message: str, at: int) -> BadJson:
        return BadJson(message[:1].lower() + message[1:], self._line_of(min(at, len(self._text))))
