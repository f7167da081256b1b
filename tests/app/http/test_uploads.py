"""The fingerprint of a form, by which a repeated request is known, and the files that a form leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.errors import ApiError
from app.http.uploads import Form, discard, read_form

FIELDS = {"name": "ants", "validation_fraction": "0.2"}
FILE = b"PK" + bytes(range(256)) * 20


def body(fields: dict[str, str], file: bytes = FILE, *, boundary: str = "b1", file_field: str = "file") -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    head = f'Content-Disposition: form-data; name="{file_field}"; filename="a.zip"\r\n\r\n'.encode()
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in [*parts, head + file]) + mark + b"--\r\n"


def read(spool: Path, content: bytes, *, boundary: str = "b1", chunk_bytes: int = 10**6) -> Form:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), chunk_bytes):
            yield content[start : start + chunk_bytes]

    def new_path() -> Path:
        return spool / str(len(list(spool.iterdir())))

    fields = frozenset({"file", "other"})
    kind = f"multipart/form-data; boundary={boundary}"
    return asyncio.run(read_form(kind, chunks(), file_fields=fields, new_path=new_path))


@pytest.mark.parametrize(
    "changed",
    [
        body({**FIELDS, "name": "bees"}),
        body({**FIELDS, "validation_fraction": "0.25"}),
        body({**FIELDS, "name": ""}),
        body({"name": "ants"}),
        body({**FIELDS, "task": "detection"}),
        body({"name": "0.2", "validation_fraction": "ants"}),
        body({"title": "ants", "validation_fraction": "0.2"}),
        body({"name": "ants0", "validation_fraction": ".2"}),
        body(FIELDS, FILE[:-1]),
        body(FIELDS, FILE[:-1] + b"x"),
        body(FIELDS, b"x" + FILE[1:]),
        body(FIELDS, b""),
        body(FIELDS, file_field="other"),
    ],
    ids=lambda _: "",
)
def test_another_form_has_another_fingerprint(tmp_path: Path, changed: bytes) -> None:
    assert read(tmp_path, changed).fingerprint != read(tmp_path, body(FIELDS)).fingerprint


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096])
def test_same_form_has_the_same_fingerprint_however_it_comes(tmp_path: Path, chunk_bytes: int) -> None:
    first = read(tmp_path, body(FIELDS))
    second = read(tmp_path, body(FIELDS, boundary="other"), boundary="other", chunk_bytes=chunk_bytes)
    assert second.fingerprint == first.fingerprint
    assert second.fields == first.fields == FIELDS
    for form in (first, second):
        file = form.one_file("file")
        assert file.path is not None
        assert (file.path.read_bytes(), file.size_bytes, file.name) == (FILE, len(FILE), "a.zip")


def test_file_larger_than_what_is_written_at_once_is_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 2 + b"end"  # 2 MB
    file = read(tmp_path, body(FIELDS, content), chunk_bytes=65_536).one_file("file")
    assert file.path is not None
    assert (file.path.read_bytes() == content, file.size_bytes) == (True, len(content))


def test_form_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="ends early"):
        read(tmp_path, body(FIELDS)[:-8])
    twice = body({}).removesuffix(b"--b1--\r\n") + body({})
    with pytest.raises(ApiError, match="more than 1 file"):
        read(tmp_path, twice)
    assert list(tmp_path.iterdir()) == []


def test_discarded_form_leaves_no_file(tmp_path: Path) -> None:
    form = read(tmp_path, body(FIELDS))
    assert len(list(tmp_path.iterdir())) == 1
    discard(form)
    assert list(tmp_path.iterdir()) == []
