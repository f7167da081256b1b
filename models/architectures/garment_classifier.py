"""A small convolutional network for grey images of garments, 1 x 28 x 28.

Source: the PyTorch tutorial "Training with PyTorch", after LeNet-5 (LeCun et al. 1998); data: Fashion-MNIST
(Xiao et al. 2017).
"""

from __future__ import annotations

from torch import Tensor, nn

from models.architectures.architecture import Architecture, register
from models.manifest import Preset

GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_SIZE_PX = 28


class GarmentClassifier(nn.Module):
    """Two convolutions, each followed by a maximum over 2 x 2, and three linear layers."""

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_categories)
        self.activation = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.activation(self.conv1(images)))  # [B, 6, 12, 12]
        features = self.pool(self.activation(self.conv2(features)))  # [B, 16, 4, 4]
        hidden = self.activation(self.fc1(features.flatten(1)))  # [B, 120]
        hidden = self.activation(self.fc2(hidden))  # [B, 84]
        logits: Tensor = self.fc3(hidden)  # [B, K]
        return logits


@register("garment_classifier", task="classification")
def garment_classifier(name: str) -> Architecture:
    """The catalogue's entry."""
    return Architecture(
        name=name,
        tasks=("classification",),
        family="lenet",
        parameters=44_426,
        preset=Preset(channels=1, resize_px=_SIZE_PX, crop_px=_SIZE_PX, mean=(0.5,), std=(0.5,)),
        categories=GARMENTS,
        min_size_px=_SIZE_PX,
        max_size_px=_SIZE_PX,
        builder=lambda wanted: GarmentClassifier(wanted.num_categories),
    )
