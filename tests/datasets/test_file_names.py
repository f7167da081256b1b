"""Finding images by the names that annotations write."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.file_names import FileNames, missing_findings


def names(*paths: str, same_content: bool = False) -> FileNames:
    return FileNames(
        ArchivedFile(name=path, path=Path(path), size_bytes=1, sha256="x" if same_content else path, head=b"")
        for path in paths
    )


def found(files: FileNames, written: str, **options: str) -> str | None:
    file = files.find(written, **options)
    return file.name if file is not None else None


@pytest.mark.parametrize(
    "written",
    [
        "images/A1.jpg",
        "A1.jpg",
        "/home/me/images/A1.jpg",
        "C:\\data\\A1.jpg",
        "other/A1.jpg",
        "a1.JPG",
        "IMAGES\\a1.jpg",
        "A1",
        "a1",
        "A1.png",
        "x/a1.tif",
        " A1.jpg ",
    ],
)
def test_name_is_found_without_folders_case_or_suffix(written: str) -> None:
    assert found(names("data/images/A1.jpg", "data/images/A2.jpg"), written) == "data/images/A1.jpg"


@pytest.mark.parametrize(
    ("paths", "written", "expected"),
    [
        (("a.jpg", "A.jpg"), "A.jpg", "A.jpg"),
        (("x/a.jpg", "y/A.jpg"), "A.jpg", "y/A.jpg"),
        (("x/a.jpg", "y/a.png"), "a.png", "y/a.png"),
        (("x/a.JPG", "y/a.png"), "a.jpg", "x/a.JPG"),
        (("x/v1.2.jpg", "x/v1.jpg"), "v1.2", "x/v1.2.jpg"),
    ],
)
def test_earlier_step_wins(paths: tuple[str, ...], written: str, expected: str) -> None:
    assert found(names(*paths), written) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("JPEGImages/1.jpg", "AnnotationsVisualization/1.jpg"), "JPEGImages/1.jpg"),
        (("d/images/1.jpg", "d/heatmaps/1.jpg"), "d/images/1.jpg"),
        (("train/images/1.jpg", "val/images/1.jpg"), "val/images/1.jpg"),
    ],
)
def test_convention_decides_a_tie(paths: tuple[str, ...], expected: str) -> None:
    assert found(names(*paths), "1.jpg", split="val", near="Annotations") == expected


def test_tie_without_a_convention_finds_nothing_and_is_reported_with_both_names() -> None:
    files = names("a/1.jpg", "b/1.JPG")

    assert found(files, "1.jpg") == "a/1.jpg"
    assert found(files, "1.png") is None
    (finding,) = missing_findings({"1.png": files.tied("1.png")})
    assert finding.code == "ambiguous_images"
    assert "a/1.jpg or b/1.JPG" in finding.message


def test_copies_of_one_image_are_no_tie() -> None:
    files = names("a/1.jpg", "b/1.jpg", same_content=True)

    assert found(files, "1.jpg") == "a/1.jpg"
    assert files.tied("1.jpg") == ()


def test_unknown_name_is_missing() -> None:
    files = names("a/1.jpg")

    assert found(files, "2.jpg") is None
    (finding,) = missing_findings({"2.jpg": files.tied("2.jpg")})
    assert (finding.code, finding.count) == ("missing_images", 1)
