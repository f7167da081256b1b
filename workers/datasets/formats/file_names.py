"""Files of an archive by what annotations call them, and the split that a path speaks of."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.reading import split_of

_WORDS = re.compile(r"[a-z]+")


class FileNames:
    """Finds files by names that were written on another machine: absolute, with backslashes, or without folders."""

    def __init__(self, files: Iterable[ArchivedFile]) -> None:
        self._by_name = {file.name: file for file in files}
        self._by_base: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        for file in self._by_name.values():
            base = posixpath.basename(file.name)
            self._by_base[base].append(file)
            self._by_stem[stem_of(base)].append(file)

    def find(self, written: str, *, near: str = "", split: str | None = None) -> ArchivedFile | None:
        """The file that `written` means: below `near`, the folder of who says so, or wherever its path ends like that.

        Of several, the one with most of its folders as written, then one below `near`, then one in a folder of `split`.
        None if there is none, or if it cannot be told which.
        """
        path = _cleaned(written)
        exact = self._by_name.get(posixpath.normpath(posixpath.join(near, path))) or self._by_name.get(path)
        if exact is not None:
            return exact
        return self._likeliest(self._by_base.get(posixpath.basename(path), []), path, near=near, split=split)

    def find_stem(self, written: str, *, near: str = "", split: str | None = None) -> ArchivedFile | None:
        """As `find`, for a name with no suffix or with a wrong one."""
        path = _cleaned(written)
        base = posixpath.basename(path)
        candidates = self._by_stem.get(base) or self._by_stem.get(stem_of(base)) or []
        return self._likeliest(candidates, path, near=near, split=split)

    def _likeliest(
        self, candidates: Sequence[ArchivedFile], path: str, *, near: str, split: str | None
    ) -> ArchivedFile | None:
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        folders = posixpath.dirname(path).split("/")

        def rank(file: ArchivedFile) -> tuple[int, int, bool]:
            here = posixpath.dirname(file.name).split("/")
            return (
                _common(reversed(folders), reversed(here)),
                _common(near.split("/"), here) if near else 0,
                split is not None and split_of_path(file.name) == split,
            )

        ranked = sorted(candidates, key=rank, reverse=True)
        return None if rank(ranked[0]) == rank(ranked[1]) else ranked[0]


def stem_of(base: str) -> str:
    """`base`, a file's name without folders, without its suffix."""
    return posixpath.splitext(base)[0]


def split_of_path(name: str) -> str | None:
    """The split that a folder in `name` is called after, the outermost first: `train2017/a.jpg`, `images/val/b.jpg`."""
    return next((split for folder in name.split("/")[:-1] if (split := split_in(folder)) is not None), None)


def split_in(word: str) -> str | None:
    """The one split that `word` speaks of: `instances_val2017` of `val`, `trainval` of none."""
    found = {split for part in _WORDS.findall(word.casefold()) if (split := split_of(part)) is not None}
    return found.pop() if len(found) == 1 else None


def _cleaned(written: str) -> str:
    path = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
    return posixpath.normpath(path).lstrip("/")


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """How many parts the two begin with alike."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
