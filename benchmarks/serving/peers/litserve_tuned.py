"""`python -m benchmarks.serving.peers.litserve_tuned PORT`: LitServe with every knob turned.

The fastest decoder and backend, one worker per core with one thread each, batches, its fast queue.
"""

# No `from __future__ import annotations`: LitServe reads the types as they are.

import sys
from typing import cast

import litserve
import torch
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from torch import Tensor

from benchmarks.serving.load import HOST
from benchmarks.serving.networks import decode_and_prepare
from benchmarks.serving.peers.settings import PeerSettings

_MOST_IMAGES = 4
_BATCH_TIMEOUT_S = 0.002


class Classify(litserve.LitAPI):  # type: ignore[misc]  # it has no types where it is not installed
    """Decodes in its worker, which is the process that predicts."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the CPU
        settings = PeerSettings.from_environment()
        self.network = settings.single_threaded_network(sizes=[1, _MOST_IMAGES])
        self.preset = settings.preset

    def decode_request(self, request: Request) -> Tensor:
        uploaded = cast("UploadFile", cast("FormData", request)["file"])  # a form comes as its fields
        return decode_and_prepare(self.preset, uploaded.file.read())

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.stack(inputs)

    def predict(self, images: Tensor) -> Tensor:
        return self.network(images)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, scores: Tensor) -> dict[str, float]:
        score, label = scores.max(dim=0)
        return {"label": int(label), "score": float(score)}


if __name__ == "__main__":
    _api = Classify(max_batch_size=_MOST_IMAGES, batch_timeout=_BATCH_TIMEOUT_S)
    _server = litserve.LitServer(
        _api,
        accelerator="cpu",
        workers_per_device=PeerSettings.from_environment().processes,
        fast_queue=True,
    )
    _server.run(host=HOST, port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
