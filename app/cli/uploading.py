"""From a directory or an archive on this machine to a dataset on the server."""

from __future__ import annotations

import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, get_args

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from app.cli.output import console
from app.client import Client
from models.manifest import Task
from workers.datasets.dataset import DatasetFormat, DatasetInfo
from workers.datasets.validation.splits import GroupBy

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])

_ARCHIVE_ENDINGS = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)


def intake_options(command: AnyFunction) -> AnyFunction:
    """Adds the options of a dataset upload to a command."""
    for option in (
        click.option("--split-seed", type=int, help="Seed of the split that is made if the images have no `val`."),
        click.option("--validation-fraction", type=float, help="Share of that split for validation; default 0.2."),
        click.option(
            "--group-by",
            type=click.Choice(get_args(GroupBy)),
            help="Images that stay on one side of that split; default similar.",
        ),
        click.option("--task", type=click.Choice(get_args(Task)), help="Detected if left out."),
        click.option("--format", type=click.Choice(get_args(DatasetFormat)), help="Detected if left out."),
        click.option("--name", help="Name of the dataset; by default that of the directory or archive."),
    ):
        command = option(command)
    return command


def upload_pictures(
    client: Client,
    pictures: Path,
    *,
    name: str | None,
    task: Task | None,
    format: DatasetFormat | None,  # noqa: A002 (the API's word)
    validation_fraction: float | None,
    split_seed: int | None,
    group_by: GroupBy | None,
) -> DatasetInfo:
    """Uploads the images with a progress bar, then waits while the server checks every image.

    Raises ClientError, OSError, click.UsageError.
    """
    name = name or _ARCHIVE_ENDINGS.sub("", pictures.resolve().name)
    with as_archive(pictures) as archive, transfer_bar(f"Uploading {pictures.name}") as advance:
        return client.datasets.upload(
            archive,
            name,
            task=task,
            format=format,
            validation_fraction=validation_fraction,
            seed=split_seed,
            group_by=group_by,
            progress=advance,
        )


@contextmanager
def transfer_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for sent bytes. It says when all are sent and the server works."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=None)

        def advance(done_bytes: int, size_bytes: int) -> None:
            words = what if done_bytes < size_bytes else f"{what}: sent, the server checks it"
            progress.update(task, description=words, completed=done_bytes, total=size_bytes)

        yield advance


@contextmanager
def as_archive(pictures: Path) -> Iterator[Path]:
    """The archive itself, or a temporary one of the directory.

    Raises click.UsageError, OSError.
    """
    if not pictures.is_dir():
        yield pictures
        return
    with tempfile.TemporaryDirectory(prefix="fovea-") as directory:
        archive = Path(directory, f"{pictures.resolve().name}.zip")
        _pack(pictures, archive)
        yield archive


def _pack(directory: Path, archive: Path) -> None:
    """Stores the directory's files in a zip without compression: images are compressed already."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not _is_hidden(path, directory))
    if not files:
        raise click.UsageError(
            f"{directory} has no files. It should hold images with annotations, or one directory per category."
        )
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as packed:
        for file in files:
            packed.write(file, file.relative_to(directory).as_posix())


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
