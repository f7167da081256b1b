"""Stores immutable numbered versions under names, in a directory. Models and datasets use it. Needs no torch.

ROOT/<name>/<version>/   a version; a directory without its description file does not count
ROOT/.locks/<name>       locked while versions of the name change; contains the highest number of a deleted version
ROOT/.tmp-*              versions that are being written or deleted
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from models.errors import InvalidName
from models.store.locks import lock_file
from models.store.names import checked_name
from models.store.storage import publish_directory, sync_directory, version_numbers
from models.store.temporary_directories import remove_abandoned_directories, temporary_directory

_REFERENCE = re.compile(r"(?P<name>[^/]+)(?:/(?P<version>[1-9][0-9]{0,8}))?", re.ASCII)
_LISTED = 10  # most names or versions that a message lists

VersionT = TypeVar("VersionT")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredKind:
    """A kind of stored thing, with the words and errors for it."""

    noun: str  # "model", "dataset"
    description_file: str
    unknown_name: Callable[..., Exception]
    unknown_version: Callable[..., Exception]
    when_empty: str  # the hint while the store is empty
    reference_forms: str = "NAME or NAME/VERSION"


class VersionedStore(ABC, Generic[VersionT]):
    """The versions under `root`. Several processes may use it at once."""

    def __init__(self, root: Path, kind: StoredKind) -> None:
        self.root = root
        self._kind = kind

    def names(self) -> list[str]:
        """The names with at least one version, sorted."""
        if not self.root.is_dir():
            return []
        found = (entry.name for entry in self.root.iterdir() if not entry.name.startswith("."))
        return sorted(name for name in found if self._numbers(name))

    def versions(self, name: str) -> list[int]:
        """The version numbers of `name`, ascending.

        Raises InvalidName, and the kind's error for an unknown name.
        """
        numbers = self._numbers(checked_name(name, kind=self._kind.noun))
        if not numbers:
            known = self.names()
            close = get_close_matches(name, known, n=5, cutoff=0.5) or known[:_LISTED]
            raise self._kind.unknown_name(
                f"There is no {self._kind.noun} {name!r}.",
                hint=f"Available: {', '.join(close)}." if close else self._kind.when_empty,
            )
        return numbers

    def get(self, name: str, version: int) -> VersionT:
        """One version.

        Raises what `versions` raises, and the kind's errors for an unknown version and for a damaged one.
        """
        return self._get(name, version, self.versions(name))

    def resolve(self, reference: str) -> VersionT:
        """The version that `name` (its newest version) or `name/3` means. Raises what `get` raises."""
        name, version = split_reference(reference, self._kind)
        numbers = self.versions(name)
        return self._get(name, version or numbers[-1], numbers)

    def delete(self, name: str, version: int | None = None) -> None:
        """Deletes one version, or all of them if `version` is None, and frees the disk. Numbers are never reused.

        Raises what `get` raises, and the kind's error if the version is in use.
        """
        self.versions(name)
        with temporary_directory(self.root) as trash, self._locked(name) as lock:
            numbers = self.versions(name)
            if version is not None:
                self._check_known(name, version, numbers)
            doomed = numbers if version is None else [version]
            self._check_unused(name, doomed)
            lock.note_deleted(max(doomed))
            parent = self.root / name
            is_all = doomed == numbers
            (parent if is_all else parent / str(version)).rename(trash / "deleted")  # atomic for readers
            sync_directory(self.root if is_all else parent)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A new directory on the store's file system, removed at the end with its contents."""
        with temporary_directory(self.root) as path:
            yield path

    def remove_leftovers(self) -> int:
        """Removes temporary directories of processes that died. Returns how many."""
        return remove_abandoned_directories(self.root)

    @abstractmethod
    def _read(self, name: str, version: int, path: Path) -> VersionT:
        """The version in the directory `path`. Raises FileNotFoundError if it was deleted meanwhile."""

    def _check_unused(self, name: str, versions: Sequence[int]) -> None:
        """Raises if one of these versions must not be deleted. Called while the name is locked."""

    def _publish(self, lock: HeldName, directory: Path, describe: Callable[[int], BaseModel]) -> VersionT:
        """Turns `directory`, which is inside a directory from `temporary`, into the next version of the locked name."""

        def write_description(version: int) -> None:
            text = describe(version).model_dump_json(indent=2) + "\n"
            (directory / self._kind.description_file).write_text(text, encoding="utf-8")

        parent = self.root / lock.name
        parent.mkdir(exist_ok=True)
        sync_directory(self.root)
        try:
            version = publish_directory(directory, parent, above=lock.highest_deleted, prepare=write_description)
        except BaseException:
            with suppress(OSError):  # the name still has other versions
                parent.rmdir()
            raise
        return self.get(lock.name, version)

    def _get(self, name: str, version: int, numbers: Sequence[int]) -> VersionT:
        self._check_known(name, version, numbers)
        try:
            return self._read(name, version, self.root / name / str(version))
        except FileNotFoundError as error:
            raise self._kind.unknown_version(f"{name} no longer has a version {version}.") from error

    def _check_known(self, name: str, version: int, numbers: Sequence[int]) -> None:
        if version not in numbers:
            earlier = "… " if len(numbers) > _LISTED else ""
            listed = f"{earlier}{', '.join(map(str, numbers[-_LISTED:]))}"
            raise self._kind.unknown_version(f"{name} has no version {version}.", hint=f"It has {listed}.")

    def _numbers(self, name: str) -> list[int]:
        parent, described_by = self.root / name, self._kind.description_file
        return [number for number in version_numbers(parent) if (parent / str(number) / described_by).is_file()]

    @contextmanager
    def _locked(self, name: str) -> Iterator[HeldName]:
        """Locks out other writers of the name, which must be valid. The lock file is never removed."""
        path = self.root / ".locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_file(descriptor)
            yield HeldName(path, descriptor)
        finally:
            os.close(descriptor)


class HeldName:
    """A locked name. The lock file outlives the name, because it remembers which numbers must not be reused."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.name = path.name
        self._directory = path.parent
        self._descriptor = descriptor

    @property
    def highest_deleted(self) -> int:
        """The highest number of a deleted version; 0 if none was deleted."""
        return int(os.pread(self._descriptor, 20, 0) or b"0")

    def note_deleted(self, number: int) -> None:
        """Remembers a version's number, so that it is not reused."""
        if number > self.highest_deleted:
            os.pwrite(self._descriptor, b"%020d" % number, 0)
            os.fsync(self._descriptor)
            sync_directory(self._directory)


def split_reference(reference: str, kind: StoredKind) -> tuple[str, int | None]:
    """The name and the version of `name/3`; the version is None for `name`. Raises InvalidName."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"{reference[:100]!r} is not a valid {kind.noun} reference."
        raise InvalidName(message, hint=f"Write {kind.reference_forms}.")
    return checked_name(match["name"], kind=kind.noun), int(match["version"]) if match["version"] else None
