"""Collects the objects that annotations state for the images of an archive, and the entries that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import DatasetFormat, Finding
from workers.datasets.findings import counted, entries_finding, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation
from workers.datasets.formats.file_names import FileNames, missing_findings, split_in_path
from workers.datasets.formats.reading import Reading, leftover_findings, resolve_splits, sort_files, unusable


@dataclass(kw_only=True, slots=True)
class _CollectedImage:
    file: ArchivedFile
    size: tuple[int, int] | None
    split: str | None
    is_relative: bool
    objects: list[AnnotatedObject] = field(default_factory=list)


class ObjectCollector:
    """Collects the annotations of one archive. Several entries for one image are merged."""

    def __init__(self, files: Sequence[ArchivedFile], *, expected: str) -> None:
        """expected: what an archive of this format contains, for refusals."""
        self._sorted = sort_files(files)
        self._expected = expected
        self._images: dict[str, _CollectedImage] = {}
        self._missing: dict[str, Sequence[str]] = {}  # written name -> the images that it may mean
        self._bad: list[tuple[str, str]] = []  # place, reason
        self._incomplete: set[str] = set()  # names of images with an object that cannot be used
        self._shapes: Counter[str] = Counter()
        self._rotated: list[str] = []  # places
        self.names = FileNames(self._sorted.images)
        self.findings: list[Finding] = []

    def find(self, written: str, *, near: str, split: str | None = None) -> ArchivedFile | None:
        """Finds the image that an annotation in the folder `near` names; a name that no image has is reported."""
        found = self.names.find(written, near=near, split=split)
        if found is None:
            self._missing[written] = self.names.tied(written, near=near, split=split)
        return found

    def add(
        self,
        image: ArchivedFile,
        objects: Iterable[AnnotatedObject] = (),
        *,
        size: tuple[int, int] | None = None,
        split: str | None = None,
        is_relative: bool = False,
    ) -> None:
        """Adds objects of `image`; an image without any is an example of background.

        size: width and height that the annotation states. is_relative: coordinates are fractions of them.
        """
        entry = _CollectedImage(file=image, size=size, split=split, is_relative=is_relative)
        self._images.setdefault(image.name, entry).objects.extend(objects)

    def leave_out(self, where: str, reason: str, *, image: ArchivedFile | None = None) -> None:
        """Reports an entry that cannot be used. Its image is left out, too: the object would count as background."""
        self._bad.append((where, reason))
        if image is not None:
            self._incomplete.add(image.name)

    def ignore_shape(self, kind: str) -> None:
        """Counts a shape that is no region, such as a point; its image is kept."""
        self._shapes[kind] += 1

    def note_rotated(self, where: str) -> None:
        """Counts a rotated box, of which only the upright box around it is read."""
        self._rotated.append(where)

    def reading(
        self,
        format: DatasetFormat,  # noqa: A002 - the name in the API
        *,
        used: Collection[str],
        categories: Sequence[str] = (),
    ) -> Reading:
        """Returns the reading. used: names of the annotation files. Raises UnusableDataset without a usable image."""
        kept = [self._images[name] for name in sorted(self._images) if name not in self._incomplete]
        findings = [*self._problems(), *self.findings, *leftover_findings(self._sorted, used=used)]
        if not kept:
            listed = ", ".join(sorted(used)[:3])
            raise unusable(
                f"No entry of {listed} can be used with an image of the archive.",
                hint=f"Expected: {self._expected}.",
                code="no_annotations",
                findings=findings,
            )
        resolved, split_findings = resolve_splits(
            [
                (
                    each.file,
                    Annotation(objects=each.objects, size=each.size, is_relative=each.is_relative),
                    each.split or split_in_path(each.file.name),
                )
                for each in kept
            ]
        )
        return Reading(
            format=format,
            task="detection",
            files=tuple(resolved),
            findings=(*split_findings, *findings),
            categories=tuple(categories),
        )

    def _problems(self) -> list[Finding]:
        findings = []
        if self._bad:
            findings.append(entries_finding("bad_entries", self._bad))
        if self._incomplete:
            text = f"{counted(len(self._incomplete), 'image')} left out: an entry about them cannot be used."
            findings.append(finding("error", "images_with_bad_entries", text, sorted(self._incomplete)))
        findings += missing_findings(self._missing)
        if self._shapes:
            kinds = ", ".join(f"{kind} ({count:,})" for kind, count in self._shapes.most_common())
            text = f"{counted(self._shapes.total(), 'shape')} not read, because only boxes and outlines are: {kinds}."
            findings.append(finding("warning", "shapes_not_read", text, count=self._shapes.total()))
        if self._rotated:
            count = counted(len(self._rotated), "rotated box", "rotated boxes")
            text = f"{count} read as upright boxes around them: the corners are dropped."
            findings.append(finding("warning", "rotated_boxes", text, self._rotated))
        listed = self._images.keys() | self._incomplete
        unlisted = [image.name for image in self._sorted.images if image.name not in listed]
        if unlisted:
            text = f"{counted(len(unlisted), 'image')} left out: no annotation names them."
            findings.append(finding("warning", "missing_annotations", text, unlisted))
        return findings
