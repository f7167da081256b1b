"""Other ways to run a network compute what eager float32 does, and are used nowhere else than where they belong."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.backends import choosing, machine
from models.backends.backend import Backend, BackendName
from models.backends.building import Pictures, build
from models.backends.choosing import Candidate, Policy, candidates, choose, why_not
from models.backends.eager import EagerBackend
from models.backends.eager_bfloat16 import EagerBfloat16
from models.backends.exports import Exports
from models.backends.graphs import DetectionGraph
from models.backends.report import Agreement, ExportIdentity, ExportReport, Speed
from models.backends.verification import check, compare, format_distinct
from models.backends.views import natural_views
from models.errors import BackendRefused
from models.manifest import Preset, Task
from models.precision import Precision
from tests import children
from tests.models.small_networks import PRESET, SCALE_PRESET, Scaled, StandIn, small_classifier, small_segmenter

CPU = torch.device("cpu")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
needs_bfloat16 = pytest.mark.skipif(
    not machine.has_bfloat16(CPU), reason="this processor does not multiply bfloat16 in hardware"
)


@pytest.fixture(autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without bfloat16, so that every machine does the same, unless a test needs its own."""
    if needs_bfloat16.mark not in request.node.iter_markers():
        monkeypatch.setattr(machine, "_processor_flags", set)


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    """Nothing is built yet."""
    return Exports(tmp_path / "exports")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Leaves a single compiler, whose networks answer that many times as much."""

    def put(gain: float) -> None:
        monkeypatch.setattr(choosing, "COMPILERS", (StandIn(gain),))

    put(1.0)
    return put


def built(exports: Exports, eager: EagerBackend, policy: Policy, *, task: Task = "classification") -> ExportReport:
    """Builds the one candidate there is."""
    (candidate,) = candidates(CPU, policy, weights="w")
    return build(
        candidate,
        exports,
        eager,
        task=task,
        pictures=Pictures(to_verify_on=natural_views(eager.graph.preset, 7), source="generated"),
        now=lambda: NOW,
    )


def report_of(candidate: Candidate, *, images_per_s: float, eager_images_per_s: float = 10.0) -> ExportReport:
    speeds = (Speed(batch=1, images_per_s=images_per_s, eager_images_per_s=eager_images_per_s),)
    return ExportReport(identity=candidate.identity, status="verified", speeds=speeds, created_at=NOW)


def store(exports: Exports, report: ExportReport, *, gain: float = 1.0) -> None:
    with exports.new_directory() as directory:
        (directory / "gain.json").write_text(json.dumps(gain))
        exports.publish(directory, report)


def test_openvino_computes_the_same_from_several_threads_while_others_go_on(exports: Exports) -> None:
    eager, policy = small_classifier(width=64), Policy(backend="openvino")
    report = built(exports, eager, policy)
    assert (report.status, report.reason) == ("verified", None)
    assert report.agreement is not None
    assert report.agreement.largest_score_difference is not None
    assert report.agreement.largest_score_difference < 1e-4
    assert [speed.batch for speed in report.speeds] == [1, 4, 8]
    chosen = choose(exports, eager, policy, weights="w")
    assert chosen is not None
    assert_same_from_threads(chosen.backend, eager)
    assert_refuses_what_it_was_not_built_for(chosen.backend)
    assert_other_threads_go_on(chosen.backend)


def test_openvino_segments_pictures_of_any_size(exports: Exports) -> None:
    eager, policy = small_segmenter(), Policy(backend="openvino")
    report = built(exports, eager, policy, task="segmentation")
    assert (report.status, report.reason) == ("verified", None)
    chosen = choose(exports, eager, policy, weights="w")
    assert chosen is not None
    for height, width in ((48, 96), (80, 48), (33, 47)):
        batch = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        torch.testing.assert_close(chosen.backend.run(batch), eager.run(batch), atol=1e-4, rtol=1e-4)


def test_openvino_tells_nobody(tmp_path: Path) -> None:
    code = f"""
import sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        raise SystemExit(f"{{event}} {{arguments}}")
sys.addaudithook(watch)
from pathlib import Path
from models.backends.compiler import BuildRequest
from models.backends.openvino import OpenVino
from tests.models.small_networks import small_classifier
request = BuildRequest(eager=small_classifier(), directory=Path({str(tmp_path)!r}), precision="float32")
OpenVino().build(request)
OpenVino().load(request)
assert sys.modules["openvino_telemetry"] is None
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    ended = children.run([sys.executable, "-c", code], check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "intel").exists()


def assert_same_from_threads(backend: Backend, eager: Backend) -> None:
    batches = [torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8) for size in (1, 2, 3, 8)]
    found: dict[int, torch.Tensor] = {}

    def run(number: int) -> None:
        for _ in range(3):
            found[number] = backend.run(batches[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in enumerate(batches):
        torch.testing.assert_close(found[number], eager.run(batch), atol=1e-4, rtol=1e-4)


def assert_refuses_what_it_was_not_built_for(backend: Backend) -> None:
    for batch in (
        torch.zeros(1, 3, 32, 31, dtype=torch.uint8),
        torch.zeros(1, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(1, 3, 32, 32),
        torch.zeros(65, 3, 32, 32, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match="takes"):
            backend.run(batch)


def assert_other_threads_go_on(backend: Backend) -> None:
    """While it runs, this thread is never away for most of that time."""
    batch = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    shares = []
    for _ in range(5):
        thread = threading.Thread(target=backend.run, args=(batch,))
        began = before = time.perf_counter()
        longest = 0.0
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        shares.append(longest / (time.perf_counter() - began))
    assert min(shares) < 0.5


@pytest.mark.parametrize("gain", [0.9, float("nan")])
def test_what_computes_something_else_is_refused_and_not_tried_again(
    exports: Exports, stand_in: Callable[[float], None], gain: float
) -> None:
    stand_in(gain)
    eager, policy = small_classifier(), Policy(backend="openvino")
    report = built(exports, eager, policy)
    assert report.status == "refused"
    assert report.reason is not None
    assert "differs from eager float32" in report.reason
    assert report.files == {}
    assert choose(exports, eager, policy, weights="w") is None
    (candidate,) = candidates(CPU, policy, weights="w")
    assert exports.find(candidate.identity) == report


def test_compiler_that_breaks_leaves_its_words(
    exports: Exports, stand_in: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        msg = "no rule to lower aten.weird"
        raise NotImplementedError(msg)

    monkeypatch.setattr(StandIn, "build", breaks)
    report = built(exports, small_classifier(), Policy())
    assert report.status == "failed"
    assert report.reason == "NotImplementedError: no rule to lower aten.weird"


def test_full_disk_leaves_nothing(
    exports: Exports, stand_in: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StandIn, "build", full)
    with pytest.raises(OSError, match="No space left"):
        built(exports, small_classifier(), Policy())
    assert list(exports.root.iterdir()) == []


def test_version_deleted_while_it_is_built_stays_deleted(tmp_path: Path, stand_in: Callable[[float], None]) -> None:
    with pytest.raises(FileNotFoundError):
        built(Exports(tmp_path / "gone" / "exports"), small_classifier(), Policy())
    assert not (tmp_path / "gone").exists()


def test_damaged_file_is_not_loaded(
    exports: Exports, stand_in: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    eager, policy = small_classifier(), Policy(backend="openvino")
    report = built(exports, eager, policy)
    assert choose(exports, eager, policy, weights="w") is not None
    (exports.directory(report.identity) / "gain.json").write_text("1.5")
    assert choose(exports, eager, policy, weights="w") is None
    assert "differs from the file that was verified" in caplog.text


def test_file_that_cannot_be_read_is_not_called_changed(
    exports: Exports,
    stand_in: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, policy = small_classifier(), Policy(backend="openvino")
    built(exports, eager, policy)

    def fail(*_: object) -> str:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("models.backends.exports.sha256_of", fail)
        assert choose(exports, eager, policy, weights="w") is None
    assert "gain.json cannot be read: Too many open files." in caplog.text
    assert "Delete" not in caplog.text
    assert choose(exports, eager, policy, weights="w") is not None


def test_report_of_a_backend_that_this_version_does_not_know_is_left_out_without_a_warning(
    exports: Exports, stand_in: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    report = built(exports, small_classifier(), Policy())
    removed = report.model_dump_json().replace('"openvino"', '"aot_inductor"')
    directory = exports.root / "aot_inductor-float32-0123456789abcdef"
    directory.mkdir()
    (directory / "report.json").write_text(removed)
    assert exports.reports() == [report]
    assert caplog.text == ""


def test_damaged_report_is_as_if_there_were_none(exports: Exports, stand_in: Callable[[float], None]) -> None:
    report = built(exports, small_classifier(), Policy())
    (exports.directory(report.identity) / "report.json").write_text("{")
    assert exports.find(report.identity) is None
    assert exports.reports() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 3),
        ("weights", "others"),
        ("precision", "bfloat16"),
        ("device", "cuda"),
        ("libraries", {"torch": "2.0.0"}),
        ("machine", {"processor": "aarch64"}),
    ],
)
def test_built_for_another_is_not_found(
    exports: Exports, stand_in: Callable[[float], None], field: str, value: object
) -> None:
    identity = built(exports, small_classifier(), Policy()).identity
    assert exports.find(identity) is not None
    other = ExportIdentity.model_validate({**identity.model_dump(), field: value})
    assert other.key != identity.key
    assert exports.find(other) is None


def test_number_of_threads_is_part_of_what_is_built() -> None:
    threads = torch.get_num_threads()
    compiler = StandIn()
    first = choosing.identify(compiler, "float32", CPU, weights="w")
    try:
        torch.set_num_threads(threads + 1)
        second = choosing.identify(compiler, "float32", CPU, weights="w")
    finally:
        torch.set_num_threads(threads)
    assert first.key != second.key


def test_fastest_is_chosen_and_a_slower_one_than_eager_only_by_name(
    exports: Exports, stand_in: Callable[[float], None]
) -> None:
    eager = small_classifier()
    (candidate,) = candidates(CPU, Policy(), weights="w")
    store(exports, report_of(candidate, images_per_s=9.0))
    assert choose(exports, eager, Policy(), weights="w") is None
    assert choose(exports, eager, Policy(backend="openvino"), weights="w") is not None
    assert choose(exports, eager, Policy(backend="eager"), weights="w") is None
    store(exports, report_of(candidate, images_per_s=11.0))
    chosen = choose(exports, eager, Policy(), weights="w")
    assert chosen is not None
    assert chosen.report.seconds_per_image == pytest.approx(1 / 11)


def test_bfloat16_is_taken_where_the_processor_has_it_and_nobody_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr(choosing, "COMPILERS", (EagerBfloat16(), StandIn()))
    found = candidates(CPU, Policy(), weights="w")
    assert [each.identity.key.rsplit("-", 1)[0] for each in found] == ["eager-bfloat16", "openvino-bfloat16"]
    (insisted,) = candidates(CPU, Policy(precision="float32"), weights="w")
    assert insisted.identity.precision == "float32"


def test_eager_bfloat16_leaves_the_float32_network_as_it_is(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(choosing, "COMPILERS", (EagerBfloat16(),))
    eager = small_classifier()
    report = built(exports, eager, Policy())
    assert (report.status, report.reason) == ("verified", None)
    chosen = choose(exports, eager, Policy(backend="eager"), weights="w")
    assert chosen is not None
    assert chosen.backend.precision == "bfloat16"
    assert chosen.backend.size_bytes * 2 == eager.size_bytes
    assert {tensor.dtype for tensor in eager.graph.parameters()} == {torch.float32}


def test_what_is_missing_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.backends.openvino.importlib.util.find_spec", lambda _: None)
    assert candidates(CPU, Policy(), weights="w") == []
    reasons = {name: reason for name, _, reason in why_not(CPU, Policy())}
    assert reasons["openvino"] == "OpenVINO is not installed: pip install openvino"


def test_detectors_that_run_whole_stay_eager(exports: Exports) -> None:
    eager = EagerBackend(DetectionGraph(torch.nn.Identity(), SCALE_PRESET), "cpu")
    assert not choosing.can_be_built(eager)
    assert choose(exports, eager, Policy(), weights="w") is None


@needs_bfloat16
def test_openvino_computes_in_bfloat16_within_its_tolerance(exports: Exports) -> None:
    eager, policy = small_classifier(), Policy(backend="openvino")
    report = built(exports, eager, policy)
    assert (report.status, report.reason, report.identity.precision) == ("verified", None, "bfloat16")
    chosen = choose(exports, eager, policy, weights="w")
    assert chosen is not None
    (view,) = natural_views(PRESET, 1)
    difference = (chosen.backend.run(view[None]) - eager.run(view[None])).abs().max()
    assert 0 < difference < 0.08  # it is another precision, and not another answer


def test_two_categories_that_are_equally_good_may_change_places() -> None:
    eager = small_classifier()
    agreement = compare("classification", eager, eager, natural_views(PRESET, 3), source="generated")
    assert (agreement.top1, agreement.largest_score_difference, agreement.pictures) == (1.0, 0.0, 3)
    scaled = compare("classification", eager, Scaled(eager, gain=1.001), natural_views(PRESET, 3), source="generated")
    assert scaled.top1 == 1.0
    assert scaled.largest_score_difference is not None
    assert 0 < scaled.largest_score_difference <= 0.001
    check(scaled, "float32")


def test_categories_that_change_places_are_refused() -> None:
    agreement = Agreement(pictures=100, source="dataset", top1=0.97, largest_score_difference=0.0)
    with pytest.raises(BackendRefused, match=r"97\.00%"):
        check(agreement, "float32")


class WrongPixels:
    """A segmentation network's answers, but for the first pixels of each, which get other logits."""

    name: BackendName = "openvino"
    size_bytes = 4

    def __init__(self, other: EagerBackend, *, share: float, precision: Precision, value: float = 50.0) -> None:
        self.precision = precision
        self._other, self._share, self._value = other, share, value

    def run(self, batch: Tensor) -> Tensor:
        logits = self._other.run(batch).clone()
        pixels = logits.flatten(2)
        pixels[:, 0, : round(self._share * pixels.shape[2])] = self._value
        found: Tensor = pixels.view_as(logits)
        return found


def test_few_pixels_of_a_segmentation_do_not_condemn_int8() -> None:
    eager, views = small_segmenter(), natural_views(SCALE_PRESET, 4)

    def compared(share: float, precision: Precision, value: float = 50.0) -> Agreement:
        other = WrongPixels(eager, share=share, precision=precision, value=value)
        return compare("segmentation", eager, other, views, source="dataset")

    few = compared(0.0006, "int8")
    assert few.score_difference_p999 == 0.0
    assert few.largest_score_difference is not None
    assert few.largest_score_difference > 0.5
    check(few, "int8")
    with pytest.raises(BackendRefused, match="A score differs"):
        check(compared(0.0006, "float32"), "float32")
    with pytest.raises(BackendRefused, match=r"99\.9 % of the pixels"):
        check(compared(0.002, "int8"), "int8")
    with pytest.raises(BackendRefused):
        check(compared(0.0006, "int8", value=float("nan")), "int8")


@pytest.mark.parametrize(
    ("value", "limit", "told"),
    [(0.31, 0.15, "0.31"), (0.1504, 0.15, "0.1504"), (0.15, 0.15, "0.15"), (float("inf"), 0.15, "inf")],
)
def test_figure_is_told_apart_from_its_limit(value: float, limit: float, told: str) -> None:
    assert format_distinct(value, limit) == told


def test_generated_pictures_are_smooth_like_photos_and_always_the_same() -> None:
    views = natural_views(PRESET, 4)
    assert [view.shape for view in views] == [torch.Size([3, 32, 32])] * 4
    for view in views:
        values = view.float()
        steps = (values[..., 1:] - values[..., :-1]).abs().mean()
        assert values.std() > 5
        assert steps < values.std()  # of noise they would be larger
    assert all(torch.equal(a, b) for a, b in zip(views, natural_views(PRESET, 4), strict=True))
    assert len({view.shape for view in natural_views(SCALE_PRESET, 3)}) == 3
    grey = Preset(channels=1, resize_px=28, crop_px=28, mean=(0.5,), std=(0.5,))
    assert natural_views(grey, 1)[0].shape == (1, 28, 28)
