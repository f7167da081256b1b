"""The client's methods for predictions."""

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
    """Options of a classification. A missing option, or None, is the server's default."""

    top_k: int | None
    score_threshold: float | None
    categories: Sequence[str]


class DetectOptions(TypedDict, total=False):
    """Options of a detection. A missing option, or None, is the server's default."""

    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    categories: Sequence[str]
    masks: Literal["rle", "polygon", "none"] | None  # None is `rle` if the model predicts masks
    tile: int | None  # side of the tiles that larger images are cut into, px
    overlap: float | None


class SegmentOptions(TypedDict, total=False):
    """Options of a segmentation. A missing option, or None, is the server's default."""

    score_threshold: float | None
    categories: Sequence[str]
    masks: Literal["rle", "png", "none"] | None


class Predictions:
    """Predictions. An image is the path of a file or the bytes of an encoded image.

    An image that cannot be read has an `error` in place of its prediction; if no image can be read, the call fails.
    The `..._many` methods take any number of files, keep the server busy, wait while it is full or restarts, and yield
    each prediction or error as it arrives, in any order. One model version answers all of them, even if an alias moves
    in the meantime.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def classify(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[ClassifyOptions]
    ) -> ClassifyResponse:
        """The categories of each image, in the order of the images."""
        return self._transport.answer(_call("classify", pictures, model=model, **options), ClassifyResponse)

    def detect(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[DetectOptions]
    ) -> DetectResponse:
        """The objects in each image, in the order of the images."""
        return self._transport.answer(_call("detect", pictures, model=model, **options), DetectResponse)

    def segment(
        self, pictures: Sequence[Picture] | Picture, *, model: str, **options: Unpack[SegmentOptions]
    ) -> SegmentResponse:
        """The segments of each image, in the order of the images."""
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
        """The answers as they arrive, each for several files.

        options: those of the method `question.verb`, and `model`.
        on_wait: called from any thread before each wait, with the failure and the seconds.
        Raises ClientError: ServerUnreachable if the server is unreachable or fails for longer than `pace.patience_s`.
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
        """The image with the predictions drawn on it, as an encoded file. options: those of the method `verb`."""
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
