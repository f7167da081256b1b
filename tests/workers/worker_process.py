"""A real worker process for integration tests."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from models.drawing.fonts import Fonts
from tests import children
from tests.waiting import PATIENCE_S


@dataclass(kw_only=True)
class WorkerProcess:
    """`fovea worker` with a home and a Redis, and with short intervals."""

    home: Path
    redis_url: str
    lease_s: float = 2.0
    visibility_timeout_s: int = 86_400
    log_format: str = "text"
    process: children.Process | None = None

    @property
    def font(self) -> Path:
        return Fonts(directories=()).first.path

    @property
    def log(self) -> Path:
        return self.home / "worker.log"

    def start(self) -> WorkerProcess:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "FOVEA_HOME": str(self.home),
            "FOVEA_REDIS_URL": self.redis_url,
            "FOVEA_LEASE_S": str(self.lease_s),
            "FOVEA_SWEEP_INTERVAL_S": "0.5",
            "FOVEA_VISIBILITY_TIMEOUT_S": str(self.visibility_timeout_s),
            "FOVEA_LOG_FORMAT": self.log_format,
            "FOVEA_DEVICE": "cpu",
            "FOVEA_OFFLINE": "true",
            "FOVEA_FONT": str(self.font),
        }
        with self.log.open("ab") as log:
            self.process = children.start(
                [sys.executable, "-m", "app.cli", "worker"], stdout=log, stderr=log, env=environment
            )
        return self

    def kill(self) -> None:
        """Kills the process, as a crash does."""
        assert self.process is not None
        children.end(self.process)

    def terminate(self) -> int:
        """Ends the process as a shutdown does. Returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Ends the process if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
