"""The order in which a lane runs views, and what becomes of each. Stand-ins for networks note their batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from app.engine.lane import Lane, Priority, ViewResult
from app.engine.loaded_models import LoadedModel
from app.engine.model_source import ModelSource
from models.predictor import AnyPredictor
from tests.waiting import PATIENCE_S

SELECTION = cast("Any", None)
FENCE = 255


@dataclass
class Network:
    """Returns the number of each view, which is also its pixels' value. Waits while `gate` is closed."""

    batches: list[list[int]]
    gate: threading.Event
    selections: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    has_large_outputs: bool = False
    error: Exception | None = None
    backend: Any = field(default_factory=lambda: SimpleNamespace(name="eager", precision="float32"))

    def predict_prepared(self, batch: Tensor, selections: Sequence[Any]) -> list[int]:
        self.selections += selections
        self.threads.add(threading.current_thread().name)
        self.batches.append([int(view.flatten()[0]) for view in batch])
        assert self.gate.wait(PATIENCE_S)
        if self.error:
            raise self.error
        return self.batches[-1]


@dataclass
class Stage:
    """A lane whose device is busy with view 0 until `gate` is opened."""

    lane: Lane
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)

    def model(self, *, best_batch: int = 1, **options: Any) -> LoadedModel:
        network = Network(self.batches, self.gate, **options)
        source = ModelSource(
            name="stand-in", version=1, architecture="none", digest="0", size_bytes=0, load=lambda: predictor
        )
        predictor = cast("AnyPredictor", network)
        return LoadedModel(source=source, predictor=predictor, best_batch=best_batch)

    async def run(self, *waiting: asyncio.Future[ViewResult]) -> list[Any]:
        """Lets the device go on, and returns what became of these views."""
        self.gate.set()
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(*waiting, return_exceptions=True)

    async def until_idle(self) -> None:
        """Runs a view of its own, and returns when it and all views before it have run."""
        await self.run(self.lane.submit(self.model(), view(FENCE), SELECTION, "bulk"))


def view(number: int, *, side_px: int = 2) -> Tensor:
    return torch.full((1, side_px, side_px), number, dtype=torch.uint8)


def on_stage(work: Callable[[Stage], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Does `work` on a lane whose device is busy."""

    async def run() -> None:
        stage = Stage(Lane(**options))
        held = stage.lane.submit(stage.model(), view(0), SELECTION, "interactive")
        try:
            await work(stage)
            await stage.run(held)
        finally:
            stage.gate.set()
            stage.lane.close()

    asyncio.run(run())


def test_of_two_models_the_one_whose_view_came_first_runs_first() -> None:
    async def work(stage: Stage) -> None:
        one, two = stage.model(), stage.model()
        asked = [(one, 1), (two, 2), (one, 3), (two, 4), (two, 5)]
        await stage.run(*(stage.lane.submit(model, view(n), SELECTION, "interactive") for model, n in asked))
        assert stage.batches == [[0], [1], [2], [3], [4], [5]]

    on_stage(work)


def test_model_whose_later_views_fill_a_batch_does_not_overtake() -> None:
    async def work(stage: Stage) -> None:
        one, two = stage.model(best_batch=2), stage.model(best_batch=2)
        asked = [(one, 1), (two, 2), (two, 3), (one, 4), (one, 5)]
        await stage.run(*(stage.lane.submit(model, view(n), SELECTION, "bulk") for model, n in asked))
        assert stage.batches == [[0], [1, 4], [2, 3], [5]]

    on_stage(work)


def test_views_of_one_model_in_two_sizes_run_apart_in_the_order_of_arrival() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model(best_batch=4)
        asked = [view(1, side_px=3), view(2), view(3, side_px=3), view(4)]
        await stage.run(*(stage.lane.submit(model, one, SELECTION, "interactive") for one in asked))
        assert stage.batches == [[0], [1, 3], [2, 4]]

    on_stage(work)


def test_interactive_view_goes_first_and_the_oldest_bulk_view_fills_its_batch() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model(best_batch=2)
        bulk = [stage.lane.submit(model, view(n), SELECTION, "bulk") for n in (1, 2, 3)]
        interactive = stage.lane.submit(model, view(4), SELECTION, "interactive")
        results = await stage.run(interactive, *bulk)
        assert stage.batches == [[0], [4, 1], [2, 3]]
        assert [result.output for result in results] == [4, 1, 2, 3]

    on_stage(work)


def test_interactive_view_of_another_model_goes_before_older_bulk_views() -> None:
    async def work(stage: Stage) -> None:
        one, two = stage.model(best_batch=4), stage.model(best_batch=4)
        bulk = [stage.lane.submit(one, view(n), SELECTION, "bulk") for n in (1, 2)]
        await stage.run(stage.lane.submit(two, view(3), SELECTION, "interactive"), *bulk)
        assert stage.batches == [[0], [3], [1, 2]]

    on_stage(work)


def test_cancelled_view_is_not_run_and_those_behind_it_are() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model()
        waiting = [stage.lane.submit(model, view(n), SELECTION, "interactive") for n in (1, 2, 3)]
        assert stage.lane.waiting == 3
        waiting[1].cancel()
        await asyncio.sleep(0)  # the queue hears of it
        assert stage.lane.waiting == 2
        await stage.run(waiting[0], waiting[2])
        assert stage.batches == [[0], [1], [3]]
        assert stage.lane.waiting == 0

    on_stage(work)


def test_view_cancelled_while_it_runs_takes_nothing_from_the_others_of_its_batch() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model(best_batch=3)
        stage.gate.set()
        waiting = [stage.lane.submit(model, view(n), SELECTION, "interactive") for n in (1, 2, 3)]
        stage.lane._run_in_thread = cancelling(stage.lane, waiting[1])  # type: ignore[method-assign]
        first, _, third = await stage.run(*waiting)
        assert stage.batches == [[0], [1, 2, 3]]
        assert (first.output, third.output) == (1, 3)

    on_stage(work)


def cancelling(lane: Lane, *views: asyncio.Future[ViewResult]) -> Callable[..., Any]:
    """A stand-in for `_run_in_thread` that cancels views as soon as the first batch runs."""
    original = lane._run_in_thread

    def run(*args: Any) -> Any:
        for view in views:
            view.cancel()
        return original(*args)

    return run


def test_result_says_how_long_the_view_waited_and_the_batch_took() -> None:
    told: list[Any] = []
    sizes: list[int] = []
    observer = SimpleNamespace(batch_predicted=lambda source, **values: told.append((source, values)))

    async def work(stage: Stage) -> None:
        model = stage.model(best_batch=2)
        waiting = [stage.lane.submit(model, view(n), SELECTION, "interactive") for n in (1, 2)]
        assert stage.lane.busy_s > 0
        first, second = await stage.run(*waiting)
        assert first.queue_s > second.queue_s > 0
        assert first.inference_s == second.inference_s == model.batch_s > 0
        assert (first.backend, first.precision) == ("eager", "float32")
        source, values = told[-1]
        assert source is model.source
        assert values == {
            "backend": "eager",
            "queue_s": [first.queue_s, second.queue_s],
            "inference_s": first.inference_s,
        }
        assert sizes == [1, 2]
        assert stage.lane.busy_s == 0

    on_stage(work, observers=[observer], after_batch=sizes.append)


def test_each_view_is_run_with_what_was_asked_for_it_in_the_thread_of_the_lane() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model(best_batch=3)
        asked = [("a", "interactive"), ("b", "bulk"), ("c", "interactive")]
        waiting = [
            stage.lane.submit(model, view(n), cast("Any", text), cast("Priority", priority))
            for n, (text, priority) in enumerate(asked, 1)
        ]
        await stage.run(*waiting)
        network = cast("Network", model.predictor)
        assert (stage.batches, network.selections) == ([[0], [1, 3, 2]], ["a", "c", "b"])
        assert network.threads == {"infer_0"}

    on_stage(work)


def test_bug_in_an_observer_does_not_stop_the_lane() -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    async def work(stage: Stage) -> None:
        bugs: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        waiting = [stage.lane.submit(stage.model(), view(n), SELECTION, "interactive") for n in (1, 2)]
        results = await stage.run(*waiting)
        assert [result.output for result in results] == [1, 2]
        assert {str(bug) for bug in bugs} == {"a bug"}

    on_stage(work, observers=[SimpleNamespace(batch_predicted=explode)])


def test_error_of_a_network_reaches_its_views_and_the_next_batch_runs() -> None:
    async def work(stage: Stage) -> None:
        broken, whole = stage.model(error=RuntimeError("no such kernel")), stage.model()
        failed = stage.lane.submit(broken, view(1), SELECTION, "interactive")
        error, result = await stage.run(failed, stage.lane.submit(whole, view(2), SELECTION, "interactive"))
        assert str(error) == "no such kernel"
        assert result.output == 2

    on_stage(work)


def test_closed_lane_cancels_what_waits_and_takes_nothing_more() -> None:
    async def work(stage: Stage) -> None:
        model = stage.model()
        waiting = stage.lane.submit(model, view(1), SELECTION, "interactive")
        stage.lane.close()
        late = stage.lane.submit(model, view(2), SELECTION, "interactive")
        assert waiting.cancelled()
        assert late.cancelled()
        await asyncio.sleep(0)
        assert stage.lane.waiting == 0

    on_stage(work)  # the view that runs meanwhile ends by itself: `on_stage` waits for it


class TestLargeOutputs:
    """At most four large outputs wait to be finished: a segmentation network's take 20 MB each."""

    def test_fifth_runs_only_after_one_was_finished(self) -> None:
        async def work(stage: Stage) -> None:
            model = stage.model(has_large_outputs=True)
            waiting = [stage.lane.submit(model, view(n), SELECTION, "interactive") for n in range(1, 7)]
            await stage.run(*waiting[:4])
            assert stage.lane.waiting == 2
            stage.lane.finished(model, 1)
            await stage.run(waiting[4])
            assert stage.lane.waiting == 1
            stage.lane.finished(model, 1)
            await stage.run(waiting[5])
            assert stage.batches == [[n] for n in range(7)]

        on_stage(work)

    def test_models_with_small_outputs_go_on_meanwhile(self) -> None:
        async def work(stage: Stage) -> None:
            large, small = stage.model(has_large_outputs=True), stage.model()
            waiting = [stage.lane.submit(large, view(n), SELECTION, "interactive") for n in range(1, 6)]
            await stage.run(stage.lane.submit(small, view(6), SELECTION, "bulk"), *waiting[:4])
            assert stage.batches == [[0], [1], [2], [3], [4], [6]]
            stage.lane.finished(small, 4)  # counts nothing
            assert stage.lane.waiting == 1

        on_stage(work)

    @pytest.mark.parametrize("how", ["failed", "cancelled"])
    def test_views_without_an_output_leave_exactly_their_room(self, how: str) -> None:
        async def work(stage: Stage) -> None:
            error = RuntimeError("broken") if how == "failed" else None
            pairs = stage.model(best_batch=2, has_large_outputs=True, error=error)
            whole = stage.model(has_large_outputs=True)
            lost = [stage.lane.submit(pairs, view(n), SELECTION, "interactive") for n in range(1, 5)]
            if how == "cancelled":
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(stage.lane, "_run_in_thread", cancelling(stage.lane, *lost))
                    await stage.run(*lost)
                    await stage.until_idle()
            else:
                await stage.run(*lost)
            kept = [stage.lane.submit(whole, view(n), SELECTION, "interactive") for n in range(5, 11)]
            await stage.until_idle()
            assert [one.done() for one in kept] == [True] * 4 + [False] * 2
            stage.lane.finished(whole, 4)
            await stage.run(*kept)

        on_stage(work)
