"""A contact sheet of a data set: the quickest way to see that labels, boxes and masks are right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from models.drawing.contact_sheet import Tile, contact_sheet, to_picture
from models.errors import ImageError
from models.images.decode import decode_image
from workers.datasets.dataset import DatasetImage, DatasetInfo, SplitName
from workers.datasets.findings import counted
from workers.datasets.formats.index_png import BrokenIndexPng, read_index_png
from workers.datasets.output.target_drawing import draw_label_map, draw_objects, fitted, legend
from workers.datasets.store import DatasetStore, DatasetVersion

MAX_TILES = 48
COLUMNS = 8
TILE_PX = 160
MAX_LARGE_TILES = 19  # where targets are drawn on them: with the legend four rows
LARGE_COLUMNS = 5
LARGE_TILE_PX = 320
_NAMES_IN_CAPTION = 4
_FLAGGED_SHARE = 6  # at most one tile in so many shows what the report warns of
_VAL_SHARE = 4  # one image of `val` in so many of a category

_Entry = tuple[SplitName, DatasetImage]
_T = TypeVar("_T")


def preview_png(store: DatasetStore, version: DatasetVersion, *, max_tiles: int | None = None) -> bytes:
    """A PNG of images from every category, always the same ones; those the report warns of come first, framed red.

    Objects and label maps are drawn on them. With more categories than tiles, some from the first to the last. Images
    whose files went bad since they were validated are left out.
    max_tiles: null takes 48, or 19 where targets are drawn.
    Raises UnknownDatasetVersion if the version was deleted meanwhile.
    """
    info = version.info
    is_large = info.task != "classification"
    count = max_tiles or (MAX_LARGE_TILES if is_large else MAX_TILES)
    entries: list[_Entry] = [(split, image) for split in info.splits for image in store.images(version, split)]
    warnings = _warnings(info)
    flagged = [entry for entry in entries if entry[1].name in warnings][: count // _FLAGGED_SHARE]
    usual = [entry for entry in entries if entry[1].name not in warnings]
    tiles = [
        *(
            [
                Tile(
                    image=legend(info.categories, LARGE_TILE_PX, first=1 if info.task == "detection" else 0),
                    caption="The colours",
                )
            ]
            if is_large
            else []
        ),
        *_tiles(version, flagged, warnings=warnings),
        *_tiles(version, _choose(usual, count - len(flagged)), warnings={}),
    ]
    counts = ", ".join(f"{summary.images:,} {split}" for split, summary in info.splits.items())
    title = f"{info.name}/{info.version}: {counted(len(info.categories), 'category', 'categories')}; images: {counts}"
    columns, tile_px = (LARGE_COLUMNS, LARGE_TILE_PX) if is_large else (COLUMNS, TILE_PX)
    return contact_sheet(tiles, columns=columns, tile_px=tile_px, title=title)


def _warnings(info: DatasetInfo) -> dict[str, str]:
    """What the report warns of, by the image's name."""
    warnings: dict[str, str] = {}
    for finding in info.report:
        if finding.severity == "warning":
            for name in finding.files:
                warnings.setdefault(name, finding.code.replace("_", " "))
    return warnings


def _choose(entries: Sequence[_Entry], count: int) -> list[_Entry]:
    """About `count` of `entries`, category after category, a part of each from `val`.

    An image with objects of several categories counts for the one that the fewest images have.
    """
    images = Counter(category for _, image in entries for category in _categories(image))
    by_category: defaultdict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        rarest = min(_categories(entry[1]), key=lambda category: (images[category], category))
        by_category[rarest].append(entry)
    shown = _spread([by_category[category] for category in sorted(by_category)], count)
    chosen: list[_Entry] = []
    for group in shown:
        quota = count // len(shown)
        val = [entry for entry in group if entry[0] == "val"]
        train = [entry for entry in group if entry[0] == "train"]
        of_val = min(len(val), max(quota // _VAL_SHARE, quota - len(train)))
        chosen += [*_spread(train, quota - of_val), *_spread(val, of_val)]
    return chosen


def _spread(items: Sequence[_T], count: int) -> list[_T]:
    """`count` of `items` at even distances, or all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _categories(image: DatasetImage) -> set[int]:
    """What is on the image; -1 for nothing, or for what only its label map knows."""
    if image.category is not None:
        return {image.category}
    return {each.category for each in image.objects} or {-1}


def _tiles(version: DatasetVersion, entries: Sequence[_Entry], *, warnings: dict[str, str]) -> Iterator[Tile]:
    for split, image in entries:
        try:
            picture = _drawn(version, image)
        except (ImageError, BrokenIndexPng, OSError):
            continue
        warning = warnings.get(image.name)
        yield Tile(
            image=picture,
            caption=f"{_said(image, version.info)}\n{split}, {warning or f'{image.width} x {image.height}'}",
            good=None if warning is None else False,
        )


def _drawn(version: DatasetVersion, image: DatasetImage) -> Image.Image:
    """The image at the size of a tile, at once: whole photos would add up."""
    picture = to_picture(decode_image((version.images_dir / image.path).read_bytes()))
    if version.info.task == "classification":
        picture.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        return picture
    small = fitted(picture, LARGE_TILE_PX)
    if image.label_map is not None:
        indices = read_index_png((version.images_dir / image.label_map).read_bytes())
        return draw_label_map(small, indices.astype(np.uint8), version.info.categories)
    return draw_objects(small, image.objects, version.info.categories, size=(image.width, image.height))


def _said(image: DatasetImage, info: DatasetInfo) -> str:
    """The label, or what is on the image: `12 RBC, 1 WBC`."""
    if image.category is not None:
        return info.categories[image.category]
    if image.label_map is not None:
        return image.name.rpartition("/")[2]
    counts = Counter(each.category for each in image.objects).most_common()
    words = [f"{count:,} {info.categories[category]}" for category, count in counts[:_NAMES_IN_CAPTION]]
    return ", ".join([*words, *(["…"] if len(counts) > _NAMES_IN_CAPTION else [])]) or "nothing"
