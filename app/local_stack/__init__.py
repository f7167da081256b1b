"""`fovea up`: all of Fovea on one machine, as one process tree."""

from app.local_stack.errors import StackError
from app.local_stack.stack import run_up

__all__ = ["StackError", "run_up"]
