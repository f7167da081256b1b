"""The networks as servers other than Fovea run them: eager, compiled by torch, by OpenVINO, by OpenVINO in int8.

All take bytes, uint8 [B, 3, h, w], and give probabilities, float32 [B, K]; normalisation is part of the network.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import simplejpeg
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.serving.machine import has_fast_bfloat16
from models.architectures.catalog import build, get_architecture
from models.backends.openvino import import_openvino
from models.images.presets import resize_and_crop
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, Preset

Backend = Literal["eager", "channels_last", "compile", "openvino", "openvino_int8"]
BACKENDS: Final = get_args(Backend)
_CALIBRATED_ON = 64  # images
Network = Callable[[Tensor], Tensor]


def stock_module(architecture: str, weights: Path, *, categories: int) -> nn.Module:
    """As a tutorial has it: float32, in evaluation mode."""
    module = build(architecture, num_categories=categories)
    module.load_state_dict(load_file(weights))
    return module.eval()


def make_network(
    backend: Backend,
    architecture: str,
    weights: Path,
    *,
    categories: int,
    threads: int,
    sizes: Sequence[int],
    callers: int = 1,
    pictures: Path,
) -> Network:
    """threads: of one call. sizes: of batches, ascending; others are padded. callers: threads that call at a time.

    images: a directory of JPEGs, which int8 is calibrated on.
    Raises ImportError or RuntimeError where a backend cannot be had.
    """
    torch.set_num_threads(threads)
    module = _Probabilities(stock_module(architecture, weights, categories=categories)).eval().requires_grad_(False)
    match backend:
        case "eager":
            network = _in_inference_mode(module, torch.contiguous_format)
        case "channels_last":
            network = _in_inference_mode(_lean(module), torch.channels_last)
        case "compile":
            network = _padded(_compiled(_lean(module)), sizes)
        case "openvino" | "openvino_int8":
            views = _views(architecture, pictures) if backend == "openvino_int8" else []
            graphs = _openvino(module, sizes, views, side_px=_crop_px(architecture), threads=threads, streams=callers)
            network = _padded(graphs, sizes)
    for size in sizes:
        for _ in range(2):
            network(torch.zeros(size, 3, _crop_px(architecture), _crop_px(architecture), dtype=torch.uint8))
    return network


def decode_and_prepare(preset: Preset, data: bytes) -> Tensor:
    """The fastest way from a JPEG to what the network sees that keeps its pixels: uint8 [3, crop, crop]."""
    pixels = np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    return resize_and_crop(preset, torch.from_numpy(pixels).permute(2, 0, 1))


def preset_of(architecture: str) -> Preset:
    """The preset that its weights come with."""
    preset = get_architecture(architecture).preset
    assert isinstance(preset, Preset)
    return preset


class _Probabilities(nn.Module):
    """Bytes in, probabilities out."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(-1, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.to(self.mean.dtype).sub(self.mean).div(self.std)
        scores: Tensor = self.module(scaled).float().softmax(dim=1)
        return scores


def _lean(module: nn.Module) -> nn.Module:
    """channels_last, and bfloat16 where the CPU has it."""
    module = module.to(memory_format=torch.channels_last)
    return module.to(torch.bfloat16) if has_fast_bfloat16() else module


def _in_inference_mode(module: nn.Module, layout: torch.memory_format) -> Network:
    def call(images: Tensor) -> Tensor:
        with torch.inference_mode():
            scores: Tensor = module(images.contiguous(memory_format=layout))
            return scores

    return call


def _compiled(module: nn.Module) -> Network:
    """torch.compile with frozen weights, one graph per batch size."""
    inductor: Any = importlib.import_module("torch._inductor.config")
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    inductor.freezing = True
    dynamo.recompile_limit = 64  # beyond it torch goes on eagerly, in silence
    compiled = torch.compile(module, dynamic=False)
    lock = threading.Lock()  # one thread compiles; calls run at the same time once they are warm
    seen: set[int] = set()

    def call(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            if len(images) in seen:
                scores: Tensor = compiled(images)
                return scores
            with lock:
                scores = compiled(images)
                seen.add(len(images))
                return scores

    return call


def _openvino(
    module: nn.Module, sizes: Sequence[int], views: Sequence[Tensor], *, side_px: int, threads: int, streams: int
) -> Network:
    """One static graph per batch size; one request object per thread. views: to calibrate int8 on; empty: not int8."""
    openvino: Any = import_openvino()  # without its telemetry
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # else the processes of one machine all sit on its first core
    }
    graphs: dict[int, Any] = {}
    example = torch.zeros(1, 3, side_px, side_px, dtype=torch.uint8)
    with torch.no_grad():
        graph = openvino.convert_model(module, example_input=example, input=[[-1, 3, side_px, side_px]])
    if views:
        nncf: Any = importlib.import_module("nncf")
        inputs = nncf.Dataset([view[None].numpy() for view in views])
        graph = nncf.quantize(graph, inputs, subset_size=len(views), preset=nncf.QuantizationPreset.MIXED)
    for size in sizes:
        graph.reshape([size, 3, side_px, side_px])
        graphs[size] = core.compile_model(graph, "CPU", options)
    own = threading.local()

    def call(images: Tensor) -> Tensor:
        requests: dict[int, Any] = own.__dict__.setdefault("requests", {})
        if len(images) not in requests:
            requests[len(images)] = graphs[len(images)].create_infer_request()
        outputs = requests[len(images)].infer([images.contiguous().numpy()])
        return torch.from_numpy(np.array(outputs[0]))

    return call


def _views(architecture: str, pictures: Path) -> list[Tensor]:
    preset = preset_of(architecture)
    paths = sorted(pictures.iterdir())[:_CALIBRATED_ON]
    return [decode_and_prepare(preset, path.read_bytes()) for path in paths]


def _padded(network: Network, sizes: Sequence[int]) -> Network:
    """`network`, which takes batches of `sizes` only, for any batch up to the largest."""

    def call(images: Tensor) -> Tensor:
        size = next(size for size in sizes if size >= len(images))
        if size == len(images):
            return network(images)
        padding = images.new_zeros(size - len(images), *images.shape[1:])
        return network(torch.cat([images, padding]))[: len(images)]

    return call


def _crop_px(architecture: str) -> int:
    return preset_of(architecture).crop_px
