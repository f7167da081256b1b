"""Archives, pictures and labelled files for the tests of data sets."""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from workers.datasets.archive import ArchivedFile, UnpackedArchive, unpack_archive
from workers.datasets.dataset import Finding, SplitName
from workers.datasets.formats.reading import LabelledFile
from workers.datasets.inspection import ImageFacts
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore, DatasetVersion

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def picture(number: int = 0, *, size: tuple[int, int] = (16, 12), format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    """A small picture; another one for each number below a million."""
    image = Image.new("RGB", size, "white")
    image.paste((number % 200, number // 200 % 100, number // 20_000), (0, 0, size[0] // 2, size[1] // 2))
    encoded = BytesIO()
    image.save(encoded, format, **options)
    return encoded.getvalue()


def folders(**counts: int) -> dict[str, bytes]:
    """So many different pictures in folders of these names; `__` in a name stands for `/`."""
    names = [f"{folder.replace('__', '/')}/{index}.png" for folder, count in counts.items() for index in range(count)]
    return {name: picture(number) for number, name in enumerate(names)}


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> BytesIO:
    """A zip of `files`."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return archive


def tar_of(files: Mapping[str, bytes], *members: tarfile.TarInfo, gzipped: bool = False) -> BytesIO:
    """A tar of `files` and, behind them, of `members` without content."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz" if gzipped else "w") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, BytesIO(content))
        for member in members:
            file.addfile(member)
    return archive


def patched(archive: BytesIO, *changes: tuple[bytes, bytes]) -> BytesIO:
    """`archive` with bytes replaced everywhere by others, as many."""
    data = archive.getvalue()
    for old, new in changes:
        assert len(old) == len(new)
        assert old in data
        data = data.replace(old, new)
    return BytesIO(data)


def with_central_field(archive: BytesIO, *, entry: int, offset: int, value: bytes) -> BytesIO:
    """`archive` with `value` at `offset` of an entry's header in the central directory."""
    data = bytearray(archive.getvalue())
    position = -1
    for _ in range(entry + 1):
        position = data.index(b"PK\1\2", position + 1)
    data[position + offset : position + offset + len(value)] = value
    return BytesIO(bytes(data))


def write_crowded_zip(path: Path, *, entries: int, told: int) -> None:
    """A zip of nothing but a central directory of `entries` entries that tells of `told`, in ZIP64 form if need be."""
    header = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = entries * len(header)
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        for _ in range(10):
            file.write(header * (entries // 10))
        if told > 0xFFFF:
            file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, told, told, size, 4))
            file.write(struct.pack("<4sIQI", b"PK\6\7", 0, 4 + size, 1))
        short = min(told, 0xFFFF)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, short, short, min(size, 0xFFFFFFFF), 4, 0))


def unpacked(archive: BytesIO | Path, directory: Path, **options: Any) -> UnpackedArchive:
    """`archive`, unpacked below `directory`."""
    return unpack_archive(archive, directory / "unpacked", **options)


def names_of(archive: UnpackedArchive) -> list[str]:
    """The names of the files of an archive."""
    return [file.name for file in archive.files]


def archived(directory: Path, files: Mapping[str, bytes]) -> tuple[ArchivedFile, ...]:
    """`files` as they come out of an archive."""
    return unpacked(zip_of(files), directory).files


def labelled(name: str, label: str, split: SplitName | None = None, *, content: str | None = None) -> LabelledFile:
    """A file nobody reads, with its label; equal `content` makes it a copy."""
    file = ArchivedFile(
        name=name,
        path=Path("nowhere"),
        size_bytes=1,
        sha256=hashlib.sha256((content or name).encode()).hexdigest(),
        head=b"",
    )
    return LabelledFile(file=file, label=label, split=split)


def facts(**changes: Any) -> ImageFacts:
    """What a usual picture is."""
    return replace(ImageFacts(width=16, height=12, kind="JPEG", is_animated=False, is_blank=False), **changes)


def ingest(
    store: DatasetStore, files: Mapping[str, bytes], *, name: str = "ants-bees", **options: Any
) -> DatasetVersion:
    """Posts a zip of `files`."""
    return ingest_archive(zip_of(files), name=name, store=store, now=NOW, **options)


def codes(findings: tuple[Finding, ...]) -> set[str]:
    """The codes of `findings`."""
    return {finding.code for finding in findings}


def the_finding(findings: tuple[Finding, ...], code: str) -> Finding:
    """The one finding with this code."""
    (found,) = [finding for finding in findings if finding.code == code]
    return found


def file_tree(root: Path) -> list[str]:
    """Every file and directory below `root`, but for the locks of the store."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".locks" not in path.parts)
