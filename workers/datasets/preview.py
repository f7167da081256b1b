"""A contact sheet of a data set: the quickest way to see that the labels are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from PIL import Image

from models.drawing import Tile, contact_sheet, to_picture
from models.errors import ImageError
from models.images import decode_image
from workers.datasets.dataset import DatasetImage, DatasetInfo, SplitName
from workers.datasets.store import DatasetStore, DatasetVersion

MAX_TILES = 48
COLUMNS = 8
TILE_PX = 160
_FLAGGED_SHARE = 6  # at most one tile in so many shows what the report warns of
_VAL_SHARE = 4  # one image of `val` in so many of a category

_Entry = tuple[SplitName, DatasetImage]
_T = TypeVar("_T")


def preview_png(store: DatasetStore, version: DatasetVersion, *, max_tiles: int = MAX_TILES) -> bytes:
    """A PNG of images from every category, always the same ones; those the report warns of come first, framed red.

    With more categories than `max_tiles`, some of them from the first to the last. Images whose files went bad since
    they were validated are left out.
    Raises UnknownDatasetVersion if the version was deleted meanwhile.
    """
    info = version.info
    entries: list[_Entry] = [(split, image) for split in info.splits for image in store.images(version, split)]
    warnings = _warnings(info)
    flagged = [entry for entry in entries if entry[1].name in warnings][: max_tiles // _FLAGGED_SHARE]
    usual = [entry for entry in entries if entry[1].name not in warnings]
    tiles = [
        *_tiles(version, flagged, warnings=warnings),
        *_tiles(version, _choose(usual, len(info.categories), max_tiles - len(flagged)), warnings={}),
    ]
    counts = ", ".join(f"{summary.images:,} {split}" for split, summary in info.splits.items())
    title = f"{info.name}/{info.version}: {len(info.categories):,} categories; images: {counts}"
    return contact_sheet(tiles, columns=COLUMNS, tile_px=TILE_PX, title=title)


def _warnings(info: DatasetInfo) -> dict[str, str]:
    """What the report warns of, by the image's name."""
    warnings: dict[str, str] = {}
    for finding in info.report:
        if finding.severity == "warning":
            for name in finding.files:
                warnings.setdefault(name, finding.code.replace("_", " "))
    return warnings


def _choose(entries: Sequence[_Entry], categories: int, count: int) -> list[_Entry]:
    """About `count` of `entries`, category after category, a part of each from `val`."""
    by_category: list[list[_Entry]] = [[] for _ in range(categories)]
    for entry in entries:
        assert entry[1].category is not None
        by_category[entry[1].category].append(entry)
    shown = _spread([group for group in by_category if group], count)
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


def _tiles(version: DatasetVersion, entries: Sequence[_Entry], *, warnings: dict[str, str]) -> Iterator[Tile]:
    for split, image in entries:
        try:
            picture = to_picture(decode_image((version.images_dir / image.path).read_bytes()))
        except (ImageError, OSError):
            continue
        picture.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)  # at once: whole photos would add up
        warning = warnings.get(image.name)
        assert image.category is not None
        label = version.info.categories[image.category]
        yield Tile(
            image=picture,
            caption=f"{label}\n{split}, {warning or f'{image.width} x {image.height}'}",
            good=None if warning is None else False,
        )
