"""Validation of classification: turns labelled files into splits that a classifier can train on, and a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from workers.datasets.dataset import Finding
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.validation.image_findings import InspectedSample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.sample_filter import (
    DatasetDraft,
    ValidDataset,
    check_train_split,
    complete_splits,
    drop_unreadable_files,
    duplicate_findings,
    quoted_list,
    samples_in_split,
    similar_category_findings,
)
from workers.datasets.validation.splits import SplitRule

_FEW_IMAGES = 10  # fewer training images per category give a warning
_IMBALANCE = 10.0  # images of the largest category per image of the smallest
_TWO_CATEGORIES_HINT = "A classifier needs images of at least two categories. Put the images of each in its own folder."


def validate_categories(
    reading: Reading,
    inspected: Iterable[ImageFacts | ImageProblem],
    rule: SplitRule,
) -> ValidDataset:
    """Returns the splits of `reading`.

    inspected: the result of the inspection for each of `reading.files`, in their order.
    rule: how to choose the validation split if the archive has none.
    Raises UnusableDataset, with all findings so far, if the dataset cannot be learned from.
    """
    draft = DatasetDraft(samples=[], findings=list(reading.findings))
    drop_unreadable_files(draft, reading.files, inspected)
    _drop_conflicts(draft)
    _drop_unlearned_tests(draft)
    labels = {labelled.label for labelled in reading.files if labelled.split != "test"}
    categories = _categories(draft, labels)
    has_generated_split = complete_splits(draft, [sample.label for sample in draft.samples], rule)
    _check_splits(draft, categories)
    draft.add_findings(
        *notable_findings(draft.samples), *duplicate_findings(draft), *_balance(draft.samples, categories)
    )
    return ValidDataset(
        categories=categories,
        splits=draft.splits(),
        has_generated_split=has_generated_split,
        findings=by_severity(draft.findings),
    )


def _drop_conflicts(draft: DatasetDraft) -> None:
    """Leaves out images that occur in several categories: none of their labels is reliable."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for sample in draft.samples:
        labels[sample.file.sha256].add(sample.label)
    dropped = [sample.name for sample in draft.samples if len(labels[sample.file.sha256]) > 1]
    if dropped:
        draft.samples = [sample for sample in draft.samples if len(labels[sample.file.sha256]) == 1]
        text = f"{counted(len(dropped), 'image')} left out: the same image is in several categories."
        draft.add_findings(finding("error", "conflicting_labels", text, dropped))


def _drop_unlearned_tests(draft: DatasetDraft) -> None:
    """Leaves out images of `test` whose category has no image in another split."""
    known = {sample.label for sample in draft.samples if sample.labelled.split != "test"}
    dropped = [sample for sample in draft.samples if sample.label not in known]
    if dropped:
        draft.samples = [sample for sample in draft.samples if sample.label in known]
        text = (
            f"{counted(len(dropped), 'image')} of `test` left out: no other split has an image of "
            f"{quoted_list(sorted({sample.label for sample in dropped}))}."
        )
        draft.add_findings(
            finding("warning", "test_categories_not_in_train", text, [sample.name for sample in dropped])
        )


def _categories(draft: DatasetDraft, labels: Collection[str]) -> tuple[str, ...]:
    categories = tuple(sorted({sample.label for sample in draft.samples}))
    empty = sorted(set(labels) - set(categories))
    if empty:
        count = counted(len(empty), "category", "categories")
        text = f"{count} left out, without a usable image: {quoted_list(empty)}."
        draft.add_findings(finding("error", "empty_categories", text, count=len(empty)))
    if len(categories) < 2:
        message = (
            f"Only one category has usable images: {categories[0]!r}."
            if categories
            else "No category has a usable image."
        )
        raise unusable(message, hint=_TWO_CATEGORIES_HINT, code="too_few_categories", findings=draft.findings)
    draft.add_findings(*similar_category_findings(categories))
    return categories


def _check_splits(draft: DatasetDraft, categories: Sequence[str]) -> None:
    check_train_split(draft)
    train, val = draft.samples_in("train"), draft.samples_in("val")
    if not val:
        raise unusable(
            "There are too few different images to set some of them aside for validation.",
            hint="Every category needs at least two different images. For useful results, post some dozens.",
            code="too_few_images",
            findings=draft.findings,
        )
    learned = {sample.label for sample in train}
    unlearned = [category for category in categories if category not in learned]
    if unlearned:
        raise unusable(
            f"The `val` split has categories without a usable image in `train`: {quoted_list(unlearned)}.",
            hint="Use the same folder names in both splits, or add images of these categories to `train`.",
            code="val_categories_not_in_train",
            findings=draft.findings,
            files=[sample.name for sample in val if sample.label in unlearned],
        )


def _balance(samples: Sequence[InspectedSample], categories: Sequence[str]) -> list[Finding]:
    findings: list[Finding] = []
    train = Counter(sample.label for sample in samples_in_split(samples, "train"))
    val = Counter(sample.label for sample in samples_in_split(samples, "val"))
    (largest, most), (smallest, fewest) = train.most_common()[0], train.most_common()[-1]
    if most >= _IMBALANCE * fewest:
        text = f"`train` is imbalanced: {most:,} images of {largest!r}, {fewest:,} of {smallest!r}."
        findings.append(finding("warning", "imbalanced_categories", text, count=len(categories)))
    few = [category for category in categories if train[category] < _FEW_IMAGES]
    if few:
        text = f"Categories with fewer than {_FEW_IMAGES} training images: {quoted_list(few)}."
        findings.append(finding("warning", "few_images", text, count=len(few)))
    unseen = [category for category in categories if not val[category]]
    if unseen:
        text = f"Categories without an image in `val`, so no metric covers them: {quoted_list(unseen)}."
        findings.append(finding("warning", "categories_not_validated", text, count=len(unseen)))
    return findings
