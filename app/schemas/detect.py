"""Detection of objects on images."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.predict import ImagePrediction, Mask, Timing, UsedModel, is_absent


class Box(BaseModel):
    """Edges of a rectangle, in pixels of the original image after its EXIF orientation."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Keypoint(BaseModel):
    """A point of an object."""

    label: str
    x: float = Field(description="Pixels of the original image, as the box.")
    y: float
    score: float = Field(description="A logit, not a probability: larger is more certain.")


class Detection(BaseModel):
    """One object."""

    label: str
    index: int = Field(description="The category's index, from 1; 0 is the background.")
    score: float = Field(description="Probability in [0, 1].")
    box: Box
    mask: Mask | None = Field(None, exclude_if=is_absent, description="With `masks=rle`.")
    polygons: list[list[float]] | None = Field(
        None,
        exclude_if=is_absent,
        description="With `masks=polygon`: outlines of the object's parts as x, y, x, y, …; holes are filled.",
    )
    keypoints: list[Keypoint] | None = Field(
        None, exclude_if=is_absent, description="Only from models that predict keypoints."
    )


class ImageDetections(ImagePrediction):
    """The objects in one image, or the error that prevented the prediction."""

    detections: list[Detection] | None = Field(None, exclude_if=is_absent, description="Highest score first.")


class DetectResponse(BaseModel):
    """The objects in each image, in the order in which the images were sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {"name": "pedestrians", "version": 1, "architecture": "maskrcnn_resnet50_fpn"},
                    "predictions": [
                        {
                            "image": {"name": "street.png", "width": 559, "height": 536},
                            "detections": [
                                {
                                    "label": "person",
                                    "index": 1,
                                    "score": 0.97,
                                    "box": {"x_min": 160.0, "y_min": 182.0, "x_max": 302.0, "y_max": 431.0},
                                    "mask": {"size": [536, 559], "counts": "YWd43X1…"},
                                }
                            ],
                        }
                    ],
                    "timing_ms": {"decode": 9.4, "queue": 0.1, "inference": 640.2, "postprocess": 3.1},
                }
            ]
        }
    )

    model: UsedModel
    predictions: list[ImageDetections]
    timing_ms: Timing
