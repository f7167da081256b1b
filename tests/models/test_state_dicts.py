from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.architectures.catalog import build, build_empty, get_architecture
from models.errors import IncompatibleWeights, UnsafeWeights
from models.manifest import ManifestDraft
from models.store.own_weights import publish_own_weights
from models.store.registry import Registry
from models.store.state_dicts import (
    check_state_dict,
    check_values,
    for_publishing,
    load_state_dict,
    module_from_state_dict,
    read_state_dict,
    save_state_dict,
    without_wrappers,
)


class Malicious:
    """What a pickle can do to whoever loads it: make a file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def small_state_dict() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    save_file(small_state_dict(), tmp_path / "weights.pth")

    assert is_same(read_state_dict(tmp_path / "weights.pth"), small_state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_pth_file_is_read_in_new_and_old_layout(tmp_path: Path, zipped: bool) -> None:
    torch.save(small_state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)

    assert is_same(read_state_dict(tmp_path / "weights.pth"), small_state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_state_dict_is_taken_out_of_a_checkpoint(tmp_path: Path, key: str) -> None:
    torch.save({key: OrderedDict(small_state_dict()), "epoch": 3}, tmp_path / "checkpoint.pth")

    assert is_same(read_state_dict(tmp_path / "checkpoint.pth"), small_state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_prefixes_are_taken_off(prefix: str) -> None:
    wrapped = {prefix + key: tensor for key, tensor in small_state_dict().items()}

    assert is_same(without_wrappers(wrapped), small_state_dict())


def test_prefix_of_a_compiled_part_is_taken_off() -> None:
    assert without_wrappers({"layer._orig_mod.weight": torch.ones(1)}).keys() == {"layer.weight"}


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "it ran"
    hostile = {**small_state_dict(), "trap": Malicious(trap)}
    torch.save(hostile, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)

    with pytest.raises(UnsafeWeights) as raised:
        read_state_dict(tmp_path / "weights.pth")

    assert not trap.exists()
    assert "safetensors" in (raised.value.hint or "")


def test_bare_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "it ran"
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Malicious(trap)))

    with pytest.raises(UnsafeWeights):
        read_state_dict(tmp_path / "weights.pth")

    assert not trap.exists()


def test_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")

    with pytest.raises(UnsafeWeights) as raised:
        read_state_dict(tmp_path / "model.pth")

    assert "not the whole model" in (raised.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 40, b"\x10\0\0\0\0\0\0\0{" + b"\xff" * 30])
def test_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)

    with pytest.raises(UnsafeWeights):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[torch.ones(1)], {}, {"epoch": 3}, {1: torch.ones(1)}, torch.ones(1)])
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")

    with pytest.raises(UnsafeWeights):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.empty(2, device="meta")], ids=["sparse", "meta"])
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensor_without_plain_numbers_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"weight": tensor}, tmp_path / "weights.pth")

    with pytest.raises(UnsafeWeights, match="tensor"):
        read_state_dict(tmp_path / "weights.pth")


def test_half_read_file_is_refused(tmp_path: Path) -> None:
    save_file(small_state_dict(), tmp_path / "weights.safetensors")
    content = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(content[:-8])

    with pytest.raises(UnsafeWeights):
        read_state_dict(tmp_path / "weights.safetensors")


def test_absent_file_is_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.pth")


def test_weights_of_another_architecture_are_refused_with_their_keys() -> None:
    other = build_empty("resnet18", num_categories=2).state_dict()

    with pytest.raises(IncompatibleWeights) as raised:
        check_state_dict(build_empty("mobilenet_v2", num_categories=2), other)

    assert "fc.weight" in raised.value.unexpected
    assert "classifier.1.weight" in raised.value.missing
    assert "unexpected" in str(raised.value)
    assert "missing" in str(raised.value)
    assert len(str(raised.value)) < 5000


def test_weights_for_other_categories_are_refused_with_both_shapes() -> None:
    with pytest.raises(IncompatibleWeights) as raised:
        check_state_dict(
            build_empty("resnet18", num_categories=3), build_empty("resnet18", num_categories=2).state_dict()
        )

    assert raised.value.mismatched == ("fc.weight: [2, 512] instead of [3, 512]", "fc.bias: [2] instead of [3]")
    assert raised.value.missing == raised.value.unexpected == ()


def test_refused_weights_leave_the_module_as_it_was() -> None:
    module = nn.Linear(3, 2)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}

    with pytest.raises(IncompatibleWeights):
        load_state_dict(module, {"weight": torch.zeros(2, 3)})

    assert is_same(dict(module.state_dict()), before)


def test_plain_dict_loads_into_every_layout_version() -> None:
    trained = build("mnasnet0_5", num_categories=2)
    plain = {key: tensor.clone() for key, tensor in trained.state_dict().items()}
    module = build("mnasnet0_5", num_categories=2)

    load_state_dict(module, plain)

    assert is_same(dict(module.state_dict()), plain)


def test_half_precision_weights_become_the_modules_type() -> None:
    module = nn.Linear(3, 2)

    load_state_dict(module, {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)})

    assert module.weight.dtype == torch.float32
    assert module.weight.tolist() == [[1, 1, 1]] * 2


def test_module_from_weights_evaluates_and_holds_them() -> None:
    architecture = get_architecture("mobilenet_v3_small")
    state_dict = build(architecture.name, num_categories=2).state_dict()

    module = module_from_state_dict(architecture, state_dict, num_categories=2, image_size_px=32)

    assert not module.training
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    assert is_same(dict(module.state_dict()), dict(state_dict))


def test_torchvisions_older_keys_of_densenet_are_understood() -> None:
    architecture = get_architecture("densenet121")
    new = build(architecture.name, num_categories=2).state_dict()
    old = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): tensor
        for key, tensor in new.items()
    }
    assert old.keys() != new.keys()

    module = module_from_state_dict(architecture, old, num_categories=2, image_size_px=64)

    assert is_same(dict(module.state_dict()), dict(new))


def test_torchvisions_older_keys_of_vision_transformers_are_understood() -> None:
    architecture = get_architecture("vit_b_32")
    new = build(architecture.name, num_categories=2, image_size_px=32).state_dict()
    old = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): tensor
        for key, tensor in new.items()
    }
    assert old.keys() != new.keys()

    module = module_from_state_dict(architecture, old, num_categories=2, image_size_px=32)

    assert is_same(dict(module.state_dict()), dict(new))


def test_files_from_before_batch_norms_counters_are_understood() -> None:
    architecture = get_architecture("resnet18")
    new = build(architecture.name, num_categories=2).state_dict()
    old = {key: tensor for key, tensor in new.items() if not key.endswith("num_batches_tracked")}

    module = module_from_state_dict(architecture, old, num_categories=2, image_size_px=64)

    assert is_same(dict(module.state_dict()), dict(new))


def test_auxiliary_heads_are_not_published_and_not_needed() -> None:
    architecture = get_architecture("googlenet")
    trained = build(architecture.name, num_categories=2)

    kept = for_publishing(architecture, trained.state_dict())

    assert not any(key.startswith("aux") for key in kept)
    for state_dict in (kept, trained.state_dict()):
        module = module_from_state_dict(architecture, state_dict, num_categories=2, image_size_px=64)
        assert is_same(dict(module.state_dict()), kept)


def test_views_are_saved_whole(tmp_path: Path) -> None:
    architecture = get_architecture("resnet18")
    grid = torch.arange(6.0).view(2, 3)

    save_state_dict(for_publishing(architecture, {"a": grid.t(), "b": grid}), tmp_path / "weights")

    assert torch.equal(read_state_dict(tmp_path / "weights")["a"], grid.t())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(IncompatibleWeights, match="bias"):
        check_values(nn.Linear(3, 2).state_dict(), {"weight": torch.ones(2, 3), "bias": torch.tensor([1.0, value])})


def test_whole_numbers_where_floats_belong_are_refused() -> None:
    with pytest.raises(IncompatibleWeights, match="weight"):
        check_values(nn.Linear(3, 2).state_dict(), {"weight": torch.ones(2, 3, dtype=torch.int64)})


def test_plain_values_are_taken() -> None:
    own = nn.BatchNorm2d(3).state_dict()

    check_values(own, own)


NETWORK = {"conv.weight": torch.ones(2), "fc.weight": torch.zeros(1)}


class OfTheScript:
    """A class that only the script has."""


@pytest.mark.parametrize(
    "beside",
    [
        {"args": Namespace(lr=0.1, model="resnet18", device=None, steps=[1, 2])},  # torchvision's and timm's scripts
        {"best_acc": np.float64(0.93)},
        {"best_acc": np.float32(0.93), "epoch": np.int64(3), "is_best": np.bool_(True)},
        {"amp": {"scale": 65536.0}, "lr_scheduler": {"last_lr": [0.1]}, "optimizer": {"state": {}, "param_groups": []}},
    ],
)
def test_checkpoint_with_values_of_its_script_is_read(tmp_path: Path, beside: dict[str, object]) -> None:
    torch.save({"model": NETWORK, **beside}, tmp_path / "checkpoint.pth")
    assert is_same(read_state_dict(tmp_path / "checkpoint.pth"), NETWORK)


def test_weights_of_an_averaged_model_are_read(tmp_path: Path) -> None:
    averaged = AveragedModel(nn.Linear(2, 3))
    torch.save(averaged.state_dict(), tmp_path / "ema.pth")
    assert is_same(read_state_dict(tmp_path / "ema.pth"), averaged.module.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"model": NETWORK, "config": OfTheScript()}, 'torch.load("checkpoint.pth", weights_only=False)["model"]'),
        ({"state_dict": NETWORK, "at": Path("a")}, 'torch.load("checkpoint.pth", weights_only=False)["state_dict"]'),
        (nn.Linear(2, 2), 'torch.load("checkpoint.pth", weights_only=False).state_dict()'),
    ],
)
def test_checkpoint_with_classes_is_refused_with_the_line_that_helps(
    tmp_path: Path, content: object, line: str, zipped: bool
) -> None:
    torch.save(content, tmp_path / "upload-7fx", _use_new_zipfile_serialization=zipped)

    with pytest.raises(UnsafeWeights) as raised:
        read_state_dict(tmp_path / "upload-7fx", called="The file")

    words = str(raised.value)
    assert words.startswith("The file is not a state_dict that contains only tensors: it has a ")
    assert re.search(r"has a (pathlib|torch\.nn|.*\.OfTheScript)", words)
    assert line in (raised.value.hint or "")
    assert not re.search(r"\x1b|weights_only|upload-7fx|add_safe_globals", words)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_called_by_its_name(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))  # type: ignore[no-untyped-call]

    with pytest.raises(UnsafeWeights, match=r"script\.pt is TorchScript") as raised:
        read_state_dict(tmp_path / "script.pt")

    assert "torch.jit.load" in (raised.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 40])
def test_refusal_has_no_words_of_torch(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UnsafeWeights, match=r"neither torch\.save nor safetensors wrote it, or it is damaged"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.model.", "model._orig_mod.", "learner.network."])
def test_network_inside_a_larger_module_is_taken_out(tmp_path: Path, prefix: str) -> None:
    """Lightning's checkpoints hold the attributes of the LightningModule: the network, and a criterion beside it."""
    network = build("garment_classifier", num_categories=2).state_dict()
    inside = {f"{prefix}{key}": tensor for key, tensor in network.items()}
    torch.save({"state_dict": {**inside, "criterion.weight": torch.ones(2)}, "epoch": 1}, tmp_path / "last.ckpt")
    draft = ManifestDraft(
        architecture="garment_classifier",
        categories=("cat", "dog"),
        preset=get_architecture("garment_classifier").preset,
        origin="uploaded",
    )
    registry = Registry(tmp_path / "registry")

    version = publish_own_weights(registry, "garments", tmp_path / "last.ckpt", draft, now=datetime.now(UTC))

    assert is_same(registry.state_dict(version), network)
