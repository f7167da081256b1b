"""Child processes and how they are kept alive: replicas, the engine process, `fovea up`."""

from app.processes.errors import StackError
from app.processes.stack import run_up

__all__ = ["StackError", "run_up"]
