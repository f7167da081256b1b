"""Parses untrusted XML into a tree whose elements know their lines.

Only elements, their attributes and text are read. A document that declares entities is refused, so no entity can expand
without limit or read another file (OWASP, "XML External Entity Prevention"; the billion laughs attack).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*(["'])([A-Za-z][A-Za-z0-9._-]{0,40})\1""")
_KNOWN_TO_EXPAT = (b"utf-8", b"utf8", b"utf-16", b"us-ascii", b"iso-8859-1")
_MAX_DEPTH = 50  # nested elements
_MAX_TEXT = 10_000  # characters per element; the rest is dropped


class BadXml(ValueError):
    """The document is not well-formed, or it contains something that is refused; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Element:
    """An element with its attributes and children."""

    tag: str
    line: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """The children with this tag."""
        return (child for child in self.children if child.tag == tag)

    def find(self, path: str) -> Element | None:
        """The first descendant at `path`: `size/width`."""
        tag, _, rest = path.partition("/")
        for child in self.all(tag):
            if not rest:
                return child
            found = child.find(rest)
            if found is not None:
                return found
        return None

    def find_text(self, path: str) -> str | None:
        """The stripped text of the first descendant at `path`; None if there is no such descendant or no text."""
        found = self.find(path)
        return found.text.strip() or None if found is not None else None


def parse_xml(data: bytes) -> Element:
    """Returns the root element of the document. Raises BadXml."""
    return _TreeBuilder().parse(data)


def _as_utf8(data: bytes) -> bytes:
    """Returns a document in an encoding that expat does not know, such as GBK, as UTF-8. Raises BadXml."""
    declared = _DECLARATION.match(data)
    if declared is None or declared[2].lower() in _KNOWN_TO_EXPAT:
        return data
    encoding = declared[2].decode("ascii")
    try:
        text = data.decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise BadXml(f"it is not in the encoding that it declares, {encoding}; save it as UTF-8", 1) from error
    return text.replace(encoding, "utf-8", 1).encode("utf-8", errors="replace")


class _TreeBuilder:
    def __init__(self) -> None:
        self._root: Element | None = None
        self._open: list[Element] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._refuse_entity

    def parse(self, data: bytes) -> Element:
        try:
            self._parser.Parse(_as_utf8(data), True)
        except expat.ExpatError as error:
            raise BadXml(expat.ErrorString(error.code), error.lineno) from error
        except (LookupError, ValueError) as error:  # an unknown encoding
            if isinstance(error, BadXml):
                raise
            raise BadXml(str(error), self._parser.CurrentLineNumber) from error
        assert self._root is not None
        return self._root

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise BadXml(f"elements are nested more than {_MAX_DEPTH} levels deep", self._parser.CurrentLineNumber)
        element = Element(tag, self._parser.CurrentLineNumber, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if len(self._open[-1].text) < _MAX_TEXT:
            self._open[-1].text += text

    def _refuse_entity(self, *_: object) -> None:
        raise BadXml("it declares entities, which Fovea does not allow", self._parser.CurrentLineNumber)
