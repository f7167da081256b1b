"""Pascal VOC: one XML file with boxes per image, and lists of the splits in `ImageSets/Main/`.

VOC counts pixels from 1 and a box includes its last row and column, so `xmin` 1 and `xmax` 10 mean x from 0 to 10 here.
Source: Everingham et al. 2010, and the VOC2012 development kit, section 2.3.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from models.masks.coco_masks import Box
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, entries_finding, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation, clean_label
from workers.datasets.formats.file_names import FileNames, split_in_path, stem_of
from workers.datasets.formats.image_lists import ImageLists
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable
from workers.datasets.formats.xml_tree import BadXml, Element, parse_xml
from workers.errors import UnusableDataset

_EXPECTED = "Pascal VOC: JPEGImages/1.jpg and Annotations/1.xml, and optionally lists of the splits in ImageSets/Main"
_HINT = f"Expected: {_EXPECTED}."
_MAX_BYTES = 32 * 2**20  # about 100,000 boxes
_HEAD_BYTES = 4096


@dataclass(kw_only=True, slots=True)
class _Problems:
    """The parts of the annotations that cannot be used, with their places and the reasons."""

    broken_files: dict[str, str] = field(default_factory=dict)  # place -> reason, as in `a.xml:12`
    bad_objects: list[tuple[str, str]] = field(default_factory=list)  # place, reason
    without_image: list[str] = field(default_factory=list)  # names of annotation files
    annotated_twice: list[str] = field(default_factory=list)  # names of images


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_annotation(file) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    annotations = [file for file in files if _is_annotation(file)]
    if not annotations:
        raise unusable("The archive has no XML file with an <annotation> element.", hint=_HINT, code="no_annotations")
    images = _without_masks(sorted_files.images)
    image_names = FileNames(images)
    lists = ImageLists(files, task_folder="Main")
    problems = _Problems()
    by_image: dict[str, tuple[ArchivedFile, Annotation, str | None]] = {}
    for file in annotations:
        root = _parsed(file, problems)
        if root is None:
            continue
        image = _image_of(root, file, image_names)
        if image is None:
            problems.without_image.append(file.name)
        else:
            _add(by_image, image, _annotation(root, file, problems), lists, problems)
    unannotated = [image for image in images if image.name not in by_image]
    by_image = {name: each for name, each in by_image.items() if name not in problems.annotated_twice}
    findings = [*_findings(problems), *_unannotated(unannotated), *lists.findings(set(by_image))]
    findings += leftover_findings(sorted_files, used={file.name for file in annotations} | lists.names)
    if not by_image:
        raise _no_annotated_images(problems, findings)
    resolved, split_findings = resolve_splits([by_image[name] for name in sorted(by_image)])
    return Reading(format="pascal_voc", task="detection", files=tuple(resolved), findings=(*split_findings, *findings))


def _add(
    by_image: dict[str, tuple[ArchivedFile, Annotation, str | None]],
    image: ArchivedFile,
    annotation: Annotation,
    lists: ImageLists,
    problems: _Problems,
) -> None:
    """Adds an annotation. An image with two that differ is left out: nobody knows which of them is right."""
    if image.name not in by_image:
        by_image[image.name] = (image, annotation, lists.split_for(image.name, split_in_path(image.name)))
    elif _objects_of(by_image[image.name][1]) != _objects_of(annotation):
        problems.annotated_twice.append(image.name)


def _objects_of(annotation: Annotation) -> list[AnnotatedObject]:
    return [replace(each, where="") for each in annotation.objects]


def _no_annotated_images(problems: _Problems, findings: Sequence[Finding]) -> UnusableDataset:
    if problems.broken_files and not problems.without_image:
        where, reason = next(iter(problems.broken_files.items()))
        return unusable(
            f"None of the annotations can be read. The first, {where}: {reason}.",
            hint="Open the file in an editor at this line.",
            code="broken_xml",
            findings=findings,
        )
    return unusable(
        "No annotation belongs to an image of the archive.", hint=_HINT, code="no_images", findings=findings
    )


def _is_annotation(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".xml"):
        return False
    with file.path.open("rb") as content:
        return b"<annotation" in content.read(_HEAD_BYTES)


def _without_masks(images: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """Returns `images` without VOC's masks, which have the same names as the images."""
    masks = {"SegmentationClass", "SegmentationObject"}
    return [image for image in images if masks.isdisjoint(image.name.split("/"))]


def _parsed(file: ArchivedFile, problems: _Problems) -> Element | None:
    if file.size_bytes > _MAX_BYTES:
        reason = f"it has {file.size_bytes:,} bytes, but an annotation may have at most {_MAX_BYTES:,}"
        problems.broken_files[file.name] = reason
        return None
    try:
        return parse_xml(file.path.read_bytes())
    except BadXml as error:
        problems.broken_files[f"{file.name}:{error.line}"] = str(error)
        return None


def _image_of(root: Element, file: ArchivedFile, images: FileNames) -> ArchivedFile | None:
    """Returns the image that is named like the XML file, else the image that the XML file names."""
    near = posixpath.dirname(file.name)
    found = images.find(stem_of(file.name), near=near, split=split_in_path(file.name))
    written = root.find_text("filename")
    if found is None and written is not None:
        found = images.find(written, near=near)
    return found


def _annotation(root: Element, file: ArchivedFile, problems: _Problems) -> Annotation:
    width, height = _number(root.find_text("size/width")), _number(root.find_text("size/height"))
    objects: list[AnnotatedObject] = []
    unusable_objects = 0
    for element in root.all("object"):
        where = f"{file.name}:{element.line}"
        read = _objects(element, where)
        objects += [each for each in read if isinstance(each, AnnotatedObject)]
        reasons = [each for each in read if isinstance(each, str)]
        unusable_objects += len(reasons)
        problems.bad_objects += [(where, reason) for reason in reasons]
    size = (int(width), int(height)) if width and height and min(width, height) >= 1 else None  # some tools write 0
    return Annotation(objects=objects, size=size, unusable_objects=unusable_objects)


def _objects(element: Element, where: str) -> list[AnnotatedObject | str]:
    """Returns an object, or the reason why it is invalid, for each box of an <object>: some tools write several."""
    label = clean_label(element.find_text("name") or "")
    boxes = list(element.all("bndbox"))
    if not label:
        return ["it has no <name>"] * max(1, len(boxes))
    is_difficult = (element.find_text("difficult") or "").casefold() in ("1", "true")
    found: list[AnnotatedObject | str] = []
    for bndbox in boxes:
        corners = [_number(bndbox.find_text(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
        box = tuple(corner for corner in corners if corner is not None)
        if len(box) == 4:
            found.append(AnnotatedObject(label=label, where=where, box=_box(*box), is_difficult=is_difficult))
        else:
            found.append("its <bndbox> does not have four numbers")
    return found or ["it has no <bndbox>"]


def _box(x_min: float, y_min: float, x_max: float, y_max: float) -> Box:
    """Returns the box in pixels counted from 0.

    A point or a line keeps no area, and validation drops it later: it is a mistake, not a box of one pixel.
    """
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


def _findings(problems: _Problems) -> list[Finding]:
    findings = []
    if problems.broken_files:
        where, reason = next(iter(problems.broken_files.items()))
        count = counted(len(problems.broken_files), "annotation")
        text = f"{count} left out: the XML is broken. The first, {where}: {reason}."
        findings.append(finding("error", "broken_xml", text, problems.broken_files))
    if problems.without_image:
        text = f"{counted(len(problems.without_image), 'annotation')} left out: the image is not in the archive."
        findings.append(finding("error", "missing_images", text, problems.without_image))
    if problems.annotated_twice:
        names = dict.fromkeys(problems.annotated_twice)
        text = f"{counted(len(names), 'image')} left out: several annotations that differ."
        findings.append(finding("error", "annotated_twice", text, names))
    if problems.bad_objects:
        findings.append(entries_finding("bad_objects", problems.bad_objects, noun=("object", "objects")))
    return findings


def _unannotated(images: Sequence[ArchivedFile]) -> list[Finding]:
    if not images:
        return []
    text = (
        f"{counted(len(images), 'image')} left out: no annotation. To keep an image without objects, add an XML file "
        "without <object>."
    )
    return [finding("warning", "missing_annotations", text, [image.name for image in images])]


PASCAL_VOC = Format(name="pascal_voc", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
