"""Classification of images."""

from __future__ import annotations

import binascii
from typing import Annotated

from pydantic import Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.schemas.problem import Problem


def _whole_base64(value: object) -> object:
    """The standard alphabet only, without what data URLs put before it: else a typo becomes another picture."""
    if not isinstance(value, str):
        return value
    text = "".join(value.partition("base64,")[2].split() if value.startswith("data:") else value.split())
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        msg = f"this is no base64: {error}"
        raise ValueError(msg) from error
    return text


ImageBytes = Annotated[Base64Bytes, BeforeValidator(_whole_base64)]


class ImageSource(BaseModel):
    """An image: its bytes, or where to get it."""

    model_config = ConfigDict(extra="forbid")

    base64: ImageBytes | None = Field(None, description="The encoded image (JPEG, PNG, …), in base64.")
    url: str | None = Field(
        None, max_length=2048, description="Fetched only from hosts that the operator allows (FOVEA_IMAGE_URL_HOSTS)."
    )
    name: str | None = Field(None, max_length=255, description="Repeated in the answer.")

    @model_validator(mode="after")
    def _has_one_source(self) -> ImageSource:
        if (self.base64 is None) == (self.url is None):
            msg = "an image has either `base64` or `url`"
            raise ValueError(msg)
        return self


class ClassifyRequest(BaseModel):
    """Images as JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[ImageSource] = Field(min_length=1)


class UsedModel(BaseModel):
    """The model that answered."""

    name: str = Field(description="A registered model, or pretrained weights as `resnet50.IMAGENET1K_V2`.")
    version: int | None = Field(description="Null for pretrained weights of the catalogue.")
    architecture: str


class ImageInfo(BaseModel):
    """The image that was looked at."""

    name: str | None = None
    width: int | None = Field(
        None, description="Pixels, after its EXIF orientation; absent if it could not be decoded."
    )
    height: int | None = None


class Classification(BaseModel):
    """One category and how probable it is."""

    label: str
    index: int
    score: float = Field(description="Probability in [0, 1]; over all categories they sum to 1.")


def _is_absent(value: object) -> bool:
    return value is None


class ImagePrediction(BaseModel):
    """What the model says of one image, or why it says nothing."""

    image: ImageInfo
    classes: list[Classification] | None = Field(None, exclude_if=_is_absent, description="Most probable first.")
    error: Problem | None = Field(
        None, exclude_if=_is_absent, description="Why this image has no prediction; the others have theirs."
    )


class Timing(BaseModel):
    """Where the time went, milliseconds over all images."""

    decode: float = Field(description="From bytes to what the network sees.")
    queue: float = Field(description="Waiting for the device.")
    inference: float


class ClassifyResponse(BaseModel):
    """One prediction an image, in the order they were sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {"name": "ants-bees", "version": 3, "architecture": "resnet18"},
                    "predictions": [
                        {
                            "image": {"name": "a.jpg", "width": 768, "height": 512},
                            "classes": [
                                {"label": "ant", "index": 0, "score": 0.98},
                                {"label": "bee", "index": 1, "score": 0.02},
                            ],
                        }
                    ],
                    "timing_ms": {"decode": 2.1, "queue": 0.1, "inference": 3.9},
                }
            ]
        }
    )

    model: UsedModel
    predictions: list[ImagePrediction]
    timing_ms: Timing
