"""Places the images of a version on the disk, under their names in the archive as far as file systems allow it.

The path is `<split>/<label>/<file>` for classification and `<split>/<file>` for detection and segmentation. Label maps
are in `label_maps/<split>/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.manifest import Task
from workers.datasets.dataset import DatasetImage, DatasetObject, SplitName
from workers.datasets.parallel_map import parallel_map
from workers.datasets.validation.image_findings import InspectedSample
from workers.datasets.validation.label_map_files import write_label_map
from workers.datasets.validation.targets import TargetObject

_NAME_BYTES = 150  # file systems allow 255
_SUFFIX_LENGTH = 10
_ALLOWED = frozenset(" ._-+=,@#()[]")  # besides letters and digits
_LABEL_MAPS = "label_maps"


class ImageLayout:
    """Moves images into `root`, which it creates, and gives each its own path.

    Names that differ only in case become different names, so the directory can be copied to any file system.
    """

    def __init__(
        self, root: Path, categories: Sequence[str], *, task: Task = "classification", values: Sequence[int] = ()
    ) -> None:
        """values: for segmentation, the pixel value of each category in the masks of the archive."""
        self._root = root
        self._task = task
        self._values = values
        self._index = {category: index for index, category in enumerate(categories)}
        self._taken: set[str] = set()
        self._folders = (
            {category: self._free_name("", category) for category in categories} if task == "classification" else {}
        )
        self.label_map_digests: dict[str, str] = {}  # path of a label map -> sha256 of its pixels

    def place(self, samples: Sequence[InspectedSample], split: SplitName) -> list[DatasetImage]:
        """Moves the files of `samples` into the folder of `split`. Returns their descriptions in the same order."""
        for folder in {self._folder(sample, split) for sample in samples}:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        label_maps = self._write_label_maps(samples, split)
        return [self._place(sample, split, label_map) for sample, label_map in zip(samples, label_maps, strict=True)]

    def _folder(self, sample: InspectedSample, split: SplitName) -> str:
        return f"{split}/{self._folders[sample.label]}" if self._task == "classification" else split

    def _place(self, sample: InspectedSample, split: SplitName, label_map: str | None) -> DatasetImage:
        folder = self._folder(sample, split)
        path = f"{folder}/{self._free_name(folder, sample.name.rpartition('/')[2])}"
        sample.file.path.rename(self._root / path)
        return DatasetImage(
            path=path,
            name=sample.name,
            category=self._index[sample.label] if self._task == "classification" else None,
            objects=tuple(self._object(target) for target in sample.objects),
            label_map=label_map,
            width=sample.facts.width,
            height=sample.facts.height,
            sha256=sample.file.sha256,
        )

    def _object(self, target: TargetObject) -> DatasetObject:
        return DatasetObject(
            category=self._index[target.label],
            box=target.box,
            mask=target.mask,
            is_crowd=target.is_crowd,
            is_difficult=target.is_difficult,
            area=target.area,
        )

    def _write_label_maps(self, samples: Sequence[InspectedSample], split: SplitName) -> list[str | None]:
        """Writes the label maps of `samples`. Returns their paths; None for each sample of the other tasks."""
        if self._task != "segmentation":
            return [None] * len(samples)
        folder = f"{_LABEL_MAPS}/{split}"
        (self._root / folder).mkdir(parents=True, exist_ok=True)
        stems = (_stem_and_suffix(disk_name(sample.name.rpartition("/")[2]))[0] for sample in samples)
        paths = [f"{folder}/{self._free_name(folder, f'{stem}.png')}" for stem in stems]
        for path, digest in zip(
            paths, parallel_map(self._write_label_map, zip(samples, paths, strict=True)), strict=True
        ):
            self.label_map_digests[path] = digest
        return [*paths]

    def _write_label_map(self, placed: tuple[InspectedSample, str]) -> str:
        sample, path = placed
        assert sample.label_map is not None
        return write_label_map(sample.label_map, self._root / path, self._values)

    def _free_name(self, folder: str, wanted: str) -> str:
        """Returns `wanted` as a file name that is free in `folder`, with a number if necessary."""
        stem, suffix = _stem_and_suffix(disk_name(wanted))
        name, number = f"{stem}{suffix}", 1
        while f"{folder}/{name}".casefold() in self._taken:
            number += 1
            name = f"{stem}~{number}{suffix}"
        self._taken.add(f"{folder}/{name}".casefold())
        return name


def disk_name(text: str) -> str:
    """Returns `text` as a file name for every system: letters and digits of any script, else `_`; shortened."""
    plain = "".join(letter if letter.isalnum() or letter in _ALLOWED else "_" for letter in text).strip(" .") or "_"
    stem, suffix = _stem_and_suffix(plain)
    room = _NAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" ") + suffix


def _stem_and_suffix(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem and len(suffix) <= _SUFFIX_LENGTH else (name, "")
