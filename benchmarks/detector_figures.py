"""`python -m benchmarks.detector_figures ARCHIVE`: what detectors cost, in serving and in training.

Serving: images per second and peak memory of every detector at batches of 1 and 8, from random weights, each in its own
process. Training: images per second of our loop and of a bare one as PyTorch's tutorial writes it, in turn.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from models.architectures.catalog import build, get_architecture, names
from models.images.presets import scaled_size
from models.manifest import ScalePreset
from workers.datasets.dataset import DatasetImage
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.training.detection.images import DetectionImages
from workers.training.loading import EpochOptions

_SIDES = (480, 640)  # px, of the images that are served
_LOOKS = 5
_SLOW = {"rcnn"}  # takes thousands of regions per image: the other benchmark has it
_STEPS, _ROUNDS, _BATCH = 6, 3, 4
_SHORTER_PX = 320


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector_figures", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="a dataset of boxes, as it is posted")
    parser.add_argument("--only", nargs="+", help="detectors to serve; none: all")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve[0], int(options.serve[1]))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, pictures of {_SIDES[1]} x {_SIDES[0]} px\n")
    print("| detector | images/s, batch 1 | batch 8 | peak RSS, batch 1 | batch 8 |")
    print("|---|---|---|---|---|")
    for name in options.only or [name for name in names("detection") if name not in _SLOW]:
        answers = [_in_a_process(options.archive, name, batch) for batch in (1, 8)]
        rates, peaks = zip(*answers, strict=True)
        print(f"| `{name}` | {rates[0]} | {rates[1]} | {peaks[0]} MiB | {peaks[1]} MiB |", flush=True)
    with tempfile.TemporaryDirectory(prefix="fovea-figures-") as home:
        store = DatasetStore(Path(home))
        version = ingest_archive(options.archive, name="pictures", store=store, now=datetime.now(UTC))
        _compare_training(version, store.images(version, "train"))


def _in_a_process(archive: Path, name: str, batch: int) -> tuple[str, str]:
    command = [sys.executable, "-m", "benchmarks.detector_figures", str(archive), "--serve", name, str(batch)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    rate, peak = answer.stdout.split()
    return rate, peak


@torch.inference_mode()
def _serve(name: str, batch: int) -> None:
    """Prints images per second and the peak RSS in MiB."""
    architecture = get_architecture(name)
    module = build(name, num_categories=len(architecture.categories)).to(memory_format=torch.channels_last).eval()
    size = scaled_size(architecture.scale_preset, *_SIDES)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for _ in range(batch)]
    seconds = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        module(images)
        seconds.append(time.perf_counter() - began)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{batch / statistics.median(seconds[1:]):.2f} {peak_mib:.0f}")


class _TutorialImages(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """As the tutorial writes it: Pillow, tv_tensors, transforms.v2."""

    def __init__(self, root: Path, images: list[DatasetImage]) -> None:
        self._root = root
        self._images = images
        self._transform = v2.Compose(
            [v2.Resize(_SHORTER_PX), v2.RandomHorizontalFlip(0.5), v2.ToDtype(torch.float, scale=True)]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self._images[index]
        picture = tv_tensors.Image(Image.open(self._root / image.path).convert("RGB"))
        boxes = torch.tensor([each.box for each in image.objects], dtype=torch.float32).reshape(-1, 4)
        size = (image.height, image.width)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([each.category + 1 for each in image.objects], dtype=torch.int64),
        }
        pixels, moved = self._transform(picture, target)
        return pixels, moved


def _compare_training(version: DatasetVersion, images: list[DatasetImage]) -> None:
    """Images per second of both, in turn: the same network, batch and size of images."""
    module = build(
        "fasterrcnn_fpn",
        num_categories=len(version.info.categories),
        image_size_px=_SHORTER_PX,
        options={"backbone": "mobilenet_v3_small"},
    )
    module = module.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4)
    preset = ScalePreset(shorter_px=_SHORTER_PX, longer_px=2 * _SHORTER_PX)
    ours = DetectionImages(images=images, root=version.images_dir, preset=preset, with_masks=False)
    bare = _TutorialImages(version.images_dir, images)
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(_ROUNDS):
        for kind in rates if number % 2 else reversed(rates):
            began = time.perf_counter()
            if kind == "ours":
                batches = ours.training_batches(EpochOptions(batch_size=_BATCH, epoch=number))
                for _, batch in zip(range(_STEPS), batches, strict=False):
                    _step(module, optimizer, [image.float() / 255 for image in batch.images], batch.targets)
            else:
                loader = DataLoader(bare, _BATCH, shuffle=True, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
                for _, (pixels, targets) in zip(range(_STEPS), loader, strict=False):
                    _step(module, optimizer, list(pixels), list(targets))
            rates[kind].append(_STEPS * _BATCH / (time.perf_counter() - began))
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    print(f"\ntraining, images/s: ours {medians['ours']:.2f}, the tutorial's loop {medians['bare']:.2f}, ", end="")
    print(f"ratio {medians['ours'] / medians['bare']:.2f}")


def _step(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss = torch.stack(list(module(images, targets).values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


if __name__ == "__main__":
    main()
