"""`fovea detect`."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option
from app.cli.predicting import Question, categories_option, model_option, pictures_argument, save_option
from app.schemas.detect import DetectResponse, ImageDetections


@click.command()
@pictures_argument
@model_option
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only objects with at least this score; 0.5.")
@click.option(
    "--iou-threshold", type=click.FloatRange(0, 1), help="Of boxes that overlap by more, the best one stays; 0.5."
)
@click.option("--max-detections", type=click.IntRange(min=1), help="Most objects a picture; 100.")
@categories_option
@click.option(
    "--masks", type=click.Choice(["rle", "polygon", "none"]), help="How masks are printed with --json; rle if made."
)
@click.option("--tile", type=click.IntRange(min=1), help="Look at larger pictures in tiles of this side, pixels.")
@click.option("--overlap", type=click.FloatRange(0, 1), help="Share of a tile that its neighbour sees too; 0.2.")
@save_option
@json_option
@url_option
def detect(
    pictures: tuple[Path, ...],
    model: str,
    score_threshold: float | None,
    iou_threshold: float | None,
    max_detections: int | None,
    categories: tuple[str, ...],
    masks: str | None,
    tile: int | None,
    overlap: float | None,
    save: Path | None,
    as_json: bool,
    url: str | None,
) -> int:
    """Ask a model for the objects on pictures. Exits with 1 if any of them could not be read."""
    with connected(url) as client:
        return _QUESTION.ask(
            client,
            pictures,
            model,
            save,
            as_json,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            categories=categories,
            masks=masks or (None if as_json else "none"),  # a table shows none
            tile=tile,
            overlap=overlap,
        )


def _rows(entry: ImageDetections) -> list[tuple[object, ...]]:
    return [
        (
            found.label,
            f"{found.score:.4f}",
            f"{found.box.x_min:.0f} {found.box.y_min:.0f} {found.box.x_max:.0f} {found.box.y_max:.0f}",
        )
        for found in entry.detections or ()
    ]


_QUESTION = Question("detect", DetectResponse, ImageDetections, ["CATEGORY", ">SCORE", ">BOX"], _rows)
