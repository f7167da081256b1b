"""Findings about single images: those that were left out, and those that deserve a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import suffix_kind
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding, left_out_findings
from workers.datasets.formats.reading import LabelledFile
from workers.datasets.validation.inspection import MIN_SIDE_PX, ImageFacts, ImageProblem, ProblemCode
from workers.datasets.validation.label_map_files import LabelMap
from workers.datasets.validation.targets import TargetObject

_PROBLEMS: Mapping[ProblemCode, str] = {
    "empty_file": "empty",
    "not_an_image": "not an image by its content",
    "unreadable_image": "damaged",
    "image_too_large": "too large",
    "tiny_image": f"a side below {MIN_SIDE_PX} px",
}
# A format is odd if few files have it and nearly all others share one format: a placeholder, a screenshot.
_ODD_SHARE, _MAIN_SHARE, _FEWEST_IMAGES = 0.01, 0.9, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedSample:
    """An image that decodes, with its label, its objects or its label map."""

    labelled: LabelledFile
    facts: ImageFacts
    objects: tuple[TargetObject, ...] = ()  # detection
    label_map: LabelMap | None = None  # segmentation

    @property
    def file(self) -> ArchivedFile:
        return self.labelled.file

    @property
    def name(self) -> str:
        return self.labelled.file.name

    @property
    def label(self) -> str:
        return self.labelled.label


def problem_findings(problems: Sequence[tuple[str, ImageProblem]]) -> list[Finding]:
    """Findings about files that cannot be used, one per kind of problem."""
    return left_out_findings(((name, each.code, each.reason) for name, each in problems), _PROBLEMS, noun="file")


def notable_findings(samples: Sequence[InspectedSample]) -> list[Finding]:
    """Findings about images that are kept but deserve a look."""
    findings = _odd_formats(samples)
    blank = [sample.name for sample in samples if sample.facts.is_blank]
    if blank:
        text = f"{counted(len(blank), 'image')} of a single colour, with nothing to learn from."
        findings.append(finding("warning", "blank_images", text, blank))
    animated = [sample.name for sample in samples if sample.facts.is_animated]
    if animated:
        text = f"{counted(len(animated), 'animated image')}. Only the first frame is used."
        findings.append(finding("info", "animated_images", text, animated))
    renamed = [sample.name for sample in samples if _has_wrong_suffix(sample)]
    if renamed:
        text = f"{counted(len(renamed), 'image')} with a suffix that does not match the content. The content counts."
        findings.append(finding("info", "wrong_suffix", text, renamed))
    return findings


def _odd_formats(samples: Sequence[InspectedSample]) -> list[Finding]:
    kinds = Counter(sample.facts.kind for sample in samples)
    if len(samples) < _FEWEST_IMAGES:
        return []
    main, main_count = kinds.most_common(1)[0]
    odd = [kind for kind, count in kinds.items() if count <= _ODD_SHARE * len(samples)]
    names = [sample.name for sample in samples if sample.facts.kind in odd]
    if not names or main is None or main_count < _MAIN_SHARE * len(samples):
        return []
    odd_kinds = ", ".join(sorted({str(kind) for kind in odd}))
    text = (
        f"{counted(len(names), 'image')} in an unusual format ({odd_kinds}): nearly all others are {main}. "
        "Such a file is often a placeholder or a screenshot. Check that it shows its category."
    )
    return [finding("warning", "odd_format", text, names)]


def _has_wrong_suffix(sample: InspectedSample) -> bool:
    promised = suffix_kind(sample.name)
    return promised is not None and sample.facts.kind is not None and promised != sample.facts.kind
