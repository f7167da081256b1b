"""Figures of a report show labels of any script. Warnings are errors here: matplotlib warns of a glyph it lacks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
import torch
from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.text import Text

from models.drawing.fonts import SYSTEM_DIRECTORIES, Fonts
from tests.fonts import write_font
from workers.training.confusion import draw_confusion
from workers.training.detection.metrics import CategoryScore, CocoScores
from workers.training.detection.report import draw_precision_recall

LABELS = ("Überraschung", "한국어", "日本語", "العربية", "हिन्दी 😀", r"$\broken", "cost $5 to $6")


def written(figure: Figure) -> list[str]:
    """The texts of a figure, after it was drawn."""
    figure.savefig(BytesIO(), format="png")
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.mark.parametrize("directories", [SYSTEM_DIRECTORIES, ()], ids=["system", "none"])
def test_labels_of_any_script_are_drawn(directories: tuple[Path, ...]) -> None:
    fonts = Fonts(directories=directories)
    scores = [CategoryScore(label=label, objects=3, ap=0.5, ap50=0.5, precision_at_50=(1.0,) * 101) for label in LABELS]

    confusion = written(draw_confusion(torch.eye(len(LABELS), dtype=torch.int64), LABELS, fonts))
    curves = written(draw_precision_recall(CocoScores(summary={}, categories=tuple(scores)), fonts))

    for label in LABELS:
        assert fonts.readable(label) in confusion
        assert f"{fonts.readable(label)}: AP 0.500 of 3" in curves


def test_chosen_font_is_used_and_the_rest_is_drawn_with_others(tmp_path: Path) -> None:
    chosen = write_font(tmp_path / "ChosenForFigures.ttf", "한국어")

    figure = draw_confusion(torch.eye(2, dtype=torch.int64), ("한국어", "Über"), Fonts(chosen, directories=()))

    assert "한국어" in written(figure)
    ticks = figure.axes[0].get_xticklabels()
    assert ticks[0].get_fontproperties().get_family() == ["ChosenForFigures", "DejaVu Sans", "DejaVu Sans"]


def test_fonts_are_set_for_the_labels_only(tmp_path: Path) -> None:
    chosen = write_font(tmp_path / "ChosenForOnce.ttf", "한국어")
    draw_confusion(torch.eye(1, dtype=torch.int64), ("한국어",), Fonts(chosen, directories=()))

    text = Figure().text(0, 0, "plain")

    assert get_font(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf")).family_name == text.get_fontname()
