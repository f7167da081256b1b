"""The tensors that a model answers with, and which of them a request wants.

A tensor has one shape for all images of a request. Outputs whose number or size varies are padded to the largest, and
another output says how much is valid: `num_detections` for boxes, `sizes` for label maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidTensor
from app.protocols.open_inference.messages import InferRequest, RequestedOutput
from app.protocols.served_models import ServedModel
from models.predictor import Selection
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection
from models.predictors.segmentation import SegmentationSelection


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """A tensor that a model answers with."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1 is any number; the first is the images
    meaning: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedOutput:
    """An output as a request asks for it."""

    output: Output
    is_binary: bool
    classes: int  # number of best categories as text; 0 for the tensor


def outputs_of(served: ServedModel) -> tuple[Output, ...]:
    """The tensors that the model answers with."""
    match served.task:
        case "classification":
            meaning = "Probability of each category; they sum to 1."
            return (Output(name="scores", datatype="FP32", shape=(-1, len(served.categories)), meaning=meaning),)
        case "detection":
            return _DETECTION
        case "segmentation":
            return _SEGMENTATION


def wanted_outputs(message: InferRequest, served: ServedModel) -> list[WantedOutput]:
    """The outputs that the request names, or all. Raises InvalidTensor."""
    known = {output.name: output for output in outputs_of(served)}
    asked = message.outputs or tuple(RequestedOutput(name=name) for name in known)
    names = [one.name for one in asked]
    for one in asked:
        if one.name not in known or names.count(one.name) > 1:
            fault = "twice" if one.name in known else "and it has none of that name"
            raise InvalidTensor(
                f"The output {one.name[:100]!r} is asked of {served.name} {fault}.", hint=f"It has {', '.join(known)}."
            )
        if one.parameters.shared_memory_region is not None:
            raise InvalidTensor("Shared memory is not served.", hint="Take the outputs from the answer.")
        if one.parameters.classification and served.task != "classification":
            raise InvalidTensor(
                f"{one.name} is not available as classifications.", hint="Only `scores` of a classifier."
            )
    default = message.parameters.binary_data_output
    return [
        WantedOutput(
            output=known[one.name],
            is_binary=default if one.parameters.binary_data is None else one.parameters.binary_data,
            classes=one.parameters.classification,
        )
        for one in asked
    ]


def selection_of(served: ServedModel, message: InferRequest, wanted: Sequence[WantedOutput]) -> Selection[Any]:
    """The selection for the engine."""
    match served.task:
        case "classification":
            return ClassSelection(top_k=wanted[0].classes or None)
        case "detection":
            said = message.parameters
            return DetectionSelection(
                score_threshold=said.score_threshold,
                iou_threshold=said.iou_threshold,
                max_detections=said.max_detections,
                masks="none",
            )
        case "segmentation":
            return SegmentationSelection(masks="png")


_DETECTION: Final = (
    Output(name="num_detections", datatype="INT32", shape=(-1, 1), meaning="Number of valid entries of the image."),
    Output(
        name="boxes",
        datatype="FP32",
        shape=(-1, -1, 4),
        meaning="x_min, y_min, x_max, y_max in pixels of the upright image, best first; zeros after the last.",
    ),
    Output(name="scores", datatype="FP32", shape=(-1, -1), meaning="Probability of each box; 0 after the last."),
    Output(
        name="labels",
        datatype="INT64",
        shape=(-1, -1),
        meaning="Category of each box, the first is 1; 0 after the last.",
    ),
)
_SEGMENTATION: Final = (
    Output(
        name="label_map",
        datatype="UINT8",
        shape=(-1, -1, -1),
        meaning="Category of each pixel of the upright image, the first is 0; 255 below and right of a smaller image.",
    ),
    Output(name="sizes", datatype="INT32", shape=(-1, 2), meaning="Height and width of each image, in pixels."),
)
