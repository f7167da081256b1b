"""The first batches of a model, before anybody waits for one: they are slow, and they tell which size is best."""

from __future__ import annotations

import time

import torch

from models.backends.views import BATCH_IMAGES, largest_batch
from models.manifest import Preset
from models.predictor import AnyPredictor
from models.presets import scaled_size

_BUDGET_S = 1.0  # for finding the best size, beyond the one batch that every model gets
_WORTH = 0.95  # a larger batch must take less than this share of the time a view
_PICTURE = (480, 640)  # px, height and width: what cameras and data sets have


def warm_up(predictor: AnyPredictor) -> int:
    """Runs batches of growing size as long as that pays. Returns the best size, 1 to BATCH_IMAGES.

    Raises what the network raises: a model that cannot predict is not to be served.
    """
    preset = predictor.preset
    side = (preset.crop_px, preset.crop_px) if isinstance(preset, Preset) else scaled_size(preset, *_PICTURE)
    view = torch.full((preset.channels, *side), 127, dtype=torch.uint8)
    most = min(BATCH_IMAGES, largest_batch(view.shape))
    predictor.backend.run(view[None])  # the slow one
    began_at = time.perf_counter()
    best, best_s = 1, _seconds_a_view(predictor, view, 1)
    size = 2
    while size <= most and time.perf_counter() - began_at + 2 * size * best_s < _BUDGET_S:
        view_s = _seconds_a_view(predictor, view, size)
        if view_s < best_s * _WORTH:
            best, best_s = size, view_s
        elif size > 2 * best:
            break
        size *= 2
    return best


def _seconds_a_view(predictor: AnyPredictor, view: torch.Tensor, size: int) -> float:
    batch = view.expand(size, *view.shape).contiguous()
    times = []
    for _ in range(2):
        began_at = time.perf_counter()
        predictor.backend.run(batch)
        times.append(time.perf_counter() - began_at)
    return min(times) / size
