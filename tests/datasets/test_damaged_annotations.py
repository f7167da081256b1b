"""Damaged COCO, Pascal VOC, YOLO and lists of splits: no error but a refusal, and nothing is lost without a finding.

FUZZ_EXAMPLES=10000 runs 10,000 of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.builders import coco_json, coco_object, image_64x48, voc_xml
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from workers.datasets.formats.reading import Reading

IMAGES = {f"images/{number}.png": image_64x48(number) for number in range(4)}
ENTRIES = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in range(4)]
OBJECTS = [
    coco_object(0, iscrowd=0, area=300.5),
    coco_object(1, (1, 2, 9, 9), segmentation=[[1, 2, 10, 2, 10, 11]]),
    coco_object(1, None, segmentation={"size": [48, 64], "counts": [10, 20, 3042]}),
    coco_object(2, category=2),
]
COCO = coco_json(ENTRIES, OBJECTS)
VOC = voc_xml(("cell", (11, 6, 30, 20)), ("cell", (1, 1, 9, 9)), more="<difficult>0</difficult>")
YAML = b"names:\n  0: cat\n  1: dog\ntrain: train.txt\nval: [val.txt, images/val]\n"
LABELS = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.2\n"


def objects_in(reading: Reading) -> int:
    """The objects that the reading has, or that it knows to be unusable."""
    annotations = [each.annotation for each in reading.files if each.annotation is not None]
    return sum(len(each.objects) + each.unusable_objects for each in annotations)


def counted_entries(reading: Reading) -> int:
    codes = {"bad_entries", "unknown_images", "unknown_categories", "bad_objects", "missing_images"}
    return sum(each.count for each in reading.findings if each.code in codes)


def broken_files(reading: Reading) -> bool:
    """True if a finding says that a whole file or image was left out."""
    return bool({each.code for each in reading.findings} & {"broken_xml", "missing_images", "ambiguous_images"})


@many_examples
@given(damaged(COCO))
def test_damaged_coco_loses_no_entry_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "a.json": content})

    if reading is not None and reading.format == "coco":
        assert accounted_images(reading) == len(IMAGES)
        entries = parsed_list(content, "annotations")
        if entries is not None and not broken_files(reading):
            assert objects_in(reading) + counted_entries(reading) >= len(entries)


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, 1e400, float("nan"), 10**400, "", "1", "[1, 2]", [], [[]], {}, {"a": 1}, [1, 2, 3]]
)


@st.composite
def odd_fields(draw: st.DrawFn) -> bytes:
    """A COCO file in which some fields have values of another type, or are missing."""
    lists: list[list[dict[str, Any]]] = [[dict(entry) for entry in entries] for entries in (ENTRIES, OBJECTS)]
    for _ in range(draw(st.integers(1, 4))):
        entry = draw(st.sampled_from([entry for entries in lists for entry in entries]))
        key = draw(st.sampled_from(sorted(entry) or ["id"]))
        if draw(st.booleans()):
            entry[key] = draw(ODD)
        else:
            entry.pop(key, None)
    return coco_json(lists[0], lists[1])


@many_examples
@given(odd_fields())
def test_odd_values_in_coco_lose_no_entry_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "a.json": content})

    if reading is not None and not broken_files(reading):
        assert accounted_images(reading) == len(IMAGES)
        assert objects_in(reading) + counted_entries(reading) >= len(OBJECTS)


@many_examples
@given(damaged(VOC))
def test_damaged_voc_loses_no_object_without_a_finding(content: bytes) -> None:
    files = {f"Annotations/{number}.xml": VOC for number in range(4)}
    reading = read_or_refused({**IMAGES, **files, "Annotations/0.xml": content})

    if reading is not None and reading.format == "pascal_voc":
        assert accounted_images(reading) == len(IMAGES)
        if len(reading.files) == 4:
            # every whole <object> is an object or a finding; the damage may have cut one open
            assert objects_in(reading) >= 6


@many_examples
@given(damaged(YAML), damaged(b"./images/0.png\n./images/1.png\n"))
def test_damaged_yaml_and_lists_lose_no_image_without_a_finding(yaml: bytes, listed: bytes) -> None:
    labels = {f"labels/{number}.txt": LABELS for number in range(4)}
    lists = {"train.txt": listed, "val.txt": b"images/2.png\nimages/3.png\n"}
    reading = read_or_refused({**IMAGES, **labels, **lists, "data.yaml": yaml})

    if reading is not None and reading.format == "yolo":
        assert accounted_images(reading) == len(IMAGES)
        assert objects_in(reading) == 2 * len(reading.files)


@many_examples
@given(damaged(LABELS))
def test_damaged_label_file_loses_no_line_without_a_finding(content: bytes) -> None:
    labels = {f"labels/{number}.txt": LABELS for number in range(4)}
    reading = read_or_refused({**IMAGES, **labels, "labels/0.txt": content, "data.yaml": b"names: [cat, dog]\n"})

    assert reading is not None
    lines = [line for line in content.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
    assert objects_in(reading) == 6 + len(lines)
    (first,) = [each for each in reading.files if each.file.name == "images/0.png"]
    assert first.annotation is not None
    assert first.annotation.unusable_objects == counted_entries(reading)


@pytest.mark.parametrize("content", [COCO, COCO.replace(b"\n", b" ")], ids=["lines", "one line"])
def test_undamaged_file_has_all_objects(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "a.json": content})

    assert reading is not None
    assert objects_in(reading) == len(OBJECTS)


def parsed_list(content: bytes, key: str) -> Sequence[object] | None:
    """The list under `key`, or None if Python's json does not read it or the key is repeated."""
    try:
        document = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, list) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)
