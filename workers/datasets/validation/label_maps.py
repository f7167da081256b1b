"""From pictures with masks of categories to two splits a segmentation network can train on, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from workers.datasets.dataset import VOID
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.parallel_map import in_order
from workers.datasets.validation.image_findings import Sample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.label_map_files import LabelMap, look_at
from workers.datasets.validation.multi_label import Presence, settle_presence, target_problem_findings
from workers.datasets.validation.sample_filter import Draft, ValidDataset, drop_problems, duplicates, similar_categories
from workers.datasets.validation.targets import TargetProblem

_MOST_CATEGORIES = 255  # 0 to 254; 255 is void


def validate_label_maps(
    reading: Reading, inspected: Iterable[ImageFacts | ImageProblem], *, validation_fraction: float, seed: int
) -> ValidDataset:
    """The splits of `reading`, whose files are, in their order, as `inspected` says.

    Raises UnusableDataset, with everything found so far, if there is nothing to learn from.
    """
    draft = Draft(samples=[], findings=list(reading.findings))
    drop_problems(draft, reading.files, inspected)
    _look_at_masks(draft)
    values = _values(draft)
    names = _names(draft, values, reading.categories)
    by_value = dict(zip(values, names, strict=True))
    presence = Presence(
        of=tuple(
            frozenset(by_value[value] for value in _label_map(sample).values if value in by_value)
            for sample in draft.samples
        ),
        noun="pixel",
    )
    has_made_split = settle_presence(draft, presence, validation_fraction=validation_fraction, seed=seed)
    draft.say(*similar_categories(names), *notable_findings(draft.samples), *duplicates(draft.samples))
    return ValidDataset(
        categories=names,
        splits={"train": draft.split("train"), "val": draft.split("val")},
        has_made_split=has_made_split,
        findings=by_severity(draft.findings),
        values=values,
    )


def _look_at_masks(draft: Draft) -> None:
    """Gives every sample its label map, and takes out those whose mask cannot be theirs, or is void all over."""
    problems: list[tuple[str, TargetProblem]] = []
    kept: list[Sample] = []
    for sample, outcome in zip(draft.samples, in_order(_look_at, draft.samples), strict=True):
        if isinstance(outcome, TargetProblem):
            problems.append((sample.name, outcome))
        else:
            kept.append(replace(sample, label_map=outcome))
    draft.samples = kept
    draft.say(*target_problem_findings(problems))


def _look_at(sample: Sample) -> LabelMap | TargetProblem:
    annotation = sample.labelled.annotation
    assert annotation is not None
    assert annotation.mask is not None
    return look_at(annotation.mask, sample.facts)


def _label_map(sample: Sample) -> LabelMap:
    assert sample.label_map is not None
    return sample.label_map


def _values(draft: Draft) -> tuple[int, ...]:
    """The values that are categories, ascending. Takes out pictures on which none is."""
    occurring = {value for sample in draft.samples for value in _label_map(sample).values}
    values = tuple(sorted(occurring - {VOID}))
    if occurring == {0, VOID}:
        values = (0, VOID)
        text = "The masks have the values 0 and 255 only: 255 is taken for the object, not for void."
        draft.say(finding("info", "binary_masks", text, count=len(draft.samples)))
    void = [sample.name for sample in draft.samples if not _label_map(sample).values & set(values)]
    if void:
        draft.samples = [sample for sample in draft.samples if _label_map(sample).values & set(values)]
        text = f"{counted(len(void), 'image')} left out: the mask is void (255) all over."
        draft.say(finding("error", "void_masks", text, void))
    if len(values) < 2:
        only = f"only one category: {values[0]}" if values else "no category"
        raise unusable(
            f"The masks have {only}; a segmentation network needs two or more, one of which may be the background.",
            hint="Are the masks' pixels numbers of categories? 255 counts as void.",
            code="too_few_categories",
            findings=draft.findings,
        )
    if len(values) > _MOST_CATEGORIES:
        raise unusable(
            f"The masks have {len(values):,} different values; at most {_MOST_CATEGORIES} categories are possible.",
            hint="If the pixels number objects and not categories, post it with format=instance_masks.",
            code="too_many_categories",
            findings=draft.findings,
        )
    return values


def _names(draft: Draft, values: Sequence[int], by_value: Sequence[str]) -> tuple[str, ...]:
    """The name of each value: by the archive's list, else its number."""
    if tuple(values) == (0, VOID):
        return (by_value[0], by_value[1]) if len(by_value) >= 2 else ("background", "object")
    names = []
    unnamed = []
    for value in values:
        if value < len(by_value):
            names.append(by_value[value])
        else:
            unnamed.append(str(value))
            names.append("background" if value == 0 else str(value))
    if by_value and unnamed:
        text = f"Values of the masks that the list of categories has no name for: {', '.join(unnamed[:10])}."
        draft.say(finding("warning", "unnamed_categories", text, count=len(unnamed)))
    if not by_value:
        text = "Nothing names the categories, so they are called by their values; a classes.txt would name them."
        draft.say(finding("info", "unnamed_categories", text, count=len(unnamed)))
    if list(values) != list(range(len(values))):
        text = f"The values of the masks have gaps ({values[0]} to {values[-1]} for {len(values)}): indices have none."
        draft.say(finding("info", "category_ids_with_gaps", text, count=len(values)))
    return _distinct(names, values)


def _distinct(names: Sequence[str], values: Sequence[int]) -> tuple[str, ...]:
    """`names`, with the value behind those that several values have."""
    return tuple(
        name if list(names).count(name) == 1 else f"{name} ({value})" for name, value in zip(names, values, strict=True)
    )
