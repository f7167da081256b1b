"""Finds files of an archive by the names that annotations use, and the split that a path names."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.reading import split_from_word

_WORDS = re.compile(r"[a-z]+")
# Of files that fit equally well, the one in such a folder is the image: VOC's convention, and the one of most others.
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")


class FileNames:
    """Finds files by names from another machine: absolute paths, backslashes, or names without folders.

    A name is looked for as it is written, then without its folders, then without regard to case, then without its
    suffix. The first of these steps that finds files decides.
    """

    def __init__(self, files: Iterable[ArchivedFile]) -> None:
        self._by_name = {file.name: file for file in files}
        self._by_base = self._index(posixpath.basename)
        self._by_folded = self._index(lambda name: posixpath.basename(name).casefold())
        self._by_stem = self._index(lambda name: stem_of(name).casefold())

    def find(self, written: str, *, near: str = "", split: str | None = None) -> ArchivedFile | None:
        """Finds the file that `written` means: relative to `near` or to the archive, else any file of the same name.

        near: the folder of the annotation that names the file.
        Of several candidates, the one that shares most folders with `written` wins, then the one that shares most
        folders with `near`, then the one in a folder of `split`, then the one in a folder for images. Returns None if
        there is no single best one, unless the best ones have the same content.
        """
        best = self._best(written, near, split)
        return best[0] if len({file.sha256 for file in best}) == 1 else None

    def tied(self, written: str, *, near: str = "", split: str | None = None) -> tuple[str, ...]:
        """Returns the names of the files that `written` may mean, if `find` cannot choose among them; else none."""
        best = self._best(written, near, split)
        return tuple(file.name for file in best) if len({file.sha256 for file in best}) > 1 else ()

    def is_exact(self, written: str, file: ArchivedFile) -> bool:
        """Returns True if `written` has the same folders as `file`, or no others, and differs neither in case."""
        path = _cleaned(written)
        return f"/{path}".endswith(f"/{file.name}") or f"/{file.name}".endswith(f"/{path}")

    def _index(self, key: Callable[[str], str]) -> dict[str, list[ArchivedFile]]:
        index: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        for file in self._by_name.values():
            index[key(file.name)].append(file)
        return index

    def _best(self, written: str, near: str, split: str | None) -> list[ArchivedFile]:
        path = _cleaned(written)
        exact = self._by_name.get(posixpath.normpath(posixpath.join(near, path))) or self._by_name.get(path)
        if exact is not None:
            return [exact]
        base = posixpath.basename(path)
        candidates = (
            self._by_base.get(base)
            or self._by_folded.get(base.casefold())
            or self._by_stem.get(base.casefold())
            or self._by_stem.get(stem_of(base).casefold())
            or []
        )
        if len(candidates) < 2:
            return candidates
        ranks = [_rank(file, path, near, split) for file in candidates]
        return [file for file, rank in zip(candidates, ranks, strict=True) if rank == max(ranks)]


def missing_findings(missing: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Findings about names of images that annotations write. missing: name -> the files that it may mean, or none."""
    unknown = [written for written, tied in missing.items() if not tied]
    findings = []
    if unknown:
        text = f"{counted(len(unknown), 'listed image')} not found in the archive."
        findings.append(finding("error", "missing_images", text, unknown))
    ambiguous = [written for written, tied in missing.items() if tied]
    if ambiguous:
        first, *others = missing[ambiguous[0]]
        text = (
            f"{counted(len(ambiguous), 'listed image')} left out: several files of the archive have the name. The "
            f"first, {ambiguous[0]!r}, may be {first} or {' or '.join(others[:3])}. Write the folders of the image, or "
            "leave the other files out of the archive."
        )
        findings.append(finding("error", "ambiguous_images", text, ambiguous))
    return findings


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


def _rank(file: ArchivedFile, path: str, near: str, split: str | None) -> tuple[int, int, bool, bool]:
    here = posixpath.dirname(file.name).casefold().split("/")
    return (
        _common(reversed(posixpath.dirname(path).casefold().split("/")), reversed(here)),
        _common(near.casefold().split("/"), here) if near else 0,
        split is not None and split_in_path(file.name) == split,
        any(folder in _IMAGE_FOLDERS for folder in here),
    )


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
