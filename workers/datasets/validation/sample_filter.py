"""The dataset that validation works on, and the rules that all tasks share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from workers.datasets.dataset import Finding, SplitName
from workers.datasets.findings import counted, finding
from workers.datasets.formats.reading import LabelledFile, unusable
from workers.datasets.validation.image_findings import InspectedSample, problem_findings
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.similar_images import MAX_COMPARED, Groups, similar_groups
from workers.datasets.validation.splits import SplitImage, SplitRule, choose_validation

_CATEGORIES_SHOWN = 10
_GROUPED = {
    "similar": "a near-duplicate or an image of the same group",
    "folder": "the other images of its folder or group",
    "none": "the other images of its group",
}


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
    similar: dict[str, str] | None = None  # sha256 -> sha256 of its first near-duplicate; None: not searched

    def add_findings(self, *findings: Finding) -> None:
        """Adds `findings` to the report."""
        self.findings += findings

    def samples_in(self, split: SplitName) -> tuple[InspectedSample, ...]:
        """The samples of `split`."""
        return samples_in_split(self.samples, split)

    def splits(self) -> dict[SplitName, tuple[InspectedSample, ...]]:
        """The samples of `train` and `val`, and of `test` if there are any."""
        splits: dict[SplitName, tuple[InspectedSample, ...]] = {
            split: self.samples_in(split) for split in ("train", "val", "test")
        }
        if not splits["test"]:
            del splits["test"]
        return splits


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


def complete_splits(draft: DatasetDraft, strata: Sequence[str], rule: SplitRule, *, of_every: str = "category") -> bool:
    """Gives every sample a split. Returns True if it generated the validation split, False if the archive has one.

    strata: the label of each sample; the fraction of `rule` is taken from every label.
    of_every: the word for a label in the report.
    """
    if any(sample.labelled.split == "val" for sample in draft.samples):
        return False
    groups = _groups(draft, rule)
    images = [
        SplitImage(label=stratum, sha256=sample.file.sha256, group=groups.of(sample.file.sha256))
        for stratum, sample in zip(strata, draft.samples, strict=True)
        if sample.labelled.split != "test"
    ]
    images = _separable(images) if rule.group_by == "similar" else images
    chosen = choose_validation(images, fraction=rule.fraction, seed=rule.seed)
    in_val = {image.sha256 for image in images if image.group in chosen}
    draft.samples = [
        sample
        if sample.labelled.split == "test"
        else _in_split(sample, "val" if sample.file.sha256 in in_val else "train")
        for sample in draft.samples
    ]
    if images and not chosen and rule.group_by == "folder":
        raise unusable(
            f"The images of every {of_every} are in one folder, so no folder can be set aside for validation.",
            hint="Put the images of each group in a folder of its own, or use group_by=similar.",
            code="too_few_groups",
            findings=draft.findings,
        )
    count = len(draft.samples_in("val"))
    text = (
        f"The archive has no validation split, so Fovea set aside {count:,} of "
        f"{counted(len(images), 'image')}: {rule.fraction:g} of every {of_every}, seed {rule.seed}."
    )
    draft.add_findings(finding("info", "split_made", text, count=count))
    sizes = Counter({image.sha256: image.group for image in images}.values())  # different images of each group
    together = sum(size for size in sizes.values() if size > 1)
    if together:
        text = (
            f"{counted(together, 'image')} in the same split as {_GROUPED[rule.group_by]}, so that validation shows "
            "nothing that the model has learned."
        )
        draft.add_findings(finding("info", "images_grouped", text, count=together))
    return True


def _groups(draft: DatasetDraft, rule: SplitRule) -> Groups:
    """Joins the contents that must be in one split: those of a group of the archive, and those that `rule` joins."""
    groups, first_of = Groups(), dict[tuple[str, str], str]()
    for sample in draft.samples:
        keys = [("group", sample.labelled.group)] if sample.labelled.group is not None else []
        if rule.group_by == "folder":
            keys.append(("folder", sample.name.rpartition("/")[0]))
        for key in keys:
            groups.join(first_of.setdefault(key, sample.file.sha256), sample.file.sha256)
    if rule.group_by == "similar":
        for one, other in _similar(draft).items():
            groups.join(one, other)
    return groups


def _similar(draft: DatasetDraft) -> dict[str, str]:
    """Returns the group of near-duplicates of each content, searched once; the name is the first content of the group.

    Reports it if there are too many images to compare.
    """
    if draft.similar is None:
        draft.similar = _search_similar(draft)
    return draft.similar


def _search_similar(draft: DatasetDraft) -> dict[str, str]:
    compared = {each.file.sha256: each.facts.signs for each in draft.samples if each.facts.signs is not None}
    if len(compared) > MAX_COMPARED:
        text = f"Fovea did not look for near-duplicates: it compares at most {MAX_COMPARED:,} images."
        draft.add_findings(finding("info", "similar_images_unknown", text, count=len(compared)))
        return {}
    contents = list(compared)
    groups = similar_groups(list(compared.values()))
    return {content: contents[group] for content, group in zip(contents, groups, strict=True)}


def _separable(images: Sequence[SplitImage]) -> list[SplitImage]:
    """Returns `images` without groups for each label whose images are all near-duplicates of each other."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for image in images:
        groups[image.label].add(image.group)
    return [replace(image, group=image.sha256) if len(groups[image.label]) == 1 else image for image in images]


def check_train_split(draft: DatasetDraft) -> None:
    """Raises UnusableDataset if the `train` split is empty."""
    if not draft.samples_in("train"):
        raise unusable(
            "The `train` split has no usable image.",
            hint="Add images to it, or remove the folders of the splits: Fovea then makes the splits.",
            code="no_train_images",
            findings=draft.findings,
        )


def duplicate_findings(draft: DatasetDraft) -> list[Finding]:
    """Findings about images with the same content, and about near-duplicates in different splits."""
    samples = draft.samples
    findings: list[Finding] = []
    splits: defaultdict[str, set[SplitName | None]] = defaultdict(set)
    for sample in samples:
        splits[sample.file.sha256].add(sample.labelled.split)
    for split, seen_in in (("val", {"train"}), ("test", {"train", "val"})):
        found = [each for each in samples if each.labelled.split == split and splits[each.file.sha256] & seen_in]
        if found:
            others = " or ".join(f"`{other}`" for other in sorted(seen_in))
            text = f"{counted(len(found), 'image')} of `{split}` also in {others}. The results are too optimistic."
            findings.append(finding("warning", "cross_split_duplicates", text, [each.name for each in found]))
    findings += _similar_across_splits(draft, splits)
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


def _similar_across_splits(draft: DatasetDraft, splits: Mapping[str, Set[SplitName | None]]) -> list[Finding]:
    """A finding about images of `val` and `test` that are near-duplicates of images of `train`.

    splits: the splits of each content.
    """
    similar = _similar(draft)
    learned = defaultdict[str, set[str]](set)  # group -> contents in `train`
    for content, group in similar.items():
        if "train" in splits[content]:
            learned[group].add(content)
    leaked = [
        each.name
        for each in draft.samples
        if each.labelled.split != "train"
        and learned.get(similar.get(each.file.sha256, ""), set()) - {each.file.sha256}  # equal files: reported already
    ]
    if not leaked:
        return []
    text = (
        f"{counted(len(leaked), 'image')} of `val` or `test` nearly the same as an image of `train`: resized, "
        "compressed again, or captioned. The results are too optimistic."
    )
    return [finding("warning", "cross_split_similar", text, leaked)]


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
