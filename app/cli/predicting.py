"""What commands share that ask a model about pictures: requests of bounded size, pictures drawn, what is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import click

from app.cli import EXIT_OK, EXIT_PROBLEM
from app.cli.output import print_json, print_table
from app.client import Client, ProblemError
from app.client.predictions import Value, Verb
from app.schemas.predict import ImageInfo, ImagePrediction, Timing, UsedModel

_MOST_IMAGES = 16
_MOST_BYTES = 16 * 1024**2
_FAULTS_OF_A_PICTURE = ("not_an_image", "broken_image", "image_too_large", "too_many_tiles")
_JPEG_SUFFIXES = (".jpg", ".jpeg")

pictures_argument = click.argument(
    "pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
model_option = click.option(
    "--model", required=True, help="`ants-bees`, `ants-bees@staging`, `ants-bees/3`, or pretrained: `resnet50`."
)
categories_option = click.option(
    "--category", "categories", multiple=True, help="Only this category; may be given several times."
)
save_option = click.option(
    "--save",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write each picture with what was found drawn on it to this directory.",
)

Entry = TypeVar("Entry", bound=ImagePrediction)


class Answer(Protocol[Entry]):
    """What every prediction route answers."""

    model: UsedModel
    predictions: list[Entry]
    timing_ms: Timing


class Question(Generic[Entry]):
    """What is asked of a model about pictures: a method of the client with all but its pictures and model."""

    def __init__(
        self,
        verb: Verb,
        response: Callable[..., Any],
        entry: type[Entry],
        columns: Sequence[str],
        rows: Callable[[Entry], list[tuple[object, ...]]],
    ) -> None:
        """columns, rows: the table of a picture, without its first column, the picture's name."""
        self._verb: Verb = verb
        self._response = response
        self._entry = entry
        self._columns = columns
        self._rows = rows

    def ask(
        self, client: Client, pictures: Sequence[Path], model: str, save: Path | None, as_json: bool, **options: Value
    ) -> int:
        """Prints the answer, draws the pictures that shall be saved, and returns the exit code."""
        answer = self._ask_all(client, pictures, model, options)
        if save is not None:
            reference = _reference(answer.model, model)
            good = [path for path, entry in zip(pictures, answer.predictions, strict=True) if not entry.error]
            self._draw_all(client, good, reference, save, {**options, "masks": None})
        print_json(answer) if as_json else self._print(answer)
        return EXIT_PROBLEM if any(entry.error for entry in answer.predictions) else EXIT_OK

    def _ask_all(self, client: Client, pictures: Sequence[Path], model: str, options: dict[str, Value]) -> Any:
        """One answer for all pictures, however many requests that takes; all by the version that answered first."""
        used: UsedModel | None = None
        entries: list[Entry] = []
        times = dict.fromkeys(Timing.model_fields, 0.0)
        for batch in _batches(pictures):
            try:
                answer: Answer[Entry] = getattr(client, self._verb)(batch, model=_reference(used, model), **options)
            except ProblemError as error:
                # None of this batch is a picture: no reason to lose the answers to the others.
                if len(pictures) == len(batch) or error.code not in _FAULTS_OF_A_PICTURE:
                    raise
                entries += [self._entry(image=ImageInfo(name=path.name), error=error.problem) for path in batch]
                continue
            used = used or answer.model
            entries += answer.predictions
            for name, value in answer.timing_ms:
                times[name] += value
        return self._response(
            model=used or UsedModel(name=model, version=None, architecture="", backend="", precision=""),
            predictions=entries,
            timing_ms=Timing(**times),
        )

    def _draw_all(
        self, client: Client, pictures: Sequence[Path], model: str, directory: Path, options: dict[str, Value]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for picture in pictures:
            is_jpeg = picture.suffix.lower() in _JPEG_SUFFIXES
            name = _free_name(picture.stem, ".jpg" if is_jpeg else ".png", taken)
            drawn = client.draw(self._verb, picture, model=model, image_format="jpeg" if is_jpeg else "png", **options)
            (directory / name).write_bytes(drawn)
        click.echo(f"{len(pictures)} picture(s) drawn in {directory}/", err=True)

    def _print(self, answer: Answer[Entry]) -> None:
        rows: list[Sequence[object]] = []
        rest = [""] * (len(self._columns) - 1)
        for entry in answer.predictions:
            name = entry.image.name or ""
            if entry.error:
                rows.append((name, f"({entry.error.detail})", *rest))
                continue
            found = self._rows(entry) or [("(nothing above the threshold)", *rest)]
            rows += [(name if place == 0 else "", *row) for place, row in enumerate(found)]
        print_table(["PICTURE", *self._columns], rows, empty="No pictures.")
        click.echo(f"{_reference(answer.model, '')} ({answer.model.architecture})", err=True)


def _reference(used: UsedModel | None, model: str) -> str:
    """The very version that answered, or `model` if none has yet."""
    if used is None or not used.architecture:
        return model
    return f"{used.name}/{used.version}" if used.version else used.name


def _free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """Not one that a picture of another directory has taken."""
    names = (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}" for number in count(1))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


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
