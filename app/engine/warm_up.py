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
_ROUNDS = 3  # by turns, since a machine's speed changes
_BESIDE_S = 0.001  # what a batch costs around the network: the way to its thread and back
_AS_GOOD = 1.05  # times what the best size takes a view; within less, chance decided between 4 and 8
_BRIEF_S = 0.1  # somebody urgent may come while a batch runs
_PICTURE = (480, 640)  # px, height and width: what cameras and datasets have


class BestBatches:
    """Which batches suit the models of a device: measured once for all that have the same network.

    Measuring is most of what loading a model takes. To be used from one thread.
    """

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def warm_up(self, source: ModelSource, predictor: AnyPredictor) -> int:
        """As the function, where the model's weights are the first of their network; else its first batches only."""
        view, backend = _view_of(predictor), predictor.backend
        network = (source.architecture, source.options, view.shape, backend.name, backend.precision)
        known = self._known.get(network)
        if known is None:
            known = self._known[network] = warm_up(predictor)
            return known
        try:
            for size in sorted({1, known}):
                _seconds(predictor, view, size)
        except torch.OutOfMemoryError:  # there was more room before
            return warm_up(predictor)
        return known


def warm_up(predictor: AnyPredictor) -> int:
    """Runs batches of growing size, as far as time allows. Returns the best size, 1 to BATCH_IMAGES.

    Of sizes that are as good it is the largest that runs briefly: it makes up for what a batch costs beside the
    network.
    Raises what the network raises: a model that cannot predict is not to be served.
    """
    view = _view_of(predictor)
    most = min(BATCH_IMAGES, largest_batch(view.shape))
    _seconds(predictor, view, 1)  # the slow one
    ends_at = time.perf_counter() + _BUDGET_S
    fastest = {1: _seconds(predictor, view, 1)}
    size = 2
    while size <= most and time.perf_counter() + _ROUNDS * 2 * size * _a_view(fastest) < ends_at:
        try:
            _seconds(predictor, view, size)  # slow for its size
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
    """Seconds a view in the best size so far. fastest: seconds of a batch by its size."""
    return min((seconds + _BESIDE_S) / size for size, seconds in fastest.items())


def _seconds(predictor: AnyPredictor, view: torch.Tensor, size: int) -> float:
    batch = view.expand(size, *view.shape).contiguous()
    began_at = time.perf_counter()
    predictor.backend.run(batch)
    return time.perf_counter() - began_at
