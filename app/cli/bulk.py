"""`--out`: predictions for many images, written to a file as they arrive. An interrupted run can be continued."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import click
from pydantic import JsonValue
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROBLEM
from app.cli.connection import failure_of
from app.cli.failure import Failure, UsageFailure
from app.cli.output import console, pace_of, text
from app.cli.pictures import Pictures, Walk
from app.cli.results import GO_ON, AskedQuestion, ResultsFile
from app.client import Client, ClientError
from app.client.asking import Answered
from app.client.bulk import Pace
from app.client.questions import Entry, Question, Value

_MOST_DIRECTORIES_NAMED: Final = 20


def write_answers(
    client: Client,
    question: Question[Entry],
    pictures: Pictures,
    results: ResultsFile,
    *,
    model: str,
    pace: Pace,
    options: Mapping[str, Value],
) -> int:
    """Predicts for every image without a line in `results`, and returns the exit code. Raises Failure."""
    said = {name: _json(value) for name, value in options.items() if value not in (None, ())}
    directory = str(pictures.directory)
    asked = AskedQuestion(verb=question.verb, model=model, used=None, options=said, directory=directory)
    if results.question is not None:
        _check_same(results, asked)
        model = results.question.used.reference if results.question.used else model
    walk = Walk()
    but = frozenset({results.path.resolve(), results.question_path.resolve()})
    todo = (path for path in pictures.walk(walk, but=but) if pictures.name(path) not in results.done)
    before, began = len(results.done), time.monotonic()
    try:
        with _bar(pictures, results) as bar:
            for answered in client.ask_many(question, todo, {"model": model, **options}, pace=pace, on_wait=bar.wait):
                _note_question(results, asked, answered)
                results.write([(pictures.name(outcome.path), outcome.prediction) for outcome in answered.outcomes])
                bar.show(len(results.done), results.errors)
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {_progress(results)} {GO_ON}", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    except ClientError as error:
        failure = failure_of(error)
        if results.done:
            failure.hint = " ".join(filter(None, [failure.hint, _progress(results), GO_ON]))
        raise failure from error
    if not results.done:
        raise Failure(
            f"There are no images among {walk.others} file(s).",
            hint="Images are recognised by their suffix and content.",
        )
    _print_summary(results, walk, now=len(results.done) - before, seconds=time.monotonic() - began)
    return EXIT_PROBLEM if results.errors or walk.unreadable_directories else EXIT_OK


def print_left_out(walk: Walk) -> None:
    """Prints which files in the directories were left out."""
    if walk.others:
        click.echo(f"{walk.others} other file(s) left out: hidden, or not images by suffix and content.", err=True)
    if walk.linked_directories:
        click.echo(f"{walk.linked_directories} link(s) to directories not followed.", err=True)
    for words in walk.unreadable_directories[:_MOST_DIRECTORIES_NAMED]:
        click.echo(f"Directory left out: {text(words)}", err=True)
    if len(walk.unreadable_directories) > _MOST_DIRECTORIES_NAMED:
        click.echo(f"{len(walk.unreadable_directories)} directories left out in all.", err=True)


def _check_same(results: ResultsFile, now: AskedQuestion) -> None:
    """Raises UsageFailure if the file's lines answer another question."""
    then = results.question
    assert then is not None
    same_models = {then.model, then.used.reference} if then.used else {then.model}
    options = sorted(then.options.keys() | now.options.keys())
    values = {
        "command": (then.verb, now.verb),
        "--model": (then.model, then.model if now.model in same_models else now.model),
        "directory": (then.directory, now.directory),
        **{_flag(name): (then.options.get(name), now.options.get(name)) for name in options},
    }
    changes = [f"{name} was {was!r} and now is {is_!r}" for name, (was, is_) in values.items() if was != is_]
    if changes:
        raise UsageFailure(
            f"{results.path} has {len(results.done)} answers to another question: {'; '.join(changes)}.",
            hint="Repeat the earlier options to continue, or give --out another file.",
        )


def _note_question(results: ResultsFile, asked: AskedQuestion, answered: Answered[Entry]) -> None:
    known = results.question
    if known is None or (known.used is None and answered.model is not None):
        results.ask(asked.model_copy(update={"used": answered.model}))


def _progress(results: ResultsFile) -> str:
    return f"{len(results.done)} answers are in {results.path}."


def _print_summary(results: ResultsFile, walk: Walk, *, now: int, seconds: float) -> None:
    used = results.question.used if results.question else None
    by = f" by {used.reference} ({used.architecture})" if used else ""
    words = f"{len(results.done)} answers{by} in {results.path}, {results.errors} of them errors."
    pace = f" {now} of them now: {now / seconds:.1f} per second." if now and seconds else " None was left to do."
    click.echo(words + pace, err=True)
    print_left_out(walk)


def _flag(option: str) -> str:
    return "--category" if option == "categories" else f"--{option.replace('_', '-')}"


def _json(value: Value) -> JsonValue:
    return value if value is None or isinstance(value, str | int | float) else list(value)


@contextmanager
def _bar(pictures: Pictures, results: ResultsFile) -> Iterator[_Bar]:
    """A bar on stderr, if that is a terminal."""
    screen = console(sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        task = progress.add_task("Images", total=None, completed=len(results.done), pace="", note="")
        if screen.is_terminal:
            # Counting the files takes a second walk, while predictions already arrive.
            threading.Thread(target=_count, args=(pictures, progress, task), daemon=True).start()
        yield _Bar(progress, task, len(results.done))


def _count(pictures: Pictures, progress: Progress, task: TaskID) -> None:
    progress.update(task, total=sum(1 for _ in pictures.walk(Walk())))


class _Bar:
    """The progress display of a run."""

    def __init__(self, progress: Progress, task: TaskID, before: int) -> None:
        self._progress = progress
        self._task = task
        self._before = before
        self._began = time.monotonic()

    def show(self, done: int, errors: int) -> None:
        """Shows how many images are done."""
        seconds = time.monotonic() - self._began
        new = done - self._before
        pace = pace_of(new / seconds) if seconds and new else ""
        note = f"{errors} errors" if errors else ""
        self._progress.update(self._task, completed=done, pace=pace, note=note)

    def wait(self, failure: ClientError, wait_s: float) -> None:
        """Shows that the client waits for a full or unreachable server."""
        self._progress.update(self._task, note=text(f"waiting {wait_s:.0f} s: {failure}").plain)
