from __future__ import annotations

import dataclasses
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.architectures.architecture import WeightsEntry
from models.architectures.catalog import build, get_architecture, head_parameter_names
from models.errors import IncompatibleWeights, UnknownWeights, UnsafeWeights, WeightsUnavailable
from models.store.weights import (
    find_pretrained,
    get_weights,
    load_base_state_dict,
    load_base_weights,
    pretrained,
    weights_path,
    weights_status,
)

NAME = "squeezenet1_1"  # the smallest file of torchvision's
ARCHITECTURE = get_architecture(NAME)
ENTRY = get_weights(ARCHITECTURE, "DEFAULT")


def put_in_cache(module: nn.Module, entry: WeightsEntry, weights_dir: Path) -> dict[str, Tensor]:
    """Saves `module` where torchvision's file would be, and returns its state_dict."""
    path = weights_path(entry, weights_dir)
    path.parent.mkdir(parents=True)
    torch.save(module.state_dict(), path)
    return dict(module.state_dict())


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


class FileHandler(http.server.BaseHTTPRequestHandler):
    """Answers /NAME with the server's `files[NAME]`; /short-NAME promises more than it sends."""

    def do_GET(self) -> None:
        content = self.server.files.get(self.path[1:])  # type: ignore[attr-defined]
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        missing = 10 if self.path.startswith("/short-") else 0
        self.send_header("Content-Length", str(len(content) + missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Says nothing."""


@pytest.fixture
def files() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A server's address, and what it serves."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FileHandler)
    served: dict[str, bytes] = {}
    server.files = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    thread.join()
    server.server_close()


def served_entry(address: str, served: dict[str, bytes], tmp_path: Path, *, prefix: str = "") -> WeightsEntry:
    """An entry whose file the server has, under a name that ends in its digest."""
    torch.save(build(NAME, num_categories=1000).state_dict(), tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()
    name = f"{prefix}squeezenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    served[name] = content
    return dataclasses.replace(ENTRY, url=f"{address}/{name}")


def test_default_means_torchvisions_recommendation() -> None:
    assert get_weights(get_architecture("resnet50"), "DEFAULT").reference == "resnet50.IMAGENET1K_V2"


def test_unknown_weights_list_the_known() -> None:
    with pytest.raises(UnknownWeights) as raised:
        get_weights(get_architecture("resnet50"), "IMAGENET1K_V9")

    assert "DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2" in (raised.value.hint or "")


def test_architecture_without_weights_says_so() -> None:
    with pytest.raises(UnknownWeights) as raised:
        get_weights(get_architecture("garment_classifier"), "DEFAULT")

    assert "scratch" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [("resnet50", "resnet50.IMAGENET1K_V2"), ("resnet50.IMAGENET1K_V1", "resnet50.IMAGENET1K_V1")],
)
def test_reference_to_pretrained_weights_is_found(reference: str, wanted: str) -> None:
    found = find_pretrained(reference)

    assert found is not None
    assert found[1].reference == wanted


def test_reference_to_something_else_is_not_found() -> None:
    assert find_pretrained("ants-bees") is None


@pytest.mark.parametrize("reference", ["resnet50.IMAGENET1K_V9", "resnet50."])
def test_reference_to_weights_that_are_not_is_refused(reference: str) -> None:
    with pytest.raises(UnknownWeights):
        find_pretrained(reference)


def test_weights_belong_where_torch_would_put_them(tmp_path: Path) -> None:
    assert weights_path(ENTRY, tmp_path) == tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"


def test_weights_are_cached_once_the_file_is_there(tmp_path: Path) -> None:
    assert weights_status(ENTRY, tmp_path) == "missing"

    put_in_cache(nn.Linear(1, 1), ENTRY, tmp_path)

    assert weights_status(ENTRY, tmp_path) == "cached"


def test_base_weights_replace_everything_but_the_head(tmp_path: Path) -> None:
    base = put_in_cache(build(NAME, num_categories=1000), ENTRY, tmp_path)
    module = build(NAME, num_categories=3)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}

    reference = load_base_weights(module, ARCHITECTURE, "DEFAULT", weights_dir=tmp_path, allow_download=False)

    head = head_parameter_names(NAME)
    assert reference == "squeezenet1_1.IMAGENET1K_V1"
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key] if key in head else base[key]), key


def test_head_stays_fresh_even_with_as_many_categories(tmp_path: Path) -> None:
    base = put_in_cache(build(NAME, num_categories=1000), ENTRY, tmp_path)
    module = build(NAME, num_categories=1000)

    load_base_weights(module, ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=False)

    assert not torch.equal(module.state_dict()["classifier.1.weight"], base["classifier.1.weight"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_base_weights_leave_auxiliary_heads_fresh(name: str, tmp_path: Path) -> None:
    architecture = get_architecture(name)
    entry = get_weights(architecture, "DEFAULT")
    base = put_in_cache(build(name, num_categories=1000), entry, tmp_path)
    module = build(name, num_categories=3)
    auxiliary = {
        key: value.clone() for key, value in module.state_dict().items() if key.startswith(architecture.auxiliary)
    }
    assert auxiliary

    load_base_weights(module, architecture, entry, weights_dir=tmp_path, allow_download=False)

    got = module.state_dict()
    assert all(torch.equal(got[key], value) for key, value in auxiliary.items())
    assert torch.equal(
        got["Conv2d_1a_3x3.conv.weight" if name == "inception_v3" else "conv1.conv.weight"],
        base["Conv2d_1a_3x3.conv.weight" if name == "inception_v3" else "conv1.conv.weight"],
    )


def test_position_embeddings_are_interpolated_for_another_size(tmp_path: Path) -> None:
    architecture = get_architecture("vit_b_32")
    base = build("vit_b_32", num_categories=2, image_size_px=64).state_dict()
    base["encoder.pos_embedding"][:, 1:] = 5.0
    module = build("vit_b_32", num_categories=2, image_size_px=96)

    load_base_state_dict(module, architecture, base, keep_head=True)

    got = module.state_dict()
    assert got["encoder.pos_embedding"].shape == (1, 10, 768)
    torch.testing.assert_close(got["encoder.pos_embedding"][:, 1:], torch.full((1, 9, 768), 5.0))
    assert torch.equal(got["encoder.pos_embedding"][:, 0], base["encoder.pos_embedding"][:, 0])
    assert torch.equal(got["heads.head.weight"], base["heads.head.weight"])


def test_base_of_a_registered_model_keeps_its_head_on_request() -> None:
    base, module = build(NAME, num_categories=3).state_dict(), build(NAME, num_categories=3)

    load_base_state_dict(module, ARCHITECTURE, base, keep_head=True)

    assert all(torch.equal(tensor, base[key]) for key, tensor in module.state_dict().items())


def test_base_of_another_architecture_is_refused_and_changes_nothing() -> None:
    module = build(NAME, num_categories=3)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}

    with pytest.raises(IncompatibleWeights):
        load_base_state_dict(module, ARCHITECTURE, build("alexnet", num_categories=3).state_dict(), keep_head=False)

    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_pretrained_module_is_the_file_and_evaluates(tmp_path: Path) -> None:
    made = build(NAME, num_categories=1000).eval()
    put_in_cache(made, ENTRY, tmp_path)
    pixels = torch.rand(1, 3, 64, 64)

    module = pretrained(ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=False)

    with torch.inference_mode():
        torch.testing.assert_close(module(pixels), made(pixels))


def test_pretrained_in_torchs_old_layout_is_read(tmp_path: Path) -> None:
    path = weights_path(ENTRY, tmp_path)
    path.parent.mkdir(parents=True)
    made = build(NAME, num_categories=1000)
    torch.save(made.state_dict(), path, _use_new_zipfile_serialization=False)

    module = pretrained(ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=False)

    assert all(torch.equal(tensor, made.state_dict()[key]) for key, tensor in module.state_dict().items())


def test_missing_weights_say_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as raised:
        pretrained(ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=False)

    assert str(weights_path(ENTRY, tmp_path)) in (raised.value.hint or "")


def test_unreachable_weights_say_which_file_to_put_where(tmp_path: Path, closed_port: int) -> None:
    entry = dataclasses.replace(ENTRY, url=f"http://127.0.0.1:{closed_port}/squeezenet1_1-b8a52dc0.pth")

    with pytest.raises(WeightsUnavailable) as raised:
        pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)

    assert "could not be downloaded" in str(raised.value)
    assert str(weights_path(entry, tmp_path)) in (raised.value.hint or "")
    assert not list(weights_path(entry, tmp_path).parent.iterdir())


def test_reachable_weights_are_fetched_once(tmp_path: Path, files: tuple[str, dict[str, bytes]]) -> None:
    entry = served_entry(*files, tmp_path)

    pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)
    files[1].clear()
    pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)

    assert [path.name for path in weights_path(entry, tmp_path).parent.iterdir()] == [entry.file_name]


def test_fetched_file_of_another_digest_is_refused(tmp_path: Path, files: tuple[str, dict[str, bytes]]) -> None:
    entry = served_entry(*files, tmp_path)
    files[1][entry.file_name] += b"more"

    with pytest.raises(WeightsUnavailable, match="another file"):
        pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)

    assert not list(weights_path(entry, tmp_path).parent.iterdir())


def test_fetch_that_ends_early_leaves_nothing(tmp_path: Path, files: tuple[str, dict[str, bytes]]) -> None:
    entry = served_entry(*files, tmp_path, prefix="short-")

    with pytest.raises(WeightsUnavailable):
        pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)

    assert not list(weights_path(entry, tmp_path).parent.iterdir())


def test_server_without_the_file_is_reported(tmp_path: Path, files: tuple[str, dict[str, bytes]]) -> None:
    entry = dataclasses.replace(ENTRY, url=f"{files[0]}/nothing-00000000.pth")

    with pytest.raises(WeightsUnavailable, match="Not Found"):
        pretrained(ARCHITECTURE, entry, weights_dir=tmp_path, allow_download=True)


def test_broken_file_in_the_cache_is_refused(tmp_path: Path) -> None:
    path = weights_path(ENTRY, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>Not Found</html>")

    with pytest.raises(UnsafeWeights, match=ENTRY.file_name):
        pretrained(ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=True)


def test_file_of_another_architecture_in_the_cache_is_refused(tmp_path: Path) -> None:
    put_in_cache(build("mobilenet_v2", num_categories=1000), ENTRY, tmp_path)

    with pytest.raises(IncompatibleWeights):
        pretrained(ARCHITECTURE, ENTRY, weights_dir=tmp_path, allow_download=False)
