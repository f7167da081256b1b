"""What foreign protocols share of the way back: they have no room for one image's error beside another's answer."""

from __future__ import annotations

from typing import TypeVar

from app.engine.answers import Answer

Prediction = TypeVar("Prediction")


def predictions_of(answer: Answer[Prediction]) -> list[Prediction]:
    """The predictions of all images. Raises the error of the first that has one, with its number."""
    predictions = []
    for number, found in enumerate(answer.images, 1):
        if isinstance(found, Exception):
            if len(answer.images) == 1:
                raise found
            raise type(found)(f"Image {number} of {len(answer.images)}: {found}", hint=found.hint) from found
        predictions.append(found.prediction)
    return predictions
