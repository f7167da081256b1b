"""The body of a request: split into its JSON and the tensors' bytes behind it, and parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from app.errors import InvalidTensor, MalformedBody
from app.http.json_size import has_more_marks
from app.protocols.open_inference.messages import MOST_DIMENSIONS, InferRequest, InputTensor, Message

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
IMAGE: Final = "image"  # the only input of every model
MOST_JSON_VALUES: Final = 2**22  # a number takes up to ten times its text in memory: larger tensors are sent as bytes
_MOST_JSON_PARTS: Final = 2**16  # objects, lists and keys, after rows of numbers are joined: they take the most time
_NUMBERS: Final = re.compile(rb'("data"\s*:\s*)(\[[-+.0-9eE,\s\[\]]*\])')
_NO_MARKS: Final = b"-+.0123456789eE \t\r\n\v\f"
_WITHOUT_BRACKETS: Final = bytes.maketrans(b"[]", b"  ")
_MOST_DIGITS: Final = 18  # of a byte count; Python refuses to parse thousands of digits

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """A parsed request with the bytes of each input; None for an input whose elements are in the JSON."""

    message: InferRequest
    binary: tuple[memoryview | None, ...]


def parse_message(body: bytes, kind: type[MessageT]) -> MessageT:
    """Parses the body as that kind of message; an empty body is an empty object. Raises MalformedBody."""
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        message = first["msg"].rstrip(".")
        raise MalformedBody(f"The request is malformed: {f'{place}: ' if place else ''}{message}.") from error


def parse_infer(body: bytes, header_length: str | None) -> Body:
    """Parses an inference request.

    header_length: the header Inference-Header-Content-Length. 0 means Triton's raw binary request: the body is one
    encoded image without JSON. Raises MalformedBody, InvalidTensor.
    """
    if header_length is None:
        return _split(body, len(body))
    is_number = header_length.isascii() and header_length.isdecimal() and len(header_length) <= _MOST_DIGITS
    if not is_number or int(header_length) > len(body):
        raise InvalidTensor(
            f"{HEADER_LENGTH} is {header_length[:100]!r}, and the body has {len(body)} bytes.",
            hint="The header is the number of bytes that are JSON.",
        )
    if int(header_length) == 0:
        element = len(body).to_bytes(4, "little") + body
        tensor = InputTensor(name=IMAGE, datatype="BYTES", shape=(1, 1))
        return Body(message=InferRequest(inputs=(tensor,)), binary=(memoryview(element),))
    return _split(body, int(header_length))


def _split(body: bytes, json_bytes: int) -> Body:
    json = body[:json_bytes]
    if has_more_marks(json, MOST_JSON_VALUES, b","):
        raise InvalidTensor(
            f"The JSON has more than {MOST_JSON_VALUES} values.", hint="Send large tensors as binary data."
        )
    json = _NUMBERS.sub(_in_one_row, json)
    if has_more_marks(json, _MOST_JSON_PARTS, b":[{"):
        raise InvalidTensor(
            f"The JSON has more than {_MOST_JSON_PARTS} objects, lists and keys.",
            hint="Write `data` flat, row by row, or send large tensors as binary data.",
        )
    message = parse_message(json, InferRequest)
    rest = memoryview(body)[json_bytes:]
    binary: list[memoryview | None] = []
    at = 0
    for tensor in message.inputs:
        size = tensor.parameters.binary_data_size
        binary.append(None if size is None else rest[at : at + size])
        at += size or 0
    if at != len(rest):
        raise InvalidTensor(
            f"The inputs say that they have {at} bytes of binary data, and {len(rest)} follow the JSON.",
            hint=f"binary_data_size counts the bytes of a tensor, {HEADER_LENGTH} those of the JSON.",
        )
    return Body(message=message, binary=tuple(binary))


def _in_one_row(data: re.Match[bytes]) -> bytes:
    """Flattens evenly nested numbers, because a list per pixel takes seconds. Uneven ones stay and are refused."""
    name, numbers = data.groups()
    if not _is_even(numbers.translate(None, _NO_MARKS)):
        return data[0]
    return b"%b[%b]" % (name, numbers.translate(_WITHOUT_BRACKETS))


def _is_even(marks: bytes) -> bool:
    """True if all lists of each level are equal, judged by brackets and commas."""
    depth = len(marks) - len(marks.lstrip(b"["))
    if depth > MOST_DIMENSIONS:
        return False
    row = b""
    for level in range(1, depth + 1):
        end = marks.find(b"]" * level) + level
        first = marks[depth - level : end]
        if level > 1:
            count = (len(first) - 1) // (len(row) + 1)
            if first != b"[" + b",".join([row] * count) + b"]":
                return False
        row = first
    return row == marks
