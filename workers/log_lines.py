"""Formats log lines: text for people or JSON for machines. Both go to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_context: ContextVar[dict[str, str]] = ContextVar("_context", default={})  # noqa: B039 -- replaced, never changed


@contextmanager
def log_fields(**fields: str | None) -> Iterator[None]:
    """Adds `fields` to every log line of this thread inside the `with` block. A field that is None is left out."""
    token = _context.set({**_context.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the fields of `log_fields` and `extra`, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _context.get()
        line |= {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(*, level: str, log_format: Literal["text", "json"]) -> None:
    """Sends every log line of this process to stderr. Only the `main` of a process calls it, never an import."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not collected
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the access log has a line for every fetched image already
