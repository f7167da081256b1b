"""docs/datasets.md lists every code of a report and every format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from workers.datasets.dataset import DatasetFormat
from workers.datasets.formats.catalog import FORMATS
from workers.datasets.validation.inspection import ProblemCode
from workers.datasets.validation.targets import AnnotationProblemCode, ObjectNoteCode

ROOT = Path(__file__).resolve().parents[2]
_CODE = re.compile(r'(?:finding\(\s*"(?:error|warning|info)",\s*|code=|BadLine\(|_BadEntry\()"(\w+)"')


def test_every_code_is_documented() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "workers/datasets").rglob("*.py")]
    codes = {code for source in sources for code in _CODE.findall(source)}
    codes |= {*get_args(ObjectNoteCode), *get_args(AnnotationProblemCode), *get_args(ProblemCode)}
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/datasets.md").read_text(encoding="utf-8")))

    assert len(codes) > 40
    assert codes - documented == set()


def test_every_format_is_read_and_documented() -> None:
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")

    assert {each.name for each in FORMATS} == set(get_args(DatasetFormat))
    assert all(f"| `{each.name}` | {each.task}" in text for each in FORMATS)
