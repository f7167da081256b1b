"""What a model takes and gives, as the protocol's metadata and as Triton's model configuration."""

from __future__ import annotations

import json

import torch
from pydantic import JsonValue

from app.protocols.open_inference.inputs import input_shapes
from app.protocols.open_inference.outputs import outputs_of
from app.protocols.open_inference.request_body import IMAGE
from app.protocols.served_models import ServedModel

_PLATFORM = "fovea_pytorch"


def metadata_of(served: ServedModel) -> dict[str, JsonValue]:
    """The answer to `GET /v2/models/{name}`."""
    return {
        "name": served.name,
        "versions": [str(version) for version in served.versions],
        "platform": _PLATFORM,
        "inputs": [
            {
                "name": IMAGE,
                "datatype": "BYTES",
                "shape": [-1, 1],
                "parameters": {"meaning": "Encoded images: JPEG, PNG, WebP, ...", "also": _alternatives(served)},
            }
        ],
        "outputs": [
            {
                "name": output.name,
                "datatype": output.datatype,
                "shape": list(output.shape),
                "parameters": {"meaning": output.meaning},
            }
            for output in outputs_of(served)
        ],
    }


def config_of(served: ServedModel, *, max_batch_size: int, device: torch.device) -> dict[str, JsonValue]:
    """The answer to `GET /v2/models/{name}/config`; in Triton's, dimensions leave the images out."""
    parameters = {
        "task": served.task,
        "architecture": served.architecture,
        "categories": json.dumps(served.categories),
        "preset": served.preset.model_dump_json(),
        "input_alternatives": _alternatives(served),
    }
    return {
        "name": served.name,
        "platform": _PLATFORM,
        "backend": "pytorch",
        "version_policy": {"specific": {"versions": [str(version) for version in served.versions]}},
        "max_batch_size": max_batch_size,
        "input": [{"name": IMAGE, "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [1]}],
        "output": [
            {"name": output.name, "data_type": f"TYPE_{output.datatype}", "dims": list(output.shape[1:])}
            for output in outputs_of(served)
        ],
        "instance_group": [{"name": served.name, "kind": f"KIND_{_kind(device)}", "count": 1}],
        "dynamic_batching": {},
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def _alternatives(served: ServedModel) -> str:
    meanings = {"UINT8": "RGB images of one size", "FP32": "the network's own input, normalised by the preset"}
    shapes = input_shapes(served)
    return "; ".join(
        f"{datatype} {shapes[datatype]}, {meanings[datatype]}" for datatype in meanings if datatype in shapes
    )


def _kind(device: torch.device) -> str:
    return "GPU" if device.type == "cuda" else "CPU"
