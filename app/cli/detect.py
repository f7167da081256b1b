"""`fovea detect`."""

from __future__ import annotations

import click

from app.cli.predicting import Given, PictureTable, answer_question, asks_about_pictures
from app.client.questions import DETECT
from app.schemas.detect import ImageDetections


@click.command()
@asks_about_pictures
@click.option(
    "--score-threshold", type=click.FloatRange(0, 1), help="Only objects with at least this score; default 0.5."
)
@click.option(
    "--iou-threshold", type=click.FloatRange(0, 1), help="Of boxes that overlap more, only the best stays; default 0.5."
)
@click.option("--max-detections", type=click.IntRange(min=1), help="Most objects per image; default 100.")
@click.option(
    "--masks",
    type=click.Choice(["rle", "polygon", "none"]),
    help="Form of masks in JSON; default rle if there are masks.",
)
@click.option("--tile", type=click.IntRange(min=1), help="Cut larger images into tiles of this side, pixels.")
@click.option(
    "--overlap", type=click.FloatRange(0, 1), help="Share of a tile in common with its neighbour; default 0.2."
)
def detect(
    given: Given,
    *,
    score_threshold: float | None,
    iou_threshold: float | None,
    max_detections: int | None,
    masks: str | None,
    tile: int | None,
    overlap: float | None,
) -> int:
    """Detect the objects in images with a model. Exits with 1 if an image could not be read.

    IMAGES are files, or directories with images anywhere below them.
    """
    return answer_question(
        given,
        DETECT,
        _TABLE,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        masks=masks or ("none" if given.is_for_people else None),
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


_TABLE = PictureTable(columns=["CATEGORY", ">SCORE", ">BOX"], rows=_rows)
