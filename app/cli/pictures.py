"""Finds images, given as files or below directories, one after another, without listing them first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.datasets.archives.signatures import HEAD_BYTES, image_kind, is_unreadable_image, suffix_kind


class Pictures:
    """The images of a command's arguments: files, directories, or both. It can be iterated repeatedly."""

    def __init__(self, arguments: Sequence[Path]) -> None:
        self._arguments = arguments
        self._is_one_directory = len(arguments) == 1 and arguments[0].is_dir()

    @property
    def directory(self) -> Path:
        """The base of relative names."""
        return (self._arguments[0] if self._is_one_directory else Path()).resolve()

    def name(self, picture: Path) -> str:
        """The path relative to the only directory given; otherwise the path as given."""
        if self._is_one_directory:
            return picture.relative_to(self._arguments[0]).as_posix()
        return os.path.normpath(picture)

    def walk(self, walk: Walk, *, but: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Every image once. `walk` counts what is left out; see `Walk.pictures`."""
        seen: set[str] = set()
        for argument in self._arguments:
            for picture in walk.pictures(argument, but=but) if argument.is_dir() else (argument,):
                if not self._is_one_directory:  # a single directory yields each image once
                    name = self.name(picture)
                    if name in seen:
                        continue
                    seen.add(name)
                yield picture


@dataclass(kw_only=True)
class Walk:
    """One walk through directories, with counts of what it left out."""

    others: int = 0  # hidden files, and files that are not images by suffix and content
    linked_directories: int = 0  # not followed, which avoids loops and duplicates
    unreadable_directories: list[str] = field(default_factory=list)  # with the reason

    def pictures(self, directory: Path, *, but: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Images below `directory`, in any order. but: resolved paths to leave out without counting.

        A file with the suffix of an image counts as one even if it cannot be read.
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
    except OSError:  # a circular link
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    is_named_so = suffix_kind(entry.name) is not None or is_unreadable_image(entry.name)
    try:
        if entry.is_symlink():
            entry.stat()
        # Opening a pipe would wait for its writer.
        return entry.is_file() and (is_named_so or _begins_like_a_picture(entry))
    except OSError:
        return is_named_so  # a broken or circular link: reading it reports the error


def _begins_like_a_picture(entry: os.DirEntry[str]) -> bool:
    with Path(entry.path).open("rb", buffering=0) as file:
        return image_kind(entry.name, file.read(HEAD_BYTES)) is not None
