"""The dataset that validation works on, and the rules that all tasks share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from workers.datasets.dataset import Finding, SplitName
from workers.datasets.findings import counted, finding
from workers.datasets.formats.reading import LabelledFile, unusable
from workers.datasets.validation.image_findings import InspectedSample, problem_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.splits import choose_validation

_CATEGORIES_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidDataset:
    """A dataset that passed validation, and the report about it."""

    categories: tuple[str, ...]  # labels in the order of their indices
    splits: dict[SplitName, tuple[InspectedSample, ...]]
    has_generated_split: bool  # True: Fovea chose the images of `val`
    findings: tuple[Finding, ...]
    has_masks: bool = False  # detection: True if every object has a mask
    values: tuple[int, ...] = ()  # segmentation: the pixel value of each category in the masks of the archive


@dataclass(kw_only=True, slots=True)
class DatasetDraft:
    """The samples that are left so far. Each rule of validation removes samples or adds findings."""

    samples: list[InspectedSample]
    findings: list[Finding] = field(default_factory=list)

    def add_findings(self, *findings: Finding) -> None:
        """Adds `findings` to the report."""
        self.findings += findings

    def samples_in(self, split: SplitName) -> tuple[InspectedSample, ...]:
        """The samples of `split`."""
        return samples_in_split(self.samples, split)


def samples_in_split(samples: Sequence[InspectedSample], split: SplitName) -> tuple[InspectedSample, ...]:
    """The `samples` of `split`."""
    return tuple(sample for sample in samples if sample.labelled.split == split)


def drop_unreadable_files(
    draft: DatasetDraft, files: Sequence[LabelledFile], inspected: Iterable[ImageFacts | ImageProblem]
) -> None:
    """Fills `draft` with the files that decode, and reports the others. Raises UnusableDataset if none decodes."""
    problems: list[tuple[str, ImageProblem]] = []
    for labelled, outcome in zip(files, inspected, strict=True):
        if isinstance(outcome, ImageProblem):
            problems.append((labelled.file.name, outcome))
        else:
            draft.samples.append(InspectedSample(labelled=labelled, facts=outcome))
    draft.add_findings(*problem_findings(problems))
    if not draft.samples:
        raise unusable(
            f"No image can be used: all of the {counted(len(files), 'file')} have problems.",
            hint="See `problems`: it gives the reason for each file.",
            code="no_usable_images",
            findings=draft.findings,
        )


def complete_splits(
    draft: DatasetDraft, strata: Sequence[str], *, validation_fraction: float, seed: int, of_every: str = "category"
) -> bool:
    """Gives every sample a split. Returns True if it generated the validation split, False if the archive has one.

    strata: the group of each sample. `validation_fraction` is taken from every group.
    of_every: the word for a group in the report.
    """
    if any(sample.labelled.split == "val" for sample in draft.samples):
        return False
    keys = [(stratum, sample.file.sha256) for stratum, sample in zip(strata, draft.samples, strict=True)]
    chosen = choose_validation(keys, fraction=validation_fraction, seed=seed)
    draft.samples = [
        _in_split(sample, "val" if key in chosen else "train") for key, sample in zip(keys, draft.samples, strict=True)
    ]
    count = len(draft.samples_in("val"))
    text = (
        f"The archive has no validation split, so Fovea set aside {count:,} of "
        f"{counted(len(draft.samples), 'image')}: {validation_fraction:g} of every {of_every}, seed {seed}."
    )
    draft.add_findings(finding("info", "split_made", text, count=count))
    return True


def check_train_split(draft: DatasetDraft) -> None:
    """Raises UnusableDataset if the `train` split is empty."""
    if not draft.samples_in("train"):
        raise unusable(
            "The `train` split has no usable image.",
            hint="Add images to it, or remove the folders of the splits: Fovea then makes the splits.",
            code="no_train_images",
            findings=draft.findings,
        )


def duplicate_findings(samples: Sequence[InspectedSample]) -> list[Finding]:
    """Findings about images with the same content."""
    findings: list[Finding] = []
    in_train = {sample.file.sha256 for sample in samples_in_split(samples, "train")}
    leaked = [sample.name for sample in samples_in_split(samples, "val") if sample.file.sha256 in in_train]
    if leaked:
        text = f"{counted(len(leaked), 'image')} of `val` also in `train`. The validation results are too optimistic."
        findings.append(finding("warning", "cross_split_duplicates", text, leaked))
    seen: set[tuple[SplitName | None, str]] = set()
    copies: list[str] = []
    for sample in samples:
        key = (sample.labelled.split, sample.file.sha256)
        if key in seen:
            copies.append(sample.name)
        seen.add(key)
    if copies:
        text = f"{counted(len(copies), 'image')} with the same content as another image of the same split; kept."
        findings.append(finding("warning", "duplicate_images", text, copies))
    return findings


def similar_category_findings(categories: Sequence[str]) -> list[Finding]:
    """Findings about categories that differ only in spelling."""
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for category in categories:
        spellings[re.sub(r"[\s_-]+", "", category.casefold())].append(category)
    similar = [category for group in spellings.values() if len(group) > 1 for category in group]
    if not similar:
        return []
    text = f"Categories that differ only in spelling: {quoted_list(similar)}. If they mean the same, merge them."
    return [finding("warning", "similar_categories", text, count=len(similar))]


def quoted_list(categories: Collection[str]) -> str:
    """Lists the first ten `categories` in quotes, and the number of the others."""
    shown = ", ".join(repr(category) for category in list(categories)[:_CATEGORIES_SHOWN])
    more = len(categories) - _CATEGORIES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _in_split(sample: InspectedSample, split: SplitName) -> InspectedSample:
    return replace(sample, labelled=replace(sample.labelled, split=split))
