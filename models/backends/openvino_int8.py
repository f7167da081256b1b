"""OpenVINO's networks in 8-bit integers, quantised after training: the extra `fovea[int8]` (NNCF, Apache-2.0).

Weights and activations become 8-bit integers with scales. The largest weight gives the scale of weights; activations of
example images give the others. Biases then correct the mean error (Nagel et al. 2021, "A White Paper on Neural Network
Quantization"; the algorithm is NNCF's). This changes more than the last digits, so an operator must ask for it and the
images must be real. NNCF sends telemetry through the distribution that `import_openvino` hides.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.backend import BackendName
from models.backends.calibration import inputs_of_parts
from models.backends.compiler import BuildRequest, CompiledBackend, parts_of
from models.backends.machine import best_precision, has_int8
from models.backends.openvino import OpenVino, convert, import_openvino, load_networks, store
from models.backends.part import Part
from models.precision import Precision

_LAYERS = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})
_SMOOTHED = (nn.MultiheadAttention,)  # NNCF's model type "transformer": it moves outliers from activations to weights


class OpenVinoInt8:
    """Quantises the networks that `OpenVino` converts."""

    name: BackendName = "openvino"
    precisions: frozenset[Precision] = frozenset({"int8"})
    libraries: tuple[str, ...] = ("openvino", "nncf")

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        reason = OpenVino().why_not(device)
        if reason:
            return reason
        if not has_int8(device):
            return "the processor has no instructions for 8-bit integers (AVX-512 VNNI, AVX-VNNI or AMX)"
        if importlib.util.find_spec("nncf") is None:
            return "NNCF is not installed: pip install 'fovea[int8]'"
        return None

    def build(self, request: BuildRequest) -> None:
        """See Compiler.build."""
        assert request.examples
        inputs = inputs_of_parts(request.eager, request.examples)
        for part in parts_of(request.eager):
            model = convert(part, request.eager.device)
            seen = inputs.get(part.name)
            store(quantised(model, part, seen) if seen else model, request.directory, part)

    def load(self, request: BuildRequest) -> CompiledBackend:
        """See Compiler.load."""
        networks = load_networks(request.eager, request.directory, hint=best_precision(request.eager.device))
        return CompiledBackend(request.eager, networks, name=self.name, precision=request.precision)


def quantised(model: Any, part: Part, inputs: Sequence[Tensor]) -> Any:
    """Quantises the part that `convert` made, with the ranges of these inputs."""
    nncf = _nncf()
    is_transformer = any(isinstance(module, _SMOOTHED) for module in part.module.modules())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([each.numpy() for each in inputs]),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric ranges where values have both signs
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            ignored_scope=nncf.IgnoredScope(names=_last_layers(model)),
        )


def _last_layers(model: Any) -> list[str]:
    """Returns the names of layers that no other layer follows: they are fast, and no layer corrects their errors."""
    last: list[str] = []
    leading: set[str] = set()  # to a layer
    for operator in reversed(model.get_ordered_ops()):
        name = operator.get_friendly_name()
        inputs = (end for output in operator.outputs() for end in output.get_target_inputs())
        readers = [end.get_node() for end in inputs]
        if any(one.get_friendly_name() in leading or one.get_type_name() in _LAYERS for one in readers):
            leading.add(name)
        elif operator.get_type_name() in _LAYERS:
            last.append(name)
    return last


def _nncf() -> ModuleType:
    import_openvino()  # hides the telemetry
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # NNCF's own setting would also change the handlers of others
    module: ModuleType = nncf
    return module
