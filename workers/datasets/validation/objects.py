"""From annotated pictures to two splits a detector can train on, and the report of everything seen on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from workers.datasets.dataset import Finding, Severity
from workers.datasets.findings import by_severity, counted, finding
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.reading import Reading, unusable
from workers.datasets.parallel_map import in_order
from workers.datasets.validation.image_findings import Sample, notable_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.multi_label import Presence, settle_presence, target_problem_findings
from workers.datasets.validation.sample_filter import (
    Draft,
    ValidDataset,
    drop_problems,
    duplicates,
    listed,
    similar_categories,
)
from workers.datasets.validation.targets import Note, TargetProblem, Targets, targets_of

_MANY_OBJECTS = 1000  # an image
_IMBALANCE = 10.0  # objects of the largest over those of the smallest category
_NOTES: dict[Note, tuple[Severity, str]] = {
    "degenerate_boxes": ("error", "left out: without width or height"),
    "outside_boxes": ("error", "left out: outside the picture"),
    "broken_masks": ("error", "left out: with run lengths that are damaged or of another size than the picture"),
    "empty_masks": ("error", "left out: with an outline that covers no pixel of the picture"),
    "clipped_boxes": ("warning", "cut at the edge of the picture"),
    "duplicate_boxes": ("warning", "left out: the same box, category and picture as another one"),
}


def validate_objects(
    reading: Reading, inspected: Iterable[ImageFacts | ImageProblem], *, validation_fraction: float, seed: int
) -> ValidDataset:
    """The splits of `reading`, whose files are, in their order, as `inspected` says.

    Raises UnusableDataset, with everything found so far, if there is nothing to learn from.
    """
    draft = Draft(samples=[], findings=list(reading.findings))
    drop_problems(draft, reading.files, inspected)
    _convert(draft)
    categories = _categories(draft, reading.categories)
    presence = Presence(
        of=tuple(
            frozenset(target.label for target in sample.objects if not target.is_crowd) for sample in draft.samples
        ),
        noun="object",
    )
    has_made_split = settle_presence(draft, presence, validation_fraction=validation_fraction, seed=seed)
    has_masks = _say_masks(draft)
    draft.say(*_notable(draft.samples, categories), *notable_findings(draft.samples), *duplicates(draft.samples))
    return ValidDataset(
        categories=categories,
        splits={"train": draft.split("train"), "val": draft.split("val")},
        has_made_split=has_made_split,
        findings=by_severity(draft.findings),
        has_masks=has_masks,
    )


def _convert(draft: Draft) -> None:
    """Gives every sample its objects, and takes out those whose annotation cannot be theirs."""
    problems: list[tuple[str, TargetProblem]] = []
    notes: defaultdict[Note, list[str]] = defaultdict(list)
    kept: list[Sample] = []
    emptied: list[str] = []
    for sample, outcome in zip(draft.samples, in_order(_targets_of, draft.samples), strict=True):
        if isinstance(outcome, TargetProblem):
            problems.append((sample.name, outcome))
            continue
        for note, places in outcome.notes.items():
            notes[note] += places
        if not outcome.objects and any(_NOTES[note][0] == "error" for note in outcome.notes):
            emptied.append(sample.name)
        else:
            kept.append(replace(sample, objects=outcome.objects))
    draft.samples = kept
    draft.say(*target_problem_findings(problems))
    for note, (severity, words) in _NOTES.items():
        if notes[note]:
            text = f"{counted(len(notes[note]), 'object')} {words}."
            draft.say(finding(severity, note, text, notes[note]))
    if emptied:
        text = f"{counted(len(emptied), 'image')} left out: there are objects on it, but none that can be used."
        draft.say(finding("error", "images_without_usable_objects", text, emptied))


def _targets_of(sample: Sample) -> Targets | TargetProblem:
    return targets_of(sample.labelled.annotation or Annotation(), sample.facts)


def _categories(draft: Draft, listed_ones: Sequence[str]) -> tuple[str, ...]:
    """Those with an object, in the archive's order where it has one, else sorted."""
    used = {target.label for sample in draft.samples for target in sample.objects}
    if not any(not target.is_crowd for sample in draft.samples for target in sample.objects):
        raise unusable(
            f"None of the {counted(len(draft.samples), 'image')} has an object: there is nothing to learn.",
            hint="Are the annotations in the archive, with names and numbers that fit the pictures?",
            code="no_objects",
            findings=draft.findings,
        )
    empty = [category for category in listed_ones if category not in used]
    if empty:
        text = f"{counted(len(empty), 'category', 'categories')} left out, without an object: {listed(empty)}."
        draft.say(finding("warning", "empty_categories", text, count=len(empty)))
    categories = (*(category for category in listed_ones if category in used), *sorted(used - set(listed_ones)))
    draft.say(*similar_categories(categories))
    return categories


def _say_masks(draft: Draft) -> bool:
    """Whether every object has a mask; says so if only some have."""
    without = [sample.name for sample in draft.samples if any(target.mask is None for target in sample.objects)]
    if without and any(target.mask is not None for sample in draft.samples for target in sample.objects):
        text = f"{counted(len(without), 'image')} with objects that have no mask: a data set of boxes only."
        draft.say(finding("warning", "masks_incomplete", text, without))
    return not without


def _notable(samples: Sequence[Sample], categories: Sequence[str]) -> list[Finding]:
    findings = []
    negatives = [sample.name for sample in samples if not sample.objects]
    if negatives:
        text = f"{counted(len(negatives), 'image')} without objects, kept: they teach what is none."
        findings.append(finding("info", "images_without_objects", text, negatives))
    crowded = [sample.name for sample in samples if len(sample.objects) > _MANY_OBJECTS]
    if crowded:
        text = (
            f"{counted(len(crowded), 'image')} with more than {_MANY_OBJECTS:,} objects: training on them takes much "
            "memory. Cut such pictures into tiles."
        )
        findings.append(finding("warning", "many_objects", text, crowded))
    turned = [sample.name for sample in samples if sample.facts.orientation > 1 and sample.objects]
    if turned:
        text = (
            f"{counted(len(turned), 'annotated image')} turned by EXIF orientation: annotations are taken to be of the "
            "upright picture unless their size says otherwise. Look at them in the preview."
        )
        findings.append(finding("warning", "turned_images", text, turned))
    return [*findings, *_conflicts(samples), *_imbalance(samples, categories)]


def _conflicts(samples: Sequence[Sample]) -> list[Finding]:
    """Pictures of the same content of which different things are said."""
    said: defaultdict[str, set[object]] = defaultdict(set)
    for sample in samples:
        said[sample.file.sha256].add(frozenset(sample.objects))
    files = [sample.name for sample in samples if len(said[sample.file.sha256]) > 1]
    if not files:
        return []
    text = f"{counted(len(files), 'image')} with the same content as another one and other objects; kept."
    return [finding("warning", "conflicting_annotations", text, files)]


def _imbalance(samples: Sequence[Sample], categories: Sequence[str]) -> list[Finding]:
    counts = Counter(
        target.label for sample in samples if sample.labelled.split == "train" for target in sample.objects
    )
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    if most < _IMBALANCE * fewest:
        return []
    text = f"`train` is out of balance: {most:,} objects of {largest!r}, {fewest:,} of {smallest!r}."
    return [finding("warning", "imbalanced_categories", text, count=len(categories))]
