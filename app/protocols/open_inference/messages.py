"""The JSON that clients send. Unknown fields are ignored, as the protocol requires.

Source: KServe's Open Inference Protocol; Triton's binary data, classification, parameters and repository extensions.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from models.architectures.detection_outputs import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from models.precision import PrecisionChoice

MOST_DIMENSIONS: Final = 8
# JSON's whole numbers have any length, and Python raises where one of thousands of digits becomes text or a float
MOST_OF_A_DIMENSION: Final = 2**31 - 1
MOST_BINARY_BYTES: Final = 2**40
MOST_UNSIGNED: Final = 2**64 - 1  # the protocol's uint64

Text = Annotated[str, Field(max_length=1000)]


class Message(BaseModel):
    """An object of a request."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class InputParameters(Message):
    """Parameters of an input tensor."""

    binary_data_size: int | None = Field(
        None, ge=0, le=MOST_BINARY_BYTES, description="Number of its bytes after the JSON; null if it is in `data`."
    )
    shared_memory_region: Text | None = None


class InputTensor(Message):
    """An input tensor."""

    name: Text
    datatype: Text
    shape: tuple[Annotated[int, Field(ge=0, le=MOST_OF_A_DIMENSION)], ...] = Field(max_length=MOST_DIMENSIONS)
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(None, description="Flat or nested; elements of BYTES as base64.")


class OutputParameters(Message):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(None, description="After the JSON; null: as `binary_data_output` says.")
    classification: int = Field(
        0, ge=0, le=MOST_UNSIGNED, description="Number of best categories, as `score:index:label`; 0 for the tensor."
    )
    shared_memory_region: Text | None = None


class RequestedOutput(Message):
    """A requested output tensor."""

    name: Text
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Message):
    """Parameters of the request; `precision` and the last three, for detectors, are Fovea's own."""

    binary_data_output: bool = False
    priority: int = Field(
        0,
        ge=0,
        le=MOST_UNSIGNED,
        description="1 is interactive, higher is bulk; 0, the default, is as the headers say.",
    )
    timeout: int = Field(0, ge=0, le=MOST_UNSIGNED, description="Timeout in microseconds; 0: as the headers say.")
    precision: PrecisionChoice = Field("auto", description="`float32` overrides a lower precision.")
    score_threshold: float = Field(SCORE_THRESHOLD, ge=0, le=1)
    iou_threshold: float = Field(IOU_THRESHOLD, ge=0, le=1)
    max_detections: int = Field(MAX_DETECTIONS, ge=1, le=10_000)


class InferRequest(Message):
    """The JSON of `/infer`."""

    id: Text | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: tuple[InputTensor, ...] = Field(max_length=100)
    outputs: tuple[RequestedOutput, ...] = Field((), max_length=100)


class IndexRequest(Message):
    """The JSON of `/repository/index`."""

    ready: bool = Field(False, description="Only models that are ready.")


class LoadRequest(Message):
    """The JSON of `/load` and `/unload`."""

    parameters: dict[Text, Any] = Field(default_factory=dict)
