"""Shows labels of any script on the figures of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.font_manager import fontManager

from models.drawing.fonts import Fonts


@contextmanager
def figure_labels(labels: Sequence[str], fonts: Fonts) -> Iterator[list[str]]:
    """Sets the fonts of figures inside the `with` block, and yields `labels` in the form in which they can be drawn.

    Otherwise matplotlib draws boxes for letters that its own font lacks, and takes `$` for the beginning of a formula.
    """
    families = [_family(file) for file in fonts.files(labels)]
    with rc_context({"font.family": [*families, "DejaVu Sans"], "text.parse_math": False}):
        yield [fonts.readable(label) for label in labels]


def _family(file: Path) -> str:
    """The name by which matplotlib knows the font in `file`."""
    known = next((entry for entry in fontManager.ttflist if Path(entry.fname) == file), None)
    if known is None:
        count = len(fontManager.ttflist)
        fontManager.addfont(file)
        known = fontManager.ttflist[count]  # a collection adds several; Pillow takes its first, too
    return known.name
