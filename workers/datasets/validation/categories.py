"""From labelled files to two splits a classifier can train on, and the report of everything seen on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from workers.datasets.dataset import Finding
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.validation.image_findings import Sample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.sample_filter import (
    Draft,
    ValidDataset,
    check_train,
    complete_splits,
    drop_problems,
    duplicates,
    listed,
    similar_categories,
    split_of,
)

_FEW_IMAGES = 10  # a category, for training
_IMBALANCE = 10.0  # largest over smallest category
_TWO_CATEGORIES_HINT = (
    "A classifier needs images of two categories or more; put each category into a folder of its own."
)


def validate(
    reading: Reading,
    inspected: Iterable[ImageFacts | ImageProblem],
    *,
    validation_fraction: float,
    seed: int,
) -> ValidDataset:
    """The splits of `reading`, whose files are, in their order, as `inspected` says.

    Raises UnusableDataset, with everything found so far, if there is nothing to learn from.
    """
    draft = Draft(samples=[], findings=list(reading.findings))
    drop_problems(draft, reading.files, inspected)
    _drop_conflicts(draft)
    labels = {labelled.label for labelled in reading.files}
    categories = _categories(draft, labels)
    has_made_split = complete_splits(
        draft, [sample.label for sample in draft.samples], validation_fraction=validation_fraction, seed=seed
    )
    _check_splits(draft, categories)
    draft.say(*notable_findings(draft.samples), *duplicates(draft.samples), *_balance(draft.samples, categories))
    return ValidDataset(
        categories=categories,
        splits={"train": draft.split("train"), "val": draft.split("val")},
        has_made_split=has_made_split,
        findings=by_severity(draft.findings),
    )


def _drop_conflicts(draft: Draft) -> None:
    """Leaves out pictures that are in several categories at once: none of the labels can be trusted."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for sample in draft.samples:
        labels[sample.file.sha256].add(sample.label)
    dropped = [sample.name for sample in draft.samples if len(labels[sample.file.sha256]) > 1]
    if dropped:
        draft.samples = [sample for sample in draft.samples if len(labels[sample.file.sha256]) == 1]
        text = f"{counted(len(dropped), 'image')} left out: the same picture is in several categories."
        draft.say(finding("error", "conflicting_labels", text, dropped))


def _categories(draft: Draft, labels: Collection[str]) -> tuple[str, ...]:
    categories = tuple(sorted({sample.label for sample in draft.samples}))
    empty = sorted(set(labels) - set(categories))
    if empty:
        text = f"{counted(len(empty), 'category', 'categories')} left out, without a usable image: {listed(empty)}."
        draft.say(finding("error", "empty_categories", text, count=len(empty)))
    if len(categories) < 2:
        only = f"only one category: {categories[0]!r}" if categories else "no category with a usable image"
        raise unusable(
            f"There is {only}.", hint=_TWO_CATEGORIES_HINT, code="too_few_categories", findings=draft.findings
        )
    draft.say(*similar_categories(categories))
    return categories


def _check_splits(draft: Draft, categories: Sequence[str]) -> None:
    check_train(draft)
    train, val = draft.split("train"), draft.split("val")
    if not val:
        raise unusable(
            "There are too few different images to set any aside for validation.",
            hint="Every category needs two images at the very least; some dozens are a start.",
            code="too_few_images",
            findings=draft.findings,
        )
    learned = {sample.label for sample in train}
    unlearned = [category for category in categories if category not in learned]
    if unlearned:
        raise unusable(
            f"The `val` split has categories without a usable image in `train`: {listed(unlearned)}.",
            hint="Name the folders of both splits alike, or add images of these categories to `train`.",
            code="val_categories_not_in_train",
            findings=draft.findings,
            files=[sample.name for sample in val if sample.label in unlearned],
        )


def _balance(samples: Sequence[Sample], categories: Sequence[str]) -> list[Finding]:
    findings: list[Finding] = []
    train = Counter(sample.label for sample in split_of(samples, "train"))
    val = Counter(sample.label for sample in split_of(samples, "val"))
    (largest, most), (smallest, fewest) = train.most_common()[0], train.most_common()[-1]
    if most >= _IMBALANCE * fewest:
        text = f"`train` is out of balance: {most:,} of {largest!r}, {fewest:,} of {smallest!r}."
        findings.append(finding("warning", "imbalanced_categories", text, count=len(categories)))
    few = [category for category in categories if train[category] < _FEW_IMAGES]
    if few:
        text = f"Categories with fewer than {_FEW_IMAGES} images to learn from: {listed(few)}."
        findings.append(finding("warning", "few_images", text, count=len(few)))
    unseen = [category for category in categories if not val[category]]
    if unseen:
        text = f"Categories without an image in `val`, so nothing tells how well they are learned: {listed(unseen)}."
        findings.append(finding("warning", "categories_not_validated", text, count=len(unseen)))
    return findings
