"""`fovea evaluate`: a model on a dataset that is on the server."""

from __future__ import annotations

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option
from app.cli.watching import print_job, watch_job
from workers.configs.evaluate import EvaluateConfig


@click.command()
@click.argument("model")
@click.argument("dataset")
@click.option(
    "--split", type=click.Choice(["val", "test", "train"]), default="val", show_default=True, help="Which images."
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=8, show_default=True, help="Images together.")
@click.option("--watch/--no-watch", default=True, help="Follow the job until it ends; Ctrl-C leaves it running.")
@json_option
@url_option
def evaluate(
    model: str, dataset: str, split: str, batch_size: int, watch: bool, as_json: bool, url: str | None
) -> None:
    """Measure a model on a dataset, without training.

    MODEL is a registered model (NAME, NAME@ALIAS, NAME/VERSION) or pretrained weights (resnet50.IMAGENET1K_V2), DATASET
    is NAME or NAME/VERSION.
    """
    config = EvaluateConfig.model_validate(
        {"type": "evaluate", "model": model, "dataset": dataset, "split": split, "batch_size": batch_size}
    )
    with connected(url) as client:
        job = client.jobs.create(config)
        click.echo(f"Job {job.id} is {job.status}.", err=True)
        if watch:
            job = watch_job(client, job)
    print_job(job, as_json=as_json, is_watched=watch)
