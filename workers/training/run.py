"""One training run, from its directory to its result: creates and connects all objects of the trainer."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import nn

from models.architectures.catalog import get_architecture
from models.errors import ModelsError
from models.store.library_versions import library_versions
from models.store.registry import Registry
from models.store.state_dicts import read_state_dict
from models.store.storage import replace_file
from models.store.weights import load_base_state_dict
from workers.run_directory import Comparison, RunConfig, RunDirectory, RunResult
from workers.supervision.publishing import production_version
from workers.training.checkpoint import TrainState, load_checkpoint, save_checkpoint, save_weights
from workers.training.device import describe_device
from workers.training.fence import check_fence
from workers.training.journal import Journal
from workers.training.loop import AnyTask, TrainingEnd, train
from workers.training.network import make_network
from workers.training.optim import make_optimizer, make_scheduler
from workers.training.run_inputs import RunInputs, make_run_inputs
from workers.training.task import named_after
from workers.training.tasks import make_task

log = logging.getLogger(__name__)


def train_run(run: RunDirectory, *, token: int | None = None) -> None:
    """Trains from the last checkpoint, if there is one, to the end, and writes `result.json`.

    token: the fencing token of this attempt; None if a person runs it by hand.
    Raises RunHandedBack, FenceLost, and the errors that `failures.explain_failure` explains.
    """
    config, home = run.read_config(), run.path.parent.parent
    job = config.fine_tune
    registry, architecture = Registry(home / "registry"), get_architecture(job.architecture)
    task = make_task(make_run_inputs(config, home))
    inputs = task.inputs
    run.checkpoints.mkdir(exist_ok=True)

    module = make_network(job, registry, home / "weights", allow_download=config.allow_download)
    module = module.to(inputs.device).to(memory_format=torch.channels_last)  # the faster layout for convolutions
    optimizer = make_optimizer(module, job.hyperparameters)
    scheduler = make_scheduler(optimizer, job.hyperparameters, steps_per_epoch=task.steps_per_epoch())
    state = TrainState(module=module, optimizer=optimizer, scheduler=scheduler)
    is_resumed = load_checkpoint(state, job, run.last_checkpoint)

    def keep_best() -> None:
        check_fence(run, token)
        save_weights(module, architecture, run.best_weights)

    def checkpoint() -> None:
        check_fence(run, token)
        save_checkpoint(state, job, run.last_checkpoint)

    with Journal(run, first_step=state.step) as journal:
        journal.message(_opening_message(state, inputs, is_resumed=is_resumed))
        end = train(
            state,
            task,
            journal,
            _RequestFiles(run),
            keep_best=keep_best,
            checkpoint=checkpoint,
            checkpoint_interval_s=config.checkpoint_interval_s,
        )
        journal.message("Writing the report of the best weights.")
        result = _finish_run(run, config, task, state, registry, end)
        if result.weakness is not None:
            journal.message(result.weakness)
    check_fence(run, token)
    replace_file(run.result, result.model_dump_json(indent=1).encode())


class _RequestFiles:
    """Requests as files that the supervisor, or a person, puts into the run directory."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def is_stop_requested(self) -> bool:
        return self._run.stop_request.exists()

    def is_hand_back_requested(self) -> bool:
        return self._run.hand_back_request.exists()


def _opening_message(state: TrainState, inputs: RunInputs, *, is_resumed: bool) -> str:
    job, epochs = inputs.fine_tune, inputs.fine_tune.hyperparameters.epochs
    where = f"{describe_device(inputs.device)} in {inputs.precision}"
    if is_resumed:
        return f"Continuing from the checkpoint at epoch {state.epoch} of {epochs}, step {state.step}, on {where}."
    base = f"from {job.base}" if job.base else "from random weights"
    images = f"{len(inputs.train_images)} images, with {len(inputs.val_images)} for validation"
    return f"Training {job.architecture} {base} ({job.strategy}) for {epochs} epochs on {images}; {where}."


def _finish_run(
    run: RunDirectory, config: RunConfig, task: AnyTask, state: TrainState, registry: Registry, end: TrainingEnd
) -> RunResult:
    """Compares the best weights with the version in production, and writes the report.

    The best epoch was evaluated when it ended; only if an earlier attempt trained it, its weights are evaluated again.
    """
    assert state.best is not None
    inputs, best = task.inputs, read_state_dict(run.best_weights)
    load_base_state_dict(state.module, inputs.architecture, best, keep_head=True, options=inputs.fine_tune.options)
    evaluation = end.best or task.evaluate(state.module)
    comparison = _compare(config, task, registry) if config.fine_tune.promote == "if_better" else None
    task.write_report(run, evaluation, state.best)
    return RunResult(
        metrics=evaluation.metrics | _test_metrics(inputs, state.module),
        decisive_metric=task.decisive_metric,
        best_epoch=state.best.epoch,
        epochs=state.epoch,
        stopped_early=end.is_stopped,
        device=describe_device(inputs.device),
        precision=inputs.precision,
        libraries=library_versions(),
        comparison=comparison,
        weakness=evaluation.weakness,
    )


def _test_metrics(inputs: RunInputs, module: nn.Module) -> dict[str, float]:
    """Measures the best weights on the test split, if there is one: `test/top1` for `val/top1`. Chooses nothing."""
    if not inputs.test_images:
        return {}
    task = make_task(replace(inputs, train_images=(), val_images=inputs.test_images))
    return named_after("test", task.evaluate(module).metrics)


def _compare(config: RunConfig, task: AnyTask, registry: Registry) -> Comparison | None:
    """Evaluates the version in production on the validation split of this run. Returns None if there is none."""
    name = config.fine_tune.publish_as
    current = production_version(registry, name)
    if current is None:
        return None
    reference = f"{name}/{current}"
    try:
        return Comparison(reference=reference, metrics=task.compare(registry.resolve(reference), registry))
    except (ModelsError, ValueError, RuntimeError) as error:  # a failed comparison must not fail the run
        log.warning("cannot compare with %s: %s", reference, error, exc_info=True)
        return Comparison(reference=reference, metrics={}, reason=str(error).rstrip("."))
