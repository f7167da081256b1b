"""Finds files that look like the annotations of an archive's images, although no format could read them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from workers.datasets.archives.archive import ArchivedFile

_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".txt")
_PER_IMAGE_SUFFIXES = (".json", ".xml")
_PROSE = re.compile(r"(readme|licen[cs]e|copying|changelog|notice|citation|authors?)\b.*", re.IGNORECASE)
_MAX_BYTES = 16 * 2**20  # of a file; the rest is not looked at
_TOKEN = re.compile(r"[^\s\"'<>,;:=\[\]{}()|\\/]+")
_SHARE = 0.2  # of the images; fewer names are examples in a text
_ENOUGH = 10  # names that are more than examples
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadAnnotations:
    """Files that name images."""

    lists: tuple[ArchivedFile, ...] = ()  # each names many images
    per_image: tuple[ArchivedFile, ...] = ()  # each is named like an image, and is JSON or XML

    @property
    def files(self) -> tuple[ArchivedFile, ...]:
        """All of them."""
        return (*self.lists, *self.per_image)


def find_unread(
    others: Iterable[ArchivedFile], images: Sequence[ArchivedFile], *, used: Collection[str] = ()
) -> UnreadAnnotations:
    """Looks among `others`, the files that are not images, for those that name `images`.

    used: names of files that were read.
    """
    bases = {_base(image.name) for image in images}
    stems = {base.rpartition(".")[0] or base for base in bases}
    needed = max(2, min(_ENOUGH, len(bases) * _SHARE))
    lists, per_image = [], []
    for file in others:
        base = _base(file.name)
        is_hidden = any(part.startswith(".") for part in file.name.split("/"))
        if file.name in used or is_hidden or not base.endswith(_SUFFIXES) or _PROSE.fullmatch(base):
            continue
        if base.endswith(_PER_IMAGE_SUFFIXES) and base.rpartition(".")[0] in stems:
            per_image.append(file)
        elif _names_enough(file, bases, stems, needed):
            lists.append(file)
    return UnreadAnnotations(lists=tuple(lists), per_image=tuple(per_image) if len(per_image) > 1 else ())


def _names_enough(file: ArchivedFile, bases: set[str], stems: set[str], needed: float) -> bool:
    found: set[str] = set()
    for match in _TOKEN.finditer(_text(file)):
        token = match.group().casefold()
        # A number alone names no image: any table contains numbers.
        if token in bases or (token in stems and len(token) > 3 and (_LETTER.search(token) or len(token) > 5)):
            found.add(token.rpartition(".")[0] or token)
            if len(found) >= needed:
                return True
    return False


def _text(file: ArchivedFile) -> str:
    with file.path.open("rb") as content:
        data = content.read(_MAX_BYTES)
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8", errors="replace")


def _base(name: str) -> str:
    return name.rpartition("/")[2].casefold()
