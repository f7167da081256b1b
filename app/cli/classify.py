"""`fovea classify`."""

from __future__ import annotations

import click

from app.cli.predicting import Given, PictureTable, answer_question, asks_about_pictures
from app.client.questions import CLASSIFY
from app.schemas.classify import ImageClasses


@click.command()
@asks_about_pictures
@click.option("--top-k", type=click.IntRange(min=1), help="Most categories per image.")
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only categories with at least this score.")
def classify(given: Given, *, top_k: int | None, score_threshold: float | None) -> int:
    """Classify images with a model. Exits with 1 if an image could not be read.

    IMAGES are files, or directories with images anywhere below them.
    """
    return answer_question(given, CLASSIFY, _TABLE, top_k=top_k, score_threshold=score_threshold)


def _rows(entry: ImageClasses) -> list[tuple[object, ...]]:
    return [(category.label, f"{category.score:.4f}") for category in entry.classes or ()]


_TABLE = PictureTable(columns=["CATEGORY", ">SCORE"], rows=_rows)
