"""Validation of detection: turns annotated images into splits that a detector can train on, and a report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from workers.datasets.dataset import Finding, Severity
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.parallel_map import parallel_map
from workers.datasets.validation.image_findings import InspectedSample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
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
    quoted_list,
    similar_category_findings,
)
from workers.datasets.validation.splits import SplitRule
from workers.datasets.validation.targets import (
    AnnotationProblem,
    Frame,
    ImageTargets,
    ObjectNoteCode,
    convert_annotation,
    frame_of_boxes,
)

_MANY_OBJECTS = 1000  # more objects per image give a warning
_IMBALANCE = 10.0  # objects of the largest category per object of the smallest
_NOTES: dict[ObjectNoteCode, tuple[Severity, str]] = {
    "degenerate_boxes": ("error", "left out: no width or no height"),
    "outside_boxes": ("error", "left out: outside the image"),
    "broken_masks": ("error", "left out: the run lengths are damaged, or their size is not that of the image"),
    "empty_masks": ("error", "left out: the outline covers no pixel of the image"),
    "outlines_ignored": ("warning", "kept with the box only: the outline or the mask cannot be used"),
    "clipped_boxes": ("warning", "clipped at the edge of the image"),
    "duplicate_boxes": ("warning", "left out: same image, category and box as another object"),
}


def validate_objects(reading: Reading, inspected: Iterable[ImageFacts | ImageProblem], rule: SplitRule) -> ValidDataset:
    """Returns the splits of `reading`.

    inspected: the result of the inspection for each of `reading.files`, in their order.
    rule: how to choose the validation split if the archive has none.
    Raises UnusableDataset, with all findings so far, if the dataset cannot be learned from.
    """
    draft = DatasetDraft(samples=[], findings=list(reading.findings))
    drop_unreadable_files(draft, reading.files, inspected)
    _add_objects(draft)
    categories = _categories(draft, reading.categories)
    shown = SampleCategories(
        categories=tuple(
            frozenset(target.label for target in sample.objects if not target.is_ignored) for sample in draft.samples
        ),
        noun="object",
    )
    has_generated_split = complete_multi_label_splits(draft, shown, rule)
    has_masks = _check_masks(draft)
    draft.add_findings(
        *_notable(draft.samples, categories), *notable_findings(draft.samples), *duplicate_findings(draft)
    )
    return ValidDataset(
        categories=categories,
        splits=draft.splits(),
        has_generated_split=has_generated_split,
        findings=by_severity(draft.findings),
        has_masks=has_masks,
    )


def _add_objects(draft: DatasetDraft) -> None:
    """Gives every sample its objects, and removes the samples whose annotation cannot be used."""
    problems: list[tuple[str, AnnotationProblem]] = []
    notes: defaultdict[ObjectNoteCode, list[str]] = defaultdict(list)
    kept: list[InspectedSample] = []
    emptied: list[str] = []
    incomplete: list[str] = []
    convert = partial(_convert_sample, frame=_frame_of_turned_images(draft.samples))
    for sample, outcome in zip(draft.samples, parallel_map(convert, draft.samples), strict=True):
        if isinstance(outcome, AnnotationProblem):
            problems.append((sample.name, outcome))
            continue
        annotation = sample.labelled.annotation
        if annotation is not None and annotation.unusable_objects:
            incomplete.append(sample.name)
            continue
        for note, places in outcome.notes.items():
            notes[note] += places
        if not outcome.objects and any(_NOTES[note][0] == "error" for note in outcome.notes):
            emptied.append(sample.name)
        elif "broken_masks" in outcome.notes:
            incomplete.append(sample.name)
        else:
            kept.append(replace(sample, objects=outcome.objects))
    draft.samples = kept
    draft.add_findings(*annotation_problem_findings(problems))
    for note, (severity, words) in _NOTES.items():
        if notes[note]:
            text = f"{counted(len(notes[note]), 'object')} {words}."
            draft.add_findings(finding(severity, note, text, notes[note]))
    if incomplete:
        text = f"{counted(len(incomplete), 'image')} left out: an entry about them cannot be used."
        draft.add_findings(finding("error", "images_with_bad_entries", text, incomplete))
    if emptied:
        text = f"{counted(len(emptied), 'image')} left out: annotated objects, but none of them can be used."
        draft.add_findings(finding("error", "images_without_usable_objects", text, emptied))


def _convert_sample(sample: InspectedSample, frame: Frame | None) -> ImageTargets | AnnotationProblem:
    return convert_annotation(sample.labelled.annotation or Annotation(), sample.facts, frame=frame)


def _frame_of_turned_images(samples: Sequence[InspectedSample]) -> Frame | None:
    """Returns the frame of the boxes of turned images, if the boxes of some of them show it and none differs."""
    frames = {
        frame_of_boxes(sample.labelled.annotation, sample.facts)
        for sample in samples
        if sample.labelled.annotation is not None and sample.facts.orientation > 1
    } - {None}
    return frames.pop() if len(frames) == 1 else None


def _categories(draft: DatasetDraft, listed_ones: Sequence[str]) -> tuple[str, ...]:
    """Returns the categories with an object: in the order of the archive if it lists them, else sorted."""
    used = {target.label for sample in draft.samples for target in sample.objects}
    if not any(not target.is_ignored for sample in draft.samples for target in sample.objects):
        raise unusable(
            f"None of the {counted(len(draft.samples), 'image')} has an object, so there is nothing to learn."
            if draft.samples
            else "Every image has an object that cannot be used, so there is nothing to learn.",
            hint="Check that the archive contains the annotations, and that they name the images correctly.",
            code="no_objects",
            findings=draft.findings,
        )
    empty = [category for category in listed_ones if category not in used]
    if empty:
        text = f"{counted(len(empty), 'category', 'categories')} left out, without an object: {quoted_list(empty)}."
        draft.add_findings(finding("warning", "empty_categories", text, count=len(empty)))
    categories = (*(category for category in listed_ones if category in used), *sorted(used - set(listed_ones)))
    draft.add_findings(*similar_category_findings(categories))
    return categories


def _check_masks(draft: DatasetDraft) -> bool:
    """Returns True if every object has a mask. Reports it if only some have one."""
    without = [sample.name for sample in draft.samples if any(target.mask is None for target in sample.objects)]
    if without and any(target.mask is not None for sample in draft.samples for target in sample.objects):
        text = f"{counted(len(without), 'image')} with objects that have no mask. The dataset is used for boxes only."
        draft.add_findings(finding("warning", "masks_incomplete", text, without))
    return not without


def _notable(samples: Sequence[InspectedSample], categories: Sequence[str]) -> list[Finding]:
    findings = []
    negatives = [sample.name for sample in samples if not sample.objects]
    if negatives:
        text = f"{counted(len(negatives), 'image')} without objects, kept as examples of background."
        findings.append(finding("info", "images_without_objects", text, negatives))
    crowded = [sample.name for sample in samples if len(sample.objects) > _MANY_OBJECTS]
    if crowded:
        text = (
            f"{counted(len(crowded), 'image')} with more than {_MANY_OBJECTS:,} objects. Training on such images takes "
            "much memory. Cut them into tiles."
        )
        findings.append(finding("warning", "many_objects", text, crowded))
    turned = [sample.name for sample in samples if sample.facts.orientation > 1 and sample.objects]
    if turned:
        text = (
            f"{counted(len(turned), 'annotated image')} turned by EXIF orientation. Boxes that fit only the stored or "
            "only the upright image show which of them was annotated; else its size does. Check these in the preview."
        )
        findings.append(finding("warning", "turned_images", text, turned))
    return [*findings, *_conflicts(samples), *_imbalance(samples, categories)]


def _conflicts(samples: Sequence[InspectedSample]) -> list[Finding]:
    """Findings about images with the same content but different objects."""
    objects: defaultdict[str, set[object]] = defaultdict(set)
    for sample in samples:
        objects[sample.file.sha256].add(frozenset(sample.objects))
    files = [sample.name for sample in samples if len(objects[sample.file.sha256]) > 1]
    if not files:
        return []
    text = f"{counted(len(files), 'image')} with the same content as another image but different objects; kept."
    return [finding("warning", "conflicting_annotations", text, files)]


def _imbalance(samples: Sequence[InspectedSample], categories: Sequence[str]) -> list[Finding]:
    counts = Counter(
        target.label for sample in samples if sample.labelled.split == "train" for target in sample.objects
    )
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    if most < _IMBALANCE * fewest:
        return []
    text = f"`train` is imbalanced: {most:,} objects of {largest!r}, {fewest:,} of {smallest!r}."
    return [finding("warning", "imbalanced_categories", text, count=len(categories))]
