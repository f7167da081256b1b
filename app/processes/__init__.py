"""`fovea up`: all of Fovea on one machine, as one process tree."""

from app.processes.errors import StackError
from app.processes.stack import run_up

__all__ = ["StackError", "run_up"]
