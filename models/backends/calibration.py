"""What the networks of a model see when it looks at images: a quantiser takes its ranges from that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from models.backends.detection.parts import Network
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph

_ROWS: Final = 64  # of what lies under an image's regions: the thousand that a detector looks at is a gigabyte of 20


def inputs_of_parts(eager: EagerBackend, views: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """For each part that is reached, by name, its input for every view, uint8 [C, h, w]: [1, ...], regions as rows.

    Of a detector that finds nothing, what comes after may have none.
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
        if batch.any():  # zeros stand for no rows at all
            step = -(-len(batch) // _ROWS)
            inputs.append(batch[::step].contiguous().cpu())
        return network(batch)

    return run
