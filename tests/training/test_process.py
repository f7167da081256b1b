"""The trainer as a process: killed, started twice, without disk space, without its parent."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import children
from tests.training.runs import a_dataset, a_run, trainer_of
from tests.waiting import PATIENCE_S, wait_until
from tests.workers.jobs_builders import a_config
from workers.run_directory import RunDirectory
from workers.supervision.exit_codes import EXIT_BUSY, EXIT_FAILED
from workers.training.run import train_run

LONG = {"epochs": 10_000, "schedule": "none"}


def epochs_done(run: RunDirectory) -> int:
    return sum("val/loss" in line.metrics for line in run.read_metrics())


def test_killed_trainer_continues_to_exactly_the_same_weights(tmp_path: Path) -> None:
    changes = {"epochs": 12, "augmentation": "basic"}
    config = a_config(dataset=a_dataset(tmp_path), hyperparameters=changes)
    whole, killed = a_run(tmp_path, config, job_id="whole"), a_run(tmp_path, config, job_id="killed")
    with trainer_of(killed):
        wait_until(lambda: epochs_done(killed) >= 3)
    assert killed.read_result() is None
    with trainer_of(killed) as again, trainer_of(whole) as undisturbed:
        assert again.wait(PATIENCE_S) == 0
        assert undisturbed.wait(PATIENCE_S) == 0
    left, right = load_file(whole.best_weights), load_file(killed.best_weights)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert "Continuing from the checkpoint" in killed.log.read_text()


def test_second_trainer_of_a_run_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), hyperparameters=LONG))
    with trainer_of(run) as first:
        wait_until(lambda: epochs_done(run) >= 1)
        with trainer_of(run) as second:
            assert second.wait(PATIENCE_S) == EXIT_BUSY
        assert first.poll() is None


def test_full_disk_fails_the_run_and_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), hyperparameters={"epochs": 50}))
    with trainer_of(run):
        wait_until(lambda: epochs_done(run) >= 1)
    before = hashlib.sha256(run.last_checkpoint.read_bytes()).hexdigest()
    too_small = run.last_checkpoint.stat().st_size // 2  # larger files give EFBIG, as with a quota
    with trainer_of(run) as trainer:
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (too_small, too_small))
        assert trainer.wait(PATIENCE_S) == EXIT_FAILED
    failure = run.read_failure()
    assert failure is not None
    assert failure.code == "disk_full"
    assert "previous checkpoint is complete" in (failure.hint or "")
    assert hashlib.sha256(run.last_checkpoint.read_bytes()).hexdigest() == before
    assert [path.name for path in run.checkpoints.iterdir() if path.suffix == ".tmp"] == []
    run.failure.unlink()
    run.stop_request.touch()  # with free space, the run continues from its checkpoint
    train_run(run)
    assert run.read_result() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_trainer_dies_with_its_parent(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), hyperparameters=LONG))
    script = (
        "import os, subprocess, sys;"
        "command = [sys.executable, '-m', 'workers.training', sys.argv[1], '--parent', str(os.getpid())];"
        "child = subprocess.Popen(command, start_new_session=True); print(child.pid, flush=True); child.wait()"
    )
    with children.child([sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        trainer_pid = int(parent.stdout.readline())
        wait_until(lambda: epochs_done(run) >= 1)
        parent.kill()
    wait_until(lambda: not is_alive(trainer_pid))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
