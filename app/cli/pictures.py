"""Images named, or below directories named, found one after the other: nothing is listed in advance."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.datasets.archives.signatures import HEAD_BYTES, image_kind, is_unreadable_image, suffix_kind


class Pictures:
    """The images that a command is given: files, directories, or both. May be iterated over more than once."""

    def __init__(self, arguments: Sequence[Path]) -> None:
        self._arguments = arguments
        self._is_one_directory = len(arguments) == 1 and arguments[0].is_dir()

    @property
    def directory(self) -> Path:
        """What names are relative to."""
        return (self._arguments[0] if self._is_one_directory else Path()).resolve()

    def name(self, picture: Path) -> str:
        """Its path below the only directory that was given; else its path as it was given."""
        if self._is_one_directory:
            return picture.relative_to(self._arguments[0]).as_posix()
        return os.path.normpath(picture)

    def walk(self, walk: Walk, *, but: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Each of them once. `walk` hears what is left out; see `Walk.pictures`."""
        seen: set[str] = set()
        for argument in self._arguments:
            for picture in walk.pictures(argument, but=but) if argument.is_dir() else (argument,):
                if not self._is_one_directory:  # there, each is found once anyway
                    name = self.name(picture)
                    if name in seen:
                        continue
                    seen.add(name)
                yield picture


@dataclass(kw_only=True)
class Walk:
    """One walk through directories, and what it left out on its way."""

    others: int = 0  # files that are no images by suffix and content, or hidden
    linked_directories: int = 0  # not followed: no loops, and no image twice
    unreadable_directories: list[str] = field(default_factory=list)  # with the reason

    def pictures(self, directory: Path, *, but: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Images below `directory`, in no order. but: files, resolved, that are left out without being counted.

        A file with the suffix of an image is one, even if it turns out that it cannot be read.
        """
        waiting = [str(directory)]
        while waiting:
            here = waiting.pop()
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if not entry.name.startswith("."):
                                waiting.append(entry.path)
                        elif _is_linked_directory(entry):
                            self.linked_directories += 1
                        elif _is_picture(entry):
                            yield Path(entry.path)
                        elif not (but and Path(entry.path).resolve() in but):
                            self.others += 1
            except OSError as error:
                self.unreadable_directories.append(f"{here}: {error.strerror or error}")


def _is_linked_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    is_named_so = suffix_kind(entry.name) is not None or is_unreadable_image(entry.name)
    try:
        if entry.is_symlink():
            entry.stat()
        # No pipes: whoever opens one waits for its writer.
        return entry.is_file() and (is_named_so or _begins_like_a_picture(entry))
    except OSError:
        return is_named_so  # a link to nowhere, or in a circle: reading it says so


def _begins_like_a_picture(entry: os.DirEntry[str]) -> bool:
    with Path(entry.path).open("rb", buffering=0) as file:
        return image_kind(entry.name, file.read(HEAD_BYTES)) is not None
