"""`python -m benchmarks.bfloat16 ARCHIVE`: average precision of the same detector in float32 and in bfloat16.

Trains a detector in float32 for some minutes, then evaluates its best weights in both precisions, as a job of type
`evaluate` does. Prints both and the difference, which fails above half a point. A CPU without bfloat16 in hardware
gives the same numbers, but slowly.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from models.precision import FloatPrecision
from models.store.registry import Registry
from models.store.state_dicts import module_from_state_dict, read_state_dict
from workers.configs.fine_tune import FineTuneConfig, Hyperparameters
from workers.configs.resolve_fine_tune import resolve_fine_tune
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore
from workers.run_directory import RunConfig, RunDirectory
from workers.training.detection.task import DetectionTask
from workers.training.run import train_run
from workers.training.run_inputs import make_run_inputs

_PRECISIONS: tuple[FloatPrecision, ...] = ("float32", "bfloat16")
_ALLOWED = 0.005
_SHOWN = ("val/map", "val/map50", "val/map75", "val/map_small", "val/map_medium", "val/map_large", "val/loss")


def main() -> None:
    """Trains, evaluates twice, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bfloat16", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="a dataset of boxes, as it is posted")
    parser.add_argument("--detector", default="yolo")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size-px", type=int, default=320, help="shorter side of the images")
    parser.add_argument("--images", type=int, default=40, help="validation images to compare on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fovea-bfloat16-") as directory:
        run = _train(Path(directory), options)
        found = {name: _evaluate(run, name, options.images) for name in _PRECISIONS}
    print(f"{options.detector} on {options.archive.name}, {options.epochs} epochs, {options.size_px} px")
    print(f"{'':<16}{'float32':>10}{'bfloat16':>10}{'difference':>12}")
    for name in _SHOWN:
        if name in found["float32"]:
            exact, low = (found[precision][name] for precision in ("float32", "bfloat16"))
            print(f"{name:<16}{exact:>10.4f}{low:>10.4f}{low - exact:>12.4f}")
    if abs(found["bfloat16"]["val/map"] - found["float32"]["val/map"]) > _ALLOWED:
        raise SystemExit(1)


def _train(home: Path, options: argparse.Namespace) -> RunDirectory:
    store = DatasetStore(home / "datasets")
    with options.archive.open("rb") as archive:
        ingest_archive(archive, name="compared", store=store, now=datetime.now(UTC))
    knobs = Hyperparameters(epochs=options.epochs, precision="float32", image_size_px=options.size_px)
    wanted = FineTuneConfig(model=options.detector, weights="none", dataset="compared", hyperparameters=knobs)
    job = resolve_fine_tune(wanted, datasets=store, registry=Registry(home / "registry"))
    run = RunDirectory(path=home / "runs" / "compared")
    run.path.mkdir(parents=True)
    run.config.write_text(RunConfig(job_id="compared", job=job, device="auto").model_dump_json())
    train_run(run)
    return run


def _evaluate(run: RunDirectory, precision: FloatPrecision, images: int) -> dict[str, float]:
    inputs = make_run_inputs(run.read_config(), run.path.parent.parent)
    inputs = replace(inputs, precision=precision, val_images=inputs.val_images[:images])
    module = module_from_state_dict(
        inputs.architecture,
        read_state_dict(run.best_weights),
        num_categories=len(inputs.config.categories),
        image_size_px=inputs.fine_tune.hyperparameters.image_size_px,
        options=inputs.fine_tune.options,
    )
    module = module.to(inputs.device).to(memory_format=torch.channels_last)
    return DetectionTask(inputs).evaluate(module).metrics


if __name__ == "__main__":
    main()
