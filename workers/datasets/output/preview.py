"""Draws a contact sheet of a dataset: the quickest way to see that labels, boxes and masks are right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from models.drawing.contact_sheet import Tile, contact_sheet, to_picture
from models.drawing.fonts import Fonts
from models.errors import ImageError
from models.images.decode import decode_image
from workers.datasets.dataset import DatasetImage, DatasetInfo, SplitName
from workers.datasets.findings import counted
from workers.datasets.formats.index_image import BrokenIndexImage, read_index_image
from workers.datasets.output.target_drawing import draw_label_map, draw_objects, legend, resize_longer_side
from workers.datasets.store import DatasetStore, DatasetVersion

MAX_TILES = 48
COLUMNS = 8
TILE_PX = 160
MAX_LARGE_TILES = 19  # for images with boxes or masks: four rows of five, including the legend
LARGE_COLUMNS = 5
LARGE_TILE_PX = 320
_NAMES_IN_CAPTION = 4
_TILES_PER_WARNING = 6  # at most one tile in 6 shows an image that the report warns about
_IMAGES_PER_VAL_IMAGE = 4  # one image in 4 of a category comes from `val`

_Entry = tuple[SplitName, DatasetImage]
_T = TypeVar("_T")


def preview_png(store: DatasetStore, version: DatasetVersion, fonts: Fonts, *, max_tiles: int | None = None) -> bytes:
    """Returns a PNG with images of every category; the choice depends only on the version.

    Images that the report warns about come first, in a red frame. Objects and label maps are drawn on the images. If
    there are more categories than tiles, some categories are shown, evenly spread. Images whose files were damaged
    after validation are left out.
    max_tiles: None means 48, or 19 if objects or label maps are drawn.
    Raises UnknownDatasetVersion if the version was deleted meanwhile.
    """
    info = version.info
    is_large = info.task != "classification"
    count = max_tiles or (MAX_LARGE_TILES if is_large else MAX_TILES)
    entries: list[_Entry] = [(split, image) for split in info.splits for image in store.images(version, split)]
    warnings = _warnings(info)
    flagged = [entry for entry in entries if entry[1].name in warnings][: count // _TILES_PER_WARNING]
    others = [entry for entry in entries if entry[1].name not in warnings]
    tiles = [
        *(
            [
                Tile(
                    image=legend(info.categories, LARGE_TILE_PX, fonts, first=1 if info.task == "detection" else 0),
                    caption="Colours",
                )
            ]
            if is_large
            else []
        ),
        *_tiles(version, flagged, fonts, warnings=warnings),
        *_tiles(version, _chosen(others, count - len(flagged)), fonts, warnings={}),
    ]
    counts = ", ".join(f"{summary.images:,} {split}" for split, summary in info.splits.items())
    title = f"{info.name}/{info.version}: {counted(len(info.categories), 'category', 'categories')}; images: {counts}"
    columns, tile_px = (LARGE_COLUMNS, LARGE_TILE_PX) if is_large else (COLUMNS, TILE_PX)
    return contact_sheet(tiles, fonts, columns=columns, tile_px=tile_px, title=title)


def _warnings(info: DatasetInfo) -> dict[str, str]:
    """The warnings of the report, by the name of the image."""
    warnings: dict[str, str] = {}
    for finding in info.report:
        if finding.severity == "warning":
            for name in finding.files:
                warnings.setdefault(name, finding.code.replace("_", " "))
    return warnings


def _chosen(entries: Sequence[_Entry], count: int) -> list[_Entry]:
    """Chooses about `count` of `entries`, category by category; some of each come from `val`.

    An image with several categories counts for the rarest one.
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
        val_count = min(len(val), max(quota // _IMAGES_PER_VAL_IMAGE, quota - len(train)))
        chosen += [*_spread(train, quota - val_count), *_spread(val, val_count)]
    return chosen


def _spread(items: Sequence[_T], count: int) -> list[_T]:
    """Returns `count` evenly spread `items`, or all of them if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _categories(image: DatasetImage) -> set[int]:
    """The categories of the image; {-1} if it has no objects, or only a label map."""
    if image.category is not None:
        return {image.category}
    return {each.category for each in image.objects} or {-1}


def _tiles(
    version: DatasetVersion, entries: Sequence[_Entry], fonts: Fonts, *, warnings: dict[str, str]
) -> Iterator[Tile]:
    for split, image in entries:
        try:
            drawn = _drawn(version, image, fonts)
        except (ImageError, BrokenIndexImage, OSError):
            continue
        warning = warnings.get(image.name)
        yield Tile(
            image=drawn,
            caption=f"{_summary(image, version.info)}\n{split}, {warning or f'{image.width} x {image.height}'}",
            good=None if warning is None else False,
        )


def _drawn(version: DatasetVersion, image: DatasetImage, fonts: Fonts) -> Image.Image:
    """Draws the image at the size of a tile. Full-size images of all tiles would take too much memory."""
    decoded = to_picture(decode_image((version.images_dir / image.path).read_bytes()))
    if version.info.task == "classification":
        decoded.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        return decoded
    small = resize_longer_side(decoded, LARGE_TILE_PX)
    if image.label_map is not None:
        indices = read_index_image((version.images_dir / image.label_map).read_bytes())
        return draw_label_map(small, indices.astype(np.uint8), version.info.categories)
    return draw_objects(small, image.objects, version.info.categories, fonts, size=(image.width, image.height))


def _summary(image: DatasetImage, info: DatasetInfo) -> str:
    """The label of the image, or the objects in it: `12 RBC, 1 WBC`."""
    if image.category is not None:
        return info.categories[image.category]
    if image.label_map is not None:
        return image.name.rpartition("/")[2]
    counts = Counter(each.category for each in image.objects).most_common()
    words = [f"{count:,} {info.categories[category]}" for category, count in counts[:_NAMES_IN_CAPTION]]
    return ", ".join([*words, *(["…"] if len(counts) > _NAMES_IN_CAPTION else [])]) or "no objects"
