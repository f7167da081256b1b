"""Every pixel of the image gets its category from the logits, at the image's own size."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from models.architectures.catalog import build, get_architecture
from models.drawing.colours import colour_of
from models.images.presets import normalise, preset_with_size, scale
from models.manifest import ManifestDraft
from models.masks.regions import decode_region
from models.predictors import loading
from models.predictors.segmentation import SegmentationSelection, Segmenter, label_map
from models.store.registry import Registry
from tests.builders import gradient_tensor
from tests.models.spotter import picture, segmenter

ALL = SegmentationSelection()


def test_segments_cover_the_picture_once_and_the_largest_comes_first() -> None:
    image = picture(640, 320, ("red", 100, 60, 300, 200), ("blue", 400, 100, 500, 180))

    (found,) = segmenter().predict([image], ALL)

    assert [(segment.label, segment.index) for segment in found.segments] == [
        ("__background__", 0),
        ("red", 1),
        ("blue", 2),
    ]
    assert sum(segment.share for segment in found.segments) == pytest.approx(1)
    assert found.segments[1].share == pytest.approx(200 * 140 / (640 * 320), rel=0.03)
    masks = [decode_region(segment.mask) for segment in found.segments if segment.mask]
    assert (np.sum(masks, axis=0) == 1).all()
    red = picture(640, 320, ("red", 100, 60, 300, 200))[0].numpy() == 255
    assert (masks[1] & red).sum() / (masks[1] | red).sum() > 0.97


def test_categories_that_are_not_asked_for_belong_to_none() -> None:
    image = picture(320, 160, ("red", 100, 60, 200, 100), ("blue", 10, 10, 60, 60))

    (found,) = segmenter().predict([image], SegmentationSelection(categories=frozenset({"blue"}), masks="png"))

    assert [segment.label for segment in found.segments] == ["blue"]
    assert found.segments[0].mask is None
    assert found.map_png is not None
    assert set(np.unique(np.asarray(Image.open(BytesIO(found.map_png))))) == {2, 255}


def test_map_is_an_indexed_png_in_the_categories_colours() -> None:
    image = picture(320, 160, ("red", 100, 60, 200, 100))

    (found,) = segmenter().predict([image], SegmentationSelection(masks="png"))

    assert found.map_png is not None
    indexed = Image.open(BytesIO(found.map_png))
    assert (indexed.mode, indexed.size) == ("P", (320, 160))
    assert (indexed.getpixel((150, 80)), indexed.getpixel((5, 5))) == (1, 0)
    assert indexed.convert("RGB").getpixel((150, 80)) == colour_of(1)
    assert indexed.convert("RGB").getpixel((5, 5)) == (0, 0, 0)


def test_pixels_the_network_is_not_sure_of_belong_to_none() -> None:
    logits = torch.tensor([[[2.0, 0.1]], [[0.0, 0.0]]])

    labels = label_map(logits, width=2, height=1, score_threshold=0.6)

    assert labels.tolist() == [[0, 255]]


def test_large_picture_is_labelled_in_strips_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(4, 13, 17, generator=torch.Generator().manual_seed(0))
    at_once = interpolate(logits[None], size=(101, 90), mode="bilinear", align_corners=False)[0].argmax(dim=0)
    monkeypatch.setattr("models.predictors.segmentation._STRIP_PIXELS", 90 * 7)

    in_strips = label_map(logits, width=90, height=101)

    assert (torch.from_numpy(in_strips) == at_once).float().mean() > 0.999


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_network_that_halves_its_maps_bears_thin_pictures(size: tuple[int, int]) -> None:
    architecture = get_architecture("segnet")
    module = build("segnet", num_categories=2, image_size_px=128)
    preset = preset_with_size(architecture.scale_preset, 128)
    served = Segmenter(module, categories=("a", "b"), preset=preset, device="cpu")

    (found,) = served.predict([picture(*size)], ALL)

    assert sum(segment.share for segment in found.segments) == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_picture_of_any_size_is_answered(size: tuple[int, int]) -> None:
    (found,) = segmenter().predict([picture(*size, ("red", 0, 0, *size))], ALL)

    assert [(segment.label, segment.share) for segment in found.segments] == [("red", 1.0)]


def test_registered_network_answers_as_it_does_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = get_architecture("lraspp_mobilenet_v3_large")
    preset = preset_with_size(architecture.scale_preset, 96)
    module = build(architecture.name, num_categories=3, image_size_px=96).eval()
    for parameter in module.parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)  # fresh weights fade to logits that rounding decides between
    draft = ManifestDraft(
        task="segmentation", architecture=architecture.name, categories=("a", "b", "c"), preset=preset
    )
    registry = Registry(tmp_path)
    version = registry.publish("painter", module.state_dict(), draft, now=datetime.now(UTC))
    image = gradient_tensor(200, 150)

    served = loading.load_version(registry, version, "cpu")
    assert isinstance(served, Segmenter)
    (found,) = served.predict([image], ALL)

    module = module.to(memory_format=torch.channels_last)  # as served: the order of summing decides between near-ties
    with torch.inference_mode():
        seen = normalise(preset, scale(preset, image)[None]).contiguous(memory_format=torch.channels_last)
        logits = module(seen)["out"]
    labels = interpolate(logits, size=(150, 200), mode="bilinear", align_corners=False)[0].argmax(dim=0)
    for segment in found.segments:
        assert segment.mask is not None
        assert (torch.from_numpy(decode_region(segment.mask)) == (labels == segment.index)).float().mean() > 0.999
