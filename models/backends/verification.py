"""Compares a backend with eager float32 in the same process: its answers, and its speed."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from models.backends.backend import Backend
from models.backends.report import Agreement, Speed
from models.backends.views import largest_batch
from models.errors import BackendRefused
from models.manifest import Task
from models.precision import Precision

BATCHES = (1, 4, 8)
_ROUNDS = 5
_LONGEST_S = 60.0  # for measuring one batch size; at least one round is measured

# By precision: the largest difference of a probability that is allowed (in int8, for 99.9 % of a segmentation's
# pixels), and the least share of equal best categories.
TOLERANCES: Final[dict[Precision, tuple[float, float]]] = {
    "float32": (0.002, 0.999),
    "bfloat16": (0.08, 0.98),
    "int8": (0.15, 0.97),
}


def compare(
    task: Task,
    eager: Backend,
    other: Backend,
    views: Sequence[Tensor],
    *,
    source: Literal["dataset", "generated"],
) -> Agreement:
    """Compares the answers for `views`, uint8 [C, h, w]. task: classification or segmentation.

    Where the scores of eager's two best categories differ by less than the tolerance, either is right. NaN counts as a
    difference of 1, and one such pixel counts like all.
    `models.backends.detection.agreement` compares detectors.
    """
    slack = TOLERANCES[other.precision][0]
    same = total = 0
    differences: list[Tensor] = []
    for batch in batches(views):
        expected, found = (_probabilities(task, backend.run(batch)) for backend in (eager, other))
        differences.append((expected - found).abs().amax(dim=1).flatten())
        best = expected.max(dim=1).values
        chosen = expected.gather(1, found.argmax(dim=1, keepdim=True))[:, 0]
        same += int((chosen >= best - slack).sum())
        total += best.numel()
    of_each = torch.cat(differences)  # [images], of segmentation [pixels]
    largest = float(of_each.nan_to_num(nan=1.0).clamp_max(1.0).max())
    p999 = None
    if task == "segmentation":
        p999 = 1.0 if of_each.isnan().any() else float(of_each.kthvalue(math.ceil(0.999 * len(of_each))).values)
    return Agreement(
        pictures=len(views),
        source=source,
        top1=same / total,
        largest_score_difference=largest,
        score_difference_p999=p999,
    )


def check(agreement: Agreement, precision: Precision) -> None:
    """Raises BackendRefused if the answers of a classifier or a segmentation network differ beyond tolerance."""
    most, least = TOLERANCES[precision]
    assert agreement.largest_score_difference is not None
    assert agreement.top1 is not None
    difference, whose = agreement.largest_score_difference, "A score differs"
    if precision == "int8" and agreement.score_difference_p999 is not None:
        difference, whose = agreement.score_difference_p999, "The scores of 99.9 % of the pixels differ"
    if difference > most:
        raise BackendRefused(
            f"{whose} from eager float32 by up to {format_distinct(difference, most)}; at most {most:g} is allowed."
        )
    if agreement.top1 < least:
        share = format_distinct(100 * agreement.top1, round(100 * least, 1), digits=4)
        raise BackendRefused(
            f"The best category equals that of eager float32 for {share}%; at least {least:.1%} is required."
        )


def format_distinct(value: float, limit: float, *, digits: int = 2) -> str:
    """Formats the value with that many digits, or more where the text would equal that of the limit."""
    texts = (f"{value:#.{count}g}" for count in range(digits, 18))
    return next((text for text in texts if float(text) != limit), str(value))


def measure(eager: Backend, other: Backend, views: Sequence[Tensor], *, device: torch.device) -> tuple[Speed, ...]:
    """Measures images per second of both, in turn, for each of BATCHES. views: uint8 [C, h, w], repeated as needed."""
    first = [view for view in views if view.shape == views[0].shape]
    clock = time.process_time if device.type == "cpu" else time.perf_counter  # a server may compute at the same time
    speeds = []
    for size in BATCHES:
        if size > largest_batch(first[0].shape):
            break
        batch = torch.stack([first[number % len(first)] for number in range(size)])
        seconds = _median_s((eager, other), batch, clock)
        speeds.append(Speed(batch=size, eager_images_per_s=size / seconds[0], images_per_s=size / seconds[1]))
    return tuple(speeds)


def _median_s(backends: Sequence[Backend], batch: Tensor, clock: Callable[[], float]) -> list[float]:
    times: list[list[float]] = [[] for _ in backends]
    for backend in backends:
        backend.run(batch)  # the first call allocates and prepares
    ends = time.monotonic() + _LONGEST_S
    for number in range(_ROUNDS):
        if number and time.monotonic() > ends:
            break
        for backend, taken in zip(backends, times, strict=True):
            began = clock()
            backend.run(batch)
            taken.append(clock() - began)
    return [max(statistics.median(taken), 1e-9) for taken in times]


def batches(views: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yields batches of neighbouring views of one size, with the sizes of BATCHES in turn."""
    sizes = itertools.cycle(BATCHES)
    waiting: list[Tensor] = []
    size = next(sizes)
    for view in views:
        if waiting and (len(waiting) == min(size, largest_batch(view.shape)) or waiting[0].shape != view.shape):
            yield torch.stack(waiting)
            waiting, size = [], next(sizes)
        waiting.append(view)
    if waiting:
        yield torch.stack(waiting)


def _probabilities(task: Task, outputs: Tensor) -> Tensor:
    """Returns probabilities: classification gives them, [B, K]; segmentation gives logits, [B, K, h, w]."""
    return outputs.softmax(dim=1) if task == "segmentation" else outputs
