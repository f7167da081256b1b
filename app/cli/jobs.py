"""`fovea jobs ...`."""

from __future__ import annotations

from itertools import islice

import click

from app.cli.connection import connected, url_option
from app.cli.output import duration, json_option, metrics, print_facts, print_json, print_table
from app.cli.watching import NOTHING_PUBLISHED, print_outcome, watch_job
from app.client.jobs import ended_well
from app.schemas.jobs import JobDetails
from workers.configs.fine_tune import ResolvedFineTune
from workers.jobs.job import Job, JobStatus


@click.group()
def jobs() -> None:
    """List, watch, stop and retry jobs."""


@jobs.command("list")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only these.")
@click.option("--model", help="Only jobs that publish as this model.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@json_option
@url_option
def list_(status: str | None, model: str | None, limit: int, as_json: bool, url: str | None) -> None:
    """List jobs, newest first."""
    with connected(url) as client:
        found = list(islice(client.jobs.list(status=JobStatus(status) if status else None, model=model), limit))
    if as_json:
        print_json(found)
        return
    rows = (
        (
            job.id,
            job.type,
            job.status,
            f"{job.progress.fraction:.0%}",
            job.config.architecture,
            f"{job.config.dataset.name}/{job.config.dataset.version}",
            f"{job.best.metric} {job.best.value:.4f}" if job.best else "-",
            job.result.reference if job.result and job.type == "fine_tune" else "-",
            job.created_at,
        )
        for job in found
    )
    columns = ["JOB", "TYPE", "STATUS", ">DONE", "ARCHITECTURE", "DATASET", "BEST", "PUBLISHED", "MADE"]
    print_table(columns, rows, empty="No jobs. `fovea train DIR_OR_ZIP --model resnet18` creates one.")


@jobs.command()
@click.argument("job_id")
@json_option
@url_option
def show(job_id: str, as_json: bool, url: str | None) -> None:
    """Show the status and the configuration of a job."""
    with connected(url) as client:
        job = client.jobs.get(job_id)
    print_json(job) if as_json else _print_job(job)


@jobs.command()
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print every event as a line of JSON on stdout.")
@url_option
def watch(job_id: str, as_json: bool, url: str | None) -> None:
    """Follow a job until it ends. Ctrl-C leaves it running.

    Exit code 0 if it succeeded, 4 if it failed, 5 if it was cancelled.
    """
    with connected(url) as client:
        job = client.jobs.get(job_id)
        if as_json:
            for event in client.jobs.events(job_id):
                click.echo(event.model_dump_json())
            ended_well(client.jobs.get(job_id))
        else:
            print_outcome(watch_job(client, job))


@jobs.command()
@click.argument("job_id")
@click.option("--follow", "-f", is_flag=True, help="Keep printing until the job ends.")
@url_option
def log(job_id: str, follow: bool, url: str | None) -> None:
    """Print the log of the job's trainer."""
    with connected(url) as client:
        for piece in client.jobs.follow_log(job_id) if follow else [client.jobs.log(job_id)]:
            click.echo(piece, nl=False)


@jobs.command("metrics")
@click.argument("job_id")
@json_option
@url_option
def metrics_(job_id: str, as_json: bool, url: str | None) -> None:
    """Print a job's metrics over time."""
    with connected(url) as client:
        points = client.jobs.metrics(job_id)
    if as_json:
        print_json(points)
        return
    rows = ((point.epoch, point.step, metrics(point.metrics)) for point in points)
    print_table([">EPOCH", ">STEP", "METRICS"], rows, empty="No metrics yet.")


@jobs.command()
@click.argument("job_id")
@json_option
@url_option
def cancel(job_id: str, as_json: bool, url: str | None) -> None:
    """End a job; nothing is published."""
    with connected(url) as client:
        _say(client.jobs.cancel(job_id), as_json)


@jobs.command()
@click.argument("job_id")
@json_option
@url_option
def stop(job_id: str, as_json: bool, url: str | None) -> None:
    """End a running job early and publish its best weights so far."""
    with connected(url) as client:
        _say(client.jobs.stop(job_id), as_json)


@jobs.command()
@click.argument("job_id")
@json_option
@url_option
def retry(job_id: str, as_json: bool, url: str | None) -> None:
    """Queue a failed or cancelled job again. It resumes from its last checkpoint."""
    with connected(url) as client:
        _say(client.jobs.retry(job_id), as_json)


@jobs.command()
@click.argument("job_id")
@url_option
def delete(job_id: str, url: str | None) -> None:
    """Delete an ended job and its files. A model that it published stays."""
    with connected(url) as client:
        client.jobs.delete(job_id)
    click.echo(f"Deleted {job_id}.", err=True)


def _say(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    asked = "; will be cancelled" * job.cancel_requested or "; will finish early" * job.stop_requested
    click.echo(f"{job.id} {job.status}{'' if job.status.is_final else asked}")


def _print_job(job: JobDetails) -> None:
    progress, config = job.progress, job.config
    print_facts(
        [
            ("Job", job.id),
            ("Status", job.status),
            ("Ahead in the queue", job.position),
            ("Attempt", f"{job.attempt} of {job.max_attempts}" if job.attempt else None),
            ("Progress", f"{progress.fraction:.0%}, epoch {progress.epoch} of {progress.epochs}"),
            ("Time left", duration(progress.eta_s) if progress.eta_s is not None and not job.status.is_final else None),
            ("Metrics", metrics(job.metrics) or None),
            ("Best", f"{job.best.metric} {job.best.value:.4f} in epoch {job.best.epoch}" if job.best else None),
            ("Error", f"{job.error.message} [{job.error.code}]" if job.error else None),
            ("Way out", job.error.hint if job.error else None),
            *_kind_facts(job),
            ("Dataset", f"{config.dataset.name}/{config.dataset.version}, {len(config.categories)} categories"),
            ("Made", job.created_at),
            ("Started", job.started_at),
            ("Ended", job.finished_at),
            ("Worker", job.worker),
        ]
    )
    if not isinstance(config, ResolvedFineTune):
        return
    click.echo()
    rows = config.hyperparameters.model_dump(mode="json").items()
    print_table(["HYPERPARAMETER", "VALUE"], rows, empty="No hyperparameters.")


def _kind_facts(job: JobDetails) -> list[tuple[str, str | None]]:
    config = job.config
    if not isinstance(config, ResolvedFineTune):
        return [("Evaluates", f"{config.model} on {config.split}"), ("Published", NOTHING_PUBLISHED)]
    base = config.base or (f"a backbone of {config.backbone_base}" if config.backbone_base else "random weights")
    return [
        ("Published", job.result.reference if job.result else None),
        ("Promotion", job.result.promotion if job.result else None),
        ("Architecture", f"{config.architecture}, {config.strategy}, from {base}"),
    ]
