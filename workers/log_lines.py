"""How log lines look: text for people, JSON for machines. Both go to stderr."""

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
_at_work: ContextVar[dict[str, str]] = ContextVar("_at_work", default={})  # noqa: B039 -- replaced, never changed


@contextmanager
def lines_about(**fields: str | None) -> Iterator[None]:
    """Every line that this thread writes within has these fields, whoever writes it; None leaves one out."""
    token = _at_work.set({**_at_work.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _at_work.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what it is about, whatever `extra` says, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _at_work.get()
        line |= {name: value for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(*, level: str, log_format: Literal["text", "json"]) -> None:
    """Sends every log line of this process to stderr. For a process's own `main`, never for an import."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every image fetched is the access log's to write
