"""A data set on its way through the rules of validation, and the rules that all tasks share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from workers.datasets.dataset import Finding, SplitName
from workers.datasets.findings import counted, finding
from workers.datasets.formats.reading import LabelledFile, unusable
from workers.datasets.validation.image_findings import Sample, problem_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.splits import choose_validation

_CATEGORIES_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidDataset:
    """What is left, and what is said of it."""

    categories: tuple[str, ...]  # of classification: sorted
    splits: dict[SplitName, tuple[Sample, ...]]
    has_made_split: bool
    findings: tuple[Finding, ...]
    has_masks: bool = False  # of detection
    values: tuple[int, ...] = ()  # of segmentation: the pixel value in the archive's masks, a category


@dataclass(kw_only=True, slots=True)
class Draft:
    """What is left so far: each rule takes samples out or adds a finding."""

    samples: list[Sample]
    findings: list[Finding] = field(default_factory=list)

    def say(self, *findings: Finding) -> None:
        """Adds to the report."""
        self.findings += findings

    def split(self, split: SplitName) -> tuple[Sample, ...]:
        """The samples of one split."""
        return split_of(self.samples, split)


def split_of(samples: Sequence[Sample], split: SplitName) -> tuple[Sample, ...]:
    """Those of `samples` in one split."""
    return tuple(sample for sample in samples if sample.labelled.split == split)


def drop_problems(draft: Draft, files: Sequence[LabelledFile], inspected: Iterable[ImageFacts | ImageProblem]) -> None:
    """Takes the pictures that decode. Raises UnusableDataset if there are none."""
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


def complete_splits(
    draft: Draft, strata: Sequence[str], *, validation_fraction: float, seed: int, of_every: str = "category"
) -> bool:
    """Gives every sample a split; true if the validation split had to be made.

    strata: a word for each sample, the share is taken from the samples of every word.
    """
    if any(sample.labelled.split == "val" for sample in draft.samples):
        return False
    keys = [(stratum, sample.file.sha256) for stratum, sample in zip(strata, draft.samples, strict=True)]
    chosen = choose_validation(keys, fraction=validation_fraction, seed=seed)
    draft.samples = [
        _in_split(sample, "val" if key in chosen else "train") for key, sample in zip(keys, draft.samples, strict=True)
    ]
    count = len(draft.split("val"))
    text = (
        f"There is no validation split, so {counted(count, 'image')} of "
        f"{len(draft.samples):,} were set aside: {validation_fraction:g} of every {of_every}, seed {seed}."
    )
    draft.say(finding("info", "split_made", text, count=count))
    return True


def check_train(draft: Draft) -> None:
    """Raises UnusableDataset if there is nothing to learn from."""
    if not draft.split("train"):
        raise unusable(
            "The `train` split has no usable image.",
            hint="Add images to it, or leave out the folders of splits: then a validation split is made.",
            code="no_train_images",
            findings=draft.findings,
        )


def duplicates(samples: Sequence[Sample]) -> list[Finding]:
    """What is said of pictures that are there more than once."""
    findings: list[Finding] = []
    in_train = {sample.file.sha256 for sample in split_of(samples, "train")}
    leaked = [sample.name for sample in split_of(samples, "val") if sample.file.sha256 in in_train]
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


def similar_categories(categories: Sequence[str]) -> list[Finding]:
    """What is said of categories that differ in spelling only."""
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for category in categories:
        spellings[re.sub(r"[\s_-]+", "", category.casefold())].append(category)
    similar = [category for group in spellings.values() if len(group) > 1 for category in group]
    if not similar:
        return []
    text = f"Categories that differ in spelling only: {listed(similar)}. If they mean the same, merge them."
    return [finding("warning", "similar_categories", text, count=len(similar))]


def listed(categories: Collection[str]) -> str:
    """The first of `categories`, quoted, and how many more there are."""
    shown = ", ".join(repr(category) for category in list(categories)[:_CATEGORIES_SHOWN])
    more = len(categories) - _CATEGORIES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _in_split(sample: Sample, split: SplitName) -> Sample:
    return replace(sample, labelled=replace(sample.labelled, split=split))
