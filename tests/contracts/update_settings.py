"""`python -m tests.contracts.update_settings`: writes `.env.example`, and the defaults that documents quote.

A document quotes a default between two comments, which readers of the rendered page do not see:
`<!-- FOVEA_LEASE_S -->30 s<!-- / -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from app.settings import ApiSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_HEAD = """\
# Every setting of Fovea, with its default. Copy this file to `.env` and change what you need: a setting is also an
# environment variable, and a flag of `fovea up`, `serve` and `worker` (FOVEA_MAX_UPLOAD_BYTES is --max-upload-bytes).
# `make settings` writes this file from app/settings.py and workers/settings.py.
"""
# Set, it would keep `fovea up` from starting its own Redis.
_UNSET = {"redis_url": "(While it is not set, `fovea up` starts a Redis of its own, and docker compose has one.)"}
_QUOTE = re.compile(r"(<!-- FOVEA_([A-Z_]+) -->)[^<]*(<!-- / -->)")
_WIDTH = 118
_LEAST_WITH_COMMA = 10_000


def example() -> str:
    """The text of `.env.example`."""
    of_api = [name for name in ApiSettings.model_fields if name not in WorkerSettings.model_fields]
    parts = [_HEAD, *_section("Every process", WorkerSettings.model_fields), *_section("The API", of_api)]
    return "\n".join(parts)


def with_defaults(document: str) -> str:
    """`document` with the defaults of today between its comments. Raises KeyError for a setting that is not there."""
    return _QUOTE.sub(lambda match: f"{match[1]}{in_words(match[2].lower())}{match[3]}", document)


def without_quotes(document: str) -> str:
    """`document` without the defaults that it quotes between comments."""
    return _QUOTE.sub("", document)


def in_words(name: str) -> str:
    """The default of a setting as a person writes it: `20 GiB`, `30 s`, `500,000`."""
    value = ApiSettings.model_fields[name].default
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _written(value)
    if name.endswith("_bytes"):
        power = max(0, (int(value).bit_length() - 1) // 10)
        return f"{value / 1024**power:g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    if name.endswith("_s"):
        return f"{value:,.10g} s"
    return f"{value:,.10g}" if value >= _LEAST_WITH_COMMA else f"{value:.10g}"


def _section(title: str, names: Iterable[str]) -> Iterator[str]:
    yield f"# -- {title} ".ljust(_WIDTH + 2, "-") + "\n"
    for name in names:
        field = ApiSettings.model_fields[name]
        lines = [f"# {line}" for line in wrap(field.description or "", _WIDTH, break_on_hyphens=False)]
        assignment = f"FOVEA_{name.upper()}={_written(field.default)}"
        lines += [f"# {_UNSET[name]}", f"# {assignment}"] if name in _UNSET else [assignment]
        yield "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    """A value as it stands in an environment file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
    for path in DOCUMENTS:
        path.write_text(with_defaults(path.read_text(encoding="utf-8")), encoding="utf-8")
