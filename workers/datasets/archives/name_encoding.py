"""Finds out in which encoding an old zip program wrote the names of an archive, which the archive does not state.

The names that the annotations use decide. If they say nothing, it is the code page in which most of the letters are
usual ones: box-drawing characters and rare ideographs show a wrong guess.
Source of the ranges: GB 2312, KS X 1001, Big5 and JIS X 0208 put their usual characters into the rows named below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_SAMPLE_NAMES = 30  # names that are looked for in the annotations
_SAMPLE_BYTES = 2**16  # of names, for the guess
_GOOD_SHARE = 0.8  # of the letters are usual ones if the encoding is right
_FEW_CHARACTERS = 8  # so few hangul may also be hanzi
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_STANDARD = "cp437"  # what the zip format prescribes; every byte is a character
_HIGH = re.compile(rb"[\x80-\xff]")


@dataclass(frozen=True, slots=True)
class NameEncoding:
    """The encoding of the names without a stated one, and what it was taken from."""

    name: str  # as Python calls it
    reason: str


@dataclass(frozen=True, slots=True)
class _CodePage:
    name: str
    usual: Callable[[bytes], tuple[int, int]]  # the bytes of a name -> usual letters, all letters beyond ASCII


def is_undecided(raw: bytes) -> bool:
    """Returns True for a name that is neither ASCII nor UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def decoded(raw: bytes, encoding: NameEncoding | None) -> str:
    """Decodes a name; if `encoding` is None or does not fit it, as UTF-8."""
    try:
        return raw.decode(encoding.name if encoding is not None else "utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8")


def find_name_encoding(names: Sequence[bytes], texts: Iterable[bytes]) -> NameEncoding:
    """Returns the encoding of `names`, of which at least one is undecided.

    texts: the annotation files of the archive, or the beginnings of large ones.
    """
    undecided = [name for name in dict.fromkeys(names) if is_undecided(name)]
    decodable = [page for page in _PAGES if _decodes(undecided, page.name)]
    found = _in_texts(undecided, decodable, texts)
    if found is not None:
        return NameEncoding(found, "the annotations have these names")
    shares = {page.name: _share(undecided, page) for page in decodable}
    best = max(shares, key=lambda name: shares[name], default=_STANDARD)
    if shares.get(best, 0.0) < _GOOD_SHARE:
        return NameEncoding(_STANDARD, "no other code page fits, so the names may be wrong")
    return NameEncoding(best, "its letters fit best")


def _in_texts(names: Sequence[bytes], pages: Sequence[_CodePage], texts: Iterable[bytes]) -> str | None:
    bases = [name.rsplit(b"/", 1)[-1].rsplit(b"\\", 1)[-1] for name in names]
    bases = [base.rsplit(b".", 1)[0] for base in dict.fromkeys(bases) if _HIGH.search(base)][:_SAMPLE_NAMES]
    counts = dict.fromkeys((page.name for page in pages), 0)
    for content in texts:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), content.decode("utf-8", errors="replace"))
        for name in counts:
            counts[name] += sum(base.decode(name) in text for base in bases)
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and counts[best] else None


def _decodes(names: Sequence[bytes], encoding: str) -> bool:
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _share(names: Sequence[bytes], page: _CodePage) -> float:
    usual = total = seen = 0
    for part in dict.fromkeys(part for name in names for part in re.split(rb"[/\\]", name) if _HIGH.search(part)):
        found, letters = page.usual(part)
        usual, total, seen = usual + found, total + letters, seen + len(part)
        if seen > _SAMPLE_BYTES:
            break
    if page.name == "cp949" and total < _FEW_CHARACTERS:
        return 0.0
    return usual / total if total else 0.0


def _rows(encoding: str, lead: tuple[int, int], trail: tuple[int, int] = (0xA1, 0xFE)) -> _CodePage:
    """A code page of two bytes per letter, whose usual letters have these first and second bytes."""

    def count(part: bytes) -> tuple[int, int]:
        usual = total = 0
        for character in part.decode(encoding):
            written = character.encode(encoding)
            if not character.isascii():
                total += 1
                usual += len(written) == 2 and lead[0] <= written[0] <= lead[1] and trail[0] <= written[1] <= trail[1]
        return usual, total

    return _CodePage(encoding, count)


def _japanese(part: bytes) -> tuple[int, int]:
    usual = total = 0
    for character in part.decode("cp932"):
        written = character.encode("cp932")
        if not character.isascii():
            total += 1
            usual += len(written) == 2 and (0x88 <= written[0] <= 0x97 or "\u3041" <= character <= "\u30fe")
    return usual, total


def _words(encoding: str, letters: str) -> _CodePage:
    """A code page of one byte per letter: usual are its letters in words that are written as people write them."""
    word = re.compile(r"[^\W\d_]+")
    own = re.compile(rf"[A-Za-z{letters}]+")

    def count(part: bytes) -> tuple[int, int]:
        text = part.decode(encoding)
        total = sum(not character.isascii() for character in text)
        usual = 0
        for match in word.findall(text):
            high = sum(not character.isascii() for character in match)
            is_latin = encoding != "cp866"
            is_plain = bool(own.fullmatch(match)) and (match.islower() or match.isupper() or match.istitle())
            if is_plain and (not is_latin or 2 * high <= len(match)):
                usual += high
        return usual, total

    return _CodePage(encoding, count)


_PAGES = (
    _rows("cp949", (0xB0, 0xC8)),  # the hangul of KS X 1001; all of them may be hanzi, too, so this comes before GBK
    _rows("gbk", (0xB0, 0xD7)),  # the 3,755 most frequent characters of GB 2312
    _CodePage("cp932", _japanese),
    _rows("big5", (0xA4, 0xC6), (0x40, 0xFE)),
    _words("cp866", "А-яЁё"),  # noqa: RUF001 - Cyrillic
    _words("cp437", "À-ÖØ-öø-ÿ"),
    _words("cp850", "À-ÖØ-öø-ÿ"),
)
