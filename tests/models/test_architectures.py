from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import architectures
from models.architectures import catalog
from models.architectures.architecture import REGISTERED, register, split_outputs
from models.architectures.catalog import build, build_empty, get_architecture, head_parameter_names, layer_table, names
from models.architectures.garment_classifier import GARMENTS
from models.errors import UnknownArchitecture, UnsupportedPreset
from models.manifest import Preset

# One of each family of torchvision's.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *(
        "maxvit_t",
        "mnasnet0_5",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "regnet_y_400mf",
        "resnet18",
        "shufflenet_v2_x0_5",
    ),
    *("squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32"),
)


@pytest.mark.parametrize("name", names("classification"))
def test_catalogue_entry_is_complete(name: str) -> None:
    architecture = get_architecture(name)

    assert architecture.name == name
    assert architecture.tasks == ("classification",)
    assert architecture.categories
    assert (architecture.default_weights is None) == (not architecture.weights)
    if not architecture.weights:  # those with weights are checked by family, below
        assert architecture.parameters == sum(layer.parameters for layer in layer_table(name))
    architecture.check_preset(architecture.preset)
    for entry in architecture.weights:
        assert len(entry.categories) == 1000
        assert 0.5 < entry.metrics["imagenet1k/top1"] < entry.metrics["imagenet1k/top5"] < 1
        assert entry.file_name.endswith(".pth")
        assert 0.4 < entry.size_bytes / (4 * architecture.parameters) < 2.1  # some are in half precision
        architecture.check_preset(entry.preset)


@pytest.mark.parametrize("name", FAMILIES)
def test_published_parameters_are_as_many_as_the_catalogue_says(name: str) -> None:
    module = build_empty(name, num_categories=1000)

    assert sum(parameter.numel() for parameter in module.parameters()) == get_architecture(name).parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_add_up_to_all_parameters(name: str) -> None:
    assert sum(layer.parameters for layer in layer_table(name)) == get_architecture(name).parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_head_is_the_last_layer(name: str) -> None:
    head = head_parameter_names(name)
    state_dict = build_empty(name, num_categories=7).state_dict()

    assert 1 <= len(head) <= 2
    assert {state_dict[key].shape[0] for key in head} == {7}
    assert [key for key in state_dict if key in head] == list(state_dict)[-len(head) :]


def test_vgg16_offers_no_weights_that_cannot_classify() -> None:
    assert [entry.name for entry in get_architecture("vgg16").weights] == ["IMAGENET1K_V1"]


def test_empty_module_takes_no_memory() -> None:
    assert all(parameter.is_meta for parameter in build_empty("vit_h_14", num_categories=3).parameters())


def test_same_seed_builds_the_same_weights() -> None:
    torch.manual_seed(3)
    one = build("mobilenet_v3_small", num_categories=2).state_dict()
    torch.manual_seed(3)
    other = build("mobilenet_v3_small", num_categories=2).state_dict()

    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("wrong", "near"), [("resnet", "resnet18"), ("RESNET50", "resnet50"), ("vit_b16", "vit_b_16")])
def test_unknown_architecture_names_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(UnknownArchitecture) as raised:
        get_architecture(wrong)

    assert near in (raised.value.hint or "")


def test_unknown_architecture_like_none_has_a_hint_too() -> None:
    with pytest.raises(UnknownArchitecture) as raised:
        get_architecture("x" * 500)

    assert len(str(raised.value)) < 120
    assert "resnet18" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("name", "size_px", "hint"),
    [
        ("garment_classifier", 32, "28 px only"),
        ("alexnet", 62, "from 63 px"),
        ("resnet18", 31, "from 32 px"),
        ("vit_b_16", 100, "multiples of 16 px"),
        ("vit_h_14", 224 + 7, "multiples of 14 px"),
        ("maxvit_t", 256, "multiples of 224 px"),
    ],
)
def test_size_the_network_does_not_take_is_refused(name: str, size_px: int, hint: str) -> None:
    with pytest.raises(UnsupportedPreset, match=f"{size_px} px") as raised:
        build(name, num_categories=2, image_size_px=size_px)

    assert hint in (raised.value.hint or "")


def test_channels_the_network_does_not_take_are_refused() -> None:
    grey = Preset(channels=1, resize_px=64, crop_px=64, mean=(0.5,), std=(0.5,))

    with pytest.raises(UnsupportedPreset, match="1 channel"):
        get_architecture("resnet18").check_preset(grey)


@pytest.mark.parametrize(("name", "size_px"), [("vit_b_16", 64), ("maxvit_t", 448), ("swin_t", 50), ("resnet18", 97)])
def test_other_size_is_built_for(name: str, size_px: int) -> None:
    module = build_empty(name, num_categories=2, image_size_px=size_px).to("meta").eval()

    assert module(torch.empty(1, 3, size_px, size_px, device="meta")).shape == (1, 2)


@pytest.mark.parametrize(("name", "size_px", "heads"), [("googlenet", 64, 2), ("inception_v3", 299, 1)])
def test_auxiliary_heads_answer_in_training_only(name: str, size_px: int, heads: int) -> None:
    module = build_empty(name, num_categories=2, image_size_px=size_px, auxiliary=True).to("meta")
    pixels = torch.empty(2, 3, size_px, size_px, device="meta")

    logits, auxiliary = split_outputs(module.train()(pixels))
    assert logits.shape == (2, 2)
    assert [head.shape for head in auxiliary] == [(2, 2)] * heads
    assert split_outputs(module.eval()(pixels))[1] == ()
    assert get_architecture(name).auxiliary_weight > 0


def test_inception_on_small_images_has_no_auxiliary_head() -> None:
    module = build_empty("inception_v3", num_categories=2, image_size_px=298, auxiliary=True)

    assert not any(key.startswith("AuxLogits") for key in module.state_dict())


def test_networks_without_auxiliary_heads_answer_with_logits_alone() -> None:
    logits = torch.zeros(2, 3)

    assert split_outputs(logits) == (logits, ())


def test_garment_classifier_is_the_tutorials() -> None:
    architecture = get_architecture("garment_classifier")
    module = build("garment_classifier", num_categories=10)

    assert sum(parameter.numel() for parameter in module.parameters()) == architecture.parameters == 44_426
    assert module(torch.zeros(4, 1, 28, 28)).shape == (4, 10)
    assert architecture.categories == GARMENTS
    assert (architecture.preset.channels, architecture.preset.mean, architecture.preset.std) == (1, (0.5,), (0.5,))


def test_garment_classifier_learns_two_patterns() -> None:
    torch.manual_seed(0)
    module = build("garment_classifier", num_categories=2)
    pixels = torch.zeros(8, 1, 28, 28)
    pixels[:4, :, :14], pixels[4:, :, :, :14] = 1.0, 1.0
    targets = torch.tensor([0] * 4 + [1] * 4)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)

    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(pixels), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    assert module(pixels).argmax(1).tolist() == targets.tolist()


NEW_FILE = """
from torch import nn
from models.architectures.architecture import Architecture, register
from models.manifest import Preset

@register("one_pixel", task="classification")
def one_pixel(name: str) -> Architecture:
    return Architecture(
        name=name,
        tasks=("classification",),
        family="one_pixel",
        parameters=6,
        preset=Preset(channels=1, resize_px=1, crop_px=1, mean=(0.5,), std=(0.5,)),
        categories=("dark", "grey", "light"),
        min_size_px=1,
        max_size_px=1,
        builder=lambda wanted: nn.Sequential(nn.Flatten(), nn.Linear(1, wanted.num_categories)),
    )
"""


@pytest.fixture
def architecture_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an architecture whose file is all that was added to the package."""
    (tmp_path / "one_pixel.py").write_text(NEW_FILE)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    monkeypatch.setitem(REGISTERED, "classification", dict(REGISTERED["classification"]))
    catalog._registered.cache_clear()
    yield "one_pixel"
    sys.modules.pop("models.architectures.one_pixel")


def test_architecture_of_a_new_file_is_in_the_catalogue(architecture_of_one_file: str) -> None:
    assert architecture_of_one_file in names("classification")
    assert architecture_of_one_file not in names("detection")
    assert sum(layer.parameters for layer in layer_table("one_pixel")) == get_architecture("one_pixel").parameters
    assert build("one_pixel", num_categories=2)(torch.zeros(4, 1, 1, 1)).shape == (4, 2)


def test_second_architecture_of_the_same_name_is_refused() -> None:
    with pytest.raises(ValueError, match="two architectures are called 'segnet'"):
        register("segnet", task="detection")(get_architecture)

    assert get_architecture("segnet").tasks == ("segmentation",)
