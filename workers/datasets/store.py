"""Datasets in numbered versions, on a directory. Needs no torch.

ROOT/<name>/<version>/{dataset.json, train.jsonl, val.jsonl, images/**}, and test.jsonl if there is such a split

`models.store.versions` has the rest of the layout, and the rules for names, numbers and locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from models.store.names import checked_name
from models.store.versions import StoredKind, VersionedStore
from workers.datasets.dataset import DatasetImage, DatasetInfo, SplitName
from workers.datasets.disk_space import disk_full_errors
from workers.errors import DamagedDataset, UnknownDataset, UnknownDatasetVersion

INFO_FILE = "dataset.json"
IMAGES_DIRECTORY = "images"
DATASET = StoredKind(
    noun="dataset",
    description_file=INFO_FILE,
    unknown_name=UnknownDataset,
    unknown_version=UnknownDatasetVersion,
    when_empty="There is none yet: post an archive of images.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetVersion:
    """A published version: its description, and where its files are."""

    path: Path
    info: DatasetInfo

    @property
    def reference(self) -> str:
        """`name/version`, such as `ants-bees/2`."""
        return f"{self.info.name}/{self.info.version}"

    @property
    def images_dir(self) -> Path:
        """The directory that the paths of the images are relative to."""
        return self.path / IMAGES_DIRECTORY


class DatasetStore(VersionedStore[DatasetVersion]):
    """The datasets under `root`. Any number of processes may use it at once.

    Raises UnknownDataset, UnknownDatasetVersion and DamagedDataset for what is missing or damaged.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, DATASET)

    def images(self, version: DatasetVersion, split: SplitName) -> list[DatasetImage]:
        """The images of one split of the version, in an order that does not change.

        Raises UnknownDatasetVersion if the version was deleted meanwhile, DamagedDataset.
        """
        return list(self.iter_images(version, split))

    def iter_images(self, version: DatasetVersion, split: SplitName) -> Iterator[DatasetImage]:
        """Yields the images of one split one by one, because together they may have millions of objects.

        Raises UnknownDatasetVersion if the version was deleted meanwhile, DamagedDataset.
        """
        try:
            with (version.path / _images_file(split)).open("rb") as lines:
                for line in lines:
                    yield DatasetImage.model_validate_json(line)
        except FileNotFoundError as error:
            raise UnknownDatasetVersion(f"{version.reference} no longer exists.") from error
        except ValidationError as error:
            raise _damaged(version.reference, _images_file(split)) from error

    def publish(
        self,
        name: str,
        directory: Path,
        *,
        images: Mapping[SplitName, Sequence[DatasetImage]],
        describe: Callable[[int], DatasetInfo],
    ) -> DatasetVersion:
        """Publishes `directory`, which contains `images/`, as the next version of `name`: completely or not at all.

        directory: inside a directory that `temporary` returned. describe: returns the description of the version with
        the given number. Raises InvalidName, DiskFull.
        """
        for split, listed in images.items():
            lines = (image.model_dump_json() + "\n" for image in listed)
            with (directory / _images_file(split)).open("w", encoding="utf-8") as file:
                file.writelines(lines)

        with disk_full_errors(), self._locked(checked_name(name, kind="dataset")) as lock:
            return self._publish(lock, directory, describe)

    def _read(self, name: str, version: int, path: Path) -> DatasetVersion:
        try:
            info = DatasetInfo.model_validate_json((path / INFO_FILE).read_bytes())
        except ValidationError as error:
            raise _damaged(f"{name}/{version}", INFO_FILE) from error
        return DatasetVersion(path=path, info=info)


def _images_file(split: SplitName) -> str:
    return f"{split}.jsonl"


def _damaged(reference: str, file_name: str) -> DamagedDataset:
    return DamagedDataset(
        f"{reference} cannot be read: its {file_name} is damaged, or a later version of Fovea wrote it.",
        hint="Post the archive again, then delete this version.",
    )
