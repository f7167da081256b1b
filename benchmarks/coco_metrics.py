"""`python -m benchmarks.coco_metrics`: every number of the detection metrics beside the one of pycocotools.

The archive is a COCO dataset with boxes, outlines, crowds, and objects on both sides of 32 x 32 and 96 x 96 px.
pycocotools reads its annotation file. Fovea reads the archive as if it were posted. Prints a table and the largest
difference; fails if that is above 1e-6.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pycocotools.mask as pycoco_mask
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore
from workers.training.detection.metrics import coco_scores

Kind = Literal["bbox", "segm"]
Entry = dict[str, Any]  # one entry of a COCO file
Bits = npt.NDArray[np.uint8]  # [HEIGHT_PX, WIDTH_PX], 0 and 1

TOLERANCE = 1e-6
WIDTH_PX, HEIGHT_PX = 260, 220
CATEGORIES = {1: "cat", 4: "dog", 9: "yak"}  # ids with gaps, as in COCO itself
_IMAGES = 10
_STATS = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "mar100": 8}
# Sides of objects whose areas lie below, at and above 32 x 32 and 96 x 96.
_SIDES_PX = ((31, 33), (32, 32), (33, 32), (16, 64), (95, 97), (96, 96), (97, 96), (72, 128), (12, 9), (150, 120))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """An annotated split and the detections on it, as COCO files have them."""

    annotations: Entry  # the whole annotation file
    results: dict[Kind, list[Entry]]  # the whole results files
    with_outlines: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One number of both libraries; None if there is nothing to measure."""

    name: str
    ours: float | None
    theirs: float | None

    @property
    def difference(self) -> float:
        """Infinite if only one library has the number."""
        if self.ours is None or self.theirs is None:
            return 0.0 if self.ours is self.theirs else float("inf")
        return abs(self.ours - self.theirs)


def main() -> None:
    """Prints the table for boxes and masks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coco_metrics", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the objects and detections")
    seed = parser.parse_args().seed
    kinds: tuple[Kind, ...] = ("bbox", "segm")
    worst = 0.0
    for kind in kinds:
        with tempfile.TemporaryDirectory() as directory:
            rows = compare(make_scene(seed), kind, Path(directory))
        print(f"\n{'boxes' if kind == 'bbox' else 'masks':<28}{'Fovea':>12}{'pycocotools':>14}{'difference':>12}")
        for row in rows:
            if "precision at" not in row.name or row.name.endswith("0"):  # every tenth point of the curves
                print(f"{row.name:<28}{_shown(row.ours):>12}{_shown(row.theirs):>14}{row.difference:>12.1e}")
        worst = max(worst, *(row.difference for row in rows))
    print(f"\nLargest difference of all numbers: {worst:.1e}")
    if worst > TOLERANCE:
        raise SystemExit(1)


def make_scene(seed: int, *, with_outlines: bool = True, detections_per_object: float = 1.6) -> Scene:
    """Returns objects of all sizes with crowds; right, wrong, repeated and shifted detections; and equal scores."""
    random = np.random.default_rng(seed)
    annotations: list[Entry] = []
    results: dict[Kind, list[Entry]] = {"bbox": [], "segm": []}
    for image in range(1, _IMAGES + 1):
        for _ in range(int(random.integers(1, 6)) if image > 1 else 0):  # the first image has no object
            bits = _shape(random)
            category = int(random.choice([1, 4]))  # no image has the last category
            is_crowd = bool(random.uniform() < 0.15)
            annotations.append(_annotation(len(annotations) + 1, image, category, bits, is_crowd, with_outlines))
            for _ in range(int(random.poisson(detections_per_object))):
                label = category if random.uniform() < 0.85 else int(random.choice(list(CATEGORIES)))
                _add_detection(results, image, label, _moved(bits, random), random)
        for _ in range(int(random.integers(0, 4))):  # where there is nothing, or in a crowd
            _add_detection(results, image, int(random.choice(list(CATEGORIES))), _shape(random), random)
    file = {  # names in the order of the ids, because the order of the images decides between equal scores
        "info": {},
        "images": [
            {"id": n, "file_name": f"{n:03}.png", "width": WIDTH_PX, "height": HEIGHT_PX} for n in range(1, _IMAGES + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
    }
    return Scene(annotations=file, results=results, with_outlines=with_outlines)


def compare(scene: Scene, kind: Kind, directory: Path) -> list[Row]:
    """Returns every number of the metrics. directory: an empty one for files."""
    store = DatasetStore(directory / "datasets")
    version = ingest_archive(_archive(scene), name="scene", store=store, now=datetime.now(UTC)).info
    images = list(store.images(store.get("scene", version.version), "val"))
    labels = {name: place for place, name in enumerate(version.categories, start=1)}
    detections = [_detections(scene, kind, Path(image.name).stem, labels) for image in images]
    ours = coco_scores(detections, images, version.categories, of=kind)
    theirs = _pycocotools(scene, kind, directory)

    rows = [
        Row(name=name, ours=ours.summary.get(name), theirs=_known(theirs.stats[place]))
        for name, place in _STATS.items()
    ]
    ids = {name: place for place, name in enumerate(CATEGORIES.values())}
    for category in ours.categories:
        precision = theirs.eval["precision"][:, :, ids[category.label], 0, -1]  # [IoU, recall]
        rows.append(Row(name=f"{category.label}: AP", ours=category.ap, theirs=_known(precision.mean())))
        rows.append(Row(name=f"{category.label}: AP50", ours=category.ap50, theirs=_known(precision[0].mean())))
        curve = precision[0] if precision.max() > -1 else []
        rows += [
            Row(name=f"{category.label}: precision at {at / 100:.2f}", ours=one, theirs=float(other))
            for at, (one, other) in enumerate(zip(category.precision_at_50, curve, strict=True))
        ]
        objects = [each for each in scene.annotations["annotations"] if not each["iscrowd"]]
        count = sum(CATEGORIES[each["category_id"]] == category.label for each in objects)
        rows.append(Row(name=f"{category.label}: objects", ours=category.objects, theirs=count))
    return rows


def _pycocotools(scene: Scene, kind: Kind, directory: Path) -> Any:
    """The evaluation of pycocotools, from files. It needs at least one row; a row of an unknown category is ignored."""
    annotations, results = directory / "instances_val.json", directory / "results.json"
    annotations.write_text(json.dumps(scene.annotations))
    nothing: Entry = {"image_id": 1, "category_id": 10**6, "score": 0.0}
    nothing |= {"bbox": [0, 0, 1, 1]} if kind == "bbox" else {"segmentation": _run_lengths(_rectangle(0, 0, 1, 1))}
    results.write_text(json.dumps(scene.results[kind] or [nothing]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _archive(scene: Scene) -> io.BytesIO:
    """The archive that a person would post: the scene as `val`, and one image per category as `train`."""
    archive = io.BytesIO()
    train = [{"id": n, "file_name": f"t{n}.png", "width": 64, "height": 64} for n in CATEGORIES]
    objects = [
        _annotation(n, n, n, np.pad(np.ones((20, 20), np.uint8), 22), False, scene.with_outlines) for n in CATEGORIES
    ]
    lists = {"val": scene.annotations, "train": scene.annotations | {"images": train, "annotations": objects}}
    with zipfile.ZipFile(archive, "w") as file:
        for number, (split, content) in enumerate(lists.items()):
            file.writestr(f"instances_{split}.json", json.dumps(content))
            for image in content["images"]:
                pixels = Image.new("RGB", (image["width"], image["height"]), (number, image["id"], 0))
                encoded = io.BytesIO()
                pixels.save(encoded, "PNG")
                file.writestr(f"{split}/{image['file_name']}", encoded.getvalue())
    archive.seek(0)
    return archive


def _detections(scene: Scene, kind: Kind, image: str, labels: Mapping[str, int]) -> dict[str, Any]:
    """The rows of one image in the form that a network gives them."""
    rows = [row for row in scene.results[kind] if row["image_id"] == int(image)]
    boxes = [[0.0, 0.0, WIDTH_PX, HEIGHT_PX] for _ in rows]  # a network's masks may be much smaller than their boxes
    if kind == "bbox":
        boxes = [[x, y, x + width, y + height] for x, y, width, height in (row["bbox"] for row in rows)]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([labels[CATEGORIES[row["category_id"]]] for row in rows], dtype=torch.int64),
        "scores": torch.tensor([row["score"] for row in rows], dtype=torch.float32),
        "masks": [row["segmentation"]["counts"] for row in rows] if kind == "segm" else [],
    }


def _annotation(number: int, image: int, category: int, bits: Bits, is_crowd: bool, with_outlines: bool) -> Entry:
    """The entry of an object. Its `area` is that of its pixels, also where it has only a box: COCO states it so."""
    entry: Entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": int(is_crowd),
        "bbox": _box(bits),
        "area": int(bits.sum()),
    }
    if with_outlines:
        entry["segmentation"] = _outline(bits, is_crowd)
    return entry


def _outline(bits: Bits, is_crowd: bool) -> Entry | list[list[float]]:
    """A polygon if the pixels fill their box. Run lengths otherwise, and for crowds, as COCO has them."""
    left, top, width, height = _box(bits)
    if is_crowd or bits.sum() < width * height:
        return _run_lengths(bits)
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def _add_detection(
    results: dict[Kind, list[Entry]], image: int, category: int, bits: Bits, random: np.random.Generator
) -> None:
    score = round(float(random.uniform()) * 64) / 64  # many scores are equal, and float32 has them exactly
    row = {"image_id": image, "category_id": category, "score": score}
    results["bbox"].append({**row, "bbox": _box(bits)})
    results["segm"].append({**row, "segmentation": _run_lengths(bits)})


def _shape(random: np.random.Generator) -> Bits:
    """A rectangle, or one with a corner cut out, so that its area is far from that of its box."""
    width, height = _SIDES_PX[int(random.integers(len(_SIDES_PX)))]
    left, top = int(random.integers(WIDTH_PX - width)), int(random.integers(HEIGHT_PX - height))
    bits = _rectangle(left, top, width, height)
    if random.uniform() < 0.5:
        bits[top : top + height * 2 // 3, left + width // 3 :] = 0
    return bits


def _moved(bits: Bits, random: np.random.Generator) -> Bits:
    """The shape, moved by some pixels and without those that leave the image."""
    by_y, by_x = (int(value) for value in random.integers(-4, 5, 2))
    moved = np.zeros_like(bits)
    rows, columns = np.nonzero(bits)
    inside = (rows + by_y >= 0) & (rows + by_y < HEIGHT_PX) & (columns + by_x >= 0) & (columns + by_x < WIDTH_PX)
    moved[rows[inside] + by_y, columns[inside] + by_x] = 1
    return moved


def _rectangle(left: int, top: int, width: int, height: int) -> Bits:
    bits = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    bits[top : top + height, left : left + width] = 1
    return bits


def _box(bits: Bits) -> list[float]:
    """x, y, width and height of the smallest box around the pixels."""
    rows, columns = np.nonzero(bits)
    left, top = int(columns.min()), int(rows.min())
    return [float(left), float(top), float(columns.max() + 1 - left), float(rows.max() + 1 - top)]


def _run_lengths(bits: Bits) -> Entry:
    encoded = pycoco_mask.encode(np.asfortranarray(bits))
    return {"size": list(bits.shape), "counts": encoded["counts"].decode()}


def _known(value: float) -> float | None:
    return None if value <= -1 else float(value)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


if __name__ == "__main__":
    main()
