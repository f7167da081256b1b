"""Follows a job on a terminal: a bar for the steps, a line for every epoch."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.cli import EXIT_INTERRUPTED
from app.cli.output import console, duration, metrics, pace_of, print_json, text
from app.client import Client
from app.client.jobs import ended_well
from workers.configs.fine_tune import ResolvedFineTune
from workers.jobs.job import BestEpoch, Job, JobEvent, JobProgress, JobStatus

NOTHING_PUBLISHED = "nothing, because an evaluation only measures"


def watch_job(client: Client, job: Job) -> Job:
    """Follows the job. Ctrl-C ends only the watching, and prints how to continue it."""
    try:
        return follow_job(client, job)
    except KeyboardInterrupt:
        click.echo(
            f"\nThe job continues. Watch it again: fovea jobs watch {job.id}\n"
            f"                 or end it: fovea jobs cancel {job.id}",
            err=True,
        )
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def follow_job(client: Client, job: Job) -> Job:
    """Shows the job's progress on stderr until it has succeeded, and returns the ended job.

    Raises ClientError: JobFailed and JobCancelled too.
    """
    screen = console(sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, TimeElapsedColumn(), console=screen, disable=not screen.is_terminal) as bar:
        view = _View(screen, bar, job)
        for event in client.jobs.events(job.id):
            view.show(event)
    return ended_well(client.jobs.get(job.id))


def print_job(job: Job, *, as_json: bool, is_watched: bool) -> None:
    """Prints a new job, or its outcome if it was watched. On stdout scripts find its id."""
    if as_json:
        print_json(job)
    elif is_watched:
        print_outcome(job)
    else:
        click.echo(job.id)
        click.echo(f"Watch it: fovea jobs watch {job.id}", err=True)


def print_outcome(job: Job) -> None:
    """Prints the result of a successful job."""
    if job.result:
        result = job.result
        click.echo(f"{result.reference}  {metrics(result.metrics)}")
        if job.type == "fine_tune":
            click.echo(f"{'Promoted' if result.promoted else 'Not promoted'}: {result.promotion}", err=True)
        else:
            click.echo(f"Published: {NOTHING_PUBLISHED}", err=True)


class _View:
    """The display of one watched job."""

    def __init__(self, screen: Console, bar: Progress, job: Job) -> None:
        self._screen = screen
        self._bar = bar
        self._epochs = job.config.hyperparameters.epochs if isinstance(job.config, ResolvedFineTune) else 0
        self._task: TaskID = bar.add_task(f"{job.id} {job.status}", total=1.0, pace="")

    def show(self, event: JobEvent) -> None:
        """Shows one event."""
        match event.type:
            case "status":
                self._show_status(JobStatus(event.data["status"]))
            case "progress":
                self._show_progress(JobProgress.model_validate(event.data))
            case "metrics":
                best = BestEpoch.model_validate(event.data["best"])
                is_best = "  (best)" if best.epoch == event.data["epoch"] else ""
                epoch = f"epoch {event.data['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
                self._say(f"{epoch}  {metrics(event.data['metrics'])}{is_best}")
            case "message":
                self._say(str(event.data["message"]))

    def _show_status(self, status: JobStatus) -> None:
        self._bar.update(self._task, description=status.value, pace="")
        if status is not JobStatus.SUCCEEDED:
            self._say(status.value)

    def _show_progress(self, progress: JobProgress) -> None:
        pace = [pace_of(progress.images_per_s)] if progress.images_per_s else []
        if progress.eta_s is not None:
            pace.append(f"{duration(progress.eta_s)} left")
        description = f"epoch {min(progress.epoch + 1, self._epochs)}/{self._epochs}"
        self._bar.update(self._task, completed=progress.fraction, description=description, pace=", ".join(pace))

    def _say(self, words: str) -> None:
        self._screen.print(text(words), soft_wrap=True)
