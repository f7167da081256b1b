"""The data sets under one directory: names -> immutable versions. Needs no torch.

ROOT/<name>/<version>/{dataset.json, train.jsonl, val.jsonl, images/**}
ROOT/.locks/<name>.lock   held by whoever changes the data set
ROOT/.locks/<name>        the highest number of a deleted version
ROOT/.tmp-*               versions being made or deleted
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from models.errors import InvalidName
from models.store.names import checked_name
from models.store.storage import publish_directory, replace_file, sync_directory, version_numbers
from models.store.temporary_directories import remove_abandoned_directories, temporary_directory
from workers.datasets.dataset import DatasetImage, DatasetInfo, SplitName
from workers.datasets.disk_space import disk_full_errors
from workers.errors import DamagedDataset, UnknownDataset, UnknownDatasetVersion

INFO_FILE = "dataset.json"
IMAGES_DIRECTORY = "images"
_REFERENCE = re.compile(r"(?P<name>[^/]+)(?:/(?P<version>[1-9][0-9]{0,8}))?", re.ASCII)
_LISTED = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetVersion:
    """A published version: what is known of it, and where its files are."""

    path: Path
    info: DatasetInfo

    @property
    def reference(self) -> str:
        """`photos/2`."""
        return f"{self.info.name}/{self.info.version}"

    @property
    def images_dir(self) -> Path:
        """What the paths of its images are relative to."""
        return self.path / IMAGES_DIRECTORY


class DatasetStore:
    """The data sets under `root`. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Names of the data sets with at least one version, sorted."""
        if not self._root.is_dir():
            return []
        found = (entry.name for entry in self._root.iterdir() if not entry.name.startswith("."))
        return sorted(name for name in found if version_numbers(self._root / name))

    def versions(self, name: str) -> list[int]:
        """Version numbers, ascending.

        Raises InvalidName, UnknownDataset.
        """
        numbers = version_numbers(self._root / checked_name(name, kind="dataset"))
        if not numbers:
            known = self.names()
            close = get_close_matches(name, known, n=5, cutoff=0.5) or known[:_LISTED]
            hint = f"There is {', '.join(close)}." if close else "There is none yet: post an archive of images."
            raise UnknownDataset(f"There is no dataset {name!r}.", hint=hint)
        return numbers

    def get(self, name: str, version: int) -> DatasetVersion:
        """That version.

        Raises InvalidName, UnknownDataset, UnknownDatasetVersion, DamagedDataset.
        """
        numbers = self.versions(name)
        if version not in numbers:
            raise UnknownDatasetVersion(f"{name} has no version {version}.", hint=f"It has {_listed(numbers)}.")
        path = self._root / name / str(version)
        try:
            info = DatasetInfo.model_validate_json((path / INFO_FILE).read_bytes())
        except FileNotFoundError as error:
            raise UnknownDatasetVersion(f"{name} has no version {version} any more.") from error
        except ValidationError as error:
            raise DamagedDataset(
                f"{name}/{version} cannot be read: its {INFO_FILE} is damaged, or of a later Fovea.",
                hint="Post the archive again, and delete this version.",
            ) from error
        return DatasetVersion(path=path, info=info)

    def resolve(self, reference: str) -> DatasetVersion:
        """What `name` (its newest version) or `name/3` means.

        Raises InvalidName, UnknownDataset, UnknownDatasetVersion, DamagedDataset.
        """
        name, version = parted_reference(reference)
        return self.get(name, version or self.versions(name)[-1])

    def images(self, version: DatasetVersion, split: SplitName) -> list[DatasetImage]:
        """The images of one split, in an order that does not change.

        Raises UnknownDatasetVersion if the version was deleted meanwhile, DamagedDataset.
        """
        return list(self.iter_images(version, split))

    def iter_images(self, version: DatasetVersion, split: SplitName) -> Iterator[DatasetImage]:
        """The same, one after another: they may be millions of objects.

        Raises UnknownDatasetVersion if the version was deleted meanwhile, DamagedDataset.
        """
        try:
            with (version.path / _images_file(split)).open("rb") as lines:
                for line in lines:
                    yield DatasetImage.model_validate_json(line)
        except FileNotFoundError as error:
            raise UnknownDatasetVersion(f"{version.reference} does not exist any more.") from error
        except ValidationError as error:
            raise DamagedDataset(
                f"{version.reference} cannot be read: its {_images_file(split)} is damaged, or of a later Fovea.",
                hint="Post the archive again, and delete this version.",
            ) from error

    def publish(
        self,
        name: str,
        directory: Path,
        *,
        images: Mapping[SplitName, Sequence[DatasetImage]],
        describe: Callable[[int], DatasetInfo],
    ) -> DatasetVersion:
        """Makes `directory`, which holds `images/`, the next version of `name`: whole or not at all.

        directory: below what `temporary` gave. describe: the version's description, given its number.
        Raises InvalidName, DiskFull.
        """
        for split, listed in images.items():
            lines = (image.model_dump_json() + "\n" for image in listed)
            with (directory / _images_file(split)).open("w", encoding="utf-8") as file:
                file.writelines(lines)

        def write_description(version: int) -> None:
            text = describe(version).model_dump_json(indent=2) + "\n"
            (directory / INFO_FILE).write_text(text, encoding="utf-8")

        with self._locked(name) as lock, disk_full_errors():
            parent = self._root / name
            parent.mkdir(exist_ok=True)
            sync_directory(self._root)
            try:
                version = publish_directory(directory, parent, above=_highest_deleted(lock), prepare=write_description)
            except BaseException:
                with contextlib.suppress(OSError):  # it has other versions
                    parent.rmdir()
                raise
        return self.get(name, version)

    def delete(self, name: str, version: int | None = None) -> None:
        """Deletes one version, or all of them, and frees the disk; a number is never given again.

        Raises InvalidName, UnknownDataset, UnknownDatasetVersion.
        """
        with self._locked(name) as lock, temporary_directory(self._root) as trash:
            numbers = self.versions(name)
            if version is not None and version not in numbers:
                raise UnknownDatasetVersion(f"{name} has no version {version}.", hint=f"It has {_listed(numbers)}.")
            replace_file(lock, str(max(numbers[-1], _highest_deleted(lock))).encode("ascii"))
            parent = self._root / name
            is_last = version is None or numbers == [version]
            (parent if is_last else parent / str(version)).rename(trash / "deleted")  # gone for readers at once
            sync_directory(self._root if is_last else parent)

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """A new directory on the file system of the data sets, removed at the end with what is left in it."""
        with temporary_directory(self._root) as path:
            yield path

    def remove_leftovers(self) -> int:
        """Removes what processes that died left behind, and nothing that is in use; returns how many directories."""
        return remove_abandoned_directories(self._root)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        """Keeps other writers of `name` out; gives the file of its highest deleted version."""
        locks = self._root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        path = locks / checked_name(name, kind="dataset")
        with path.with_name(f"{path.name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            yield path


def parted_reference(reference: str) -> tuple[str, int | None]:
    """The name and version of `name/3`, of `name` None. Raises InvalidName."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidName(f"{reference[:100]!r} is no dataset reference.", hint="Write NAME or NAME/VERSION.")
    return checked_name(match["name"], kind="dataset"), int(match["version"]) if match["version"] else None


def _images_file(split: SplitName) -> str:
    return f"{split}.jsonl"


def _highest_deleted(lock: Path) -> int:
    return int(lock.read_text(encoding="ascii")) if lock.exists() else 0


def _listed(numbers: Sequence[int]) -> str:
    earlier = "… " if len(numbers) > _LISTED else ""
    return f"{earlier}{', '.join(map(str, numbers[-_LISTED:]))}"
