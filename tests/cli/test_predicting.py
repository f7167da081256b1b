"""`fovea classify`, `detect` and `segment` on images, against a server whose models' answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.client import Client
from tests.app.finders import png
from tests.cli.running import as_json, fovea
from tests.models.spotter import Rectangle

RED: Rectangle = ("red", 20, 30, 120, 90)
BLUE: Rectangle = ("blue", 200, 10, 260, 70)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two of the same name, and a file that is none."""
    paths = [tmp_path / "one" / "a.png", tmp_path / "two" / "a.png", tmp_path / "notes.txt"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    paths[0].write_bytes(png(320, 160, RED, BLUE))
    paths[1].write_bytes(png(320, 160))
    paths[2].write_text("no picture")
    return paths


def test_objects_are_listed_with_their_boxes(finders_url: str, pictures: list[Path]) -> None:
    result = fovea(finders_url, "detect", *pictures, "--model", "boxes")

    assert result.exit_code == 1  # one is no image
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["a.png", "red", "0.9000", "20", "30", "120", "90"] in lines
    assert ["blue", "0.8000", "200", "10", "260", "70"] in lines
    assert "nothing above the threshold" in result.stdout
    assert "not an image" in result.stdout
    assert "boxes/1 (fasterrcnn_resnet50_fpn)" in result.stderr


def test_detect_passes_its_options_on(finders_url: str, pictures: list[Path]) -> None:
    options = ["--category", "blue", "--tile", "160", "--overlap", "0.1", "--masks", "polygon"]

    answer = as_json(finders_url, "detect", pictures[0], "--model", "masks", *options)

    (found,) = answer["predictions"][0]["detections"]
    assert found["label"] == "blue"
    assert found["polygons"]


def test_json_has_masks_where_the_model_makes_them(finders_url: str, pictures: list[Path]) -> None:
    answer = as_json(finders_url, "detect", pictures[0], "--model", "masks", "--max-detections", "1")

    (found,) = answer["predictions"][0]["detections"]
    assert found["mask"]["size"] == [160, 320]


def test_shares_of_categories_are_listed(finders_url: str, pictures: list[Path]) -> None:
    result = fovea(finders_url, "segment", pictures[0], "--model", "painter")

    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["red", "11.72%"] in lines


@pytest.mark.parametrize(("command", "model"), [("classify", "compass"), ("detect", "boxes"), ("segment", "painter")])
def test_drawn_pictures_are_saved_without_replacing_each_other(
    finders_url: str, pictures: list[Path], tmp_path: Path, command: str, model: str
) -> None:
    fovea(finders_url, command, *pictures, "--model", model, "--save", tmp_path / "drawn" / "here")

    drawn = sorted((tmp_path / "drawn" / "here").iterdir())
    assert [path.name for path in drawn] == ["a-2.png", "a.png"]
    with Image.open(drawn[1]) as after, Image.open(pictures[0]) as before:
        assert not np.array_equal(np.asarray(after), np.asarray(before))


def test_model_for_something_else_says_what_to_ask_it(finders_url: str, pictures: list[Path]) -> None:
    result = fovea(finders_url, "detect", pictures[0], "--model", "painter")

    assert result.exit_code == 1
    assert "fovea segment" in result.stderr


def test_many_pictures_take_several_requests_and_one_answer(finders_url: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path in paths:
        path.write_bytes(png(64, 64, ("red", 8, 8, 40, 40)))

    answer = as_json(finders_url, "detect", *paths, "--model", "boxes")

    assert [entry["image"]["name"] for entry in answer["predictions"]] == [path.name for path in paths]
    assert answer["timing_ms"]["inference"] > 0


def test_client_answers_in_types(finders_url: str, pictures: list[Path]) -> None:
    with Client(finders_url) as client:
        (found, nothing) = client.detect(pictures[:2], model="boxes", categories=["red"]).predictions
        (segments,) = client.segment(pictures[0].read_bytes(), model="painter", masks="none").predictions
        drawn = client.draw("detect", pictures[0], model="boxes", image_format="jpeg")

    assert found.detections is not None
    assert [detection.box.x_max for detection in found.detections] == [120]
    assert nothing.detections == []
    assert segments.segments is not None
    assert segments.segments[1].mask is None
    assert drawn.startswith(b"\xff\xd8")
