"""Segmentation of images."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.predict import ImagePrediction, Mask, Timing, UsedModel, is_absent


class Segment(BaseModel):
    """All of an image that belongs to one category."""

    label: str
    index: int = Field(description="The category's index, which is its value in the map.")
    share: float = Field(description="Share of the image's pixels, in (0, 1].")
    mask: Mask | None = Field(None, exclude_if=is_absent, description="With `masks=rle`.")


class ImageSegments(ImagePrediction):
    """The categories in one image, or the error that prevented the prediction."""

    segments: list[Segment] | None = Field(None, exclude_if=is_absent, description="The largest first.")
    map_png: str | None = Field(
        None,
        exclude_if=is_absent,
        description="With `masks=png`: an indexed PNG of the image's size in base64. A pixel is its category's index, "
        "255 where there is none; the palette has one colour per category.",
    )


class SegmentResponse(BaseModel):
    """The categories in each image, in the order in which the images were sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {
                        "name": "lraspp_mobilenet_v3_large.COCO_WITH_VOC_LABELS_V1",
                        "version": None,
                        "architecture": "lraspp_mobilenet_v3_large",
                    },
                    "predictions": [
                        {
                            "image": {"name": "yard.jpg", "width": 640, "height": 480},
                            "segments": [
                                {
                                    "label": "__background__",
                                    "index": 0,
                                    "share": 0.81,
                                    "mask": {"size": [480, 640], "counts": "0lb0…"},
                                },
                                {
                                    "label": "dog",
                                    "index": 12,
                                    "share": 0.19,
                                    "mask": {"size": [480, 640], "counts": "lP1c0…"},
                                },
                            ],
                        }
                    ],
                    "timing_ms": {"decode": 6.0, "queue": 0.1, "inference": 120.5, "postprocess": 14.0},
                }
            ]
        }
    )

    model: UsedModel
    predictions: list[ImageSegments]
    timing_ms: Timing
