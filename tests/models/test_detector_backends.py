"""Detectors with compiled networks find what they find eagerly, or are not used."""

from __future__ import annotations

import copy
import ctypes
import gc
import mmap
import sys
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from models.architectures.catalog import build as build_architecture
from models.backends.building import Pictures, build
from models.backends.choosing import Candidate, Policy, choose, identify
from models.backends.compiler import BuildRequest, CompiledBackend, Compiler
from models.backends.detection.agreement import (
    average_precision,
    check_detectors,
    compare_detectors,
    relative_difference,
)
from models.backends.detection.parts import SplitDetector, without_weights
from models.backends.eager import EagerBackend
from models.backends.eager_bfloat16 import EagerBfloat16
from models.backends.exports import Exports
from models.backends.graphs import DetectionGraph
from models.backends.openvino import OpenVino
from models.backends.report import Agreement, ExportReport
from models.errors import BackendRefused
from models.manifest import ScalePreset
from tests.models.detecting import assert_same_detections, smooth_pictures, that_detects
from tests.models.test_yolo import rectangles

pytestmark = pytest.mark.usefixtures("one_thread")  # on images this small a second one only waits

CPU = torch.device("cpu")
PRESET = ScalePreset(shorter_px=96, longer_px=128)
SMALL = {"backbone": "mobilenet_v3_small"}
SUMMED_OTHERWISE = {"px": 0.02, "score": 2e-4, "other": 1e-2}  # the same float32 arithmetic in another order


def detector(name: str, *, preset: ScalePreset = PRESET) -> EagerBackend:
    """From random weights that find much."""
    torch.manual_seed(0)
    fixed = not preset.keeps_aspect
    options = {} if fixed else SMALL
    module = build_architecture(name, num_categories=3, options=options, image_size_px=None if fixed else 96)
    height, width = (preset.longer_px, preset.longer_px) if fixed else (96, 128)
    module = that_detects(module.eval().requires_grad_(False), height, width)
    if (heads := getattr(module, "roi_heads", None)) is not None:
        heads.detections_per_img = 5
    return EagerBackend(DetectionGraph(module, preset), "cpu")


def compiled(compiler: Compiler, eager: EagerBackend, directory: Path) -> CompiledBackend:
    request = BuildRequest(eager=eager, directory=directory, precision="float32")
    compiler.build(request)
    backend = compiler.load(request)
    assert isinstance(backend, CompiledBackend)
    return backend


def loaded(eager: EagerBackend, directory: Path) -> CompiledBackend:
    """What was built into the directory, around what the detector does now."""
    backend = OpenVino().load(BuildRequest(eager=eager, directory=directory, precision="float32"))
    assert isinstance(backend, CompiledBackend)
    return backend


@pytest.fixture(scope="module")
def mask_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of a mask R-CNN."""
    directory = tmp_path_factory.mktemp("networks")
    OpenVino().build(BuildRequest(eager=detector("maskrcnn_fpn"), directory=directory, precision="float32"))
    return directory


def assert_finds_the_same_on_pictures_of_several_sizes(backend: CompiledBackend, eager: EagerBackend) -> None:
    for count, height, width in ((1, 96, 128), (2, 128, 96), (1, 96, 97)):
        pictures = smooth_pictures(count, height, width, seed=height)
        expected = eager.run(pictures)
        assert_same_detections(backend.run(pictures), expected, **SUMMED_OTHERWISE)
        assert min(len(one["boxes"]) for one in expected) >= 5


def test_two_stage_detector_is_compiled_once_for_pictures_of_any_size(mask_networks: Path) -> None:
    eager = detector("maskrcnn_fpn")
    backend = loaded(eager, mask_networks)
    assert set(backend.networks) == {"network", "box_head", "mask_head"}
    assert_finds_the_same_on_pictures_of_several_sizes(backend, eager)


@pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process has is asked of Linux")
def test_networks_keep_no_memory_for_the_sizes_that_pictures_had(mask_networks: Path) -> None:
    network = loaded(detector("maskrcnn_fpn"), mask_networks).networks["network"]
    sizes = list(product(range(288, 32, -32), repeat=2))  # the largest first
    seen, unseen = sizes[:40], sizes[40:]
    for height, width in seen:  # after some twenty, libraries have what they keep for themselves
        network(torch.zeros(1, 3, height, width))
    before_bytes = resident_bytes()
    for height, width in unseen:
        network(torch.zeros(1, 3, height, width))
    assert resident_bytes() - before_bytes < len(unseen) * 2**20  # kept, each would be three times as much


def resident_bytes() -> int:
    """Memory of this process, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    _, resident_pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(resident_pages) * mmap.PAGESIZE


def test_one_stage_detector_is_compiled_once_for_pictures_of_any_size(tmp_path: Path) -> None:
    eager = detector("yolo")
    assert_finds_the_same_on_pictures_of_several_sizes(compiled(OpenVino(), eager, tmp_path), eager)


def test_picture_without_a_region_goes_through_compiled_networks(mask_networks: Path) -> None:
    eager = detector("maskrcnn_fpn")
    module: Any = eager.graph.module
    module.roi_heads.score_thresh = 2.0  # no mask is asked for
    module.rpn.score_thresh = 2.0  # nor a box
    backend = loaded(eager, mask_networks)
    for one in (*eager.run(smooth_pictures(2, 96, 128)), *backend.run(smooth_pictures(2, 96, 128))):
        assert one["boxes"].shape == (0, 4)
        assert one["masks"].shape == (0, 1, 96, 128)


def test_networks_that_were_compiled_are_not_kept_eagerly_too(mask_networks: Path) -> None:
    eager = detector("maskrcnn_fpn")
    assert loaded(eager, mask_networks).size_bytes == pytest.approx(eager.size_bytes, rel=0.05)
    around = without_weights(cast("SplitDetector", eager.graph.split))
    assert {tensor.device.type for tensor in around.module.parameters()} == {"meta"}


def test_detector_of_one_size_is_compiled_with_its_pixels(tmp_path: Path) -> None:
    preset = ScalePreset(shorter_px=320, longer_px=320, keeps_aspect=False)
    eager = detector("ssdlite320_mobilenet_v3_large", preset=preset)
    backend = compiled(OpenVino(), eager, tmp_path)
    agreement = compare_detectors(eager, backend, list(smooth_pictures(3, 320, 320)), source="generated")
    assert agreement.ap is not None
    assert agreement.ap > 0.98  # hundreds of boxes, of which some score the same
    check_detectors(agreement, "float32")
    with pytest.raises(ValueError, match="takes"):
        backend.run(smooth_pictures(1, 300, 320))


def test_detector_is_built_verified_on_its_objects_and_chosen(tmp_path: Path) -> None:
    eager = trained_detector()
    exports = Exports(tmp_path / "exports")
    views = [(rectangles(seed, size_px=96)[0] * 255).to(torch.uint8) for seed in range(900, 906)]
    policy = Policy(backend="openvino", precision="float32")
    compiler = OpenVino()
    candidate = Candidate(compiler=compiler, identity=identify(compiler, "float32", CPU, weights="w"))
    report: ExportReport = build(
        candidate,
        exports,
        eager,
        task="detection",
        pictures=Pictures(to_verify_on=views, source="dataset"),
        now=lambda: datetime(2026, 11, 28, tzinfo=UTC),
    )
    assert (report.status, report.reason) == ("verified", None)
    assert report.agreement is not None
    assert report.agreement.objects is not None
    assert report.agreement.objects >= 3
    assert report.agreement.ap == 1.0
    assert report.agreement.top1 is None
    assert ExportReport.model_validate_json(report.model_dump_json()) == report
    chosen = choose(exports, eager, policy, weights="w")
    assert chosen is not None
    assert_same_detections(chosen.backend.run(torch.stack(views)), eager.run(torch.stack(views)), **SUMMED_OTHERWISE)


def trained_detector() -> EagerBackend:
    """A yolo that has seen some rectangles."""
    torch.manual_seed(0)
    module = build_architecture("yolo", num_categories=3, options=SMALL, image_size_px=96).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for step in range(60):
        images, targets = zip(*(rectangles(4 * step + one) for one in range(4)), strict=True)
        optimizer.zero_grad()
        sum(module(list(images), list(targets)).values()).backward()
        optimizer.step()
    return EagerBackend(DetectionGraph(module.eval().requires_grad_(False), PRESET), "cpu")


def disturbed(eager: EagerBackend, share: float) -> EagerBackend:
    """The same detector with weights that are off by that share of themselves."""
    other = copy.deepcopy(eager)
    generator = torch.Generator().manual_seed(1)
    for parameter in other.graph.parameters():
        parameter.mul_(1 + share * torch.randn(parameter.shape, generator=generator))
    return other


def test_networks_that_compute_something_else_are_refused_although_nothing_is_found() -> None:
    eager = detector("fasterrcnn_fpn")
    module: Any = eager.graph.module
    module.roi_heads.score_thresh = 2.0
    other = disturbed(eager, 0.05)
    agreement = compare_detectors(eager, other, list(smooth_pictures(2, 96, 128)), source="generated")
    assert (agreement.objects, agreement.ap) == (0, None)
    with pytest.raises(BackendRefused, match="network's output differs"):
        check_detectors(agreement, "float32")
    same = compare_detectors(eager, eager, list(smooth_pictures(2, 96, 128)), source="generated")
    assert same.network_difference == 0.0
    check_detectors(same, "float32")


def test_objects_that_are_not_found_are_refused() -> None:
    missing = Agreement(pictures=16, source="dataset", ap=0.85, objects=40, network_difference=0.01)
    with pytest.raises(BackendRefused, match=r"average precision on the 40 objects of eager float32 is 0\.850"):
        check_detectors(missing, "bfloat16")
    check_detectors(missing.model_copy(update={"ap": 0.95}), "bfloat16")
    with pytest.raises(BackendRefused):
        check_detectors(missing.model_copy(update={"ap": 0.95, "network_difference": 0.0}), "float32")


def detections(boxes: Sequence[tuple[float, ...]], labels: Sequence[int], scores: Sequence[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores),
    }


def test_average_precision_is_that_of_the_objects() -> None:
    left, right = (0.0, 0.0, 40.0, 40.0), (60.0, 0.0, 100.0, 40.0)
    objects = [detections([left, right], [1, 2], [0.9, 0.8]), detections([left], [1], [0.7])]
    nothing = detections([], [], [])
    assert average_precision(objects, objects) == pytest.approx(1.0)
    assert average_precision([nothing, nothing], objects) == 0.0
    swapped = [detections([left, right], [2, 1], [0.9, 0.8]), nothing]
    assert average_precision(swapped, objects) < 0.1
    first_only = [objects[0], nothing]
    assert average_precision(first_only, objects) == pytest.approx((0.5 + 1.0) / 2, abs=0.01)


def test_objects_that_are_invented_count_against_it() -> None:
    left, right = (0.0, 0.0, 40.0, 40.0), (60.0, 0.0, 100.0, 40.0)
    objects = [detections([left], [1], [0.9])]
    nothing = [detections([], [], [])]
    assert average_precision([detections([left, right], [1, 3], [0.9, 0.99])], objects) == pytest.approx(0.5)
    assert average_precision([detections([left, right], [1, 3], [0.9, 0.4])], objects) == pytest.approx(1.0)
    assert average_precision([detections([right], [3], [0.99])], nothing) == 0.0
    assert average_precision(nothing, nothing) == 1.0


def test_detector_that_invents_objects_is_refused_although_its_networks_hardly_differ() -> None:
    eager = detector("fasterrcnn_fpn")
    silent = copy.deepcopy(eager)
    module: Any = silent.graph.module
    module.roi_heads.score_thresh = 2.0
    agreement = compare_detectors(silent, eager, list(smooth_pictures(2, 96, 128)), source="generated")
    assert (agreement.objects, agreement.network_difference) == (0, 0.0)
    with pytest.raises(BackendRefused, match="0 objects"):
        check_detectors(agreement, "float32")


def test_copy_of_a_detector_does_not_keep_the_original() -> None:
    eager = detector("fasterrcnn_fpn")
    eager.run(smooth_pictures(1, 96, 128))
    weights = weakref.ref(next(eager.graph.parameters()))
    request = BuildRequest(eager=eager, directory=Path(), precision="bfloat16")
    other = EagerBfloat16().load(request)
    del eager, request
    gc.collect()
    assert weights() is None
    assert len(other.run(smooth_pictures(1, 96, 128))) == 1


def test_what_is_no_number_differs_without_end() -> None:
    expected = torch.tensor([3.0, 4.0])
    assert relative_difference(expected, expected) == 0.0
    assert relative_difference(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert relative_difference(torch.tensor([float("nan"), 4.0]), expected) == float("inf")
    infinite = Agreement(pictures=1, source="generated", objects=0, network_difference=float("inf"))
    with pytest.raises(BackendRefused):
        check_detectors(infinite, "bfloat16")
