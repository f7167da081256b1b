from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from models.architectures.catalog import build, get_architecture
from models.images.presets import (
    apply_preset,
    convert_channels,
    frame_view,
    levels_of,
    normalise,
    preset_with_size,
    resize_and_crop,
)
from models.manifest import Preset
from tests.builders import gradient_tensor

IMAGENET = Preset(resize_px=256, crop_px=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SIZES = [(300, 500), (37, 91), (600, 450), (64, 64), (500, 65), (256, 256)]


def noisy_image(height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(height * width)
    noise = torch.randint(-20, 21, (3, height, width), generator=random)
    return (gradient_tensor(width, height, seed=height).int() + noise).clamp(0, 255).to(torch.uint8)


def reference(preset: Preset) -> ImageClassification:
    return ImageClassification(
        crop_size=preset.crop_px,
        resize_size=preset.resize_px,
        mean=preset.mean,
        std=preset.std,
        interpolation=InterpolationMode(preset.interpolation),
    )


def levels_apart(one: Tensor, other: Tensor, preset: Preset) -> Tensor:
    """Difference in steps of 1/255 before normalisation."""
    return (one - other).abs() * torch.tensor(preset.std).view(-1, 1, 1) * 255


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bilinear_preset_is_at_most_one_level_from_torchvisions_on_tensors(height: int, width: int) -> None:
    image = noisy_image(height, width)

    difference = levels_apart(apply_preset(IMAGENET, image), reference(IMAGENET)(image), IMAGENET)

    assert difference.max() < 1.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_preset_is_torchvisions_on_pillow_images_but_for_rare_levels(
    interpolation: str, height: int, width: int
) -> None:
    preset = Preset.model_validate({**IMAGENET.model_dump(), "interpolation": interpolation})
    image = noisy_image(height, width)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())

    difference = levels_apart(apply_preset(preset, image), reference(preset)(picture), preset)

    assert difference.max() < 3.01
    assert (difference > 0.5).float().mean() < 0.02


def test_preset_without_resizing_is_torchvisions_to_the_bit() -> None:
    preset = IMAGENET.model_copy(update={"resize_px": 224})
    image = noisy_image(224, 300)

    assert torch.equal(apply_preset(preset, image), reference(preset)(image))


def test_batch_is_normalised_as_its_images_are() -> None:
    images = torch.stack([noisy_image(20, 30), noisy_image(20, 30).flip(1)])

    together = normalise(IMAGENET, images)

    assert together.dtype == torch.float32
    assert torch.equal(together, torch.stack([normalise(IMAGENET, image.unsqueeze(0))[0] for image in images]))


def test_normalising_leaves_the_bytes_alone() -> None:
    images = torch.full((1, 3, 4, 4), 9, dtype=torch.uint8)

    normalise(IMAGENET, images)

    assert bool((images == 9).all())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 2), (7, 7)])
def test_odd_sizes_give_the_network_its_size(height: int, width: int) -> None:
    image = torch.full((3, height, width), 128, dtype=torch.uint8)

    prepared = resize_and_crop(IMAGENET, image)

    assert prepared.shape == (3, 224, 224)
    assert bool((prepared == 128).all())


def test_very_long_image_is_seen_in_its_middle() -> None:
    image = torch.zeros(3, 4, 4000, dtype=torch.uint8)
    image[:, :, 1990:2010] = 255

    assert resize_and_crop(IMAGENET, image).min() == 255


def test_luma_is_pillows() -> None:
    image = noisy_image(50, 70)

    grey = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))

    assert np.array_equal(convert_channels(image, 1)[0].numpy(), grey)


def test_luma_of_grey_keeps_its_values() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)

    assert torch.equal(convert_channels(levels.expand(3, 16, 16), 1), levels)


def test_grey_preset_gives_one_channel() -> None:
    preset = get_architecture("garment_classifier").crop_preset

    assert apply_preset(preset, noisy_image(40, 60)).shape == (1, 28, 28)


def test_other_size_keeps_the_share_of_the_picture() -> None:
    assert preset_with_size(IMAGENET, 112) == IMAGENET.model_copy(update={"resize_px": 128, "crop_px": 112})


def test_same_size_keeps_the_preset() -> None:
    assert preset_with_size(IMAGENET, 224) == IMAGENET


def test_absurd_size_is_refused() -> None:
    with pytest.raises(ValidationError):
        preset_with_size(IMAGENET, 100_000)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_preset_of_half_equals_transform_input(name: str) -> None:
    architecture = get_architecture(name)
    module = build(name, num_categories=5, auxiliary=False).eval()
    image = noisy_image(310, 330)
    imagenet = architecture.crop_preset.model_copy(update={"mean": IMAGENET.mean, "std": IMAGENET.std})

    with torch.inference_mode():
        ours = module(apply_preset(architecture.crop_preset, image).unsqueeze(0))
        setattr(module, "transform_input", True)  # noqa: B010 - torch declares no such attribute
        theirs = module(apply_preset(imagenet, image).unsqueeze(0))

    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_levels_of_what_was_normalised_are_the_bytes_again() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)

    assert levels_of(IMAGENET, normalise(IMAGENET, images)).round().equal(images.float())


def test_floats_between_two_levels_are_at_most_half_a_level_away() -> None:
    random = torch.Generator().manual_seed(1)
    levels = torch.rand(2, 3, 32, 32, generator=random) * 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    normalised = (levels / 255 - mean) / std

    nearest = normalise(IMAGENET, levels_of(IMAGENET, normalised).round().to(torch.uint8))

    assert levels_apart(nearest, normalised, IMAGENET).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("resize_px", "crop_px"), [(256, 224), (255, 224), (232, 224), (28, 28), (33, 28), (31, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_framed_view_is_what_the_network_sees(resize_px: int, crop_px: int, channels: int) -> None:
    half = (0.5,) * channels
    preset = Preset(channels=channels, resize_px=resize_px, crop_px=crop_px, mean=half, std=half)
    view = convert_channels(noisy_image(crop_px, crop_px), channels)

    assert resize_and_crop(preset, frame_view(preset, view)).equal(view)


def test_view_larger_than_the_resized_picture_cannot_be_framed() -> None:
    preset = Preset(resize_px=20, crop_px=24, mean=(0.5,) * 3, std=(0.5,) * 3)

    with pytest.raises(ValueError, match="24 px is not part of an image of 20 px"):
        frame_view(preset, torch.zeros(3, 24, 24, dtype=torch.uint8))
