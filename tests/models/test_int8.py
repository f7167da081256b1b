"""Networks of 8-bit integers: calibrated on real images only, nearly the same answers, and only where asked for."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.backends import choosing, machine
from models.backends.building import Pictures, build
from models.backends.calibration import inputs_of_parts
from models.backends.choosing import COMPILERS, Candidate, Policy, candidates, choose, identify, why_not
from models.backends.compiler import BuildRequest, parts_of
from models.backends.eager import EagerBackend
from models.backends.eager_bfloat16 import EagerBfloat16
from models.backends.exports import Exports
from models.backends.graphs import ClassificationGraph
from models.backends.openvino import OpenVino, convert
from models.backends.openvino_int8 import OpenVinoInt8, quantised
from models.backends.part import Part
from models.backends.report import ExportReport
from models.backends.views import natural_views
from models.errors import NothingToCalibrateOn
from tests import children
from tests.models.detecting import smooth_pictures
from tests.models.small_networks import PRESET, StandIn, StandInOfIntegers, small_classifier
from tests.models.test_detector_backends import detector, trained_detector
from tests.models.test_yolo import rectangles

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
needs_int8 = pytest.mark.skipif(  # every processor can run it, those with instructions for it fast
    importlib.util.find_spec("nncf") is None,
    reason="NNCF is not installed: pip install 'fovea[int8]'",
)

needs_vnni = pytest.mark.skipif(  # without it sums of products saturate at 16 bits, and detectors come out less exact
    OpenVinoInt8().why_not(CPU) is not None, reason=f"int8 is less exact here: {OpenVinoInt8().why_not(CPU)}"
)


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor says that it has the instructions."""
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"avx512_vnni"})


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    """Nothing is built yet."""
    return Exports(tmp_path / "exports")


def in_int8(calibration: str | None = None) -> Candidate:
    return Candidate(
        compiler=OpenVinoInt8(),
        identity=identify(OpenVinoInt8(), "int8", CPU, weights="w", calibration=calibration),
    )


def built(exports: Exports, eager: EagerBackend, *, views: list[Tensor], examples: list[Tensor]) -> ExportReport:
    return build(
        in_int8(),
        exports,
        eager,
        task="classification",
        pictures=Pictures(to_verify_on=views, source="dataset", to_calibrate_on=examples, dataset="photos/2"),
        now=lambda: datetime.now(UTC),
    )


@needs_int8
@pytest.mark.usefixtures("vnni")
def test_classifier_answers_nearly_the_same_with_a_quarter_of_the_weights(exports: Exports) -> None:
    eager = small_classifier(width=64)
    report = built(exports, eager, views=natural_views(PRESET, 16), examples=natural_views(PRESET, 24, seed=1))
    assert (report.status, report.reason) == ("verified", None)
    assert report.calibration is not None
    assert report.calibration.model_dump() == {"dataset": "photos/2", "pictures": 24}
    assert report.agreement is not None
    assert report.agreement.largest_score_difference is not None
    assert 0 < report.agreement.largest_score_difference < 0.05

    policy = Policy(backend="openvino", precision="int8")
    chosen = choose(exports, eager, policy, weights="w")
    assert chosen is not None
    assert (chosen.backend.name, chosen.backend.precision) == ("openvino", "int8")
    assert chosen.backend.size_bytes < eager.size_bytes / 3
    for size in (1, 3, 8):
        batch = torch.stack(natural_views(PRESET, size, seed=2))
        torch.testing.assert_close(chosen.backend.run(batch), eager.run(batch), atol=0.05, rtol=0)


@needs_int8
def test_ranges_of_pictures_unlike_those_that_it_sees_are_refused(exports: Exports) -> None:
    eager = small_classifier()
    graph = eager.graph
    assert isinstance(graph, ClassificationGraph)
    head: Any = graph.module.head
    with torch.no_grad():
        head.weight *= 20  # surer than chance
    views = natural_views(PRESET, 16)
    black = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 16
    refused = built(exports, eager, views=views, examples=black)
    assert refused.status == "refused"
    assert refused.reason is not None
    assert "eager float32" in refused.reason
    assert refused.files == {}
    assert built(exports, eager, views=views, examples=natural_views(PRESET, 16, seed=1)).status == "verified"


@pytest.mark.parametrize(("calibrated_on", "verified_on"), [(0, 64), (15, 64), (128, 7), (128, 0)])
def test_with_too_few_pictures_nothing_is_built_and_nothing_remembered(
    exports: Exports, calibrated_on: int, verified_on: int
) -> None:
    views, examples = natural_views(PRESET, verified_on), natural_views(PRESET, calibrated_on)
    words = f"photos/2 has {calibrated_on} and {verified_on} that can be read"
    with pytest.raises(NothingToCalibrateOn, match=words):
        built(exports, small_classifier(), views=views, examples=examples)
    assert not exports.root.exists()


@needs_vnni
def test_detector_is_verified_on_its_objects(exports: Exports) -> None:
    calibrated_on, verified_on = (
        [(rectangles(seed, size_px=96)[0] * 255).to(torch.uint8) for seed in range(first, first + count)]
        for first, count in ((800, 16), (900, 8))
    )
    report = build(
        in_int8(),
        exports,
        trained_detector(),
        task="detection",
        pictures=Pictures(to_verify_on=verified_on, source="dataset", to_calibrate_on=calibrated_on),
        now=lambda: datetime.now(UTC),
    )
    assert (report.status, report.reason) == ("verified", None)
    agreement = report.agreement
    assert agreement is not None
    assert agreement.objects is not None
    assert agreement.objects >= 3
    assert agreement.network_difference is not None
    assert 0 < agreement.network_difference < 0.1


@needs_int8
def test_networks_of_a_detector_are_quantised_each_but_what_nothing_reaches(tmp_path: Path) -> None:
    """A mask R-CNN that finds nothing has no boxes to look for masks in."""
    eager = detector("maskrcnn_fpn")
    module: Any = eager.graph.module
    module.roi_heads.score_thresh = 2.0
    examples = list(smooth_pictures(2, 96, 128))
    assert set(inputs_of_parts(eager, examples)) == {"network", "box_head"}
    OpenVinoInt8().build(BuildRequest(eager=eager, directory=tmp_path, precision="int8", examples=examples))
    is_quantised = {
        path.stem: "FakeQuantize" in path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.xml"))
    }
    assert is_quantised == {"network": True, "box_head": True, "mask_head": False}


class TwoEnds(nn.Module):
    """Two layers that others follow, and two that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.early_end, self.end = nn.Conv2d(8, 2, 1), nn.Linear(8, 4)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        early = self.first(batch.float()).relu()
        late = self.second(early).relu().mean(dim=(2, 3))
        return self.early_end(early).sigmoid(), self.end(late).softmax(dim=1)


@needs_int8
def test_layers_that_no_other_follows_stay_in_floating_point(tmp_path: Path) -> None:
    example = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    part = Part(name="network", module=TwoEnds().eval(), example=example, most_rows=8)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (1, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(4)]
    model = quantised(convert(part, CPU), part, inputs)
    layers = [each for each in model.get_ordered_ops() if each.get_type_name() in ("Convolution", "MatMul")]
    inputs_are_quantised = {
        tuple(each.input(1).get_shape()): each.input_value(0).get_node().get_type_name() == "FakeQuantize"
        for each in layers
    }
    assert inputs_are_quantised == {(8, 3, 3, 3): True, (8, 8, 3, 3): True, (2, 8, 1, 1): False, (4, 8): False}


def test_what_networks_see_is_noted_for_each(tmp_path: Path) -> None:
    views = natural_views(PRESET, 3)
    assert [
        torch.equal(seen[0], view)
        for seen, view in zip(inputs_of_parts(small_classifier(), views)["network"], views, strict=True)
    ] == [True] * 3

    eager = detector("maskrcnn_fpn")
    pictures = [*smooth_pictures(1, 96, 128), *smooth_pictures(1, 128, 96)]
    seen = inputs_of_parts(eager, pictures)
    assert set(seen) == {part.name for part in parts_of(eager)}
    assert [each.shape[0] for each in seen["network"]] == [1, 1]
    assert [each.dtype for each in seen["network"]] == [torch.float32] * 2
    assert all(1 <= len(each) <= 64 for name in ("box_head", "mask_head") for each in seen[name])
    assert len(seen["box_head"][0]) > 30  # of its proposals, from first to last


@needs_int8
def test_quantising_tells_nobody(tmp_path: Path) -> None:
    code = f"""
import sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        raise SystemExit(f"{{event}} {{arguments}}")
sys.addaudithook(watch)
from pathlib import Path
from models.backends.compiler import BuildRequest, BuildRequest
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.views import natural_views
from tests.models.small_networks import PRESET, small_classifier
directory, examples = Path({str(tmp_path)!r}), natural_views(PRESET, 4)
OpenVinoInt8().build(
    BuildRequest(eager=small_classifier(), directory=directory, precision="int8", examples=examples)
)
assert "nncf" in sys.modules
assert sys.modules["openvino_telemetry"] is None
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    ended = children.run([sys.executable, "-c", code], check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "%" not in ended.stdout  # no bars of progress among a builder's last words
    assert not (tmp_path / "intel").exists()


def keys(policy: Policy) -> list[str]:
    return [each.identity.key.rsplit("-", 1)[0] for each in candidates(CPU, policy, weights="w")]


def test_int8_is_built_only_where_it_is_asked_for_and_beside_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"avx512_bf16", "avx512_vnni"})
    monkeypatch.setattr(choosing, "COMPILERS", (EagerBfloat16(), StandIn(), StandInOfIntegers()))
    assert keys(Policy()) == ["eager-bfloat16", "openvino-bfloat16"]
    assert keys(Policy(precision="float32")) == ["openvino-float32"]
    assert keys(Policy(precision="int8")) == ["eager-bfloat16", "openvino-bfloat16", "openvino-int8"]
    assert keys(Policy(precision="int8", backend="openvino")) == ["openvino-bfloat16", "openvino-int8"]


def test_other_data_set_to_calibrate_on_makes_another_network_in_int8_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "COMPILERS", (StandIn(), StandInOfIntegers()))

    def keys_with(calibration: str | None, named: str | None = None) -> list[str]:
        policy = Policy(precision="int8", calibration_dataset=named)
        return [each.identity.key for each in candidates(CPU, policy, weights="w", calibration=calibration)]

    (rounded, own), *others = (keys_with(each) for each in (None, "photos/1", "photos/2"))
    assert [others[0][0], others[1][0]] == [rounded] * 2
    assert len({own, others[0][1], others[1][1]}) == 3
    assert keys_with(None, named="photos") == [rounded, own]  # what is named matters where it is used


def test_no_other_compiler_is_asked_for_integers() -> None:
    able = [type(compiler) for compiler in COMPILERS if "int8" in compiler.precisions]
    assert able == [OpenVinoInt8]


def test_what_int8_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> list[str]:
        policy = Policy(backend="openvino", precision="int8")
        return [reason for _, precision, reason in why_not(CPU, policy) if precision == "int8"]

    monkeypatch.setattr(machine, "_processor_flags", set)
    monkeypatch.setattr("models.backends.openvino_int8.importlib.util.find_spec", lambda _: object())
    (reason,) = said()
    assert "VNNI" in reason
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"avx_vnni"})
    assert said() == []
    monkeypatch.setattr(
        "models.backends.openvino_int8.importlib.util.find_spec", lambda name: None if name == "nncf" else object()
    )
    (reason,) = said()
    assert "fovea[int8]" in reason
    monkeypatch.setattr("models.backends.openvino_int8.importlib.util.find_spec", lambda _: None)
    (reason,) = said()
    assert "pip install openvino" in reason
    assert OpenVinoInt8().why_not(torch.device("cuda")) == OpenVino().why_not(torch.device("cuda"))
