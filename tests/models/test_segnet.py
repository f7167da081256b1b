from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.architectures.catalog import build
from models.architectures.segnet import unpool

SMALL = {"backbone": "vgg11_bn", "width": "quarter"}


def test_unpooling_puts_maxima_back_where_they_were() -> None:
    maps = torch.tensor([[[[1.0, 2, 0, 5], [4, 3, 6, 0], [0, 0, 9, 8], [0, 7, 0, 0]]]])
    pooled, positions = functional.max_pool2d(maps, 2, return_indices=True)

    restored = unpool(pooled, positions, (4, 4))

    assert restored[0, 0].tolist() == [[0, 0, 0, 0], [4, 0, 6, 0], [0, 0, 9, 0], [0, 7, 0, 0]]


def test_unpooling_restores_odd_sizes() -> None:
    maps = torch.rand(1, 2, 5, 7)
    pooled, positions = functional.max_pool2d(maps, 2, return_indices=True)

    restored = unpool(pooled, positions, (5, 7))

    assert restored.shape == maps.shape
    assert not restored[:, :, 4].any()
    kept = restored > 0
    assert torch.equal(restored[kept], maps[kept])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 101), (32, 320)])
def test_every_pixel_has_logits_whatever_the_size(height: int, width: int) -> None:
    module = build("segnet", num_categories=4, options=SMALL).eval()

    with torch.inference_mode():
        assert module(torch.rand(1, 3, height, width))["out"].shape == (1, 4, height, width)


@pytest.mark.usefixtures("one_thread")
def test_segnet_learns_where_a_square_is() -> None:
    torch.manual_seed(0)
    module = build("segnet", num_categories=2, options=SMALL)
    images, labels = torch.rand(4, 3, 64, 64) * 0.2, torch.zeros(4, 64, 64, dtype=torch.int64)
    for index, corner in enumerate((4, 12, 20, 28)):
        images[index, :, corner : corner + 30, 10:40] += 1
        labels[index, corner : corner + 30, 10:40] = 1
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(module(images)["out"], labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    found = module(images)["out"].argmax(1)
    assert float((found == labels).float().mean()) > 0.95
