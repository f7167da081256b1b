"""Builds archives, images and labelled files for the tests of datasets."""

from __future__ import annotations

import hashlib
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.datasets.archives.archive import ArchivedFile, UnpackedArchive, unpack_archive
from workers.datasets.dataset import DatasetImage, Finding, SplitName
from workers.datasets.formats.reading import LabelledFile
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.datasets.validation.inspection import ImageFacts

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def small_image(number: int = 0, *, size: tuple[int, int] = (16, 12), format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    """A small image; each number below a million gives another image."""
    image = Image.new("RGB", size, "white")
    image.paste((number % 200, number // 200 % 100, number // 20_000), (0, 0, size[0] // 2, size[1] // 2))
    encoded = BytesIO()
    image.save(encoded, format, **options)
    return encoded.getvalue()


def folders(**counts: int) -> dict[str, bytes]:
    """`counts[name]` different images in each folder; `__` in a name means `/`."""
    names = [f"{folder.replace('__', '/')}/{index}.png" for folder, count in counts.items() for index in range(count)]
    return {name: small_image(number) for number, name in enumerate(names)}


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> BytesIO:
    """A zip of `files`."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return archive


def tar_of(files: Mapping[str, bytes], *members: tarfile.TarInfo, gzipped: bool = False) -> BytesIO:
    """A tar of `files`, followed by `members` without content."""
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
    """`archive` with every `old` replaced by a `new` of the same length."""
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


def write_crowded_zip(path: Path, *, entries: int, claimed_entries: int) -> None:
    """Writes a zip that is only a central directory of `entries` entries; its end record claims `claimed_entries`.

    More than 65,535 claimed entries take the ZIP64 form.
    """
    header = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = entries * len(header)
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        for _ in range(10):
            file.write(header * (entries // 10))
        if claimed_entries > 0xFFFF:
            counts = (claimed_entries, claimed_entries)
            file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *counts, size, 4))
            file.write(struct.pack("<4sIQI", b"PK\6\7", 0, 4 + size, 1))
        short = min(claimed_entries, 0xFFFF)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, short, short, min(size, 0xFFFFFFFF), 4, 0))


def unpacked(archive: BytesIO | Path, directory: Path, **options: Any) -> UnpackedArchive:
    """Unpacks `archive` in `directory`."""
    return unpack_archive(archive, directory / "unpacked", **options)


def names_of(archive: UnpackedArchive) -> list[str]:
    """The names of the files of an archive."""
    return [file.name for file in archive.files]


def archived(directory: Path, files: Mapping[str, bytes]) -> tuple[ArchivedFile, ...]:
    """`files` as an archive that was unpacked in `directory`."""
    return unpacked(zip_of(files), directory).files


def labelled(name: str, label: str, split: SplitName | None = None, *, content: str | None = None) -> LabelledFile:
    """A labelled file that does not exist on the disk; files of equal `content` are duplicates."""
    file = ArchivedFile(
        name=name,
        path=Path("nowhere"),
        size_bytes=1,
        sha256=hashlib.sha256((content or name).encode()).hexdigest(),
        head=b"",
    )
    return LabelledFile(file=file, label=label, split=split)


def facts(**changes: Any) -> ImageFacts:
    """The facts of an ordinary image, with `changes`."""
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
    """Every file and directory below `root` except the locks of the store."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".locks" not in path.parts)


Box = tuple[float, float, float, float]


def voc_xml(
    *objects: tuple[str, Box], size: tuple[int, int] | None = (64, 48), name: str = "", more: str = ""
) -> bytes:
    """A Pascal VOC annotation. Boxes are xmin, ymin, xmax, ymax, counted from 1; `more` is XML for every object."""
    lines = ["<annotation>", f"<filename>{name}</filename>"]
    if size is not None:
        lines.append(f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>")
    for label, box in objects:
        corners = "".join(
            f"<{side}>{value:g}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        lines.append(f"<object><name>{label}</name>{more}<bndbox>{corners}</bndbox></object>")
    return "\n".join([*lines, "</annotation>"]).encode()


def image_64x48(number: int = 0) -> bytes:
    """An image of 64 x 48 px, large enough for objects; each number gives another image."""
    return small_image(number, size=(64, 48))


def voc_archive(changes: Mapping[str, bytes] | None = None, *, count: int = 6) -> dict[str, bytes]:
    """`count` images with one `cell` each in the layout of BCCD; `changes` are files inside `BCCD/`."""
    files = {f"JPEGImages/b{number}.png": image_64x48(number) for number in range(count)}
    files |= {f"Annotations/b{number}.xml": voc_xml(("cell", (11, 6, 30, 20 + number))) for number in range(count)}
    return {f"BCCD/{name}": content for name, content in {**files, **(changes or {})}.items()}


def png_of(values: npt.ArrayLike, *, palette: bool = False, dtype: type[np.generic] = np.uint8) -> bytes:
    """A PNG of numbers, [H, W]."""
    image = Image.fromarray(np.asarray(values, dtype=dtype))
    if palette:
        image = image.convert("L")
        image.putpalette([channel for index in range(256) for channel in (255 - index, index, index // 2)])
    encoded = BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def blocks(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = (64, 48)) -> npt.NDArray[np.uint16]:
    """Zeros, [48, 64], with blocks of (value, x_min, y_min, x_max, y_max)."""
    values = np.zeros((size[1], size[0]), dtype=np.uint16)
    for value, x_min, y_min, x_max, y_max in boxes:
        values[y_min:y_max, x_min:x_max] = value
    return values


def coco_json(
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[tuple[int, str]] = ((1, "cat"), (2, "dog")),
) -> bytes:
    """A COCO file with one entry per line."""
    named = [{"id": number, "name": name} for number, name in categories]
    lists = {"images": images, "annotations": annotations, "categories": named}
    texts = (
        f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]" for key, entries in lists.items()
    )
    return ("{\n" + ",\n".join(texts) + "\n}\n").encode()


def coco_image(number: int, *, size: tuple[int, int] = (64, 48), folder: str = "") -> dict[str, Any]:
    """The entry of the image `image_64x48(number)`."""
    return {"id": number, "file_name": f"{folder}{number}.png", "width": size[0], "height": size[1]}


def coco_object(image: int, box: Box | None = (10, 5, 20, 15), *, category: int = 1, **more: Any) -> dict[str, Any]:
    """The entry of an object; the box is x, y, width, height."""
    entry = {"image_id": image, "category_id": category, **more}
    return entry if box is None else {**entry, "bbox": list(box)}


def coco_archive(*annotations: Mapping[str, Any], images: int = 6, **options: Any) -> dict[str, bytes]:
    """Images 0 to 5 and a COCO file with `annotations`; by default there is a cat in every image."""
    entries = [coco_image(number) for number in range(images)]
    objects = annotations or [coco_object(number) for number in range(images)]
    files = {f"images/{number}.png": image_64x48(number) for number in range(images)}
    return {**files, "annotations.json": coco_json(entries, objects, **options)}


def yolo_archive(*lines: str, images: int = 6, names: str = "names: [cat, dog]\n") -> dict[str, bytes]:
    """Images 0 to 5 with `lines` in the label file of the first and a cat in each of the others."""
    files = {f"images/{number}.png": image_64x48(number) for number in range(images)}
    files |= {f"labels/{number}.txt": b"0 0.5 0.5 0.25 0.5\n" for number in range(images)}
    return {**files, "labels/0.txt": "\n".join(lines).encode(), "data.yaml": names.encode()}


def images_of(store: DatasetStore, version: DatasetVersion) -> dict[str, DatasetImage]:
    """The images of both splits, by their names without folders."""
    return {
        image.name.rpartition("/")[2]: image for split in version.info.splits for image in store.images(version, split)
    }
