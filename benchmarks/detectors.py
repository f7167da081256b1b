"""`python -m benchmarks.detectors ARCHIVE`: the family from R-CNN to YOLO on the same data, backbone and time to learn.

For each detector: how long it trains (the same wall clock for all), average precision on the validation images, seconds
an image in serving (batch of one), and where they go: proposals, CNN, heads. Prints a table; `--plot` draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from models.architectures.catalog import get_architecture
from models.images.decode import decode_image
from models.images.presets import preset_with_size, scale
from models.store.state_dicts import module_from_state_dict, read_state_dict
from workers.configs.fine_tune import Hyperparameters, ResolvedFineTune
from workers.configs.recipes import complete
from workers.datasets.dataset import SplitName
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.run_directory import RunConfig, RunDirectory

_LOOKS = 5  # timed images
# Which parts of each network are which stage; what is left of the time is `other`.
_STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "rcnn": {"proposals": ("propose",), "CNN": ("extract",), "heads": ("classify",)},
    "fast_rcnn": {"proposals": ("propose",), "CNN": ("extract",), "heads": ("classify",)},
    "fasterrcnn_fpn": {"proposals": ("rpn",), "CNN": ("backbone",), "heads": ("roi_heads",)},
    "yolo": {"proposals": (), "CNN": ("backbone",), "heads": ("neck", "heads")},
    "yolo:v1": {"proposals": (), "CNN": ("backbone",), "heads": ("convolutions", "hidden", "answers")},
}
_FAMILY = ["rcnn", "fast_rcnn", "fasterrcnn_fpn", "yolo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was measured of one detector."""

    name: str
    epochs: int
    map50: float
    image_s: float
    stages_s: dict[str, float]


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detectors", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="a dataset of boxes, as it is posted")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each detector")
    parser.add_argument("--val-images", type=int, default=8, help="R-CNN needs many seconds for each")
    parser.add_argument("--size-px", type=int, default=320, help="shorter side of the pictures")
    parser.add_argument("--backbone", default="mobilenet_v3_small", help="of all four")
    parser.add_argument("--detectors", nargs="+", default=_FAMILY, choices=list(_STAGES))
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="fovea-detectors-"))
    try:
        dataset = _small_dataset(home, options.archive, val_images=options.val_images)
        rows = []
        for name in options.detectors:
            rows.append(_measure(name, home, dataset, options))
            print(f"{rows[-1].name}: done", file=sys.stderr, flush=True)
        _print_table(rows, dataset, options)
        if options.plot:
            _plot(rows).savefig(options.plot, dpi=100)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _small_dataset(home: Path, archive: Path, *, val_images: int) -> DatasetVersion:
    """The archive with fewer images to validate on."""
    store = DatasetStore(home / "datasets")
    whole = ingest_archive(archive, name="whole", store=store, now=datetime.now(UTC))
    splits: tuple[SplitName, ...] = ("train", "val")
    images = {split: store.images(whole, split) for split in splits}
    images["val"] = images["val"][:val_images]
    with store.temporary() as workspace:
        shutil.copytree(whole.path, workspace / "version")
        return store.publish(
            "small",
            workspace / "version",
            images=images,
            describe=lambda version: whole.info.model_copy(update={"name": "small", "version": version}),
        )


def _measure(name: str, home: Path, dataset: DatasetVersion, options: argparse.Namespace) -> Row:
    """name: of an architecture, or `yolo:v1` for a variant of one."""
    base, _, variant = name.partition(":")
    architecture, info = get_architecture(base), dataset.info
    wanted = {"backbone": options.backbone} | ({"variant": variant} if variant else {})
    preset = preset_with_size(architecture.scale_preset, options.size_px)
    knobs = Hyperparameters(epochs=1000, schedule="none", batch_size=4, warmup_steps=50, learning_rate=0.0005)
    config = ResolvedFineTune(
        task="detection",
        architecture=base,
        options=architecture.complete_options(wanted),
        base=None,
        strategy="from_scratch",
        dataset=info.reference,
        categories=info.categories,
        preset=preset,
        publish_as=base,
        promote="never",
        hyperparameters=complete(
            knobs,
            task="detection",
            strategy="from_scratch",
            image_size_px=options.size_px,
            train_images=info.splits["train"].images,
        ),
    )
    run = _train(name.replace(":", "-"), home, config, seconds=60 * options.minutes)
    result = run.read_result()
    assert result is not None
    module = module_from_state_dict(
        architecture,
        read_state_dict(run.best_weights),
        num_categories=len(info.categories),
        image_size_px=options.size_px,
        options=config.options,
    ).to(memory_format=torch.channels_last)
    images = DatasetStore(home / "datasets").images(dataset, "val")[:_LOOKS]
    pictures = [scale(preset, decode_image((dataset.images_dir / image.path).read_bytes())) for image in images]
    image_s, stages_s = _time_stages(name, module, pictures)
    map50 = result.metrics.get("val/map50", 0.0)
    return Row(name=name, epochs=result.epochs, map50=map50, image_s=image_s, stages_s=stages_s)


def _train(name: str, home: Path, config: ResolvedFineTune, *, seconds: float) -> RunDirectory:
    """A run like any other, asked to stop when its time is over; the clock starts with its first step."""
    run = RunDirectory(path=home / "runs" / name)
    run.path.mkdir(parents=True)
    settings = RunConfig(job_id=name, job=config, device="cpu", allow_download=False)
    run.config.write_text(settings.model_dump_json())
    with run.log.open("wb") as log:
        trainer = subprocess.Popen([sys.executable, "-m", "workers.training", str(run.path)], stdout=log, stderr=log)
    while trainer.poll() is None and not run.metrics.exists():
        time.sleep(0.2)
    timer = threading.Timer(seconds, run.stop_request.touch)
    timer.start()
    code = trainer.wait()
    timer.cancel()
    if code:
        sys.exit(run.log.read_text()[-2000:])
    return run


@torch.inference_mode()
def _time_stages(name: str, module: nn.Module, pictures: list[Tensor]) -> tuple[float, dict[str, float]]:
    """Median seconds per image, and of each stage."""
    module.eval()
    module([pictures[0].float() / 255])  # warm
    totals: list[float] = []
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES[name]}
    for picture in pictures:
        spent: dict[str, float] = defaultdict(float)
        with contextlib.ExitStack() as stack:
            for stage, parts in _STAGES[name].items():
                for part in parts:
                    stack.enter_context(_timed(module, part, stage, spent))
            began = time.perf_counter()
            module([picture.float() / 255])
            totals.append(time.perf_counter() - began)
        for stage, seconds in stages.items():
            seconds.append(spent[stage])
    return statistics.median(totals), {stage: statistics.median(seconds) for stage, seconds in stages.items()}


@contextlib.contextmanager
def _timed(module: nn.Module, part: str, stage: str, spent: dict[str, float]) -> Iterator[None]:
    """Adds the time that calls of `part`, a method or a module (or each of a list of those), take."""
    found = getattr(module, part)
    targets = list(found) if isinstance(found, nn.ModuleList) else [found]
    if isinstance(found, nn.Module):
        originals = [(target, target.forward) for target in targets]
        for target, forward in originals:
            target.forward = _clocked(forward, stage, spent)
        yield
        for target, forward in originals:
            target.forward = forward
    else:
        setattr(module, part, _clocked(found, stage, spent))
        yield
        delattr(module, part)


def _clocked(function: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    def clocked(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        answer = function(*args, **kwargs)
        spent[stage] += time.perf_counter() - began
        return answer

    return clocked


def _print_table(rows: list[Row], dataset: DatasetVersion, options: argparse.Namespace) -> None:
    summary = dataset.info.splits["train"]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {summary.images} training images, "
        f"{options.val_images} to validate on, shorter side {options.size_px} px, backbone {options.backbone}, "
        f"{options.minutes:g} minutes of training each\n"
    )
    print("| detector | epochs | val/map50 | s per image | proposals | CNN | heads |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        stages = " | ".join(f"{row.stages_s[stage]:.3f}" for stage in ("proposals", "CNN", "heads"))
        print(f"| `{row.name}` | {row.epochs} | {row.map50:.3f} | {row.image_s:.3f} | {stages} |")
    by_name = {row.name: row for row in rows}
    if {"rcnn", "fast_rcnn"} <= set(by_name):
        ratio = by_name["rcnn"].stages_s["CNN"] / by_name["fast_rcnn"].stages_s["CNN"]
        print(f"\nOne pass of the CNN that all regions share is {ratio:.0f} times cheaper than one pass a region.")


def _plot(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [row.name for row in rows]
    for number, stage in enumerate(("proposals", "CNN", "heads")):  # side by side: stacked, a log scale would lie
        places = [row + (number - 1) * 0.25 for row in range(len(rows))]
        left.barh(places, [max(row.stages_s[stage], 1e-4) for row in rows], height=0.22, label=stage)
    left.set_yticks(range(len(rows)), names)
    left.set(xlabel="seconds per image (logarithmic)", xscale="log", xlim=(1e-3, None), title="Where the time goes")
    left.legend()
    right.barh(names, [row.map50 for row in rows], color="C3")
    right.set(xlim=(0, 1), xlabel="val/map50", title="After the same time of training")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
    return figure


if __name__ == "__main__":
    main()
