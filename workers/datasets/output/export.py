"""A data set as others read it: a zip of COCO or YOLO, made while it is sent, so its size does not matter.

What comes out goes in again: the same pictures, objects and splits.
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
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip: equal data sets make equal zips


def export_zip(store: DatasetStore, version: DatasetVersion, format: ExportFormat) -> Iterator[bytes]:  # noqa: A002
    """The zip in pieces of about 1 MiB.

    Raises CannotExport at once if it is no data set of boxes; UnknownDatasetVersion, OSError later if it is deleted
    meanwhile.
    """
    task = version.info.task
    if task != "detection":
        raise CannotExport(
            f"{version.info.name}/{version.info.version} is a {task} data set: {format} has boxes.",
            hint="Only data sets of detection can be exported as COCO or YOLO.",
        )
    return _coco(store, version) if format == "coco" else _yolo(store, version)


def _coco(store: DatasetStore, version: DatasetVersion) -> Iterator[bytes]:
    """`annotations/instances_<split>.json`, with the pictures in `<split>/`."""
    packer = _Packer()
    for split in version.info.splits:
        yield from packer.add(
            f"annotations/instances_{split}.json", coco_json(version.info, partial(store.iter_images, version, split))
        )
        for image in store.iter_images(version, split):
            yield from packer.add_file(image.path, version.images_dir / image.path)
    yield from packer.end()


def _yolo(store: DatasetStore, version: DatasetVersion) -> Iterator[bytes]:
    """`data.yaml`, the pictures in `images/<split>/` and their objects in `labels/<split>/`."""
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
    """Stem and suffix of `path`; another stem if it is taken: `a.jpg` and `a.png` would share a label file."""
    wanted, suffix = posixpath.splitext(path)
    stem, number = wanted, 1
    while stem.casefold() in taken:
        number += 1
        stem = f"{wanted}~{number}"
    taken.add(stem.casefold())
    return stem, suffix


class _Packer:
    """Makes a zip whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._out = _Outlet()
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)

    def add_file(self, name: str, path: Path) -> Iterator[bytes]:
        """Puts a picture in as it is: it would not get smaller. Gives what of the zip is ready. Raises OSError."""
        with path.open("rb") as file:
            yield from self.add(name, iter(lambda: file.read(_PIECE_BYTES), b""), is_packed=True)

    def add(self, name: str, pieces: Iterable[bytes], *, is_packed: bool = False) -> Iterator[bytes]:
        """Puts a file in, deflated unless it `is_packed`; gives what of the zip is ready."""
        info = zipfile.ZipInfo(name, _EPOCH)
        info.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        with self._zip.open(info, "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                if self._out.size >= _PIECE_BYTES:
                    yield self._out.taken()

    def end(self) -> Iterator[bytes]:
        """The rest, with the zip's directory."""
        self._zip.close()
        yield self._out.taken()


class _Outlet(io.RawIOBase):
    """What `zipfile` writes to: cannot be rewound, so lengths stand behind the files."""

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

    def taken(self) -> bytes:
        """What has been written since the last call."""
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece
