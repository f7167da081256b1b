"""Selective search: boxes that may hold an object, from an image alone (Uijlings et al. 2013).

Segments (Felzenszwalb and Huttenlocher 2004) are joined step by step with the neighbour most alike in colour, texture,
size and fill; the box around every segment on the way is a proposal. OpenCV's, in its fast mode.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from models.errors import ProposalsUnavailable

MAX_PROPOSALS = 2000  # about what R-CNN took of an image: Girshick et al. 2014, section 2.2
_LONGER_PX = 500  # Girshick et al. searched images 500 px wide
_SMALLEST_SIDE_PX = 4  # of a proposal


def compute_proposals(image: Tensor, *, limit: int = MAX_PROPOSALS) -> Tensor:
    """Boxes of `image`, uint8 [3, h, w] RGB: float32 [P, 4] xyxy px, at least one and at most `limit`, largest first.

    Takes about a second; the same image gives the same boxes. Of more than `limit`, boxes of all sizes stay.
    Raises ProposalsUnavailable if OpenCV is not installed with its extra modules.
    """
    height, width = image.shape[-2:]
    factor = min(1.0, _LONGER_PX / max(height, width))
    small = [max(1, round(height * factor)), max(1, round(width * factor))]
    boxes = _search(transforms.resize(image, small, antialias=True))
    boxes = boxes * boxes.new_tensor((width / small[1], height / small[0]) * 2)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= _SMALLEST_SIDE_PX).all(1)]
    if not len(boxes):
        return boxes.new_tensor([[0, 0, width, height]])
    kept = torch.linspace(0, len(boxes) - 1, min(limit, len(boxes))).round().long()
    return _largest_first(boxes)[kept]


def _search(image: Tensor) -> Tensor:
    """float32 [P, 4] xyxy px of uint8 [3, h, w], in no order: OpenCV ranks them by chance."""
    try:
        from cv2 import ximgproc
    except ImportError as error:
        raise ProposalsUnavailable(
            f"Selective search needs OpenCV with its extra modules: {error}.",
            hint="Install opencv-contrib-python-headless, and no other package of OpenCV beside it.",
        ) from error
    search = ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image.flip(0).permute(1, 2, 0).contiguous().numpy())  # BGR
    search.switchToSelectiveSearchFast()
    boxes = torch.from_numpy(search.process()).float()  # xywh
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)


def _largest_first(boxes: Tensor) -> Tensor:
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    by_place = sorted(range(len(boxes)), key=lambda index: (-float(sizes[index]), boxes[index].tolist()))
    return boxes[by_place]
