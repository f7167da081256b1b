"""The legend of label masks: the names of the categories by their numbers, and the colours that stand for them.

CVAT writes `labelmap.txt` (`red:250,50,83::`), CamVid `class_dict.csv` (`name,r,g,b`) or `label_colors.txt`
(`250 50 83 red`), Roboflow `_classes.csv` (`Pixel Value, Class`), labelme `class_names.txt` and others `classes.txt`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import VOID
from workers.datasets.formats.annotation import Mask, clean_label
from workers.datasets.formats.index_image import BrokenIndexImage, Indices, read_colour_image
from workers.datasets.formats.table import open_table

_NAME_LISTS = ("classes.txt", "categories.txt", "labels.txt", "class_names.txt", "label_names.txt", "codes.txt")
_COLOUR_LISTS = ("labelmap.txt", "label_colors.txt", "label_colours.txt")
_CVAT_LINE = re.compile(r"([^#:][^:]*):(\d{1,3}),(\d{1,3}),(\d{1,3})(:.*)?")
_CAMVID_LINE = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)")
_NOT_LEARNED = ("void", "ignored", "ignore", "__ignore__")  # names of the pixels without a category
_MAX_BYTES = 2**20
_UNKNOWN_SHARE = 0.01  # of the pixels may have a colour that the legend lacks, as at blurred edges: they are void

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskLegend:
    """What the numbers or the colours of masks mean."""

    names: tuple[str, ...] = ()  # by number
    colours: Mapping[Colour, int] = field(default_factory=dict)  # number of each colour, 255 for void
    file: str | None = None  # name of the file that it was read from

    def mask(self, file: ArchivedFile) -> Mask:
        """Returns the mask of an image file whose pixels have the colours of this legend."""
        return Mask(name=file.name, read=lambda: self._numbers(file))

    def _numbers(self, file: ArchivedFile) -> Indices:
        """Returns the number at every pixel. Raises BrokenIndexImage."""
        colours, numbers = read_colour_image(file.path.read_bytes())
        codes = (colours.astype(np.int32) * (65536, 256, 1)).sum(axis=2)  # [H, W]
        found, places = np.unique(codes, return_inverse=True)
        known = {(red * 256 + green) * 256 + blue: number for (red, green, blue), number in self.colours.items()}
        table = np.array([known.get(int(code), -1) for code in found], dtype=np.int32)
        if numbers is not None and (table < 0).any() and int(numbers.max(initial=0)) < len(self.names):
            return numbers  # a grey file of numbers beside a legend of colours
        result = table[places.reshape(codes.shape)]
        unknown = result < 0
        if float(unknown.mean()) > _UNKNOWN_SHARE:
            code = int(codes[unknown][0])
            raise BrokenIndexImage(
                f"the legend {self.file} lacks the colour {code >> 16},{code >> 8 & 255},{code & 255}"
            )
        result[unknown] = VOID
        return result.astype(np.uint16)


def find_legend(files: Sequence[ArchivedFile]) -> MaskLegend:
    """Returns the legend of an archive; empty if it has none."""
    readers = (_colour_list, _table, _name_list)
    return next((legend for read in readers for file in files if (legend := read(file)) is not None), MaskLegend())


def _colour_list(file: ArchivedFile) -> MaskLegend | None:
    base = posixpath.basename(file.name).lower()
    if base not in _COLOUR_LISTS or file.size_bytes > _MAX_BYTES:
        return None
    entries: list[tuple[str, Colour]] = []
    for line in _lines(file):
        if cvat := _CVAT_LINE.fullmatch(line):
            entries.append((cvat[1], (int(cvat[2]), int(cvat[3]), int(cvat[4]))))
        elif camvid := _CAMVID_LINE.fullmatch(line):
            entries.append((camvid[4], (int(camvid[1]), int(camvid[2]), int(camvid[3]))))
    return _legend_of_colours(entries, file)


def _table(file: ArchivedFile) -> MaskLegend | None:
    table = open_table(file) if file.size_bytes <= _MAX_BYTES else None
    if table is None:
        return None
    columns = table.columns
    rows = table.sample(VOID + 1) if {"r", "g", "b"} < set(columns) or columns == ("pixel_value", "class") else []
    if columns == ("pixel_value", "class"):
        by_value = {int(cells[0]): clean_label(cells[1]) for cells in rows if len(cells) > 1 and _is_byte(cells[0])}
        names = tuple(by_value.get(value, str(value)) for value in range(max(by_value, default=-1) + 1))
        return MaskLegend(names=names, file=file.name) if names else None
    if not rows:
        return None
    places = [columns.index(column) for column in ("r", "g", "b")]
    name_at = next(at for at in range(len(columns)) if at not in places)
    entries: list[tuple[str, Colour]] = []
    for cells in rows:
        if len(cells) == len(columns) and all(_is_byte(cells[at]) for at in places):
            red, green, blue = (int(cells[at]) for at in places)
            entries.append((cells[name_at], (red, green, blue)))
    return _legend_of_colours(entries, file)


def _name_list(file: ArchivedFile) -> MaskLegend | None:
    if posixpath.basename(file.name).lower() not in _NAME_LISTS or file.size_bytes > _MAX_BYTES:
        return None
    names = [name for line in _lines(file) if (name := clean_label(line))]
    if names and names[0] == "__ignore__":
        names = names[1:]  # labelme counts it as -1
    return MaskLegend(names=tuple(names), file=file.name) if names else None


def _legend_of_colours(entries: Sequence[tuple[str, Colour]], file: ArchivedFile) -> MaskLegend | None:
    """Returns a legend whose numbers are the places in `entries`, without the entries for void."""
    labels = [(clean_label(name), colour) for name, colour in entries if clean_label(name) and max(colour) <= VOID]
    learned = [(name, colour) for name, colour in labels if name.casefold() not in _NOT_LEARNED]
    if not learned or len(learned) > VOID:
        return None
    colours = {colour: VOID for name, colour in labels if name.casefold() in _NOT_LEARNED}
    colours |= {colour: number for number, (_, colour) in enumerate(learned)}
    return MaskLegend(names=tuple(name for name, _ in learned), colours=colours, file=file.name)


def _lines(file: ArchivedFile) -> list[str]:
    return [line.strip() for line in file.path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]


def _is_byte(cell: str) -> bool:
    return re.fullmatch(r"\s*\d{1,3}\s*", cell, re.ASCII) is not None and int(cell) <= VOID
