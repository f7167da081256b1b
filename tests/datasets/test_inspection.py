"""Inspection decodes every image and returns its facts or its problem."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets.builders import archived, small_image
from workers.datasets.validation import inspection
from workers.datasets.validation.inspection import ImageFacts, ImageProblem, inspect_images


def inspected(directory: Path, files: Mapping[str, bytes], **options: int) -> dict[str, ImageFacts | ImageProblem]:
    found = archived(directory, files)
    return {file.name: outcome for file, outcome in zip(found, inspect_images(found, **options), strict=True)}


def the_facts(directory: Path, data: bytes, name: str = "a.png") -> ImageFacts:
    outcome = inspected(directory, {name: data})[name]
    assert isinstance(outcome, ImageFacts)
    return outcome


def the_problem(directory: Path, data: bytes, **options: int) -> ImageProblem:
    outcome = inspected(directory, {"a.jpg": data}, **options)["a.jpg"]
    assert isinstance(outcome, ImageProblem)
    return outcome


def animation(format: str) -> bytes:  # noqa: A002
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]
    encoded = BytesIO()
    frames[0].save(encoded, format, save_all=True, append_images=frames[1:])
    return encoded.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png() -> bytes:
    """A PNG that claims to have 20,000 x 20,000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


def test_good_image_has_a_size_and_a_kind(tmp_path: Path) -> None:
    assert the_facts(tmp_path, small_image(size=(30, 20))) == ImageFacts(
        width=30, height=20, kind="PNG", is_animated=False, is_blank=False
    )


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = the_facts(tmp_path, small_image(size=(30, 20), format="JPEG", exif=exif))

    assert (turned.width, turned.height) == (20, 30)


def test_kind_depends_on_the_content(tmp_path: Path) -> None:
    assert the_facts(tmp_path, small_image(format="GIF"), name="a.jpg").kind == "GIF"


def test_single_colour_is_blank(tmp_path: Path) -> None:
    encoded = BytesIO()
    Image.new("RGB", (40, 40), "beige").save(encoded, "PNG")

    assert the_facts(tmp_path, encoded.getvalue()).is_blank


def test_single_odd_pixel_is_not_blank(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), "beige")
    image.putpixel((37, 5), (0, 0, 0))
    encoded = BytesIO()
    image.save(encoded, "PNG")

    assert not the_facts(tmp_path, encoded.getvalue()).is_blank


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animation_is_recognised(tmp_path: Path, format: str) -> None:  # noqa: A002
    assert the_facts(tmp_path, animation(format)).is_animated


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_still_image_is_not_animated(tmp_path: Path, format: str) -> None:  # noqa: A002
    assert not the_facts(tmp_path, small_image(format=format)).is_animated


def test_empty_file_is_a_problem(tmp_path: Path) -> None:
    assert the_problem(tmp_path, b"").code == "empty_file"


def test_text_is_a_problem(tmp_path: Path) -> None:
    assert the_problem(tmp_path, b"404 not found").code == "not_an_image"


def test_truncated_image_is_a_problem(tmp_path: Path) -> None:
    assert the_problem(tmp_path, small_image(size=(200, 200), format="JPEG")[:400]).code == "unreadable_image"


def test_image_below_eight_pixels_is_a_problem(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, small_image(size=(100, 7)))

    assert (problem.code, problem.reason) == ("tiny_image", "It has 100 x 7 pixels.")


def test_image_of_eight_pixels_is_good(tmp_path: Path) -> None:
    assert the_facts(tmp_path, small_image(size=(8, 8))).width == 8


def test_image_of_too_many_pixels_is_a_problem_before_it_is_decoded(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, huge_png())

    assert problem.code == "image_too_large"
    assert "20000 x 20000" in problem.reason


def test_caller_sets_the_limit_on_pixels(tmp_path: Path) -> None:
    assert the_problem(tmp_path, small_image(size=(20, 20)), max_pixels=399).code == "image_too_large"


def test_file_of_too_many_bytes_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_MAX_FILE_BYTES", 10)

    assert the_problem(tmp_path, small_image()).code == "image_too_large"


def test_results_have_the_order_of_the_files(tmp_path: Path) -> None:
    files = {f"{number:03}.png": small_image(number, size=(8 + number, 10)) for number in range(60)}

    outcomes = inspected(tmp_path, files, threads=3).values()

    assert [outcome.width for outcome in outcomes if isinstance(outcome, ImageFacts)] == list(range(8, 68))
