"""The names of images on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.builders import archived, facts
from workers.datasets.formats.reading import LabelledFile
from workers.datasets.layout import ImageLayout, disk_name
from workers.datasets.validation.image_findings import InspectedSample


def placed(directory: Path, names_and_labels: dict[str, str]) -> dict[str, str]:
    """Places files in `train`. Returns the path of each name."""
    files = archived(directory, {name: name.encode() for name in names_and_labels})
    samples = [
        InspectedSample(
            labelled=LabelledFile(file=file, label=names_and_labels[file.name], split="train"), facts=facts()
        )
        for file in files
    ]
    layout = ImageLayout(directory / "images", sorted(set(names_and_labels.values())))
    images = layout.place(samples, "train")
    for image in images:
        assert (directory / "images" / image.path).read_bytes() == image.name.encode()
    return {image.name: image.path for image in images}


def test_path_is_split_label_and_name(tmp_path: Path) -> None:
    assert placed(tmp_path, {"data/ants/a b.JPG": "ants"}) == {"data/ants/a b.JPG": "train/ants/a b.JPG"}


def test_same_name_from_two_folders_is_numbered(tmp_path: Path) -> None:
    assert placed(tmp_path, {"ants/a/1.png": "ants", "ants/b/1.png": "ants"}) == {
        "ants/a/1.png": "train/ants/1.png",
        "ants/b/1.png": "train/ants/1~2.png",
    }


def test_names_that_differ_only_in_case_get_different_paths(tmp_path: Path) -> None:
    paths = placed(tmp_path, {"ants/A.png": "ants", "ants/a.png": "ants", "Ants/a.png": "Ants"})

    assert len({path.casefold() for path in paths.values()}) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("käfer.png", "käfer.png"),
        ("甲虫.png", "甲虫.png"),
        ("a:b*c?.png", "a_b_c_.png"),
        ("..", "_"),
        ("a/b", "a_b"),
        (" . ", "_"),
        ("-rf", "-rf"),
        ("no suffix", "no suffix"),
    ],
)
def test_disk_name_is_valid_on_every_system(text: str, expected: str) -> None:
    assert disk_name(text) == expected


@pytest.mark.parametrize("letter", ["n", "ä", "甲"])
def test_long_name_is_cut_before_its_suffix(letter: str) -> None:
    name = disk_name(letter * 300 + ".jpeg")

    assert name.endswith(letter + ".jpeg")
    assert len(name.encode()) <= 150
