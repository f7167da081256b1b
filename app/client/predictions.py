"""Pictures to the routes that predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from app.client.transport import Call, Transport
from app.schemas.classify import ClassifyResponse
from app.schemas.detect import DetectResponse
from app.schemas.segment import SegmentResponse

Picture = Path | bytes
Verb = Literal["classify", "detect", "segment"]
Value = str | int | float | Sequence[str] | None


class Predictions:
    """What a client can ask of models. A picture is a file's path or an encoded image's bytes.

    In every answer, a picture that cannot be read has an `error` in its place, unless that is so of all of them.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def classify(
        self,
        pictures: Sequence[Picture] | Picture,
        *,
        model: str,
        top_k: int | None = None,
        score_threshold: float | None = None,
        categories: Sequence[str] = (),
    ) -> ClassifyResponse:
        """What `model` says of each picture, in their order."""
        call = _call(
            "classify", pictures, model=model, top_k=top_k, score_threshold=score_threshold, categories=categories
        )
        return self._transport.answer(call, ClassifyResponse)

    def detect(
        self,
        pictures: Sequence[Picture] | Picture,
        *,
        model: str,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        categories: Sequence[str] = (),
        masks: Literal["rle", "polygon", "none"] | None = None,
        tile: int | None = None,
        overlap: float | None = None,
    ) -> DetectResponse:
        """The objects on each picture, in their order.

        masks: None is `rle` where the model makes masks. tile: side of the tiles that larger pictures are cut into, px.
        """
        call = _call(
            "detect",
            pictures,
            model=model,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            categories=categories,
            masks=masks,
            tile=tile,
            overlap=overlap,
        )
        return self._transport.answer(call, DetectResponse)

    def segment(
        self,
        pictures: Sequence[Picture] | Picture,
        *,
        model: str,
        score_threshold: float | None = None,
        categories: Sequence[str] = (),
        masks: Literal["rle", "png", "none"] | None = None,
    ) -> SegmentResponse:
        """The categories on each picture, in their order."""
        call = _call(
            "segment", pictures, model=model, score_threshold=score_threshold, categories=categories, masks=masks
        )
        return self._transport.answer(call, SegmentResponse)

    def draw(
        self,
        verb: Verb,
        picture: Picture,
        *,
        model: str,
        image_format: Literal["png", "jpeg"] = "png",
        **options: Value,
    ) -> bytes:
        """The picture with what `model` says of it drawn on it, as a file. options: of the method called `verb`."""
        call = _call(verb, picture, model=model, accept=f"image/{image_format}", **options)
        return self._transport.send(call).content


def _call(
    verb: Verb, pictures: Sequence[Picture] | Picture, *, accept: str = "application/json", **options: Value
) -> Call:
    many = [pictures] if isinstance(pictures, Path | bytes) else pictures
    parts = [_part(picture, number) for number, picture in enumerate(many)]
    return Call(
        method="POST",
        path=f"/v1/{verb}",
        params={name: _said(value) for name, value in options.items()},
        files=[("image", (name, data, "application/octet-stream")) for name, data in parts],
        headers={"Accept": accept},
        only_asks=True,
    )


def _said(value: Value) -> str | int | float | None:
    if value is None or isinstance(value, str | int | float):
        return value
    return ",".join(value) or None


def _part(picture: Picture, number: int) -> tuple[str, bytes]:
    if isinstance(picture, Path):
        return picture.name, picture.read_bytes()
    return f"image-{number}", picture
