"""Where the images of a version lie: `<split>/<label>/<file>`, named as in the archive as far as file systems let."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.datasets.dataset import DatasetImage, SplitName
from workers.datasets.image_findings import Sample

_NAME_BYTES = 150  # of the 255 that file systems take
_SUFFIX_LENGTH = 10
_PLAIN = frozenset(" ._-+=,@#()[]")


class ImageLayout:
    """Moves images into `root`, which it makes, and gives each a path of its own.

    Names that differ in case only are kept apart too: the directory may be looked at from another system.
    """

    def __init__(self, root: Path, categories: Sequence[str]) -> None:
        self._root = root
        self._index = {category: index for index, category in enumerate(categories)}
        self._taken: set[str] = set()
        self._folders = {category: self._free_name("", category) for category in categories}

    def place(self, samples: Sequence[Sample], split: SplitName) -> list[DatasetImage]:
        """Moves the files of `samples` below `split/` and describes them, in the same order."""
        for label in {sample.label for sample in samples}:
            (self._root / split / self._folders[label]).mkdir(parents=True, exist_ok=True)
        return [self._place(sample, split) for sample in samples]

    def _place(self, sample: Sample, split: SplitName) -> DatasetImage:
        folder = f"{split}/{self._folders[sample.label]}"
        path = f"{folder}/{self._free_name(folder, sample.name.rpartition('/')[2])}"
        sample.file.path.rename(self._root / path)
        return DatasetImage(
            path=path,
            name=sample.name,
            category=self._index[sample.label],
            width=sample.facts.width,
            height=sample.facts.height,
            sha256=sample.file.sha256,
        )

    def _free_name(self, folder: str, wanted: str) -> str:
        """`wanted` as a file name, with a number if `folder` has such a name."""
        stem, suffix = _stem_and_suffix(disk_name(wanted))
        name, number = f"{stem}{suffix}", 1
        while f"{folder}/{name}".casefold() in self._taken:
            number += 1
            name = f"{stem}~{number}{suffix}"
        self._taken.add(f"{folder}/{name}".casefold())
        return name


def disk_name(text: str) -> str:
    """`text` as a file name every system takes: letters and digits of any script, the rest as `_`; shortened."""
    plain = "".join(letter if letter.isalnum() or letter in _PLAIN else "_" for letter in text).strip(" .") or "_"
    stem, suffix = _stem_and_suffix(plain)
    room = _NAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" ") + suffix


def _stem_and_suffix(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem and len(suffix) <= _SUFFIX_LENGTH else (name, "")
