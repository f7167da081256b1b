"""Fields that every kind of prediction shares: the images, the model that answered, the time it took."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from app.schemas.base64_text import bytes_of_base64
from app.schemas.problem import Problem


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return bytes_of_base64(value)
    except ValueError as error:
        msg = f"this is not valid base64: {error}"
        raise ValueError(msg) from error


ImageBytes = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "format": "base64"})]


class ImageSource(BaseModel):
    """An image, as bytes or as a URL."""

    model_config = ConfigDict(extra="forbid")

    base64: ImageBytes | None = Field(
        None, description="The encoded image (JPEG, PNG, …), in base64: standard or url-safe, with or without padding."
    )
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


class PredictRequest(BaseModel):
    """Images as JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[ImageSource] = Field(min_length=1)


class UsedModel(BaseModel):
    """The model that answered."""

    name: str = Field(description="A registered model, or pretrained weights as `resnet50.IMAGENET1K_V2`.")
    version: int | None = Field(description="Null for pretrained weights of the catalogue.")
    architecture: str
    backend: str = Field(description="How the network ran: `eager`, or compiled.")
    precision: str = Field(description="What it computed in: `float32`, `bfloat16` or `int8`.")

    @property
    def reference(self) -> str:
        """The model reference that selects exactly these weights again."""
        return f"{self.name}/{self.version}" if self.version else self.name


class ImageInfo(BaseModel):
    """The image that a prediction is about."""

    name: str | None = None
    width: int | None = Field(
        None, description="Pixels, after its EXIF orientation; absent if it could not be decoded."
    )
    height: int | None = None


def is_absent(value: object) -> bool:
    """True for a field that the answer leaves out."""
    return value is None


class ImagePrediction(BaseModel):
    """The prediction for one image, or the error that prevented it."""

    image: ImageInfo
    error: Problem | None = Field(
        None, exclude_if=is_absent, description="Why this image has no prediction; the others have theirs."
    )


class Timing(BaseModel):
    """Duration of each stage in milliseconds, for the image that spent the longest in it."""

    decode: float = Field(description="From the encoded bytes to the network's input.")
    queue: float = Field(description="Waiting for the device.")
    inference: float = Field(
        description="The batch that the image was part of, together with images of other requests."
    )
    postprocess: float = Field(
        0.0, description="From the network's output to the answer, for instance masks in full size."
    )


class Mask(BaseModel):
    """The pixels of one object or category, in COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="Height and width of the image.")
    counts: str = Field(description="Column by column, as `pycocotools.mask.decode` reads it.")
