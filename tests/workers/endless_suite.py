"""A test that runs a Redis, a worker and a trainer until somebody ends it. `test_interrupted_suite.py` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.waiting import wait_until
from tests.workers.test_worker import ENDLESS, Stage, stage

__all__ = ["RUNNING", "stage", "test_that_does_not_end"]

RUNNING: Final = "FOVEA_TEST_RUNNING"  # names the file to make when all of them run


def test_that_does_not_end(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 1)
    Path(os.environ[RUNNING]).touch()
    wait_until(lambda: False)
