"""`fovea train`: from images on this machine to a model on the server, in one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from app.cli.connection import connected, url_option
from app.cli.model_flags import flags_of, given_values, refuse
from app.cli.output import json_option, print_json
from app.cli.uploading import intake_options, upload_pictures
from app.cli.watching import print_job, watch_job
from workers.configs.fine_tune import FineTuneConfig, Hyperparameters
from workers.datasets.dataset import DatasetInfo

Config = TypeVar("Config", bound=BaseModel)

_NOT_FLAGS = ("type", "dataset", "hyperparameters")


class TrainCommand(click.Command):
    """A command with a flag for every field of a job."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own flags, those of the job, of the hyperparameters, then `--help`."""
        *own, help_flag = super().get_params(ctx)
        job = [flag for flag in flags_of(FineTuneConfig) if flag.name not in _NOT_FLAGS]
        return [*own, *job, *flags_of(Hyperparameters), help_flag]


@click.command(cls=TrainCommand)
@click.argument("pictures", metavar="[IMAGES]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--dataset", help="A dataset on the server, NAME or NAME/VERSION, instead of IMAGES.")
@intake_options
@click.option("--watch", is_flag=True, help="Follow the job until it ends; Ctrl-C leaves it running.")
@click.option("--dry-run", is_flag=True, help="With --dataset: show the resolved job and queue nothing.")
@json_option
@url_option
def train(
    pictures: Path | None,
    dataset: str | None,
    name: str | None,
    task: Any,
    format: Any,  # noqa: A002 (the API's word)
    validation_fraction: float | None,
    split_seed: int | None,
    group_by: Any,
    watch: bool,
    dry_run: bool,
    as_json: bool,
    url: str | None,
    **flags: Any,
) -> None:
    """Train a model on a directory or archive of images.

    IMAGES is uploaded as a dataset and a job is queued. Its model is published under the name of the dataset, or of
    --publish-as.
    """
    if (pictures is None) == (dataset is None):
        raise click.UsageError("Give either IMAGES, a directory or archive, or --dataset.")
    if dry_run and dataset is None:
        raise click.UsageError("--dry-run needs --dataset, because IMAGES would be uploaded first.")
    _config(flags, dataset or "not-known-yet")  # refuses invalid values before anything is uploaded
    with connected(url) as client:
        if pictures is not None:
            info = upload_pictures(
                client,
                pictures,
                name=name,
                task=task,
                format=format,
                validation_fraction=validation_fraction,
                split_seed=split_seed,
                group_by=group_by,
            )
            dataset = f"{info.name}/{info.version}"
            click.echo(f"Dataset {dataset}: {_summary(info)}", err=True)
        config = _config(flags, dataset or "")
        if dry_run:
            print_json(client.jobs.plan(config))
            return
        job = client.jobs.create(config)
        click.echo(f"Job {job.id} is {job.status}.", err=True)
        if watch:
            job = watch_job(client, job)
    print_job(job, as_json=as_json, is_watched=watch)


def _config(flags: Mapping[str, Any], dataset: str) -> FineTuneConfig:
    knobs = _checked(Hyperparameters, given_values(Hyperparameters, flags))
    given = {name: value for name, value in given_values(FineTuneConfig, flags).items() if name not in _NOT_FLAGS}
    if "model" not in given:
        raise click.UsageError("--model is missing: for instance `resnet18`; `fovea architectures` lists all.")
    with_knobs = {"hyperparameters": knobs} if knobs.model_fields_set else {}
    return _checked(FineTuneConfig, {**given, "dataset": dataset, **with_knobs})


def _checked(kind: type[Config], values: dict[str, Any]) -> Config:
    try:
        return kind(**values)
    except ValidationError as error:
        refuse(error, given=values)


def _summary(info: DatasetInfo) -> str:
    counts = (f"{summary.images} images in {split}" for split, summary in info.splits.items())
    problems = sum(finding.count for finding in info.report if finding.severity == "error")
    left_out = f"; {problems} left out: fovea datasets show {info.name}/{info.version}" if problems else ""
    return f"{len(info.categories)} categories, {', '.join(counts)}{left_out}"
