"""Predictions as the tensors of an answer, in JSON or as bytes behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.engine.answers import Answer
from app.errors import InvalidTensor
from app.protocols.answered_images import predictions_of
from app.protocols.open_inference.messages import InferRequest
from app.protocols.open_inference.outputs import WantedOutput
from app.protocols.open_inference.request_body import MOST_JSON_VALUES
from app.protocols.served_models import ServedModel
from models.predictions import ClassScore, Detection, Segmentation
from models.predictors.segmentation import NONE

Array = npt.NDArray[Any]

# little-endian, as the protocol has them
_FP32: Final = np.dtype("<f4")
_INT64: Final = np.dtype("<i8")
_INT32: Final = np.dtype("<i4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """An answer: its JSON, and the bytes behind it."""

    json: bytes
    binary: bytes


def write_outputs(
    served: ServedModel,
    message: InferRequest,
    wanted: Sequence[WantedOutput],
    answer: Answer[Any],
    *,
    most_values: int,
) -> Written:
    """What the engine answered, in the protocol's form, and what it ran on, in `parameters`.

    most_values: of a tensor that was padded. Raises InvalidTensor, ImageError. For a thread: label maps take a while.
    """
    tensors = _tensors(served, wanted, predictions_of(answer), most_values)
    described = []
    binary: list[bytes] = []
    for one in wanted:
        tensor = tensors[one.output.name]
        datatype = "BYTES" if one.classes else one.output.datatype
        entry: dict[str, Any] = {"name": one.output.name, "datatype": datatype, "shape": list(tensor.shape)}
        if one.is_binary:
            binary.append(_bytes(tensor, datatype))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        elif tensor.size > MOST_JSON_VALUES:
            raise InvalidTensor(
                f"{one.output.name} has {tensor.size:,} values, too many for JSON.", hint="Ask for binary data."
            )
        else:
            entry["data"] = tensor.reshape(-1).tolist()
        described.append(entry)
    written = {
        "model_name": served.name,
        "model_version": str(served.version),
        "parameters": {"backend": answer.backend, "precision": answer.precision},
        "outputs": described,
    }
    if message.id:
        written["id"] = message.id
    return Written(json=json.dumps(written).encode(), binary=b"".join(binary))


def _tensors(
    served: ServedModel, wanted: Sequence[WantedOutput], predictions: Sequence[Any], most_values: int
) -> Mapping[str, Array]:
    match served.task:
        case "classification":
            count = min(wanted[0].classes, len(served.categories))
            return {"scores": _best(predictions) if count else _scores(predictions, len(served.categories))}
        case "detection":
            return _detections(predictions)
        case "segmentation":
            return _label_maps(predictions, most_values)


def _scores(predictions: Sequence[Sequence[ClassScore]], categories: int) -> Array:
    scores = np.zeros((len(predictions), categories), _FP32)
    for row, classes in zip(scores, predictions, strict=True):
        row[[one.index for one in classes]] = [one.score for one in classes]
    return scores


def _best(predictions: Sequence[Sequence[ClassScore]]) -> Array:
    texts = [[f"{one.score:f}:{one.index}:{one.label}" for one in classes] for classes in predictions]
    return np.array(texts, object)


def _detections(predictions: Sequence[Sequence[Detection]]) -> Mapping[str, Array]:
    images, most = len(predictions), max(map(len, predictions))
    boxes = np.zeros((images, most, 4), _FP32)
    scores = np.zeros((images, most), _FP32)
    labels = np.zeros((images, most), _INT64)
    for at, found in enumerate(predictions):
        for number, one in enumerate(found):
            boxes[at, number] = one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max
            scores[at, number] = one.score
            labels[at, number] = one.index
    counts = np.array([[len(found)] for found in predictions], _INT32)
    return {"num_detections": counts, "boxes": boxes, "scores": scores, "labels": labels}


def _label_maps(predictions: Sequence[Segmentation], most_values: int) -> Mapping[str, Array]:
    maps = [np.asarray(Image.open(BytesIO(one.map_png or b""))) for one in predictions]
    height, width = (max(one.shape[side] for one in maps) for side in (0, 1))
    if len(maps) * height * width > most_values:
        raise InvalidTensor(
            f"{len(maps)} label maps of {width} x {height} pixels are too large for one answer.",
            hint="Send fewer images at a time, and large ones apart from small ones.",
        )
    padded = np.full((len(maps), height, width), NONE, np.uint8)
    for at, one in enumerate(maps):
        padded[at, : one.shape[0], : one.shape[1]] = one
    return {"label_map": padded, "sizes": np.array([one.shape for one in maps], _INT32)}


def _bytes(tensor: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return tensor.tobytes()
    elements = [text.encode() for text in tensor.reshape(-1)]
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)
