"""Exports a dataset as a zip in COCO or YOLO format. The zip is created while it is sent, so its size does not matter.

Posting the zip again gives the same images, objects and splits.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workers.datasets.output.coco import coco_json
from workers.datasets.output.yolo import yolo_config, yolo_lines
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import CannotExport

if TYPE_CHECKING:
    from typing_extensions import Buffer

ExportFormat = Literal["coco", "yolo"]

_PIECE_BYTES = 2**20
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip; constant, so equal datasets give equal zips


def export_zip(store: DatasetStore, version: DatasetVersion, format: ExportFormat) -> Iterator[bytes]:  # noqa: A002
    """Yields the zip in pieces of about 1 MiB.

    Raises CannotExport at once if the dataset has no boxes. The iterator raises UnknownDatasetVersion or OSError if the
    version is deleted meanwhile.
    """
    task = version.info.task
    if task != "detection":
        raise CannotExport(
            f"{version.reference} is a {task} dataset, but the format {format} is for boxes.",
            hint="Only detection datasets can be exported as COCO or YOLO.",
        )
    return _coco(store, version) if format == "coco" else _yolo(store, version)


def _coco(store: DatasetStore, version: DatasetVersion) -> Iterator[bytes]:
    """Yields a zip with `annotations/instances_<split>.json` and the images in `images/<split>/`."""
    packer = _Packer()
    for split in version.info.splits:
        yield from packer.add(
            f"annotations/instances_{split}.json", coco_json(version.info, partial(store.iter_images, version, split))
        )
        for image in store.iter_images(version, split):
            yield from packer.add_file(f"images/{image.path}", version.images_dir / image.path)
    yield from packer.end()


def _yolo(store: DatasetStore, version: DatasetVersion) -> Iterator[bytes]:
    """Yields a zip with `data.yaml`, the images in `images/<split>/` and their objects in `labels/<split>/`."""
    packer = _Packer()
    yield from packer.add("data.yaml", [yolo_config(version.info)])
    taken: set[str] = set()
    for split in version.info.splits:
        for image in store.iter_images(version, split):
            stem, suffix = _free_stem(image.path, taken)
            yield from packer.add(f"labels/{stem}.txt", yolo_lines(image, has_masks=version.info.has_masks))
            yield from packer.add_file(f"images/{stem}{suffix}", version.images_dir / image.path)
    yield from packer.end()


def _free_stem(path: str, taken: set[str]) -> tuple[str, str]:
    """Returns the stem, with a number if it is taken, and the suffix of `path`.

    Without the number, `a.jpg` and `a.png` would share a label file.
    """
    wanted, suffix = posixpath.splitext(path)
    stem, number = wanted, 1
    while stem.casefold() in taken:
        number += 1
        stem = f"{wanted}~{number}"
    taken.add(stem.casefold())
    return stem, suffix


class _Packer:
    """Creates a zip file and yields its bytes as they become available."""

    def __init__(self) -> None:
        self._out = _ZipOutput()
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)

    def add_file(self, name: str, path: Path) -> Iterator[bytes]:
        """Adds an image without compression: its format is compressed already. Raises OSError."""
        with path.open("rb") as file:
            yield from self.add(name, iter(lambda: file.read(_PIECE_BYTES), b""), is_compressed=True)

    def add(self, name: str, pieces: Iterable[bytes], *, is_compressed: bool = False) -> Iterator[bytes]:
        """Adds a file, deflated unless it `is_compressed` already, and yields the finished bytes of the zip."""
        info = zipfile.ZipInfo(name, _ENTRY_TIME)
        info.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        with self._zip.open(info, "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                if self._out.size >= _PIECE_BYTES:
                    yield self._out.take()

    def end(self) -> Iterator[bytes]:
        """Yields the last bytes, with the directory of the zip."""
        self._zip.close()
        yield self._out.take()


class _ZipOutput(io.RawIOBase):
    """The file that `zipfile` writes to. It is not seekable, so `zipfile` writes the sizes after each entry."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        return len(self._buffer)

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self._buffer += memoryview(data)
        return len(memoryview(data))

    def take(self) -> bytes:
        """Returns and forgets the bytes that were written since the last call."""
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece
