"""`.env.example` names every setting, with its default and what it means."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import ValidationError

from app.engine.admission import Admission
from app.settings import ApiSettings

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    # set, this one would keep `fovea up` from starting its own Redis
    assert f"# FOVEA_REDIS_URL={ApiSettings.model_fields['redis_url'].default}\n" in EXAMPLE.read_text()
    documented = set(dotenv_values(EXAMPLE)) | {"FOVEA_REDIS_URL"}
    assert documented == {f"FOVEA_{name.upper()}" for name in ApiSettings.model_fields}


def test_the_example_as_it_is_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ApiSettings.model_fields:
        monkeypatch.delenv(f"FOVEA_{name.upper()}", raising=False)
    copied = ApiSettings(_env_file=EXAMPLE)
    assert copied == ApiSettings(_env_file=None)


@pytest.mark.parametrize("name", sorted(ApiSettings.model_fields))
def test_setting_says_what_it_means_in_both_places(name: str) -> None:
    description = ApiSettings.model_fields[name].description
    assert description
    words = " ".join(line.removeprefix("# ") for line in EXAMPLE.read_text().splitlines() if line.startswith("#"))
    assert description in words


@pytest.mark.parametrize(("pending", "images", "fits"), [(64, 64, False), (64, 48, True), (1, 1, True), (1, 2, False)])
def test_a_bulk_request_of_the_full_size_finds_places(pending: int, images: int, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(ValidationError, match="could never be taken"):
        ApiSettings(_env_file=None, max_pending_images=pending, max_images_per_request=images)
    if fits:
        Admission(pending).admit(images, "bulk", timeout_s=1)
