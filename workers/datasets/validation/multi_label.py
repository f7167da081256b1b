"""Rules for images that show several categories or none: how they are split, and findings about the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from workers.datasets.dataset import Finding
from workers.datasets.findings import finding, left_out_findings
from workers.datasets.formats.reading import unusable
from workers.datasets.validation.image_findings import InspectedSample
from workers.datasets.validation.sample_filter import DatasetDraft, check_train_split, complete_splits, quoted_list
from workers.datasets.validation.splits import SplitRule
from workers.datasets.validation.targets import AnnotationProblem, AnnotationProblemCode

_FEW_IMAGES = 10  # fewer training images per category give a warning
_PROBLEMS: dict[AnnotationProblemCode, str] = {
    "size_mismatch": "the annotation is for an image of another size",
    "too_many_objects": "more objects than a detector can learn from at once",
    "broken_mask_file": "the mask cannot be read",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCategories:
    """The categories in each image, in the order of the samples."""

    categories: tuple[Set[str], ...]
    noun: str  # what the image shows of a category, for messages: "object" or "pixel"


def annotation_problem_findings(problems: Sequence[tuple[str, AnnotationProblem]]) -> list[Finding]:
    """Findings about annotations that cannot be used, one per kind of problem."""
    return left_out_findings(((name, each.code, each.reason) for name, each in problems), _PROBLEMS, noun="image")


def complete_multi_label_splits(draft: DatasetDraft, shown: SampleCategories, rule: SplitRule) -> bool:
    """Gives every sample a split. Returns True if it generated the validation split, False if the archive has one.

    The fraction of `rule` is taken from the images of every category; an image counts for its rarest category. So a
    category is missing in `train` only if the splits of the archive leave it out.
    Raises UnusableDataset if the splits cannot be learned from.
    """
    has_generated_split = complete_splits(draft, _strata(draft.samples, shown), rule)
    by_name = dict(zip((sample.name for sample in draft.samples), shown.categories, strict=True))
    train = _count(by_name[sample.name] for sample in draft.samples_in("train"))
    val = _count(by_name[sample.name] for sample in draft.samples_in("val"))
    _check(draft, train, val, shown.noun)
    draft.add_findings(*_balance(draft, train, val, by_name, shown.noun))
    return has_generated_split


def _strata(samples: Sequence[InspectedSample], shown: SampleCategories) -> list[str]:
    """The rarest category of each sample that other images have, too; images with the same content have the same one.

    A category of a single image cannot be divided, so it decides nothing.
    """
    by_content: dict[str, Set[str]] = {}
    for sample, categories in zip(samples, shown.categories, strict=True):
        by_content.setdefault(sample.file.sha256, categories)
    images = _count(by_content.values())
    strata = {
        content: min(
            (category for category in categories if images[category] > 1),
            key=lambda category: (images[category], category),
            default="",
        )
        for content, categories in by_content.items()
    }
    if len(set(strata.values())) == len(strata):  # no category could be divided
        return [""] * len(samples)
    return [strata[sample.file.sha256] for sample in samples]


def _count(shown: Iterable[Set[str]]) -> Counter[str]:
    return Counter(category for categories in shown for category in categories)


def _check(draft: DatasetDraft, train: Counter[str], val: Counter[str], noun: str) -> None:
    check_train_split(draft)
    if not train:
        raise unusable(
            f"No image of the `train` split has any {noun}, so there is nothing to learn.",
            hint="Check that the archive contains the annotations of `train`. Without splits, Fovea makes them.",
            code="no_train_objects",
            findings=draft.findings,
        )
    if not val:
        raise unusable(
            f"No image of the `val` split has any {noun}, so nothing can be measured on it.",
            hint="Post at least two different images with objects. For useful results, post some dozens.",
            code="no_val_objects",
            findings=draft.findings,
        )
    if not set(train) & set(val):
        raise unusable(
            f"No category of the `val` split is in `train`, which has {quoted_list(sorted(train))}.",
            hint="Use the same names for the categories in both splits.",
            code="val_categories_not_in_train",
            findings=draft.findings,
        )


def _balance(
    draft: DatasetDraft, train: Counter[str], val: Counter[str], by_name: dict[str, Set[str]], noun: str
) -> list[Finding]:
    findings = []
    for split in ("val", "test"):
        shown = {sample.name: by_name[sample.name] - set(train) for sample in draft.samples_in(split)}
        unlearned = sorted(set().union(*shown.values()))
        if unlearned:
            files = [name for name, categories in shown.items() if categories]
            text = (
                f"Categories of `{split}` without any {noun} in `train`: {quoted_list(unlearned)}. The model cannot "
                "learn them, and every evaluation counts them as missed."
            )
            code = f"{split}_categories_not_in_train"
            findings.append(finding("warning", code, text, files, count=len(unlearned)))
    few = sorted(category for category in train if train[category] < _FEW_IMAGES)
    if few:
        text = f"Categories in fewer than {_FEW_IMAGES} training images: {quoted_list(few)}."
        findings.append(finding("warning", "few_images", text, count=len(few)))
    unseen = sorted(set(train) - set(val))
    if unseen:
        text = f"Categories without any {noun} in `val`, so no metric covers them: {quoted_list(unseen)}."
        findings.append(finding("warning", "categories_not_validated", text, count=len(unseen)))
    return findings
