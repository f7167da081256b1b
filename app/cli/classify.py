"""`fovea classify`."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option
from app.cli.predicting import Question, categories_option, model_option, pictures_argument, save_option
from app.schemas.classify import ClassifyResponse, ImageClasses


@click.command()
@pictures_argument
@model_option
@click.option("--top-k", type=click.IntRange(min=1), help="Most categories a picture.")
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only categories with at least this score.")
@categories_option
@save_option
@json_option
@url_option
def classify(
    pictures: tuple[Path, ...],
    model: str,
    top_k: int | None,
    score_threshold: float | None,
    categories: tuple[str, ...],
    save: Path | None,
    as_json: bool,
    url: str | None,
) -> int:
    """Ask a model what is on pictures. Exits with 1 if any of them could not be read."""
    with connected(url) as client:
        return _QUESTION.ask(
            client,
            pictures,
            model,
            save,
            as_json,
            top_k=top_k,
            score_threshold=score_threshold,
            categories=categories,
        )


def _rows(entry: ImageClasses) -> list[tuple[object, ...]]:
    return [(category.label, f"{category.score:.4f}") for category in entry.classes or ()]


_QUESTION = Question("classify", ClassifyResponse, ImageClasses, ["CATEGORY", ">SCORE"], _rows)
