"""Pascal VOC: an XML file a picture with boxes, and lists of the splits in `ImageSets/Main/`.

Boxes count pixels from 1 and include their last row and column, so `xmin` 1 and `xmax` 10 are the pixels from 0 to 10.
Source: Everingham et al. 2010, and the VOC2012 development kit, section 2.3.
"""

from __future__ import annotations

import math
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.masks.coco_masks import Box
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation
from workers.datasets.formats.file_names import FileNames, split_of_path, stem_of
from workers.datasets.formats.image_lists import ImageLists
from workers.datasets.formats.reading import Format, Reading, leftover_findings, settle_splits, sort_files, unusable
from workers.datasets.formats.xml_tree import BadXml, Element, parse_xml
from workers.errors import UnusableDataset

_EXPECTED = "Pascal VOC: JPEGImages/1.jpg with Annotations/1.xml, optionally lists of the splits in ImageSets/Main"
_HINT = f"Expected is {_EXPECTED}."
_MAX_BYTES = 32 * 2**20  # some 100,000 boxes
_HEAD_BYTES = 4096


@dataclass(kw_only=True, slots=True)
class _Notes:
    """What cannot be used: where, and why."""

    broken: dict[str, str] = field(default_factory=dict)  # files
    bad: dict[str, str] = field(default_factory=dict)  # objects without what they need
    missing_images: list[str] = field(default_factory=list)


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_annotation(file) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    annotations = [file for file in files if _is_annotation(file)]
    if not annotations:
        raise unusable("The archive has no XML file with an <annotation>.", hint=_HINT, code="no_annotations")
    images = FileNames(_pictures(sorted_files.images))
    lists = ImageLists(files, task_folder="Main")
    notes = _Notes()
    by_image: dict[str, tuple[ArchivedFile, Annotation, str | None]] = {}
    twice: list[str] = []
    for file in annotations:
        root = _parsed(file, notes)
        if root is None:
            continue
        image = _image_of(root, file, images)
        if image is None:
            notes.missing_images.append(file.name)
        elif image.name in by_image:
            twice.append(file.name)
        else:
            split = lists.split_of(stem_of(posixpath.basename(image.name)), split_of_path(image.name))
            by_image[image.name] = (image, _annotation(root, file, notes), split)
    unannotated = [image for image in _pictures(sorted_files.images) if image.name not in by_image]
    findings = [*_findings(notes, twice), *_unannotated(unannotated), *lists.findings(set(by_image))]
    findings += leftover_findings(sorted_files, used={file.name for file in annotations} | lists.names)
    if not by_image:
        raise _nothing_read(notes, findings)
    settled, split_findings = settle_splits([by_image[name] for name in sorted(by_image)])
    return Reading(format="pascal_voc", task="detection", files=tuple(settled), findings=(*split_findings, *findings))


def _nothing_read(notes: _Notes, findings: Sequence[Finding]) -> UnusableDataset:
    if notes.broken and not notes.missing_images:
        where, reason = next(iter(notes.broken.items()))
        return unusable(
            f"None of the annotations can be read. The first, {where}: {reason}",
            hint="Open the file in an editor at this line.",
            code="broken_xml",
            findings=findings,
        )
    return unusable("No annotation leads to a picture of the archive.", hint=_HINT, code="no_images", findings=findings)


def _is_annotation(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".xml"):
        return False
    with file.path.open("rb") as content:
        return b"<annotation" in content.read(_HEAD_BYTES)


def _pictures(images: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """`images` but for VOC's own masks, which have the names of the pictures."""
    masks = {"SegmentationClass", "SegmentationObject"}
    return [image for image in images if masks.isdisjoint(image.name.split("/"))]


def _parsed(file: ArchivedFile, notes: _Notes) -> Element | None:
    if file.size_bytes > _MAX_BYTES:
        notes.broken[file.name] = f"It has {file.size_bytes:,} bytes; an annotation has at most {_MAX_BYTES:,}."
        return None
    try:
        return parse_xml(file.path.read_bytes())
    except BadXml as error:
        notes.broken[f"{file.name}:{error.line}"] = f"{str(error).capitalize()}."
        return None


def _image_of(root: Element, file: ArchivedFile, images: FileNames) -> ArchivedFile | None:
    """The picture: named like the XML file; else as the XML file says."""
    near = posixpath.dirname(file.name)
    found = images.find_stem(stem_of(posixpath.basename(file.name)), near=near, split=split_of_path(file.name))
    written = root.find_text("filename")
    if found is None and written is not None:
        found = images.find(written, near=near) or images.find_stem(written, near=near)
    return found


def _annotation(root: Element, file: ArchivedFile, notes: _Notes) -> Annotation:
    width, height = _number(root.find_text("size/width")), _number(root.find_text("size/height"))
    objects = []
    for element in root.all("object"):
        where = f"{file.name}:{element.line}"
        read = _object(element, where)
        if isinstance(read, str):
            notes.bad[where] = read
        else:
            objects.append(read)
    size = (int(width), int(height)) if width and height and min(width, height) >= 1 else None  # some tools write 0
    return Annotation(objects=objects, size=size)


def _object(element: Element, where: str) -> AnnotatedObject | str:
    """The object, or what it lacks."""
    label = unicodedata.normalize("NFC", " ".join((element.find_text("name") or "").split()))
    if not label:
        return "no <name>"
    corners = [_number(element.find_text(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if any(corner is None for corner in corners):
        return "no box of four numbers"
    return AnnotatedObject(
        label=label,
        where=where,
        box=_box(*(corner for corner in corners if corner is not None)),
        is_difficult=element.find_text("difficult") in ("1", "true", "True"),
    )


def _box(x_min: float, y_min: float, x_max: float, y_max: float) -> Box:
    """The pixels that VOC's numbers mean. A point or a line stays without area: nobody meant to draw one pixel."""
    return (
        x_min - 1 if x_max > x_min else x_max,
        y_min - 1 if y_max > y_min else y_max,
        x_max,
        y_max,
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _findings(notes: _Notes, twice: Sequence[str]) -> list[Finding]:
    findings = []
    if notes.broken:
        where, reason = next(iter(notes.broken.items()))
        text = f"{counted(len(notes.broken), 'annotation')} left out: broken XML. The first, {where}: {reason}"
        findings.append(finding("error", "broken_xml", text, notes.broken))
    if notes.missing_images:
        text = f"{counted(len(notes.missing_images), 'annotation')} of pictures that are not in the archive."
        findings.append(finding("error", "missing_images", text, notes.missing_images))
    if twice:
        text = f"{counted(len(twice), 'annotation')} left out: of a picture that has another one."
        findings.append(finding("error", "annotated_twice", text, twice))
    if notes.bad:
        reason = next(iter(notes.bad.values()))
        text = f"{counted(len(notes.bad), 'object')} left out; the first has {reason}."
        findings.append(finding("error", "bad_objects", text, notes.bad))
    return findings


def _unannotated(images: Sequence[ArchivedFile]) -> list[Finding]:
    if not images:
        return []
    text = (
        f"{counted(len(images), 'image')} left out: without an annotation. A picture without objects is kept if its "
        "XML file says so by having none."
    )
    return [finding("warning", "missing_annotations", text, [image.name for image in images])]


PASCAL_VOC = Format(name="pascal_voc", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
