"""`fovea classify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from app.cli import EXIT_OK, EXIT_PROBLEM
from app.cli.connection import connected, url_option
from app.cli.output import json_option, print_json, print_table
from app.client import Client, ProblemError
from app.schemas.classify import ClassifyResponse, ImageInfo, ImagePrediction, Timing, UsedModel

_MOST_IMAGES = 16
_MOST_BYTES = 16 * 1024**2
_FAULTS_OF_A_PICTURE = ("not_an_image", "broken_image", "image_too_large")


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--model", required=True, help="`ants-bees`, `ants-bees@staging`, `ants-bees/3`, or pretrained: `resnet50`."
)
@click.option("--top-k", type=click.IntRange(min=1), help="Most categories a picture.")
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Only categories with at least this score.")
@json_option
@url_option
def classify(
    pictures: tuple[Path, ...],
    model: str,
    top_k: int | None,
    score_threshold: float | None,
    as_json: bool,
    url: str | None,
) -> int:
    """Ask a model what is on pictures. Exits with 1 if any of them could not be read."""
    with connected(url) as client:
        answer = _classify_all(client, pictures, model=model, top_k=top_k, score_threshold=score_threshold)
    print_json(answer) if as_json else _print(answer)
    return EXIT_PROBLEM if any(prediction.error for prediction in answer.predictions) else EXIT_OK


def _classify_all(
    client: Client, pictures: Sequence[Path], *, model: str, top_k: int | None, score_threshold: float | None
) -> ClassifyResponse:
    """One answer for all pictures, however many requests that takes; all by the version that answered first."""
    used: UsedModel | None = None
    predictions: list[ImagePrediction] = []
    decode = queue = inference = 0.0
    for batch in _batches(pictures):
        reference = f"{used.name}/{used.version}" if used and used.version else model
        try:
            answer = client.classify(batch, model=reference, top_k=top_k, score_threshold=score_threshold)
        except ProblemError as error:
            # None of this batch is a picture: no reason to lose the answers to the others.
            if len(pictures) == len(batch) or error.code not in _FAULTS_OF_A_PICTURE:
                raise
            predictions += [ImagePrediction(image=ImageInfo(name=path.name), error=error.problem) for path in batch]
            continue
        used = used or answer.model
        predictions += answer.predictions
        decode += answer.timing_ms.decode
        queue += answer.timing_ms.queue
        inference += answer.timing_ms.inference
    timing = Timing(decode=decode, queue=queue, inference=inference)
    return ClassifyResponse(
        model=used or UsedModel(name=model, version=None, architecture=""), predictions=predictions, timing_ms=timing
    )


def _batches(pictures: Sequence[Path]) -> Iterator[list[Path]]:
    """As many pictures at once as a request may hold, in their order."""
    batch: list[Path] = []
    batch_bytes = 0
    for picture in pictures:
        picture_bytes = picture.stat().st_size
        if batch and (len(batch) == _MOST_IMAGES or batch_bytes + picture_bytes > _MOST_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(picture)
        batch_bytes += picture_bytes
    yield batch


def _print(answer: ClassifyResponse) -> None:
    rows: list[Sequence[object]] = []
    for prediction in answer.predictions:
        name: object = prediction.image.name or ""
        if prediction.error:
            rows.append((name, f"({prediction.error.detail})", ""))
            continue
        classes = prediction.classes or []
        if not classes:
            rows.append((name, "(nothing above the threshold)", ""))
        for place, category in enumerate(classes):
            rows.append((name if place == 0 else "", category.label, f"{category.score:.4f}"))
    print_table(["PICTURE", "CATEGORY", ">SCORE"], rows, empty="No pictures.")
    version = f"/{answer.model.version}" if answer.model.version else ""
    click.echo(f"{answer.model.name}{version} ({answer.model.architecture})", err=True)
