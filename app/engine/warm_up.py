"""The first batches of a model, before its first request: they are slow, and they measure the best batch size."""

from __future__ import annotations

import time

import torch

from app.engine.model_source import ModelSource
from models.backends.views import BATCH_IMAGES, largest_batch
from models.images.presets import scaled_size
from models.manifest import Preset
from models.predictor import AnyPredictor

_BUDGET_S = 1.0  # for finding the best size, beyond the one batch that every model gets
_ROUNDS = 3  # sizes alternate, because a machine's speed changes
_BESIDE_S = 0.001  # overhead per batch: the way to the thread and back
_AS_GOOD = 1.05  # tolerance relative to the best time per view; below it, noise decided between 4 and 8
_BRIEF_S = 0.1  # a longer batch delays urgent requests
_PICTURE = (480, 640)  # px, height and width: what cameras and datasets have


class BestBatches:
    """The best batch size per network, measured once for all models with the same network.

    Measuring is most of the time of a load. Used from one thread.
    """

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def warm_up(self, source: ModelSource, predictor: AnyPredictor) -> int:
        """Like the function `warm_up` for the first model of a network; for others it only runs the first batches."""
        view, backend = _view_of(predictor), predictor.backend
        network = (source.architecture, source.options, view.shape, backend.name, backend.precision)
        known = self._known.get(network)
        if known is None:
            known = self._known[network] = warm_up(predictor)
            return known
        try:
            for size in sorted({1, known}):
                _seconds(predictor, view, size)
        except torch.OutOfMemoryError:  # there was more memory before
            return warm_up(predictor)
        return known


def warm_up(predictor: AnyPredictor) -> int:
    """Runs batches of growing size, as far as time allows. Returns the best size, 1 to BATCH_IMAGES.

    Among equally good sizes it returns the largest that runs briefly, because that has the least overhead.
    Raises what the network raises, so that a model that cannot predict is not served.
    """
    view = _view_of(predictor)
    most = min(BATCH_IMAGES, largest_batch(view.shape))
    _seconds(predictor, view, 1)  # the first batch is slow
    ends_at = time.perf_counter() + _BUDGET_S
    fastest = {1: _seconds(predictor, view, 1)}
    size = 2
    while size <= most and time.perf_counter() + _ROUNDS * 2 * size * _a_view(fastest) < ends_at:
        try:
            _seconds(predictor, view, size)  # the first batch of a size is slow
            fastest[size] = _seconds(predictor, view, size)
        except torch.OutOfMemoryError:
            break
        size *= 2
    for _ in range(_ROUNDS - 1):
        for size, seconds in fastest.items():
            if time.perf_counter() + seconds < ends_at:
                fastest[size] = min(seconds, _seconds(predictor, view, size))
    best_s = _a_view(fastest)
    as_good = [size for size, seconds in fastest.items() if (seconds + _BESIDE_S) / size <= best_s * _AS_GOOD]
    return max((size for size in as_good if fastest[size] <= _BRIEF_S), default=as_good[0])


def _view_of(predictor: AnyPredictor) -> torch.Tensor:
    preset = predictor.preset
    side = (preset.crop_px, preset.crop_px) if isinstance(preset, Preset) else scaled_size(preset, *_PICTURE)
    return torch.full((preset.channels, *side), 127, dtype=torch.uint8)


def _a_view(fastest: dict[int, float]) -> float:
    """Seconds per view of the best size so far. fastest: seconds per batch, by size."""
    return min((seconds + _BESIDE_S) / size for size, seconds in fastest.items())


def _seconds(predictor: AnyPredictor, view: torch.Tensor, size: int) -> float:
    batch = view.expand(size, *view.shape).contiguous()
    began_at = time.perf_counter()
    predictor.backend.run(batch)
    return time.perf_counter() - began_at
