"""Rules for pictures that show several categories at once, or none: their splits, and what is said of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from workers.datasets.dataset import Finding
from workers.datasets.findings import finding, left_out
from workers.datasets.formats.reading import unusable
from workers.datasets.validation.image_findings import Sample
from workers.datasets.validation.sample_filter import Draft, check_train, complete_splits, listed
from workers.datasets.validation.targets import TargetProblem, TargetProblemCode

_FEW_IMAGES = 10  # a category, for training
_PROBLEMS: dict[TargetProblemCode, str] = {
    "size_mismatch": "their annotation is of a picture of another size",
    "too_many_objects": "more objects than a detector can learn from at once",
    "broken_mask_file": "their mask cannot be read",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """Which categories are on each sample, in the samples' order."""

    of: tuple[Set[str], ...]
    noun: str  # what a category has on a picture: "object", "pixel"


def target_problem_findings(problems: Sequence[tuple[str, TargetProblem]]) -> list[Finding]:
    """A finding for each kind of problem, with the first one's reason."""
    return left_out(((name, each.code, each.reason) for name, each in problems), _PROBLEMS, noun="image")


def settle_presence(draft: Draft, presence: Presence, *, validation_fraction: float, seed: int) -> bool:
    """Gives every sample a split that can be learned from; true if the validation split had to be made.

    The share that is set aside is one of the pictures of each category, where a picture counts for the rarest one on
    it. So a category is missing in `train` only if the archive's own splits leave it out there.
    Raises UnusableDataset.
    """
    has_made_split = complete_splits(
        draft, _strata(draft.samples, presence), validation_fraction=validation_fraction, seed=seed
    )
    by_name = dict(zip((sample.name for sample in draft.samples), presence.of, strict=True))
    train = _count(by_name[sample.name] for sample in draft.split("train"))
    val = _count(by_name[sample.name] for sample in draft.split("val"))
    _check(draft, train, val, presence.noun)
    draft.say(*_balance(draft, train, val, by_name, presence.noun))
    return has_made_split


def _strata(samples: Sequence[Sample], presence: Presence) -> list[str]:
    """The rarest category of each sample, the same for pictures of the same content."""
    images = _count(presence.of)
    strata: dict[str, str] = {}
    for sample, categories in zip(samples, presence.of, strict=True):
        rarest = min(categories, key=lambda category: (images[category], category), default="")
        strata.setdefault(sample.file.sha256, rarest)
    return [strata[sample.file.sha256] for sample in samples]


def _count(presence: Iterable[Set[str]]) -> Counter[str]:
    return Counter(category for categories in presence for category in categories)


def _check(draft: Draft, train: Counter[str], val: Counter[str], noun: str) -> None:
    check_train(draft)
    if not train:
        raise unusable(
            f"No image of the `train` split has any {noun}: there is nothing to learn.",
            hint="Are the annotations of `train` in the archive? Without splits of its own, one is made.",
            code="no_train_objects",
            findings=draft.findings,
        )
    if not val:
        raise unusable(
            f"No image of the `val` split has any {noun}, so nothing can be measured on it.",
            hint="Two different pictures with objects are the least; some dozens are a start.",
            code="no_val_objects",
            findings=draft.findings,
        )
    if not set(train) & set(val):
        raise unusable(
            f"No category of the `val` split is in `train`, which has {listed(sorted(train))}.",
            hint="Call the categories alike in both splits.",
            code="val_categories_not_in_train",
            findings=draft.findings,
        )


def _balance(
    draft: Draft, train: Counter[str], val: Counter[str], by_name: dict[str, Set[str]], noun: str
) -> list[Finding]:
    findings = []
    unlearned = sorted(set(val) - set(train))
    if unlearned:
        files = [sample.name for sample in draft.split("val") if by_name[sample.name] & set(unlearned)]
        text = (
            f"Categories of `val` without any {noun} in `train`: {listed(unlearned)}. They cannot be learned, and "
            "count as missed in every measurement."
        )
        findings.append(finding("warning", "val_categories_not_in_train", text, files, count=len(unlearned)))
    few = sorted(category for category in train if train[category] < _FEW_IMAGES)
    if few:
        text = f"Categories on fewer than {_FEW_IMAGES} images to learn from: {listed(few)}."
        findings.append(finding("warning", "few_images", text, count=len(few)))
    unseen = sorted(set(train) - set(val))
    if unseen:
        text = f"Categories without any {noun} in `val`, so nothing tells how well they are learned: {listed(unseen)}."
        findings.append(finding("warning", "categories_not_validated", text, count=len(unseen)))
    return findings
