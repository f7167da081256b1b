"""A predictor without a network: it prepares images and finishes outputs, and the engine process does the rest."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from torch import Tensor, nn

from app.engine.loaded_models import LoadedModel
from app.engine.remote.wire import Message
from models.backends.backend import BackendName
from models.manifest import AnyPreset
from models.precision import Precision
from models.predictor import AnyPredictor
from models.predictors.classification import Classifier
from models.predictors.detection import Detector
from models.predictors.segmentation import Segmenter

_PRESETS: TypeAdapter[AnyPreset] = TypeAdapter(AnyPreset)


class RemoteBackend:
    """A network in the engine process, with what the engine last reported of it."""

    def __init__(self, *, name: BackendName, precision: Precision, size_bytes: int) -> None:
        self.name: BackendName = name
        self.precision: Precision = precision
        self.size_bytes = size_bytes  # on the device

    def run(self, batch: Tensor) -> Any:  # noqa: ARG002
        """Raises RuntimeError: views go through the lane."""
        msg = "this network is in the engine process: submit views to the lane"
        raise RuntimeError(msg)


def describe_predictor(model: LoadedModel) -> Message:
    """Returns what `remote_predictor` needs, as a JSON object."""
    predictor = model.predictor
    return {
        "task": predictor.task,
        "categories": list(predictor.categories),
        "preset": predictor.preset.model_dump(mode="json"),
        "makes_masks": isinstance(predictor, Detector) and predictor.makes_masks,
        "keypoints": list(predictor.keypoints) if isinstance(predictor, Detector) else [],
    }


def remote_predictor(description: Message, backend: RemoteBackend) -> AnyPredictor:
    """Makes a predictor from its description."""
    categories = description["categories"]
    preset = _PRESETS.validate_python(description["preset"])
    predictor: AnyPredictor
    match description["task"]:
        case "classification":
            predictor = Classifier(nn.Identity(), categories=categories, preset=preset, device="cpu")
        case "detection":
            predictor = Detector(
                nn.Identity(),
                categories=categories,
                preset=preset,
                device="cpu",
                makes_masks=description["makes_masks"],
                keypoints=description["keypoints"],
            )
        case _:
            predictor = Segmenter(nn.Identity(), categories=categories, preset=preset, device="cpu")
    predictor.backend = backend
    return predictor
