"""Datasets and runs for the tests of the trainer."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from models.manifest import DatasetReference
from tests import children
from tests.workers.jobs_builders import a_config
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore
from workers.jobs.job import AnyConfig
from workers.run_directory import RunConfig, RunDirectory
from workers.training.journal import Journal


def shapes_zip(*, images: int = 20, side_px: int = 28) -> BytesIO:
    """An ImageFolder archive with `images` circles and `images` squares, all different."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for label in ("circle", "square"):
            for number in range(images):
                file.writestr(f"{label}/{number:03d}.png", _shape(label, number, side_px))
    archive.seek(0)
    return archive


def split_shapes_zip(splits: Mapping[str, int], side_px: int) -> BytesIO:
    """An ImageFolder archive with half as many circles, and squares, in each split as `splits` says."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        number = 0
        for split, images in splits.items():
            for _ in range(images // 2):
                for label in ("circle", "square"):
                    file.writestr(f"{split}/{label}/{number:03d}.png", _shape(label, number, side_px))
                number += 1
    archive.seek(0)
    return archive


def a_dataset(
    home: Path, *, name: str = "shapes", images: int = 20, side_px: int = 28, splits: Mapping[str, int] | None = None
) -> DatasetReference:
    """A dataset of circles and squares, ingested from an archive. splits: images of each split of the archive."""
    store = DatasetStore(home / "datasets")
    archive = split_shapes_zip(splits, side_px) if splits else shapes_zip(images=images, side_px=side_px)
    return ingest_archive(archive, name=name, store=store, now=datetime.now(UTC)).info.reference


def a_run(home: Path, config: AnyConfig | None = None, *, job_id: str = "job-1", **options: Any) -> RunDirectory:
    """A run directory that waits for a trainer."""
    config = config or a_config(dataset=a_dataset(home))
    run = RunDirectory(path=home / "runs" / job_id)
    run.path.mkdir(parents=True)
    settings = {"device": "cpu", "allow_download": False, **options}
    run.config.write_text(RunConfig(job_id=job_id, job=config, **settings).model_dump_json())
    return run


def hand_back_at(step: int, run: RunDirectory, patch: pytest.MonkeyPatch) -> None:
    """Requests that the run is handed back as soon as it has reached the optimizer step `step`."""
    real = Journal.progress

    def progress(self: Journal, progress: object, **options: bool) -> None:
        real(self, progress, **options)  # type: ignore[arg-type]
        if getattr(progress, "step", 0) >= step:
            run.hand_back_request.touch()

    patch.setattr(Journal, "progress", progress)


@contextmanager
def trainer_of(run: RunDirectory) -> Iterator[children.Process]:
    """A trainer as the worker starts it, killed at the end of the block. Its output goes to train.log."""
    command = [sys.executable, "-m", "workers.training", str(run.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with run.log.open("ab") as log, children.child(command, stdout=log, stderr=log, env=environment) as process:
        yield process


def _shape(label: str, number: int, side_px: int) -> bytes:
    image = Image.new("L", (side_px, side_px), 20 + number % 40)
    draw = ImageDraw.Draw(image)
    left, top, size = 2 + number % 5, 2 + number // 5 % 5, side_px // 2 + number % 3
    box = (left, top, left + size, top + size)
    colour = 120 + number * 3 % 130
    if label == "circle":
        draw.ellipse(box, fill=colour)
    else:
        draw.rectangle(box, fill=colour)
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
