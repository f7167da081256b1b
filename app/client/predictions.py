"""Images to the routes that predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from app.client.asking import Answered, Outcome
from app.client.bulk import Pace, ask_many
from app.client.patience import Waiting
from app.client.questions import CLASSIFY, DETECT, SEGMENT, Entry, Priority, Question, Value, Verb, question_call
from app.client.transport import Call, Transport
from app.schemas.classify import ClassifyResponse, ImageClasses
from app.schemas.detect import DetectResponse, ImageDetections
from app.schemas.segment import ImageSegments, SegmentResponse

Picture = Path | bytes


class ClassifyOptions(TypedDict, total=False):
    """What can be said to a classifier; what is left out or None is the server's default."""

    top_k: int | None
    score_threshold: float | None
    categories: Sequence[str]


class DetectOptions(TypedDict, total=False):
    """What can be said to a detector; what is left out or None is the server's default."""

    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    categories: Sequence[str]
    masks: Literal["rle", "polygon", "none"] | None  # None is `rle` where the model makes masks
    tile: int | None  # side of the tiles that larger images are cut into, px
    overlap: float | None


class SegmentOptions(TypedDict, total=False):
    """What can be said to a segmentation network; what is left out or None is the server's default."""

    score_threshold: float | None
    categories: Sequence[str]
    masks: Literal["rle", "png", "none"] | None


class Predictions:
    """What a client can ask of models. An image is a file's path or an encoded image's bytes.

    In every answer, an image that cannot be read has an `error` in its place, unless that is so of all of them.
    `..._many` take any number of files, keep the server busy, wait for it where it is full or restarts, and yield
    each file's prediction, or error, as it comes; their order is free. All are answered by the version that answered
    first, wherever an alias moves meanwhile.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def classify(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[ClassifyOptions]
    ) -> ClassifyResponse:
        """What `model` says of each image, in their order."""
        return self._transport.answer(_call("classify", pictures, model=model, **options), ClassifyResponse)

    def detect(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[DetectOptions]
    ) -> DetectResponse:
        """The objects on each image, in their order."""
        return self._transport.answer(_call("detect", pictures, model=model, **options), DetectResponse)

    def segment(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[SegmentOptions]
    ) -> SegmentResponse:
        """The categories on each image, in their order."""
        return self._transport.answer(_call("segment", pictures, model=model, **options), SegmentResponse)

    def classify_many(
        self, paths: Iterable[Path], *, model: str, pace: Pace | None = None, **options: Unpack[ClassifyOptions]
    ) -> Iterator[Outcome[ImageClasses]]:
        """`classify` for any number of files."""
        return self._many(CLASSIFY, paths, pace, model=model, **options)

    def detect_many(
        self, paths: Iterable[Path], *, model: str, pace: Pace | None = None, **options: Unpack[DetectOptions]
    ) -> Iterator[Outcome[ImageDetections]]:
        """`detect` for any number of files."""
        return self._many(DETECT, paths, pace, model=model, **options)

    def segment_many(
        self, paths: Iterable[Path], *, model: str, pace: Pace | None = None, **options: Unpack[SegmentOptions]
    ) -> Iterator[Outcome[ImageSegments]]:
        """`segment` for any number of files."""
        return self._many(SEGMENT, paths, pace, model=model, **options)

    def ask_many(
        self,
        question: Question[Entry],
        paths: Iterable[Path],
        options: Mapping[str, Value],
        *,
        pace: Pace | None = None,
        priority: Priority = "bulk",
        on_wait: Waiting | None = None,
    ) -> Iterator[Answered[Entry]]:
        """What the three above share: the answers as they come, several files in each.

        options: of the method called `question.verb`, and `model`.
        on_wait: called by any thread with each failure that is waited for, and for how many seconds.
        Raises ClientError: ServerUnreachable if the server stays away, or fails, for longer than `pace.patience_s`.
        """
        return ask_many(
            self._transport,
            question,
            paths,
            options,
            pace=pace or Pace(),
            priority=priority,
            on_wait=on_wait,
        )

    def draw(
        self,
        verb: Verb,
        picture: Picture,
        *,
        model: str,
        image_format: Literal["png", "jpeg"] = "png",
        **options: Value,
    ) -> bytes:
        """The image with what `model` says of it drawn on it, as a file. options: of the method called `verb`."""
        call = _call(verb, picture, model=model, accept=f"image/{image_format}", **options)
        return self._transport.send(call).content

    def _many(
        self, question: Question[Entry], paths: Iterable[Path], pace: Pace | None, **options: Value
    ) -> Iterator[Outcome[Entry]]:
        for answered in self.ask_many(question, paths, options, pace=pace):
            yield from answered.outcomes


def _call(
    verb: Verb, pictures: Sequence[Picture] | Picture, *, accept: str = "application/json", **options: Value
) -> Call:
    many = [pictures] if isinstance(pictures, Path | bytes) else pictures
    parts = [_part(picture, number) for number, picture in enumerate(many)]
    return question_call(verb, parts, options, accept=accept)


def _part(picture: Picture, number: int) -> tuple[str, bytes]:
    if isinstance(picture, Path):
        return picture.name, picture.read_bytes()
    return f"image-{number}", picture
