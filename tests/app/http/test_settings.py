"""Settings that contradict each other, or cannot be meant, end the server at its start."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import ApiSettings
from tests.fonts import write_font


@pytest.mark.parametrize("backend", ["eager", "cuda_graphs"])
def test_int8_by_a_backend_that_has_none_is_an_error(backend: str) -> None:
    with pytest.raises(ValidationError, match=f"precision is int8 and backend is {backend}"):
        ApiSettings.model_validate({"precision": "int8", "backend": backend})
    assert ApiSettings.model_validate({"precision": "auto", "backend": backend}).backend == backend


def test_backend_that_was_removed_is_an_error_that_names_the_others() -> None:
    with pytest.raises(ValidationError, match="should be 'auto', 'eager', 'openvino' or 'cuda_graphs'"):
        ApiSettings.model_validate({"backend": "aot_inductor"})


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_int8_by_a_backend_that_has_it_is_none(backend: str) -> None:
    assert ApiSettings.model_validate({"precision": "int8", "backend": backend}).precision == "int8"


@pytest.mark.parametrize("written", ["../photos", "photos/0", "photos/new", "photos/1/2", "a b", "/photos", "photos/"])
def test_what_cannot_be_a_data_set_to_calibrate_on_is_an_error(written: str) -> None:
    with pytest.raises(ValidationError, match="calibration_dataset"):
        ApiSettings.model_validate({"calibration_dataset": written})


@pytest.mark.parametrize("written", ["", "photos", "ants-bees/12"])
def test_data_set_to_calibrate_on_is_a_name_with_or_without_a_version(written: str) -> None:
    assert ApiSettings.model_validate({"calibration_dataset": written}).calibration_dataset == written


def test_font_that_cannot_be_drawn_with_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")

    for path in (broken, tmp_path / "absent.ttf", tmp_path):
        with pytest.raises(ValidationError, match="it is not a font file that can be scaled"):
            ApiSettings.model_validate({"font": path})
    font = write_font(tmp_path / "made.ttf", "abc")
    assert ApiSettings.model_validate({"font": str(font)}).font == font
    assert ApiSettings.model_validate({"font": ""}).font is None
