"""Reads one COCO file: its images with their objects, and the entries that cannot be used."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.masks.coco_masks import Box, Polygon
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import entries_finding, finding
from workers.datasets.formats.annotation import AnnotatedObject, Annotation, RunLengths, clean_label
from workers.datasets.formats.json_stream import BadJson, JsonFile
from workers.datasets.formats.json_values import number_of, numbers_of, size_of, text_of
from workers.datasets.formats.reading import unusable
from workers.errors import UnusableDataset

_MAX_BYTES = 512 * 2**20  # the largest file of COCO itself has 449 MB
_PROBLEMS = {  # code of a finding -> its meaning
    "bad_entries": "a field is missing or invalid",
    "unknown_images": "the file does not list the image",
    "unknown_categories": "the file does not list the category",
}


class _BadEntry(ValueError):
    """An entry that cannot be used: `code` is a key of _PROBLEMS, `str()` the reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(kw_only=True, slots=True)
class CocoFile:
    """The content of one COCO file."""

    categories: list[str] = field(default_factory=list)  # in the order of the file
    images: list[tuple[str, Annotation]] = field(default_factory=list)  # `file_name`, annotation
    findings: list[Finding] = field(default_factory=list)


def read_coco_file(file: ArchivedFile) -> CocoFile:
    """Reads the file in two passes, because images and categories may follow the objects that refer to them.

    Raises UnusableDataset if the file is broken or too large.
    """
    if file.size_bytes > _MAX_BYTES:
        raise unusable(
            f"{file.name} has {file.size_bytes:,} bytes, but a COCO file may have at most {_MAX_BYTES:,}.",
            hint="Write one file per split, or post the images as several datasets.",
            code="annotations_too_large",
            files=[file.name],
        )
    try:
        return _Reader(file, JsonFile(file.path)).read()
    except BadJson as error:
        raise _broken(file, error) from error


def _broken(file: ArchivedFile, error: BadJson) -> UnusableDataset:
    where = f"{file.name}:{error.line}"
    return unusable(
        f"{where}: the JSON is broken: {error}.",
        hint="Open the file in an editor at this line. If the file ends early, export it again.",
        code="broken_json",
        files=[where],
    )


class _Reader:
    def __init__(self, file: ArchivedFile, content: JsonFile) -> None:
        self._file = file
        self._content = content
        self._labels: dict[Hashable, str] = {}
        self._images: dict[Hashable, tuple[str, tuple[int, int] | None]] = {}
        self._objects: defaultdict[Hashable, list[AnnotatedObject]] = defaultdict(list)
        self._unusable: Counter[Hashable] = Counter()  # objects of each image that cannot be used
        self._problems: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # code -> place, reason

    def read(self) -> CocoFile:
        """Reads the whole file. Raises BadJson."""
        for key, entry, line in self._content.items(("images", "categories")):
            self._note_problems(self._add_image if key == "images" else self._add_category, entry, line)
        for _, entry, line in self._content.items(("annotations",)):
            self._note_problems(self._add_object, entry, line)
        return CocoFile(
            categories=list(dict.fromkeys(self._labels.values())),
            images=[
                (
                    name,
                    Annotation(
                        objects=self._objects.get(number, ()), size=size, unusable_objects=self._unusable[number]
                    ),
                )
                for number, (name, size) in self._images.items()
            ],
            findings=self._findings(),
        )

    def _note_problems(self, add: Callable[[Mapping[str, Any], str], None], entry: Any, line: int) -> None:
        where = f"{self._file.name}:{line}"
        try:
            add(entry if isinstance(entry, dict) else {}, where)
        except _BadEntry as error:
            self._problems[error.code].append((where, str(error)))

    def _add_image(self, entry: Mapping[str, Any], _where: str) -> None:
        name, number = entry.get("file_name"), _identifier(entry.get("id"))
        if number is None or not isinstance(name, str) or not name.strip():
            raise _BadEntry("bad_entries", "`id` or `file_name` is missing")
        if number not in self._images:
            self._images[number] = (name, size_of(entry.get("width"), entry.get("height")))
        elif self._images[number][0] != name:
            self._unusable[number] += 1  # nobody knows which of the images its objects belong to
            raise _BadEntry("bad_entries", f"another image has the same `id`, {number}")

    def _add_category(self, entry: Mapping[str, Any], _where: str) -> None:
        name, number = entry.get("name"), _identifier(entry.get("id"))
        if number is None or not isinstance(name, str) or not name.strip():
            raise _BadEntry("bad_entries", "`id` or `name` is missing")
        if self._labels.get(number, clean_label(name)) != clean_label(name):
            raise _BadEntry("bad_entries", f"another category has the same `id`, {number}")
        self._labels[number] = clean_label(name)

    def _add_object(self, entry: Mapping[str, Any], where: str) -> None:
        image = _known(entry.get("image_id"), self._images)
        if image is None:
            written = _identifier(entry.get("image_id"))
            if written is None:
                raise _BadEntry("bad_entries", "`image_id` is missing")
            raise _BadEntry("unknown_images", f"`image_id` is {written}")
        try:
            self._objects[image].append(self._object(entry, where))
        except _BadEntry:
            self._unusable[image] += 1
            raise

    def _object(self, entry: Mapping[str, Any], where: str) -> AnnotatedObject:
        category = _known(entry.get("category_id"), self._labels)
        if category is None:
            written = _identifier(entry.get("category_id"))
            if written is None:
                raise _BadEntry("bad_entries", "`category_id` is missing")
            raise _BadEntry("unknown_categories", f"`category_id` is {written}")
        box, outline = _box_and_outline(entry)
        return AnnotatedObject(
            label=self._labels[category],
            where=where,
            box=box,
            outline=outline,
            is_crowd=_is_set(entry.get("iscrowd")),
            is_difficult=_is_set(entry.get("ignore")) or _is_set(entry.get("difficult")),
            area=_area(entry.get("area")),
        )

    def _findings(self) -> list[Finding]:
        findings = []
        for code, meaning in _PROBLEMS.items():
            if code in self._problems:
                findings.append(entries_finding(code, self._problems[code], of=f" of {self._file.name}", why=meaning))
        numbers = sorted(number for number in self._labels if isinstance(number, int))
        if numbers and (numbers[-1] - numbers[0] >= len(numbers) or numbers[0] not in (0, 1)):
            text = (
                f"The category ids of {self._file.name} have gaps: {numbers[0]} to {numbers[-1]} for {len(numbers)} "
                "categories. In Fovea the index of a category is its place in the list."
            )
            findings.append(finding("info", "category_ids_with_gaps", text, count=len(numbers)))
        return findings


def _identifier(value: Any) -> int | str | None:
    """Returns an id: text, or a whole number, which pandas writes as 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str) or type(value) is int else None


def _known(value: Any, entries: Mapping[Hashable, object]) -> Hashable:
    """Returns the key of `entries` that `value` means, or None: "1" is also 1, unless the file has both."""
    number = _identifier(value)
    if number is None or number in entries:
        return number
    whole = number_of(number)
    if whole is None or not whole.is_integer():
        return None
    return next((key for key in (int(whole), str(int(whole))) if key in entries), None)


def _is_set(value: Any) -> bool:
    """Returns True for 1, true and the texts of these."""
    return value is True or number_of(value) not in (None, 0.0) or text_of(value).casefold() in ("true", "yes")


def _box_and_outline(entry: Mapping[str, Any]) -> tuple[Box | None, tuple[Polygon, ...] | RunLengths | None]:
    """Reads both fields. If only one of them can be used, the object keeps that one. Raises _BadEntry."""
    problem, box, outline = None, None, None
    try:
        box = _box(entry.get("bbox"))
    except _BadEntry as error:
        problem = error
    try:
        outline = _outline(entry.get("segmentation"))
    except _BadEntry:
        if box is None:
            raise
        return box, ()
    if box is None and outline is None:
        raise problem or _BadEntry("bad_entries", "both `bbox` and `segmentation` are missing")
    return box, outline


def _box(value: Any) -> tuple[float, float, float, float] | None:
    """Converts COCO's x, y, width, height to x_min, y_min, x_max, y_max."""
    if value is None or value == []:
        return None
    numbers = _numbers(value, "bbox")
    if len(numbers) != 4:
        raise _BadEntry("bad_entries", "`bbox` does not have four numbers")
    x, y, width, height = numbers
    return x, y, x + width, y + height


def _area(value: Any) -> float | None:
    """Returns the stated area in px^2, or None for a value that cannot be one: metrics then measure it themselves."""
    try:
        area = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return area if math.isfinite(area) and area > 0 else None


def _outline(value: Any) -> tuple[Polygon, ...] | RunLengths | None:
    if not value:
        return None
    if isinstance(value, dict):
        return _run_lengths(value)
    polygons = value if isinstance(value, list) and isinstance(value[0], list) else [value]
    outline = [_numbers(polygon, "segmentation") for polygon in polygons]
    if any(len(polygon) % 2 for polygon in outline) or all(len(polygon) < 6 for polygon in outline):
        raise _BadEntry("bad_entries", "a polygon in `segmentation` does not have three or more pairs of numbers")
    return tuple(polygon for polygon in outline if len(polygon) >= 6)  # a point or a line covers no pixel


def _run_lengths(value: Mapping[str, Any]) -> RunLengths:
    stated, counts = value.get("size"), value.get("counts")
    size = size_of(*stated) if isinstance(stated, list) and len(stated) == 2 else None
    if size is None:
        raise _BadEntry("bad_entries", "the run lengths in `segmentation` have no `size` of height and width")
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return RunLengths(width=size[1], height=size[0], counts=tuple(counts))
    if isinstance(counts, str):
        return RunLengths(width=size[1], height=size[0], counts=counts)
    raise _BadEntry("bad_entries", "the `counts` in `segmentation` are neither text nor a list of whole numbers")


def _parsed(value: Any) -> Any:
    """Returns the list in the text "[1, 2]", as spreadsheets keep it; other values as they are."""
    if not isinstance(value, str) or not value.strip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _numbers(value: Any, field_name: str) -> array[float]:
    """Returns `value` as doubles, which take a fifth of the memory of a list of floats."""
    try:
        numbers = array("d", value)
    except (TypeError, OverflowError) as error:
        texts = numbers_of(_parsed(value))
        if texts is not None:
            return array("d", texts)
        raise _BadEntry("bad_entries", f"`{field_name}` is not a list of numbers") from error
    if not all(map(math.isfinite, numbers)):
        raise _BadEntry("bad_entries", f"`{field_name}` has a value that is not a finite number")
    return numbers
