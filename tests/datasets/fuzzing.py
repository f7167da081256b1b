"""Damaged annotation files for fuzz tests, and what must be true of every archive that contains one.

FUZZ_EXAMPLES sets how many files each test damages; 50 by default, so that the suite stays quick.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.datasets.builders import archived, facts
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.datasets.validation.targets import convert_annotation
from workers.errors import UnusableDataset

many_examples = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "50")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_PIECES = (
    *(
        b"",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b'"',
        b"'",
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"<",
    ),
    *(b">", b"/", b"<a>", b"&x;", b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 400),
    *(b" ", b"..", b"\\", b"a.png", "ä".encode(), "\u202e".encode()),
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after one to four changes: a piece replaced by another piece, by other bytes or by a copy of a part."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 30)))
        copied = draw(st.integers(0, len(content)))
        part = content[copied : copied + draw(st.integers(0, 60))]
        piece = draw(st.sampled_from(_PIECES) | st.binary(max_size=4) | st.just(part))
        content = content[:start] + piece + content[end:]
    return content


def read_or_refused(files: Mapping[str, bytes]) -> Reading | None:
    """Reads the archive and converts its annotations. Returns None if it is refused; other errors pass."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            reading = read_files(archived(Path(directory), files))
        except UnusableDataset:
            return None
        for each in reading.files:
            if each.annotation is not None:
                convert_annotation(each.annotation, facts(width=64, height=48))
        return reading


def accounted_images(reading: Reading) -> int:
    """The images that the reading has, or that a finding counts as left out."""
    counts = {"unlisted_images", "missing_annotations", "conflicting_rows", "images_outside_splits"}
    counts |= {"test_split_ignored", "images_with_bad_entries"}
    return len(reading.files) + sum(each.count for each in reading.findings if each.code in counts)
