"""`python -m workers.training RUN_DIR` trains the run in a directory, or continues it from its last checkpoint.

A person can start, kill and restart it by hand, and read its files. Its exit codes are in `supervision/exit_codes.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import IO

from models.store.locks import lock_file
from models.store.storage import replace_file
from workers.run_directory import RunDirectory
from workers.supervision.child_process import die_with
from workers.supervision.exit_codes import EXIT_BUSY, EXIT_FAILED, EXIT_HANDED_BACK

log = logging.getLogger("workers.training")


def main(arguments: list[str] | None = None) -> int:
    """Runs the trainer. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.training", description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="directory with config.json; the home directory is two levels up")
    parser.add_argument("--token", type=int, help="fencing token: write only while lease.json contains this number")
    parser.add_argument("--parent", type=int, help="process id of the supervisor; the trainer ends when it ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.captureWarnings(capture=True)
    if options.parent is not None and not die_with(options.parent):
        return EXIT_BUSY
    run = RunDirectory(path=options.run_dir.resolve())
    lock = _hold(run)
    if lock is None:
        log.error("another trainer holds %s", run.path)
        return EXIT_BUSY
    with lock:
        return _train(run, options.token)


def _train(run: RunDirectory, token: int | None) -> int:
    # These import torch, which takes seconds, so the lock and the parent process are settled before.
    from workers.training.evaluate import evaluate_run
    from workers.training.failures import explain_failure
    from workers.training.fence import FenceLost
    from workers.training.loop import RunHandedBack
    from workers.training.run import train_run

    try:
        runs = {"fine_tune": train_run, "evaluate": evaluate_run}
        runs[run.read_config().job.type](run, token=token)
    except RunHandedBack:
        log.info("the run is handed back at a checkpoint")
        return EXIT_HANDED_BACK
    except FenceLost as error:
        log.error("%s", error)
        return EXIT_BUSY
    except Exception as error:  # the process boundary: failure.json states the reason of every error
        log.exception("the run failed")
        failure = explain_failure(error, run)
        replace_file(run.failure, failure.model_dump_json(indent=1).encode())
        return EXIT_FAILED
    return 0


def _hold(run: RunDirectory) -> IO[bytes] | None:
    """The run's lock, held as long as the file is open; None if another process has it."""
    file = run.lock.open("ab")
    try:
        lock_file(file, wait=False)
    except BlockingIOError:
        file.close()
        return None
    return file


if __name__ == "__main__":
    sys.exit(main())
