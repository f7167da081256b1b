"""The contact sheet of a dataset."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from models.drawing.colours import colour_of
from models.drawing.contact_sheet import Tile
from models.drawing.fonts import Fonts
from tests.datasets.builders import blocks, coco_archive, coco_object, folders, image_64x48, ingest, png_of, small_image
from workers.datasets.output import preview
from workers.datasets.output.preview import preview_png
from workers.datasets.output.target_drawing import legend
from workers.datasets.store import DatasetStore, DatasetVersion

FONTS = Fonts()


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def captions(
    store: DatasetStore, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch, **options: int
) -> list[str]:
    """The captions of the tiles, with `!` before the captions of tiles with a red frame."""
    seen: list[str] = []

    def note(tiles: list[Tile], _fonts: Fonts, **_: object) -> bytes:
        seen.extend(f"{'!' if tile.good is False else ''}{tile.caption}" for tile in tiles)
        return b""

    monkeypatch.setattr(preview, "contact_sheet", note)
    preview_png(store, version, FONTS, **options)
    return seen


def test_preview_is_an_image_and_always_the_same(store: DatasetStore) -> None:
    version = ingest(store, folders(ants=12, bees=12))
    sheet = preview_png(store, version, FONTS)

    assert sheet == preview_png(store, version, FONTS)
    assert Image.open(BytesIO(sheet)).size[0] > 1000


def test_every_category_is_shown_with_its_splits(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ingest(store, folders(train__ants=30, train__bees=30, val__ants=10, val__bees=10))
    seen = captions(store, version, monkeypatch, max_tiles=16)

    assert seen == [
        *["ants\ntrain, 16 x 12"] * 6,
        *["ants\nval, 16 x 12"] * 2,
        *["bees\ntrain, 16 x 12"] * 6,
        *["bees\nval, 16 x 12"] * 2,
    ]


def test_more_categories_than_tiles_shows_some_of_them(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ingest(store, {f"c{n:02}/{k}.png": small_image(n * 2 + k) for n in range(20) for k in range(2)})
    seen = captions(store, version, monkeypatch, max_tiles=5)

    assert [caption.split("\n")[0] for caption in seen] == ["c00", "c04", "c08", "c12", "c16"]


def test_images_with_warnings_come_first(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = folders(ants=120, bees=120) | {"bees/lone.gif": small_image(999, format="GIF")}
    seen = captions(store, ingest(store, files), monkeypatch)

    assert seen[0] in ("!bees\ntrain, odd format", "!bees\nval, odd format")
    assert not any(caption.startswith("!") for caption in seen[1:])


def test_damaged_image_is_left_out(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ingest(store, folders(ants=3, bees=3))
    paths = sorted(path for path in version.images_dir.rglob("*") if path.is_file())
    paths[0].write_bytes(b"rotten")
    paths[1].unlink()

    assert len(captions(store, version, monkeypatch)) == 4


def test_objects_are_drawn_and_counted(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = [[10, 5, 30, 5, 30, 20, 10, 20]]
    entries = [coco_object(number, category=1 + number % 2, segmentation=outline) for number in range(6)]
    version = ingest(store, coco_archive(*entries, coco_object(0, (1, 1, 9, 9), segmentation=outline)))
    sheet = Image.open(BytesIO(preview_png(store, version, FONTS)))
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or []}

    assert {colour_of(1), colour_of(2)} <= colours
    seen = captions(store, version, monkeypatch)
    assert seen[0] == "Colours"
    assert any(caption.startswith("2 cat\n") for caption in seen)


def test_images_without_objects_are_shown(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = ingest(store, coco_archive(coco_object(0), coco_object(1)))

    assert any(caption.startswith("no objects") for caption in captions(store, version, monkeypatch))


def test_label_maps_are_drawn_with_a_legend(store: DatasetStore) -> None:
    files = {f"images/{number}.png": image_64x48(number) for number in range(4)}
    files |= {f"labels/{number}.png": png_of(blocks((1, 5, 5, 40, 40))) for number in range(4)}
    sheet = Image.open(BytesIO(preview_png(store, ingest(store, files), FONTS)))
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or []}

    assert colour_of(1) in colours  # in the legend; the background is not tinted
    assert colour_of(0) not in colours


def test_legend_with_too_many_categories_keeps_its_size() -> None:
    assert legend([f"category {number}" for number in range(300)], 320, FONTS, first=1).size == (320, 320)


def test_colours_of_the_first_categories_differ() -> None:
    assert len({colour_of(index) for index in range(40)}) == 40
