"""Finds files of an archive by the names that annotations use, and the split that a path names."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.reading import split_from_word

_WORDS = re.compile(r"[a-z]+")


class FileNames:
    """Finds files by names from another machine: absolute paths, backslashes, or names without folders."""

    def __init__(self, files: Iterable[ArchivedFile]) -> None:
        self._by_name = {file.name: file for file in files}
        self._by_base: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        for file in self._by_name.values():
            self._by_base[posixpath.basename(file.name)].append(file)
            self._by_stem[stem_of(file.name)].append(file)

    def find(self, written: str, *, near: str = "", split: str | None = None) -> ArchivedFile | None:
        """Finds the file that `written` means: relative to `near` or to the archive, else any file of the same name.

        near: the folder of the annotation that names the file.
        Of several candidates, the one that shares most folders with `written` wins, then the one that shares most
        folders with `near`, then the one in a folder of `split`. Returns None if there is no single best one.
        """
        path = _cleaned(written)
        exact = self._by_name.get(posixpath.normpath(posixpath.join(near, path))) or self._by_name.get(path)
        if exact is not None:
            return exact
        return self._best_match(self._by_base.get(posixpath.basename(path), []), path, near=near, split=split)

    def find_stem(self, written: str, *, near: str = "", split: str | None = None) -> ArchivedFile | None:
        """Finds a file as `find` does, but ignores suffixes: the name may have none, or a wrong one."""
        path = _cleaned(written)
        base = posixpath.basename(path)
        candidates = self._by_stem.get(base) or self._by_stem.get(stem_of(base)) or []
        return self._best_match(candidates, path, near=near, split=split)

    def _best_match(
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
                split is not None and split_in_path(file.name) == split,
            )

        ranked = sorted(candidates, key=rank, reverse=True)
        return None if rank(ranked[0]) == rank(ranked[1]) else ranked[0]


def stem_of(name: str) -> str:
    """The name of a file without its folders and its suffix: `b` of `a/b.jpg`."""
    return posixpath.splitext(posixpath.basename(name))[0]


def split_in_path(name: str) -> str | None:
    """Returns the split that a folder of `name` names, the outermost first: `train2017/a.jpg`, `images/val/b.jpg`."""
    return next((split for folder in name.split("/")[:-1] if (split := split_in_word(folder)) is not None), None)


def split_in_word(word: str) -> str | None:
    """Returns the one split that `word` contains: `val` for `instances_val2017`, None for `trainval`."""
    found = {split for part in _WORDS.findall(word.casefold()) if (split := split_from_word(part)) is not None}
    return found.pop() if len(found) == 1 else None


def _cleaned(written: str) -> str:
    path = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
    return posixpath.normpath(path).lstrip("/")


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Returns how many parts are equal before the first difference."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
