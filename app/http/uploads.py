"""Multipart bodies, read as they come in: small fields to memory, files to memory or straight to their place on disk.

Starlette's own form parser would put large files into the system's temporary directory, which is often a small one in
memory. The grammar is python-multipart's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import InvalidValue, MalformedBody, TooManyFiles

_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 1024**2
_WRITE_BYTES = 1024**2  # one thread hop for as much
_LONGEST_NAME = 255


@dataclass(kw_only=True, slots=True)
class FormFile:
    """One file of a form: in `data`, or at `path` where it was spooled."""

    name: str
    content_type: str
    path: Path | None = None
    data: bytes = b""
    size_bytes: int = 0


@dataclass(kw_only=True, slots=True)
class Form:
    """What a multipart body held.

    fingerprint: sha256 over names and contents, not the boundary; of files, those that went to the disk.
    """

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[FormFile]] = field(default_factory=dict)
    fingerprint: str = ""

    def one_file(self, name: str) -> FormFile:
        """The file of that field. Raises InvalidValue if there is none, or more than one."""
        found = self.files.get(name, [])
        if len(found) != 1:
            message = f"The form needs one file in the field {name!r}; it has {len(found)}."
            sent = ", ".join(sorted({*self.fields, *self.files})) or "nothing"
            raise InvalidValue(message, field=name, valid="one file", hint=f"The form had: {sent}.")
        return found[0]


async def read_form(
    content_type: str,
    chunks: AsyncIterator[bytes],
    *,
    file_fields: frozenset[str],
    new_path: Callable[[], Path] | None,
    check_field: Callable[[str, str], None] = lambda _name, _value: None,
    max_files: int = 1,
) -> Form:
    """Reads a multipart/form-data body.

    file_fields: the fields that hold files; all others are text. new_path: where files go; None keeps them in memory.
    check_field: called with each text field when it is complete, to refuse a bad one before the files behind it come.
    Raises MalformedBody, InvalidValue, TooManyFiles; then no file is left behind.
    """
    reader = _FormReader(
        _boundary(content_type),
        file_fields=file_fields,
        new_path=new_path,
        check_field=check_field,
        max_files=max_files,
    )
    try:
        async for chunk in chunks:
            await reader.feed(chunk)
        return await reader.finish()
    except BaseException:
        await asyncio.shield(asyncio.to_thread(reader.discard))
        raise


def discard(form: Form) -> None:
    """Removes the form's files from the disk."""
    for file in (file for files in form.files.values() for file in files):
        if file.path is not None:
            file.path.unlink(missing_ok=True)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        hint = "Let the HTTP client make the header: it knows the boundary."
        raise MalformedBody("The Content-Type has no boundary for multipart/form-data.", hint=hint)
    return boundary


class _FormReader:
    """The parser calls back while it is fed; what it said is worked off in order between two chunks."""

    def __init__(
        self,
        boundary: bytes,
        *,
        file_fields: frozenset[str],
        new_path: Callable[[], Path] | None,
        check_field: Callable[[str, str], None],
        max_files: int,
    ) -> None:
        self._file_fields = file_fields
        self._new_path = new_path
        self._check_field = check_field
        self._max_files = max_files
        self._form = Form()
        self._digest = hashlib.sha256()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._part: FormFile | None = None  # None while a text field is read
        self._field_name = ""
        self._fields = 0  # also those of the same name
        self._buffer = bytearray()
        self._open_file: BinaryIO | None = None
        self._said: list[tuple[str, bytes]] = []
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": lambda: self._said.append(("begin", b"")),
                    "on_part_data": lambda data, start, end: self._said.append(("data", data[start:end])),
                    "on_part_end": lambda: self._said.append(("end", b"")),
                    "on_header_field": lambda data, start, end: self._said.append(("name", data[start:end])),
                    "on_header_value": lambda data, start, end: self._said.append(("value", data[start:end])),
                    "on_header_end": lambda: self._said.append(("header", b"")),
                    "on_headers_finished": lambda: self._said.append(("headers", b"")),
                    "on_end": lambda: self._said.append(("complete", b"")),
                },
            )
        except FormParserError as error:
            raise MalformedBody(f"The form cannot be read: {error}.") from error

    async def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedBody(f"The form cannot be read: {error}.") from error
        said, self._said = self._said, []
        for what, data in said:
            await self._work_off(what, data)

    async def finish(self) -> Form:
        if not self._is_complete:
            raise MalformedBody("The form ends early: its closing boundary is missing.")
        self._form.fingerprint = self._digest.hexdigest()
        return self._form

    def discard(self) -> None:
        if self._open_file is not None:
            self._open_file.close()
        if self._part is not None and self._part.path is not None:
            self._part.path.unlink(missing_ok=True)
        discard(self._form)

    async def _work_off(self, what: str, data: bytes) -> None:
        match what:
            case "begin":
                self._headers = {}
            case "name":
                self._header_name += data
            case "value":
                self._header_value += data
            case "header":
                self._headers[self._header_name.lower()] = self._header_value
                self._header_name = self._header_value = b""
            case "headers":
                await self._begin_part()
            case "data":
                await self._add(data)
            case "end":
                await self._end_part()
            case "complete":
                self._is_complete = True

    async def _begin_part(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise MalformedBody("A part of the form has no Content-Disposition with a name.")
        self._field_name = _text(options[b"name"])
        self._digest.update(b"\0field\0" + self._field_name.encode())
        self._part = None
        if self._field_name not in self._file_fields:
            if options.get(b"filename"):
                right = " or ".join(map(repr, sorted(self._file_fields)))
                raise InvalidValue(
                    f"The form has a file in the field {self._field_name!r}.",
                    field=self._field_name,
                    valid="text",
                    hint=f"Files go into {right}.",
                )
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise MalformedBody(f"The form has more than {_MAX_FIELDS} fields.")
            return
        if sum(map(len, self._form.files.values())) >= self._max_files:
            most = f"{self._max_files} file(s)"
            raise TooManyFiles(f"The form has more than {most}.", field=self._field_name, valid=f"at most {most}")
        self._part = FormFile(
            name=_text(options.get(b"filename", b""))[:_LONGEST_NAME],
            content_type=_text(self._headers.get(b"content-type", b"")),
        )
        if self._new_path is not None:
            self._part.path = self._new_path()
            self._open_file = await asyncio.to_thread(self._part.path.open, "wb")

    async def _add(self, data: bytes) -> None:
        self._buffer += data
        if self._part is None:
            if len(self._buffer) > _MAX_FIELD_BYTES:
                raise MalformedBody(f"The field {self._field_name!r} is longer than {_MAX_FIELD_BYTES} bytes.")
        elif self._open_file is not None and len(self._buffer) >= _WRITE_BYTES:
            await self._write()

    async def _end_part(self) -> None:
        if self._part is None:
            await self._end_field()
            return
        if self._open_file is not None:
            await self._write()
            await asyncio.to_thread(self._open_file.close)
            self._open_file = None
        else:
            self._part.data = bytes(self._buffer)
            self._part.size_bytes = len(self._buffer)
            self._buffer.clear()
        self._form.files.setdefault(self._field_name, []).append(self._part)
        self._part = None

    async def _end_field(self) -> None:
        self._digest.update(b"\0value\0" + self._buffer)
        try:
            value = self._buffer.decode()
        except UnicodeDecodeError as error:
            raise InvalidValue(
                f"The field {self._field_name!r} is no UTF-8 text.", field=self._field_name, valid="UTF-8 text"
            ) from error
        self._buffer.clear()
        self._form.fields[self._field_name] = value
        self._check_field(self._field_name, value)

    async def _write(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        assert self._part is not None
        assert self._open_file is not None
        self._part.size_bytes += len(data)
        await asyncio.to_thread(self._store, self._open_file, data)

    def _store(self, file: BinaryIO, data: bytes) -> None:
        file.write(data)
        self._digest.update(data)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
