"""How fast an archive becomes a dataset: `python -m benchmarks.intake [--images 5000]`. Takes about a minute.

A COCO set of photos of 640 x 480 px with seven objects each, half of them with outlines, as in COCO itself. It prints
the seconds of a core (all threads together) for the whole intake and for reading alone, the best of several tries, and
the seconds that pass. To compare two commits on one machine, give both the same `--archive`, by turns.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from workers.datasets.archives.archive import unpack_archive
from workers.datasets.formats.catalog import read_files
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore

SIZE = (640, 480)
OBJECTS = 7
CATEGORIES = 80


def main() -> None:
    """Prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--archive", type=Path, help="where the archive is, or where it is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        archive: Path = arguments.archive or Path(directory) / "coco.zip"
        if not archive.exists():
            write_coco(archive, images=arguments.images)
        whole, passed = min(intake_s(archive, Path(directory) / f"home{index}") for index in range(arguments.tries))
        reading = reading_s(archive, Path(directory) / "unpacked", tries=arguments.tries)
    print(f"{arguments.images:,} images, {arguments.images * OBJECTS:,} objects, best of {arguments.tries}")
    print(f"whole intake: {whole:.1f} s of a core, {passed:.1f} s passed, {arguments.images / passed:.0f} images/s")
    print(f"reading the annotations: {reading:.2f} s of a core")


def write_coco(path: Path, *, images: int) -> None:
    """Writes a COCO archive whose photos have different content, so that no two of them are near-duplicates."""
    chance = random.Random(0)
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": f"category {number}"} for number in range(1, CATEGORIES + 1)],
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(images):
            name = f"{number:012d}.jpg"
            archive.writestr(f"val2017/{name}", photo(chance))
            document["images"].append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            document["annotations"] += [object_of(number, chance) for _ in range(OBJECTS)]
        archive.writestr("annotations/instances_val2017.json", json.dumps(document))


def photo(chance: random.Random) -> bytes:
    """A JPEG of soft random patches, about as large as a photo of this size."""
    small = Image.frombytes("RGB", (32, 24), chance.randbytes(32 * 24 * 3))
    encoded = io.BytesIO()
    small.resize(SIZE, Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def object_of(image: int, chance: random.Random) -> dict[str, Any]:
    """An object with a box, and an outline of 16 points in one of two objects."""
    x, y = chance.randrange(SIZE[0] - 130), chance.randrange(SIZE[1] - 130)
    width, height = chance.randrange(10, 120), chance.randrange(10, 120)
    entry = {
        "image_id": image,
        "category_id": chance.randrange(1, CATEGORIES + 1),
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
    if chance.random() < 0.5:
        top = [value for step in range(8) for value in (x + width * step / 7, y + step % 2)]
        bottom = [value for step in range(8) for value in (x + width * (7 - step) / 7, y + height - step % 2)]
        entry["segmentation"] = [top + bottom]
    return entry


def intake_s(archive: Path, home: Path) -> tuple[float, float]:
    """The seconds of a core that a whole intake takes, and the seconds that pass."""
    began_at, used = time.perf_counter(), time.process_time()
    ingest_archive(archive, name="coco", store=DatasetStore(home), now=datetime.now(UTC))
    return time.process_time() - used, time.perf_counter() - began_at


def reading_s(archive: Path, directory: Path, *, tries: int) -> float:
    """The seconds in which the annotations of the unpacked archive are read, the best of several tries."""
    files = unpack_archive(archive, directory).files
    seconds = []
    for _ in range(tries):
        used = time.process_time()
        read_files(files)
        seconds.append(time.process_time() - used)
    return min(seconds)


if __name__ == "__main__":
    main()
