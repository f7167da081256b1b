"""`.env.example` and the documents say of the settings what is true today."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.engine.admission import Admission
from app.settings import ApiSettings
from tests.contracts.update_settings import DOCUMENTS, EXAMPLE, example, in_words, with_defaults, without_quotes
from tests.waiting import PATIENCE_S


def test_example_is_written_from_the_settings() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example(), "make settings writes it anew"


def test_the_example_as_it_is_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ApiSettings.model_fields:
        monkeypatch.delenv(f"FOVEA_{name.upper()}", raising=False)
    copied = ApiSettings(_env_file=EXAMPLE)
    assert copied == ApiSettings(_env_file=None)
    assert not copied.model_fields_set & {"redis_url"}, "set, it keeps `fovea up` from starting its own Redis"


@pytest.mark.parametrize("name", sorted(ApiSettings.model_fields))
def test_setting_says_what_it_means(name: str) -> None:
    assert ApiSettings.model_fields[name].description


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_quotes_the_defaults_of_today(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == with_defaults(text), "make settings writes them anew"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_copies_no_default_by_hand(document: Path) -> None:
    """A number beside its setting stands between comments, so that it changes with the setting."""
    copied = []
    for line in without_quotes(document.read_text(encoding="utf-8")).splitlines():
        for name in re.findall(r"`FOVEA_([A-Z_]+)`", line):
            words = in_words(name.lower())
            if (
                words[:1].isdigit()
                and words not in {"0", "1"}
                and re.search(rf"(?<![\w.,]){re.escape(words)}(?![\w.])", line)
            ):
                copied.append(line)
    assert copied == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_upload_bytes", "20 GiB"),
        ("max_archive_files", "500,000"),
        ("lease_s", "30 s"),
        ("max_archive_ratio", "200"),
        ("host", "127.0.0.1"),
        ("offline", "false"),
    ],
)
def test_defaults_are_written_as_people_write_them(name: str, words: str) -> None:
    assert in_words(name) == words


@pytest.mark.parametrize(("pending", "images", "fits"), [(64, 64, False), (64, 48, True), (1, 1, True), (1, 2, False)])
def test_a_bulk_request_of_the_full_size_finds_places(pending: int, images: int, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(ValidationError, match="could never be taken"):
        ApiSettings(_env_file=None, max_pending_images=pending, max_images_per_request=images)
    if fits:
        Admission(pending).admit(images, "bulk", timeout_s=PATIENCE_S)
