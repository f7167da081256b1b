"""`fovea up` for real, with a job that runs: what stops it, what survives it."""

from __future__ import annotations

from pathlib import Path

from app.cli.uploading import as_archive
from app.client import Client
from tests.cli.pictures import write_pictures
from tests.cli.processes import running_with
from tests.cli.real_stack import real_stack
from tests.waiting import wait_until
from workers.configs.fine_tune import FineTuneConfig, Hyperparameters
from workers.jobs.job import Job, JobStatus

LONG_JOB = FineTuneConfig(
    model="garment_classifier",
    weights="none",
    dataset="pictures",
    hyperparameters=Hyperparameters(epochs=10_000, data_workers=0),
)


def test_job_survives_ctrl_c_and_goes_on_after_a_restart_and_kill_9_leaves_nothing_running(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    with real_stack(tmp_path / "home", output=tmp_path / "first") as stack, Client(stack.wait_until_ready()) as client:
        with as_archive(pictures) as archive:
            client.datasets.upload(archive, "pictures")
        job_id = client.jobs.create(LONG_JOB).id
        wait_until(lambda: _epochs(client.jobs.get(job_id)) > 2, interval_s=0.5)
        assert stack.interrupt() == 0
        assert not running_with(stack.mark)

    with real_stack(tmp_path / "home", output=tmp_path / "second") as stack, Client(stack.wait_until_ready()) as client:
        before = _epochs(client.jobs.get(job_id))
        assert before > 2
        wait_until(lambda: _epochs(client.jobs.get(job_id)) > before, interval_s=0.5)
        assert client.jobs.get(job_id).status is JobStatus.RUNNING

        stack.process.kill()

        wait_until(lambda: not running_with(stack.mark))


def _epochs(job: Job) -> int:
    return job.progress.epoch
