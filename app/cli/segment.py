"""`fovea segment`."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option
from app.cli.predicting import Question, categories_option, model_option, pictures_argument, save_option
from app.schemas.segment import ImageSegments, SegmentResponse


@click.command()
@pictures_argument
@model_option
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only pixels with at least this score; 0.")
@categories_option
@click.option("--masks", type=click.Choice(["rle", "png", "none"]), help="How masks are printed with --json; rle.")
@save_option
@json_option
@url_option
def segment(
    pictures: tuple[Path, ...],
    model: str,
    score_threshold: float | None,
    categories: tuple[str, ...],
    masks: str | None,
    save: Path | None,
    as_json: bool,
    url: str | None,
) -> int:
    """Ask a model what every pixel of pictures shows. Exits with 1 if any of them could not be read."""
    with connected(url) as client:
        return _QUESTION.ask(
            client,
            pictures,
            model,
            save,
            as_json,
            score_threshold=score_threshold,
            categories=categories,
            masks=masks or (None if as_json else "none"),  # a table shows none
        )


def _rows(entry: ImageSegments) -> list[tuple[object, ...]]:
    return [(segment.label, f"{segment.share:.2%}") for segment in entry.segments or ()]


_QUESTION = Question("segment", SegmentResponse, ImageSegments, ["CATEGORY", ">SHARE"], _rows)
