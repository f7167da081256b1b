"""Which size of batch suits a network, by what batches of every size take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from app.engine import warm_up as warming
from app.engine.model_source import ModelSource
from app.engine.warm_up import BestBatches, warm_up
from models.architectures.catalog import build, get_architecture
from models.backends.eager import EagerBackend
from models.backends.views import BATCH_IMAGES
from models.predictor import AnyPredictor
from models.predictors.classification import Classifier


def best_of(monkeypatch: pytest.MonkeyPatch, seconds_of: Callable[[int, int], float]) -> int:
    """The best size of a network that takes so long. seconds_of: of a batch, by its size and how many were before."""
    take(monkeypatch, seconds_of)
    return warm_up(garments())


def take(monkeypatch: pytest.MonkeyPatch, seconds_of: Callable[[int, int], float]) -> list[int]:
    """Batches take so long from now on; the sizes of those that were run."""
    sizes: list[int] = []

    def measured(predictor: AnyPredictor, view: torch.Tensor, size: int) -> float:
        assert view.shape == (1, 28, 28)
        sizes.append(size)
        return seconds_of(size, sizes.count(size) - 1)

    monkeypatch.setattr(warming, "_seconds", measured)
    return sizes


def garments() -> AnyPredictor:
    module = build("garment_classifier", num_categories=2)
    return Classifier(module, categories=("a", "b"), preset=get_architecture("garment_classifier").preset, device="cpu")


def test_larger_batch_is_taken_when_a_view_takes_less_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_of(monkeypatch, lambda size, _: 0.004 + 0.001 * min(size, 8) + 0.003 * max(0, size - 8)) == 8


def test_as_much_as_fits_where_a_batch_takes_the_same_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_of(monkeypatch, lambda *_: 0.002) == BATCH_IMAGES


def test_network_that_gains_nothing_gets_what_runs_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_of(monkeypatch, lambda size, _: 0.02 * size) == 4
    assert best_of(monkeypatch, lambda size, _: 0.06 * size) == 1
    assert best_of(monkeypatch, lambda size, _: 0.12 * size) == 1


def test_chance_does_not_decide_between_sizes_that_are_nearly_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    took_s = {1: 0.009, 2: 0.0164, 4: 0.0308, 8: 0.0632, 16: 0.125}  # 8 was unlucky
    assert best_of(monkeypatch, lambda size, _: took_s.get(size, 1.0)) == 8


def test_way_around_a_quick_network_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_of(monkeypatch, lambda size, _: 0.001 * size) > 8


def test_slow_moment_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds_of(size: int, before: int) -> float:
        usual_s = 0.01 * size + (0.01 if size == 1 else 0)
        return usual_s * (5 if size == 4 and before < 2 else 1)

    assert best_of(monkeypatch, seconds_of) >= 2


def test_first_batch_of_a_size_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_of(monkeypatch, lambda size, before: 0.002 if before else 0.3) == BATCH_IMAGES


def test_slow_network_is_not_tried_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def seconds_of(size: int, _: int) -> float:
        tried.append(size)
        return 0.4 * size

    assert best_of(monkeypatch, seconds_of) == 1
    assert set(tried) == {1}


def source(name: str, **options: str) -> ModelSource:
    return ModelSource(
        name=name,
        version=1,
        architecture="garment_classifier",
        digest=name,
        size_bytes=1,
        options=frozenset(options.items()),
        load=garments,
    )


def test_models_of_one_network_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = take(monkeypatch, lambda size, _: 0.02 * size)
    best = BestBatches()
    assert best.warm_up(source("one"), garments()) == 4
    assert len(sizes) > 4
    sizes.clear()
    assert best.warm_up(source("other"), garments()) == 4
    assert sizes == [1, 4], "one alone, and the size that will be used"


def test_other_networks_and_ways_to_run_them_are_measured_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    best = BestBatches()
    take(monkeypatch, lambda size, _: 0.02 * size)
    assert best.warm_up(source("one"), garments()) == 4
    take(monkeypatch, lambda size, _: 0.12 * size)
    assert best.warm_up(source("one", variant="wide"), garments()) == 1
    faster = garments()
    faster.backend = EagerBackend(faster.backend.graph, "cpu", "bfloat16")  # type: ignore[attr-defined]
    assert best.warm_up(source("one"), faster) == 1
    assert best.warm_up(source("one"), garments()) == 4


def test_where_the_known_size_does_not_fit_it_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(size: int, _: int) -> float:
        if size > 2:
            raise torch.OutOfMemoryError
        return 0.02 * size

    best = BestBatches()
    take(monkeypatch, lambda size, _: 0.02 * size)
    assert best.warm_up(source("one"), garments()) == 4
    take(monkeypatch, short_of_memory)
    assert best.warm_up(source("other"), garments()) == 2
    take(monkeypatch, lambda size, _: 0.02 * size)
    assert best.warm_up(source("third"), garments()) == 4


def test_network_that_cannot_predict_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> float:
        raise RuntimeError

    best = BestBatches()
    take(monkeypatch, broken)
    with pytest.raises(RuntimeError):
        best.warm_up(source("one"), garments())
    take(monkeypatch, lambda size, _: 0.02 * size)
    assert best.warm_up(source("one"), garments()) == 4
