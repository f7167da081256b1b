"""The part that the predicting commands share: flags, printed answers, drawn answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Generic, cast

import click
from pydantic import BaseModel

from app.cli import EXIT_OK, EXIT_PROBLEM
from app.cli.bulk import print_left_out, write_answers
from app.cli.connection import connected, url_option
from app.cli.output import json_option, print_json, print_table
from app.cli.pictures import Pictures, Walk
from app.cli.results import ResultsFile
from app.client import Client, Pace
from app.client.asking import Answered
from app.client.bulk import MOST_IN_FLIGHT
from app.client.questions import Answer, Entry, Question, Value
from app.schemas.predict import Timing, UsedModel

_JPEG_SUFFIXES = (".jpg", ".jpeg")

_OPTIONS = (
    click.argument(
        "pictures",
        metavar="IMAGES...",
        nargs=-1,
        required=True,
        type=click.Path(exists=True, readable=False, path_type=Path),
    ),
    click.option(
        "--model", required=True, help="`ants-bees`, `ants-bees@staging`, `ants-bees/3`, or pretrained: `resnet50`."
    ),
    click.option("--category", "categories", multiple=True, help="Only this category; repeat the option for more."),
    click.option(
        "--out",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write one line of JSON per image to this file; continue the file if it exists.",
    ),
    click.option(
        "--save",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Also write each image with its predictions drawn on it to this directory.",
    ),
    json_option,
    click.option(
        "--in-flight",
        type=click.IntRange(1, MOST_IN_FLIGHT),
        default=Pace.in_flight,
        show_default=True,
        help="Requests at once.",
    ),
    click.option(
        "--images-per-request",
        type=click.IntRange(min=1),
        default=Pace.images_per_request,
        show_default=True,
        help="Most images per request.",
    ),
    click.option(
        "--patience",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=Pace.patience_s,
        show_default=True,
        help="Seconds to wait for a server that is full, unreachable or failing.",
    ),
    url_option,
)


@dataclass(frozen=True, kw_only=True)
class Given:
    """The arguments and options that all predicting commands share."""

    pictures: Pictures
    model: str
    categories: tuple[str, ...]
    out: Path | None
    save: Path | None
    as_json: bool
    pace: Pace
    url: str | None

    @property
    def is_for_people(self) -> bool:
        """True if a table is printed, which shows no masks."""
        return not self.as_json and self.out is None


@dataclass(frozen=True, kw_only=True)
class PictureTable(Generic[Entry]):
    """The printed table of an image: its columns after the name, and its rows."""

    columns: Sequence[str]
    rows: Callable[[Entry], list[tuple[object, ...]]]


def asks_about_pictures(command: Callable[..., int]) -> Callable[..., int]:
    """Decorates a command: adds the shared flags, and passes them as its first argument, a Given."""

    @functools.wraps(command)
    def with_given(
        *,
        pictures: tuple[Path, ...],
        in_flight: int,
        images_per_request: int,
        patience: float,
        **flags: Any,
    ) -> int:
        own = {name: flags.pop(name) for name in list(flags) if name not in Given.__dataclass_fields__}
        pace = Pace(in_flight=in_flight, images_per_request=images_per_request, patience_s=patience)
        return command(Given(pictures=Pictures(pictures), pace=pace, **flags), **own)

    for option in reversed(_OPTIONS):
        with_given = option(with_given)
    return with_given


def answer_question(given: Given, question: Question[Entry], table: PictureTable[Entry], **own: Value) -> int:
    """Predicts for all images, prints, and returns the exit code. own: the command's own options."""
    options: dict[str, Value] = {"categories": given.categories, **own}
    if given.out is None:
        with connected(given.url) as client:
            return _print_answers(client, question, table, given, options)
    if given.as_json or given.save:
        raise click.UsageError("--out cannot be combined with --json or --save.")
    with connected(given.url) as client, ResultsFile(given.out) as results:
        return write_answers(
            client, question, given.pictures, results, model=given.model, pace=given.pace, options=options
        )


def _print_answers(
    client: Client,
    question: Question[Entry],
    table: PictureTable[Entry],
    given: Given,
    options: dict[str, Value],
) -> int:
    walk = Walk()
    paths = list(given.pictures.walk(walk))
    if not paths:
        raise click.UsageError(f"There are no images among {walk.others} file(s).")
    asked = {"model": given.model, **options}
    answers = client.ask_many(question, paths, asked, pace=given.pace, priority="interactive")
    answer = _joined(question, given.model, answers, paths)
    if given.save is not None:
        good = [path for path, entry in zip(paths, answer.predictions, strict=True) if not entry.error]
        _draw_all(client, question, good, answer.model.reference, given.save, {**options, "masks": None})
    print_json(cast("BaseModel", answer)) if given.as_json else _print(answer, table)
    print_left_out(walk)
    is_whole = not walk.unreadable_directories and not any(entry.error for entry in answer.predictions)
    return EXIT_OK if is_whole else EXIT_PROBLEM


def _joined(
    question: Question[Entry], model: str, answers: Iterable[Answered[Entry]], paths: Sequence[Path]
) -> Answer[Entry]:
    """The answers of all requests joined to one, in the order of the images."""
    whole = Answered[Entry]()
    for answered in answers:
        whole.add(answered)
    entries = {outcome.path: outcome.prediction for outcome in whole.outcomes}
    longest = {
        name: max((getattr(timing, name) for timing in whole.times), default=0.0) for name in Timing.model_fields
    }
    return question.answer(
        model=whole.model or UsedModel(name=model, version=None, architecture="", backend="", precision=""),
        predictions=[entries[path] for path in paths],
        timing_ms=Timing(**longest),
    )


def _draw_all(
    client: Client,
    question: Question[Entry],
    pictures: Sequence[Path],
    model: str,
    directory: Path,
    options: dict[str, Value],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for picture in pictures:
        is_jpeg = picture.suffix.lower() in _JPEG_SUFFIXES
        name = _free_name(picture.stem, ".jpg" if is_jpeg else ".png", taken)
        drawn = client.draw(question.verb, picture, model=model, image_format="jpeg" if is_jpeg else "png", **options)
        (directory / name).write_bytes(drawn)
    click.echo(f"{len(pictures)} image(s) drawn in {directory}/", err=True)


def _print(answer: Answer[Entry], table: PictureTable[Entry]) -> None:
    rows: list[Sequence[object]] = []
    rest = [""] * (len(table.columns) - 1)
    for entry in answer.predictions:
        name = entry.image.name or ""
        if entry.error:
            rows.append((name, f"({entry.error.detail})", *rest))
            continue
        found = table.rows(entry) or [("(nothing above the threshold)", *rest)]
        rows += [(name if place == 0 else "", *row) for place, row in enumerate(found)]
    print_table(["IMAGE", *table.columns], rows, empty="No images.")
    click.echo(f"{answer.model.reference} ({answer.model.architecture})", err=True)


def _free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """A file name that no image of another directory has taken."""
    names = (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}" for number in count(1))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
