"""RetinaNet (Lin et al. 2017) and FCOS (Tian et al. 2019): a sigmoid for every category at every anchor.

B images, A anchors of all levels, K categories with one for the background that nothing is meant to have, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import clip_boxes_to_image

from models.backends.detection.candidates import best_of_groups, suppressed
from models.backends.detection.grids import Grids
from models.backends.detection.parts import Detections, Network
from models.backends.detection.pixels import Pixels
from models.backends.part import Part

_MARGIN = 1 - 1e-4  # lowers the threshold of logits, because scores are compared once more


class SigmoidNetwork(nn.Module):
    """Normalised pixels to logits, float32 [B, A, K], and corrections of the anchors, float32 [B, A, 4].

    FCOS adds the logits of centre-ness, float32 [B, A, 1].
    """

    def __init__(self, module: RetinaNet | FCOS) -> None:
        super().__init__()
        self.backbone, self.head = module.backbone, module.head

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """batch: float32 [B, 3, H, W]."""
        dtype = next(self.backbone.parameters()).dtype
        answers = self.head(list(self.backbone(batch.to(dtype)).values()))
        return tuple(
            answers[name].float() for name in ("cls_logits", "bbox_regression", "bbox_ctrness") if name in answers
        )


class SplitSigmoid:
    """See SplitDetector."""

    def __init__(self, module: RetinaNet | FCOS) -> None:
        self.module = module
        transform = module.transform
        self._pixels = Pixels(mean=transform.image_mean, std=transform.image_std, multiple_px=transform.size_divisible)
        self._grids = Grids(module.backbone, module.anchor_generator)
        self.networks: Mapping[str, nn.Module] = {"network": SigmoidNetwork(module)}

    def parts(self) -> tuple[Part, ...]:
        """See SplitDetector."""
        return (self._pixels.part(self.networks["network"]),)

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """See SplitDetector."""
        module, (height, width) = self.module, batch.shape[-2:]
        logits, codes, *nearness = networks["network"](self._pixels.prepare(batch))
        grid = self._grids.at(*self._pixels.padded(height, width), logits.device)
        images, places, labels, scores = candidates(logits, *nearness, threshold=module.score_thresh)
        levels = len(grid.counts)
        best = best_of_groups(
            scores, images * levels + grid.levels[places], count=len(batch) * levels, most=module.topk_candidates
        )
        images, places, labels = images[best], places[best], labels[best]
        decode = module.box_coder.decode if isinstance(module, FCOS) else module.box_coder.decode_single
        found = suppressed(
            clip_boxes_to_image(decode(codes[images, places], grid.anchors[places]), (height, width)),
            scores[best],
            labels,
            images,
            count=len(batch),
            iou_threshold=module.nms_thresh,
            most=module.detections_per_img,
        )
        # Scores of the background count up to here, as in torchvision; the catalogue's networks drop them at the end.
        return [{name: tensor[one["labels"] > 0] for name, tensor in one.items()} for one in found]


def candidates(
    logits: Tensor, nearness: Tensor | None = None, *, threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns image, anchor and label of every score above `threshold`, int64 [C], and the scores, float32 [C].

    It compares logits and computes the sigmoid of only the few above the threshold.
    """
    if nearness is None:
        lowest = logits.new_tensor(threshold * _MARGIN).logit()
    else:  # the score is the root of the product of both
        lowest = (threshold**2 * _MARGIN / nearness.sigmoid()).logit()  # NaN, above which nothing is, from 1 on
    images, places, labels = (logits > lowest).nonzero().unbind(1)
    scores = logits[images, places, labels].sigmoid()
    if nearness is not None:
        scores = (scores * nearness[images, places, 0].sigmoid()).sqrt()
    kept = (scores > threshold).nonzero().flatten()
    return images[kept], places[kept], labels[kept], scores[kept]
