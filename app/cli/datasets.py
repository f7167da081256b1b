"""`fovea datasets ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from app.cli.connection import connected, url_option
from app.cli.output import json_option, print_facts, print_json, print_table, size, text
from app.cli.references import reference
from app.cli.uploading import intake_options, upload_pictures
from workers.datasets.dataset import DatasetInfo, Severity

_COLOURS: dict[Severity, str] = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.group()
def datasets() -> None:
    """List, upload, preview and delete datasets."""


@datasets.command("list")
@json_option
@url_option
def list_(as_json: bool, url: str | None) -> None:
    """List the datasets by name."""
    with connected(url) as client:
        found = list(client.datasets.list())
    if as_json:
        print_json(found)
        return
    rows = (
        (
            dataset.name,
            dataset.latest.version,
            dataset.latest.format,
            len(dataset.latest.categories),
            *(
                dataset.latest.splits[split].images if split in dataset.latest.splits else 0
                for split in ("train", "val", "test")
            ),
            size(dataset.latest.size_bytes),
            dataset.latest.created_at,
        )
        for dataset in found
    )
    columns = ["NAME", ">NEWEST", "FORMAT", ">CATEGORIES", ">TRAIN", ">VAL", ">TEST", ">SIZE", "MADE"]
    print_table(columns, rows, empty="No datasets yet: `fovea datasets upload DIR_OR_ZIP` creates one.")


@datasets.command()
@click.argument("dataset", type=reference, metavar="NAME[/VERSION]")
@json_option
@url_option
def show(dataset: tuple[str, int | None], as_json: bool, url: str | None) -> None:
    """Show a dataset's newest version, or NAME/VERSION. The report lists the findings."""
    name, version = dataset
    with connected(url) as client:
        info = client.datasets.get(name).latest if version is None else client.datasets.version(name, version)
    print_json(info) if as_json else print_dataset(info)


@datasets.command()
@click.argument("pictures", metavar="IMAGES", type=click.Path(exists=True, path_type=Path))
@intake_options
@json_option
@url_option
def upload(pictures: Path, as_json: bool, url: str | None, **intake: Any) -> None:
    """Upload a directory or archive of images as the next version of a dataset."""
    with connected(url) as client:
        info = upload_pictures(client, pictures, **intake)
    print_json(info) if as_json else print_dataset(info)


@datasets.command()
@click.argument("dataset", type=reference, metavar="NAME[/VERSION]")
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="PNG file to write.")
@url_option
def preview(dataset: tuple[str, int | None], out: Path | None, url: str | None) -> None:
    """Write a contact sheet of the dataset, with labels, boxes and masks, to a PNG file."""
    name, version = dataset
    with connected(url) as client:
        version = version or client.datasets.get(name).latest.version
        sheet = client.datasets.preview(name, version)
        target = out or Path(f"{name}-{version}.png")
        target.write_bytes(sheet)
    click.echo(target)


@datasets.command()
@click.argument("dataset", type=reference, metavar="NAME[/VERSION]")
@click.option("--format", type=click.Choice(["coco", "yolo"]), default="coco", show_default=True, help="What to write.")
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Zip file to write.")
@url_option
def export(
    dataset: tuple[str, int | None],
    format: Literal["coco", "yolo"],  # noqa: A002 (the API's word)
    out: Path | None,
    url: str | None,
) -> None:
    """Export a dataset of boxes or masks as a zip in COCO or YOLO format."""
    name, version = dataset
    with connected(url) as client:
        version = version or client.datasets.get(name).latest.version
        target = out or Path(f"{name}-{version}-{format}.zip")
        client.datasets.export(name, version, target, format=format)
    click.echo(target)


@datasets.command()
@click.argument("dataset", type=reference, metavar="NAME[/VERSION]")
@click.option("--yes", is_flag=True, help="Do not ask before all versions are deleted.")
@url_option
def delete(dataset: tuple[str, int | None], yes: bool, url: str | None) -> None:
    """Delete NAME/VERSION, or with a bare NAME all versions of it."""
    name, version = dataset
    if version is None and not yes:
        click.confirm(f"Delete all versions of {name}?", abort=True, err=True)
    with connected(url) as client:
        client.datasets.delete(name, version)
    click.echo(f"Deleted {name if version is None else f'{name}/{version}'}.", err=True)


def print_dataset(info: DatasetInfo) -> None:
    """Prints a version, its counts and its report."""
    sizes = info.sizes
    print_facts(
        [
            ("Dataset", f"{info.name}/{info.version}"),
            ("Format", f"{info.format}, {info.task}{' with masks' if info.has_masks else ''}"),
            ("Made", info.created_at),
            ("Size", size(info.size_bytes)),
            (
                "Images, px",
                f"{sizes.width_min} to {sizes.width_max} wide, {sizes.height_min} to {sizes.height_max} high",
            ),
            ("Fingerprint", info.fingerprint),
        ]
    )
    click.echo()
    _print_counts(info)
    click.echo()
    rows = (
        (_coloured(finding.severity), finding.count, finding.message, ", ".join(finding.files[:3]))
        for finding in info.report
    )
    print_table(["REPORT", ">FILES", "WHAT", "FOR INSTANCE"], rows, empty="Nothing to report.")


def _print_counts(info: DatasetInfo) -> None:
    """Prints the images, and objects if there are any, per category and split."""
    splits = list(info.splits.items())
    has_objects = info.task == "detection"
    columns = [f">{split.upper()}{what}" for split, _ in splits for what in ("", " OBJECTS")[: 1 + has_objects]]
    counts = (
        (
            category,
            *(
                count.get(category, 0)
                for _, summary in splits
                for count in (summary.images_by_category, summary.objects_by_category)[: 1 + has_objects]
            ),
        )
        for category in info.categories
    )
    print_table(["CATEGORY", *columns], counts, empty="No categories.")


def _coloured(severity: Severity) -> object:
    words = text(severity)
    words.stylize(_COLOURS[severity])
    return words
