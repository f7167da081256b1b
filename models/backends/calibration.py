"""The inputs that a model's networks get for example images. A quantiser takes the ranges of values from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from models.backends.detection.parts import Network
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph

_ROWS: Final = 64  # regions per image: all thousand of 20 images would take a gigabyte


def inputs_of_parts(eager: EagerBackend, views: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Returns the inputs of each part by its name: [1, ...] per view, uint8 [C, h, w]; regions are rows.

    A part that runs after the detection may get none, if the detector finds nothing.
    """
    batches = [view[None] for view in views]
    if not isinstance(eager.graph, DetectionGraph):
        return {"network": batches}
    assert eager.graph.split is not None
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)
    networks = {name: _noting(network, seen[name]) for name, network in eager.networks.items()}
    with torch.inference_mode():
        for batch in batches:
            eager.graph.split.detect(batch.to(eager.device), networks)
    return {name: inputs for name, inputs in seen.items() if inputs}


def _noting(network: Network, inputs: list[Tensor]) -> Network:
    def run(batch: Tensor) -> tuple[Tensor, ...]:
        if batch.any():  # `run_rows` sends zeros where there are no rows
            step = -(-len(batch) // _ROWS)
            inputs.append(batch[::step].contiguous().cpu())
        return network(batch)

    return run
