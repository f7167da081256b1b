"""From labelled files to two splits one can train on, and the report of everything seen on the way."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from workers.datasets.dataset import Finding, SplitName
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.reading import LabelledFile, Reading, unusable
from workers.datasets.image_findings import Sample, notable_findings, problem_findings
from workers.datasets.inspection import ImageFacts, ImageProblem
from workers.datasets.splits import choose_validation

_FEW_IMAGES = 10  # a category, for training
_IMBALANCE = 10.0  # largest over smallest category
_CATEGORIES_SHOWN = 10
_TWO_CATEGORIES_HINT = (
    "A classifier needs images of two categories or more; put each category into a folder of its own."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidDataset:
    """What is left, and what is said of it."""

    categories: tuple[str, ...]  # sorted
    splits: dict[SplitName, tuple[Sample, ...]]
    has_made_split: bool
    findings: tuple[Finding, ...]


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A data set on its way through the rules: each takes samples out or adds a finding."""

    samples: list[Sample]
    findings: list[Finding] = field(default_factory=list)

    def say(self, *findings: Finding) -> None:
        self.findings += findings


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
    draft = _Draft(samples=[], findings=list(reading.findings))
    _drop_problems(draft, reading.files, inspected)
    _drop_conflicts(draft)
    labels = {labelled.label for labelled in reading.files}
    categories = _categories(draft, labels)
    has_made_split = _complete_splits(draft, validation_fraction=validation_fraction, seed=seed)
    _check_splits(draft, categories)
    draft.say(*notable_findings(draft.samples), *_duplicates(draft.samples), *_balance(draft.samples, categories))
    return ValidDataset(
        categories=categories,
        splits={"train": _split(draft.samples, "train"), "val": _split(draft.samples, "val")},
        has_made_split=has_made_split,
        findings=by_severity(draft.findings),
    )


def _drop_problems(
    draft: _Draft, files: Sequence[LabelledFile], inspected: Iterable[ImageFacts | ImageProblem]
) -> None:
    problems: list[tuple[str, ImageProblem]] = []
    for labelled, outcome in zip(files, inspected, strict=True):
        if isinstance(outcome, ImageProblem):
            problems.append((labelled.file.name, outcome))
        else:
            draft.samples.append(Sample(labelled=labelled, facts=outcome))
    draft.say(*problem_findings(problems))
    if not draft.samples:
        raise unusable(
            f"None of the {counted(len(files), 'file')} that should be images can be used.",
            hint="Each is listed with its reason among the problems.",
            code="no_usable_images",
            findings=draft.findings,
        )


def _drop_conflicts(draft: _Draft) -> None:
    """Leaves out pictures that are in several categories at once: none of the labels can be trusted."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for sample in draft.samples:
        labels[sample.file.sha256].add(sample.label)
    dropped = [sample.name for sample in draft.samples if len(labels[sample.file.sha256]) > 1]
    if dropped:
        draft.samples = [sample for sample in draft.samples if len(labels[sample.file.sha256]) == 1]
        text = f"{counted(len(dropped), 'image')} left out: the same picture is in several categories."
        draft.say(finding("error", "conflicting_labels", text, dropped))


def _categories(draft: _Draft, labels: Collection[str]) -> tuple[str, ...]:
    categories = tuple(sorted({sample.label for sample in draft.samples}))
    empty = sorted(set(labels) - set(categories))
    if empty:
        text = f"{counted(len(empty), 'category', 'categories')} left out, without a usable image: {_listed(empty)}."
        draft.say(finding("error", "empty_categories", text, count=len(empty)))
    if len(categories) < 2:
        only = f"only one category: {categories[0]!r}" if categories else "no category with a usable image"
        raise unusable(
            f"There is {only}.", hint=_TWO_CATEGORIES_HINT, code="too_few_categories", findings=draft.findings
        )
    similar = _similar(categories)
    if similar:
        text = f"Categories that differ in spelling only: {_listed(similar)}. If they mean the same, merge them."
        draft.say(finding("warning", "similar_categories", text, count=len(similar)))
    return categories


def _complete_splits(draft: _Draft, *, validation_fraction: float, seed: int) -> bool:
    """Gives every sample a split; true if the validation split had to be made."""
    if any(sample.labelled.split == "val" for sample in draft.samples):
        return False
    chosen = choose_validation(
        ((sample.label, sample.file.sha256) for sample in draft.samples), fraction=validation_fraction, seed=seed
    )
    draft.samples = [
        _in_split(sample, "val" if (sample.label, sample.file.sha256) in chosen else "train")
        for sample in draft.samples
    ]
    text = (
        f"There is no validation split, so {counted(len(_split(draft.samples, 'val')), 'image')} of "
        f"{len(draft.samples):,} were set aside: {validation_fraction:g} of every category, seed {seed}."
    )
    draft.say(finding("info", "split_made", text, count=len(_split(draft.samples, "val"))))
    return True


def _in_split(sample: Sample, split: SplitName) -> Sample:
    return replace(sample, labelled=replace(sample.labelled, split=split))


def _check_splits(draft: _Draft, categories: Sequence[str]) -> None:
    train, val = _split(draft.samples, "train"), _split(draft.samples, "val")
    if not train:
        raise unusable(
            "The `train` split has no usable image.",
            hint="Add images to it, or leave out the folders of splits: then a validation split is made.",
            code="no_train_images",
            findings=draft.findings,
        )
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
            f"The `val` split has categories without a usable image in `train`: {_listed(unlearned)}.",
            hint="Name the folders of both splits alike, or add images of these categories to `train`.",
            code="val_categories_not_in_train",
            findings=draft.findings,
            files=[sample.name for sample in val if sample.label in unlearned],
        )


def _duplicates(samples: Sequence[Sample]) -> list[Finding]:
    findings: list[Finding] = []
    in_train = {sample.file.sha256 for sample in _split(samples, "train")}
    leaked = [sample.name for sample in _split(samples, "val") if sample.file.sha256 in in_train]
    if leaked:
        text = f"{counted(len(leaked), 'image')} of `val` also in `train`: validation looks better than the model is."
        findings.append(finding("warning", "cross_split_duplicates", text, leaked))
    seen: set[tuple[SplitName | None, str]] = set()
    copies: list[str] = []
    for sample in samples:
        key = (sample.labelled.split, sample.file.sha256)
        if key in seen:
            copies.append(sample.name)
        seen.add(key)
    if copies:
        text = f"{counted(len(copies), 'image')} with the same content as another one of the same split; kept."
        findings.append(finding("warning", "duplicate_images", text, copies))
    return findings


def _balance(samples: Sequence[Sample], categories: Sequence[str]) -> list[Finding]:
    findings: list[Finding] = []
    train = Counter(sample.label for sample in _split(samples, "train"))
    val = Counter(sample.label for sample in _split(samples, "val"))
    (largest, most), (smallest, fewest) = train.most_common()[0], train.most_common()[-1]
    if most >= _IMBALANCE * fewest:
        text = f"`train` is out of balance: {most:,} of {largest!r}, {fewest:,} of {smallest!r}."
        findings.append(finding("warning", "imbalanced_categories", text, count=len(categories)))
    few = [category for category in categories if train[category] < _FEW_IMAGES]
    if few:
        text = f"Categories with fewer than {_FEW_IMAGES} images to learn from: {_listed(few)}."
        findings.append(finding("warning", "few_images", text, count=len(few)))
    unseen = [category for category in categories if not val[category]]
    if unseen:
        text = f"Categories without an image in `val`, so nothing tells how well they are learned: {_listed(unseen)}."
        findings.append(finding("warning", "categories_not_validated", text, count=len(unseen)))
    return findings


def _split(samples: Sequence[Sample], split: SplitName) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if sample.labelled.split == split)


def _similar(categories: Sequence[str]) -> list[str]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for category in categories:
        spellings[re.sub(r"[\s_-]+", "", category.casefold())].append(category)
    return [category for group in spellings.values() if len(group) > 1 for category in group]


def _listed(categories: Sequence[str]) -> str:
    """The first of `categories`, quoted, and how many more there are."""
    shown = ", ".join(repr(category) for category in categories[:_CATEGORIES_SHOWN])
    more = len(categories) - _CATEGORIES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
