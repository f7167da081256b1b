from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from models.architectures.box_coding import decode, encode
from models.architectures.catalog import build
from models.architectures.rcnn import CONTEXT_PX, WARPED_PX, warp
from models.architectures.region_heads import Regions, region_losses, sample_regions
from models.architectures.region_proposals import compute_proposals
from models.errors import ProposalsUnavailable
from tests.models.test_yolo import rectangles

SMALL = {"backbone": "mobilenet_v3_small"}


def picture() -> Tensor:
    """uint8 [3, 80, 120], a bright square at (30, 20) to (70, 60) on grey noise."""
    image = torch.randint(90, 110, (3, 80, 120), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[:, 20:60, 30:70] = torch.tensor([250, 40, 40], dtype=torch.uint8)[:, None, None]
    return image


def test_proposals_find_what_stands_out() -> None:
    proposals = compute_proposals(picture())

    assert proposals.dtype == torch.float32
    assert (proposals - torch.tensor([30.0, 20, 70, 60])).abs().amax(1).min() <= 3
    assert bool(((proposals[:, 2:] - proposals[:, :2]) >= 4).all())
    assert bool((proposals >= 0).all())
    assert bool((proposals <= torch.tensor([120.0, 80, 120, 80])).all())


def test_proposals_are_the_same_each_time_and_largest_first() -> None:
    first, second = compute_proposals(picture()), compute_proposals(picture())

    assert torch.equal(first, second)
    sizes = (first[:, 2:] - first[:, :2]).prod(1)
    assert bool((sizes.diff() <= 0).all())


def test_limited_proposals_are_of_all_sizes() -> None:
    everything, some = compute_proposals(picture()), compute_proposals(picture(), limit=3)

    assert len(everything) > 3
    assert torch.equal(some[[0, 2]], everything[[0, -1]])
    assert len(some) == 3


def test_proposals_of_a_large_picture_are_in_its_pixels() -> None:
    image = torch.full((3, 800, 1200), 100, dtype=torch.uint8)
    image[:, 200:600, 300:700] = torch.tensor([250, 40, 40], dtype=torch.uint8)[:, None, None]

    proposals = compute_proposals(image)

    assert (proposals - torch.tensor([300.0, 200, 700, 600])).abs().amax(1).min() <= 12


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (8, 8)])
def test_picture_with_nothing_in_it_is_one_proposal(height: int, width: int) -> None:
    assert compute_proposals(torch.zeros(3, height, width, dtype=torch.uint8)).tolist() == [[0, 0, width, height]]


def test_missing_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)

    with pytest.raises(ProposalsUnavailable) as raised:
        compute_proposals(picture())

    assert "opencv-contrib-python-headless" in (raised.value.hint or "")


def test_decoding_undoes_encoding() -> None:
    generator = torch.Generator().manual_seed(0)
    corners, sides = torch.rand(2, 50, 2, generator=generator) * 100, torch.rand(2, 50, 2, generator=generator) * 50 + 1
    boxes, proposals = torch.cat((corners, corners + sides), dim=2)

    torch.testing.assert_close(decode(encode(boxes, proposals), proposals), boxes)


def test_encoding_is_the_papers() -> None:
    corrections = encode(torch.tensor([[10.0, 10, 50, 30]]), torch.tensor([[0.0, 0, 20, 20]]))

    # The middle goes from (10, 10) to (30, 20), the width from 20 to 40; scaled by 10 and 5.
    assert corrections.tolist() == [pytest.approx([10.0, 5.0, 5 * 0.693147, 0.0], abs=1e-4)]


def test_box_cannot_grow_without_limit() -> None:
    box = decode(torch.tensor([[0.0, 0, 1e9, 0]]), torch.tensor([[0.0, 0, 16, 16]]))

    assert box.tolist() == [pytest.approx([8 - 500, 0, 8 + 500, 16])]


def test_warped_region_has_its_box_in_the_middle_and_context_around() -> None:
    image = torch.zeros(3, 200, 300)
    image[:, 60:100, 80:160] = 1.0

    (region,) = warp(image, torch.tensor([[80.0, 60, 160, 100]]))

    assert region.shape == (3, WARPED_PX, WARPED_PX)
    # Away from the blurred edge, bright inside and dark outside the frame of CONTEXT_PX.
    assert float(region[:, CONTEXT_PX + 3 : -CONTEXT_PX - 3, CONTEXT_PX + 3 : -CONTEXT_PX - 3].min()) == pytest.approx(
        1
    )
    assert float(region[:, : CONTEXT_PX - 3].max()) == 0
    assert float(region[:, :, -CONTEXT_PX + 3 :].max()) == 0


def test_warped_region_beyond_the_picture_is_the_mean() -> None:
    (region,) = warp(torch.ones(3, 50, 50), torch.tensor([[0.0, 0, 50, 50]]))

    assert float(region[:, : CONTEXT_PX - 5].max()) == 0
    assert float(region[:, 20:-20, 20:-20].min()) == pytest.approx(1)


def test_regions_to_learn_from_are_a_quarter_objects() -> None:
    torch.manual_seed(0)
    near = torch.tensor([[0.0, 0, 20, 20]]) + torch.arange(20.0)[:, None] / 10
    far = torch.tensor([[60.0, 60, 80, 80]]).repeat(40, 1)
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([2])}

    regions = sample_regions(torch.cat((near, far)), target, count=16)

    assert regions.labels.tolist() == [2] * 4 + [0] * 12
    torch.testing.assert_close(decode(regions.corrections, regions.boxes)[:4], target["boxes"].expand(4, 4))
    assert not regions.corrections[4:].any()


def test_background_is_near_misses_where_there_are_any() -> None:
    near_miss, elsewhere = [10.0, 0, 30, 20], [60.0, 60, 80, 80]
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([1])}

    with_one = sample_regions(torch.tensor([near_miss, elsewhere]), target, count=8, background_iou=0.1)
    without = sample_regions(torch.tensor([elsewhere]), target, count=8, background_iou=0.1)

    assert with_one.boxes[with_one.labels == 0].tolist() == [near_miss]
    assert without.boxes[without.labels == 0].tolist() == [elsewhere]


def test_region_losses_are_by_hand() -> None:
    regions = Regions(
        boxes=torch.zeros(2, 4),
        labels=torch.tensor([2, 0]),
        corrections=torch.tensor([[0.5, 0.0, 0.0, 2.0], [0, 0, 0, 0]]),
    )
    corrections = torch.full((2, 2, 4), 9.0)  # only those of the object's category count
    corrections[0, 1] = 0.0

    losses = region_losses(torch.zeros(2, 3), corrections, [regions])

    assert float(losses["loss_categories"]) == pytest.approx(1.098612, rel=1e-5)
    assert float(losses["loss_boxes"]) == pytest.approx((0.5 * 0.5**2 + (2 - 0.5)) / 2)


@pytest.mark.usefixtures("one_thread")
def test_fast_rcnn_learns_coloured_rectangles_from_given_proposals() -> None:
    torch.manual_seed(0)
    module = build("fast_rcnn", num_categories=2, image_size_px=64, options=SMALL)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    starts, sides = torch.rand(200, 2) * 44, torch.rand(200, 2) * 28 + 10
    proposals = torch.cat((starts, (starts + sides).clamp(max=64)), dim=1)
    history: list[float] = []
    for step in range(30):
        images, targets = zip(*(rectangles(4 * step + one) for one in range(4)), strict=True)
        losses = module(list(images), list(targets), proposals=[proposals] * 4)
        optimizer.zero_grad()
        losses["loss_categories"].backward()
        optimizer.step()
        history.append(float(losses["loss_categories"].detach()))

    assert sum(history[-5:]) < 0.6 * sum(history[:5])


@pytest.mark.parametrize("name", ["rcnn", "fast_rcnn"])
def test_detector_without_given_proposals_searches(name: str) -> None:
    torch.manual_seed(0)
    module = build(name, num_categories=2, image_size_px=64, options=SMALL).eval()
    image = picture()[:, 10:70, 20:80]

    with torch.inference_mode():
        (searched,) = module([image / 255])
        (given,) = module([image / 255], proposals=[compute_proposals(image)])

    assert len(searched["boxes"])
    torch.testing.assert_close(searched["boxes"], given["boxes"])


@pytest.mark.parametrize("name", ["rcnn", "fast_rcnn"])
def test_image_with_no_proposals_has_no_detections(name: str) -> None:
    module = build(name, num_categories=2, image_size_px=64, options=SMALL).eval()

    with torch.inference_mode():
        (found,) = module([torch.rand(3, 64, 64)], proposals=[torch.zeros(0, 4)])

    assert found["boxes"].shape == (0, 4)
