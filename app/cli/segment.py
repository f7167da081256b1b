"""`fovea segment`."""

from __future__ import annotations

import click

from app.cli.predicting import Given, PictureTable, answer_question, asks_about_pictures
from app.client.questions import SEGMENT
from app.schemas.segment import ImageSegments


@click.command()
@asks_about_pictures
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only pixels with at least this score; default 0.")
@click.option("--masks", type=click.Choice(["rle", "png", "none"]), help="Form of masks in JSON; default rle.")
def segment(given: Given, *, score_threshold: float | None, masks: str | None) -> int:
    """Segment images with a model. Exits with 1 if an image could not be read.

    IMAGES are files, or directories with images anywhere below them.
    """
    masks = masks or ("none" if given.is_for_people else None)
    return answer_question(given, SEGMENT, _TABLE, score_threshold=score_threshold, masks=masks)


def _rows(entry: ImageSegments) -> list[tuple[object, ...]]:
    return [(segment.label, f"{segment.share:.2%}") for segment in entry.segments or ()]


_TABLE = PictureTable(columns=["CATEGORY", ">SHARE"], rows=_rows)
