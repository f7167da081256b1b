"""Classification of images."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.predict import ImagePrediction, Timing, UsedModel, is_absent


class Classification(BaseModel):
    """One category and its probability."""

    label: str
    index: int
    score: float = Field(description="Probability in [0, 1]; over all categories they sum to 1.")


class ImageClasses(ImagePrediction):
    """The categories of one image, or the error that prevented the prediction."""

    classes: list[Classification] | None = Field(None, exclude_if=is_absent, description="Most probable first.")


class ClassifyResponse(BaseModel):
    """One prediction per image, in the order in which the images were sent."""

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
                    "timing_ms": {"decode": 2.1, "queue": 0.1, "inference": 3.9, "postprocess": 0.1},
                }
            ]
        }
    )

    model: UsedModel
    predictions: list[ImageClasses]
    timing_ms: Timing
