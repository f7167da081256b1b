"""The kinds of predictions, and the request for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from app.client.transport import Call
from app.schemas.classify import ClassifyResponse, ImageClasses
from app.schemas.detect import DetectResponse, ImageDetections
from app.schemas.predict import ImagePrediction, Timing, UsedModel
from app.schemas.segment import ImageSegments, SegmentResponse

Verb = Literal["classify", "detect", "segment"]
Priority = Literal["interactive", "bulk"]
Value = str | int | float | Sequence[str] | None
Entry = TypeVar("Entry", bound=ImagePrediction)


class Answer(Protocol[Entry]):
    """The common fields of every prediction answer."""

    model: UsedModel
    predictions: list[Entry]
    timing_ms: Timing


class AnswerClass(Protocol[Entry]):
    """The class of such an answer."""

    def __call__(self, *, model: UsedModel, predictions: list[Entry], timing_ms: Timing) -> Answer[Entry]: ...


@dataclass(frozen=True, kw_only=True)
class Question(Generic[Entry]):
    """A route that predicts, and the types of its answer."""

    verb: Verb
    answer: AnswerClass[Entry]
    entry: type[Entry]


CLASSIFY = Question(verb="classify", answer=ClassifyResponse, entry=ImageClasses)
DETECT = Question(verb="detect", answer=DetectResponse, entry=ImageDetections)
SEGMENT = Question(verb="segment", answer=SegmentResponse, entry=ImageSegments)


def question_call(
    verb: Verb,
    pictures: Sequence[tuple[str, bytes]],
    options: Mapping[str, Value],
    *,
    accept: str = "application/json",
    priority: Priority | None = None,
) -> Call:
    """The request for encoded images with their names. priority: None is the server's default."""
    headers = {"Accept": accept} if priority is None else {"Accept": accept, "X-Priority": priority}
    return Call(
        method="POST",
        path=f"/v1/{verb}",
        params={name: _said(value) for name, value in options.items()},
        files=[("image", (_sendable(name), data, "application/octet-stream")) for name, data in pictures],
        headers=headers,
        only_asks=True,
    )


def _said(value: Value) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return value
    return ",".join(value) or None


def _sendable(name: str) -> str:
    """The name as valid text: file systems allow names that are not."""
    return name.encode("utf-8", "replace").decode()
