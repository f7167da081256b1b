"""`fovea up` for real: Redis, API and worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from app.cli.uploading import as_archive
from app.client import Client
from tests.cli.pictures import write_pictures
from tests.cli.processes import running_below, running_with
from tests.cli.real_stack import PROJECT_DIR, real_stack
from tests.waiting import wait_until
from workers.fine_tune_config import FineTuneConfig, Hyperparameters
from workers.jobs import JobStatus


def test_banner_leads_to_the_api_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with real_stack(tmp_path / "home", output=tmp_path / "output") as stack:
        url = stack.wait_until_ready()
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/docs").status_code == 200
        assert len(running_below(stack.process.pid)) >= 3

        assert stack.interrupt() == 0

        assert not running_with(stack.mark)


def test_kill_9_of_the_parent_leaves_no_process(tmp_path: Path) -> None:
    with real_stack(tmp_path / "home", output=tmp_path / "output") as stack:
        stack.wait_until_ready()
        stack.process.kill()

        wait_until(lambda: not running_with(stack.mark))


def test_second_up_on_the_same_home_is_refused(tmp_path: Path) -> None:
    with real_stack(tmp_path / "home", output=tmp_path / "output") as stack:
        url = stack.wait_until_ready()

        second = subprocess.run(
            [sys.executable, "-m", "app.cli", "up", "--home", str(tmp_path / "home"), "--port", "0"],
            capture_output=True,
            text=True,
            cwd=PROJECT_DIR,
            check=False,
        )

        assert second.returncode == 1
        assert f"process {stack.process.pid}" in second.stderr
        assert url in second.stderr


def test_running_job_goes_on_after_a_restart(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    with real_stack(tmp_path / "home", output=tmp_path / "first") as stack, Client(stack.wait_until_ready()) as client:
        with as_archive(pictures) as archive:
            client.datasets.upload(archive, "pictures")
        job = client.jobs.create(
            FineTuneConfig(
                model="garment_classifier",
                weights="none",
                dataset="pictures",
                hyperparameters=Hyperparameters(epochs=5000, data_workers=0),
            )
        )
        wait_until(lambda: client.jobs.get(job.id).progress.epoch > 2, deadline_s=120)
        assert stack.interrupt() == 0

    with real_stack(tmp_path / "home", output=tmp_path / "second") as stack, Client(stack.wait_until_ready()) as client:
        before = client.jobs.get(job.id).progress.epoch
        assert before > 2
        wait_until(lambda: client.jobs.get(job.id).progress.epoch > before, deadline_s=120)
        assert client.jobs.get(job.id).status is JobStatus.RUNNING
        client.jobs.cancel(job.id)
