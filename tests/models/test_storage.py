"""Writes that fail half-way: readers see the old content or the new one, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from models.store.registry import Registry
from models.store.storage import publish_directory, replace_file, sha256_of, version_numbers

FULL = OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """A file that takes the first half of what is written."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        self._file.write(content[: len(content) // 2])
        raise FULL

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def break_disk(patch: pytest.MonkeyPatch, step: str) -> None:
    """Makes one step of every write fail."""

    def fail(*_: object, **__: object) -> None:
        raise FULL

    real_open = Path.open

    def open_full(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = real_open(path, mode, *args, **options)
        return FullDisk(file) if set(mode) & set("wxa") else file

    match step:
        case "write":
            patch.setattr(Path, "open", open_full)
        case "fsync":
            patch.setattr(os, "fsync", fail)
        case "rename":
            patch.setattr(Path, "replace", fail)


STEPS = pytest.mark.parametrize("step", ["write", "fsync", "rename"])


@STEPS
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, step: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    with pytest.MonkeyPatch.context() as patch:
        break_disk(patch, step)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"the new content")
    assert path.read_bytes() == b"old content"
    assert list(tmp_path.iterdir()) == [path]


@STEPS
def test_alias_that_cannot_be_written_stays_where_it_was(tmp_path: Path, step: str) -> None:
    registry = Registry(tmp_path)
    for version in (1, 22):
        made = tmp_path / "ants" / str(version)
        made.mkdir(parents=True)
        manifest = MANIFEST.replace('"version": 1', f'"version": {version}')
        (made / "manifest.json").write_text(manifest)
    assert registry.set_alias("ants", "production", 1) is None
    with pytest.MonkeyPatch.context() as patch:
        break_disk(patch, step)
        with pytest.raises(OSError, match="No space left"):
            registry.set_alias("ants", "production", 22)
    assert registry.aliases("ants") == {"production": 1}
    assert registry.resolve("ants").manifest.version == 1
    assert [path.name for path in (tmp_path / "ants" / "aliases").iterdir()] == ["production"]


MANIFEST = """{"name": "ants", "version": 1, "architecture": "garment_classifier", "categories": ["ant", "bee"],
"preset": {"channels": 1, "resize_px": 28, "crop_px": 28, "mean": [0.5], "std": [0.5]}, "sha256": "0",
"created_at": "2030-01-02T03:04:05Z", "parameters": 1, "size_bytes": 4}"""


def test_content_is_on_the_disk_before_it_gets_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(("directory" if name == tmp_path else "file", path.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    replace_file(path, b"new")
    assert seen == [("file", b"old"), ("directory", b"new")]


def test_version_gets_the_next_number_and_everything_in_it_knows_it(tmp_path: Path) -> None:
    parent = tmp_path / "ants"
    (parent / "2").mkdir(parents=True)
    (parent / "2" / "taken").touch()
    (parent / "7").touch()  # a file is no version
    (parent / "aliases").mkdir()
    assert version_numbers(parent) == [2]
    assert version_numbers(tmp_path / "none") == []
    assert published(tmp_path, parent) == (3, "3")
    assert published(tmp_path, parent, above=10) == (11, "11")
    assert published(tmp_path, parent, above=3) == (12, "12")
    assert version_numbers(parent) == [2, 3, 11, 12]


def test_number_that_another_writer_takes_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    parent = tmp_path / "ants"
    parent.mkdir()

    def be_slower(version: int) -> None:
        if version == 1:
            (parent / "1").mkdir()
            (parent / "1" / "theirs").touch()

    assert published(tmp_path, parent, meanwhile=be_slower) == (2, "2")
    assert [path.name for path in (parent / "1").iterdir()] == ["theirs"]


def test_version_that_cannot_be_renamed_is_an_error_and_not_tried_for_ever(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        published(tmp_path, tmp_path / "none")


def published(directory: Path, parent: Path, *, above: int = 0, meanwhile: Any = lambda _: None) -> tuple[int, str]:
    """Publishes a directory. Returns its number, and the number that was written into it."""
    temporary = directory / "temporary"
    temporary.mkdir()

    def prepare(version: int) -> None:
        (temporary / "number").write_text(str(version))
        meanwhile(version)

    number = publish_directory(temporary, parent, above=above, prepare=prepare)
    return number, (parent / str(number) / "number").read_text()


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-4, example B.1 of SHA-256
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "file") == expected
