"""Says why a network is useless: it answers one category only, or it is no better than chance.

Such a network can have a high top-1 or pixel accuracy if one category fills most of the split. `promote: if_better`
never promotes it. A split with a single category cannot show anything, so nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workers.training.detection.metrics import CategoryScore


def weak_classifier(matrix: Tensor, categories: Sequence[str]) -> str | None:
    """Returns a sentence, or None. matrix: int64 [K, K], images; rows are targets, columns are predictions.

    Chance is a mean recall of one in the number of categories: guessing reaches it, and so does a constant answer.
    """
    images = matrix.sum(dim=1)
    present = images > 0
    count = int(present.sum())
    if count < 2:
        return None
    answered = matrix.sum(dim=0).nonzero().flatten().tolist()
    if len(answered) == 1:
        return f"It answers {categories[answered[0]]!r} for every image, although the split has {count} categories."
    recall = float((matrix.diagonal()[present] / images[present]).mean())
    if recall <= 1 / count:
        return f"It is no better than chance: its mean recall over {count} categories is {recall:.3f}."
    return None


def weak_detector(scores: Sequence[CategoryScore]) -> str | None:
    """Returns a sentence, or None. A detector must find objects of two categories if the split has several."""
    known = [each for each in scores if each.ap50 is not None]
    found = [each for each in known if each.ap50]
    if not known:
        return None
    if not found:
        return "It is no better than chance: it finds none of the objects, as its AP at IoU 0.5 is 0."
    if len(known) > 1 and len(found) == 1:
        return f"It finds only {found[0].label!r}, although the split has objects of {len(known)} categories."
    return None


def weak_segmenter(matrix: Tensor, categories: Sequence[str]) -> str | None:
    """Returns a sentence, or None. matrix: int64 [K, K], pixels; rows are targets, columns are predictions."""
    present = (matrix.sum(dim=1) > 0).nonzero().flatten().tolist()
    missed = [categories[index] for index in present if not int(matrix[index, index])]
    if len(present) < 2 or not missed:
        return None
    shown = ", ".join(repr(label) for label in missed[:5]) + (", …" if len(missed) > 5 else "")
    return f"It finds no pixel of {shown}: the intersection over union is 0."
