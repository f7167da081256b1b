"""What the demo shows of its answers: a table on the terminal and a contact sheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.demo.digits import Digit, grey_levels

_ON_THE_SHEET = 100


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said of a digit."""

    digit: Digit
    label: str
    score: float

    @property
    def is_right(self) -> bool:
        return self.label == self.digit.label


def print_answers(screen: Console, answers: Sequence[Answer]) -> None:
    """One digit of each kind, then up to three that it got wrong."""
    firsts = {answer.digit.label: answer for answer in reversed(answers) if answer.is_right}
    wrong = [answer for answer in answers if not answer.is_right][:3]
    table = Table(box=SIMPLE_HEAD, show_lines=True, pad_edge=False, show_edge=False)
    for column in ("IMAGE", "TRUTH", "PREDICTION", "SCORE"):
        table.add_column(column, vertical="middle", justify="left" if column == "IMAGE" else "center")
    for answer in [*(firsts[label] for label in sorted(firsts)), *wrong]:
        colour = "green" if answer.is_right else "red"
        picture = half_blocks(answer.digit.png, in_colour=screen.color_system is not None)
        table.add_row(picture, answer.digit.label, Text(answer.label, style=colour), f"{answer.score:.3f}")
    screen.print(table)


def half_blocks(png: bytes, *, in_colour: bool) -> Text:
    """An image as text: two rows of pixels in a row of characters."""
    rows = grey_levels(png)
    picture = Text()
    for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=[0] * len(rows[0])):
        for above, below in zip(upper, lower, strict=True):
            if in_colour:
                picture.append("▀", style=f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
            else:
                picture.append(" ▄▀█"[2 * (above > 127) + (below > 127)])
        picture.append("\n")
    picture.rstrip()
    return picture


def draw_sheet(answers: Sequence[Answer], *, title: str) -> bytes:
    """A PNG of all that were wrong and as many others of each kind as fit."""
    from models.drawing.contact_sheet import Tile, contact_sheet
    from models.drawing.fonts import Fonts

    tiles = [
        Tile(
            image=Image.open(BytesIO(answer.digit.png)),
            caption=f"{answer.digit.label} as {answer.label}  {answer.score:.2f}",
            good=answer.is_right,
        )
        for answer in _chosen(answers)
    ]
    return contact_sheet(tiles, Fonts(), columns=10, tile_px=96, title=title)


def _chosen(answers: Sequence[Answer]) -> list[Answer]:
    wrong = [answer for answer in answers if not answer.is_right][:_ON_THE_SHEET]
    by_label: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.is_right:
            by_label[answer.digit.label].append(answer)
    taking_turns = (answer for turn in zip_longest(*by_label.values()) for answer in turn if answer)
    right = [answer for answer, _ in zip(taking_turns, range(_ON_THE_SHEET - len(wrong)), strict=False)]
    return sorted(right, key=lambda answer: answer.digit.label) + wrong
