"""Validation of segmentation: turns images with category masks into splits that a network can train on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from workers.datasets.dataset import VOID
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.parallel_map import parallel_map
from workers.datasets.validation.image_findings import InspectedSample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.label_map_files import LabelMap, read_label_map
from workers.datasets.validation.multi_label import (
    SampleCategories,
    annotation_problem_findings,
    complete_multi_label_splits,
)
from workers.datasets.validation.sample_filter import (
    DatasetDraft,
    ValidDataset,
    drop_unreadable_files,
    duplicate_findings,
    similar_category_findings,
)
from workers.datasets.validation.splits import SplitRule
from workers.datasets.validation.targets import AnnotationProblem

_MAX_CATEGORIES = 255  # 0 to 254; 255 is void


def validate_label_maps(
    reading: Reading, inspected: Iterable[ImageFacts | ImageProblem], rule: SplitRule
) -> ValidDataset:
    """Returns the splits of `reading`.

    inspected: the result of the inspection for each of `reading.files`, in their order.
    rule: how to choose the validation split if the archive has none.
    Raises UnusableDataset, with all findings so far, if the dataset cannot be learned from.
    """
    draft = DatasetDraft(samples=[], findings=list(reading.findings))
    drop_unreadable_files(draft, reading.files, inspected)
    _add_label_maps(draft, reading)
    values = _values(draft)
    names = _names(draft, values, reading.categories)
    by_value = dict(zip(values, names, strict=True))
    shown = SampleCategories(
        categories=tuple(
            frozenset(by_value[value] for value in _label_map(sample).values if value in by_value)
            for sample in draft.samples
        ),
        noun="pixel",
    )
    has_generated_split = complete_multi_label_splits(draft, shown, rule)
    draft.add_findings(*similar_category_findings(names), *notable_findings(draft.samples), *duplicate_findings(draft))
    return ValidDataset(
        categories=names,
        splits=draft.splits(),
        has_generated_split=has_generated_split,
        findings=by_severity(draft.findings),
        values=values,
    )


def _add_label_maps(draft: DatasetDraft, reading: Reading) -> None:
    """Gives every sample its label map, and removes the samples whose mask is broken or has another size."""
    value_of_label = {label: value for value, label in enumerate(reading.categories)} if reading.is_drawn else {}

    def read(sample: InspectedSample) -> LabelMap | AnnotationProblem:
        assert sample.labelled.annotation is not None
        return read_label_map(sample.labelled.annotation, sample.facts, value_of_label)

    problems: list[tuple[str, AnnotationProblem]] = []
    kept: list[InspectedSample] = []
    for sample, outcome in zip(draft.samples, parallel_map(read, draft.samples), strict=True):
        if isinstance(outcome, AnnotationProblem):
            problems.append((sample.name, outcome))
        else:
            kept.append(replace(sample, label_map=outcome))
    draft.samples = kept
    draft.add_findings(*annotation_problem_findings(problems))


def _label_map(sample: InspectedSample) -> LabelMap:
    assert sample.label_map is not None
    return sample.label_map


def _values(draft: DatasetDraft) -> tuple[int, ...]:
    """Returns the pixel values that are categories, ascending. Removes samples without any of them."""
    occurring = {value for sample in draft.samples for value in _label_map(sample).values}
    values = tuple(sorted(occurring - {VOID}))
    if occurring == {0, VOID}:
        values = (0, VOID)
        text = "The masks have only the values 0 and 255. Fovea reads 255 as an object, not as void."
        draft.add_findings(finding("info", "binary_masks", text, count=len(draft.samples)))
    void = [sample.name for sample in draft.samples if not _label_map(sample).values & set(values)]
    if void:
        draft.samples = [sample for sample in draft.samples if _label_map(sample).values & set(values)]
        text = f"{counted(len(void), 'image')} left out: the whole mask is void (255)."
        draft.add_findings(finding("error", "void_masks", text, void))
    if len(values) < 2:
        only = f"only one category: {values[0]}" if values else "no category"
        raise unusable(
            f"The masks have {only}, but a segmentation network needs at least two. One may be the background.",
            hint="Check that the pixels of the masks are category numbers. 255 means void.",
            code="too_few_categories",
            findings=draft.findings,
        )
    if len(values) > _MAX_CATEGORIES:
        raise unusable(
            f"The masks have {len(values):,} different values, but there may be at most {_MAX_CATEGORIES} categories.",
            hint="If the pixels are object numbers and not category numbers, post the archive with "
            "format=instance_masks.",
            code="too_many_categories",
            findings=draft.findings,
        )
    return values


def _names(draft: DatasetDraft, values: Sequence[int], by_value: Sequence[str]) -> tuple[str, ...]:
    """Returns the label of each value: from the list of the archive, else its number."""
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
        text = f"The list of categories has no name for these values of the masks: {', '.join(unnamed[:10])}."
        draft.add_findings(finding("warning", "unnamed_categories", text, count=len(unnamed)))
    if not by_value:
        text = "Nothing names the categories, so their values are their labels. To name them, add a classes.txt."
        draft.add_findings(finding("info", "unnamed_categories", text, count=len(unnamed)))
    if list(values) != list(range(len(values))):
        text = (
            f"The values of the masks have gaps: {values[0]} to {values[-1]} for {len(values)} categories. In Fovea "
            "the index of a category is its place in the list."
        )
        draft.add_findings(finding("info", "category_ids_with_gaps", text, count=len(values)))
    return _distinct(names, values)


def _distinct(names: Sequence[str], values: Sequence[int]) -> tuple[str, ...]:
    """Returns `names`, each followed by its value where several values have the same name."""
    return tuple(
        name if list(names).count(name) == 1 else f"{name} ({value})" for name, value in zip(names, values, strict=True)
    )
