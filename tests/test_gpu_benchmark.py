"""The benchmark for GPUs says so where there is none, and nothing else."""

from __future__ import annotations

import os
import sys

from tests import children


def test_machine_without_a_gpu_is_told_that_there_is_nothing_to_measure() -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = children.run([sys.executable, "-m", "benchmarks.gpu", "photos.zip"], check=False, env=env)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.strip().endswith("PyTorch sees no NVIDIA GPU here: there is nothing to measure.")
