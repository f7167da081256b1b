"""Which files of directories are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from app.cli.pictures import Pictures, Walk

JPEG = b"\xff\xd8\xff\xe0"


def files(directory: Path, **contents: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (directory / name.replace("_", ".")).write_bytes(content)
    return directory


def walked(*arguments: Path) -> tuple[list[str], Walk]:
    walk = Walk()
    pictures = Pictures(arguments)
    return sorted(pictures.name(path) for path in pictures.walk(walk)), walk


def test_pictures_are_known_by_suffix_and_else_by_content(tmp_path: Path) -> None:
    files(tmp_path, a_jpg=b"", b_JPG=b"x", c_heic=b"", d=JPEG, e_bin=JPEG, f_txt=b"text", g=b"")

    found, walk = walked(tmp_path)

    assert found == ["a.jpg", "b.JPG", "c.heic", "d", "e.bin"]
    assert walk.others == 2


def test_hidden_files_and_directories_are_left_out(tmp_path: Path) -> None:
    files(tmp_path, a_jpg=b"")
    files(tmp_path / ".thumbnails", a_jpg=b"")
    (tmp_path / "._a.jpg").touch()

    found, walk = walked(tmp_path)

    assert found == ["a.jpg"]
    assert walk.others == 1


def test_links_to_directories_are_counted_and_not_followed(tmp_path: Path) -> None:
    photos = files(tmp_path / "photos", a_jpg=b"")
    (photos / "loop").symlink_to(photos)
    (photos / "up").symlink_to("..")

    found, walk = walked(photos)

    assert found == ["a.jpg"]
    assert (walk.linked_directories, walk.others) == (2, 0)


def test_links_to_files_are_followed_and_broken_ones_found(tmp_path: Path) -> None:
    photos = files(tmp_path / "photos", a_jpg=b"")
    (photos / "b.jpg").symlink_to("a.jpg")
    (photos / "circle.jpg").symlink_to("circle.jpg")
    (photos / "nowhere.jpg").symlink_to("gone.jpg")
    (photos / "nowhere").symlink_to("gone")

    found, walk = walked(photos)

    assert found == ["a.jpg", "b.jpg", "circle.jpg", "nowhere.jpg"]
    assert walk.others == 1


def test_directory_that_is_a_link_itself_is_walked(tmp_path: Path) -> None:
    files(tmp_path / "photos", a_jpg=b"")
    (tmp_path / "link").symlink_to("photos")

    assert walked(tmp_path / "link")[0] == ["a.jpg"]


def test_pipes_and_sockets_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")

    found, walk = walked(tmp_path)

    assert found == []
    assert walk.others == 2


def test_directory_that_cannot_be_read_is_told_and_the_others_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path / "a", a_jpg=b"")
    files(tmp_path / "secret", b_jpg=b"")
    original = os.scandir

    def scandir(path: Any) -> Any:  # root may read everything
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)

    found, walk = walked(tmp_path)

    assert found == ["a/a.jpg"]
    assert walk.unreadable_directories == [f"{tmp_path / 'secret'}: Permission denied"]


def test_walk_gives_the_first_picture_before_it_has_seen_the_rest(tmp_path: Path) -> None:
    for number in range(5):
        files(tmp_path / str(number), a_jpg=b"", notes_txt=b"")
    walk = Walk()

    with closing(cast("Any", Pictures([tmp_path]).walk(walk))) as pictures:
        assert isinstance(pictures, Iterator)
        next(pictures)

    assert walk.others < 5


def test_overlapping_arguments_give_each_picture_once(tmp_path: Path) -> None:
    photos = files(tmp_path / "photos", a_jpg=b"", b_jpg=b"")

    found, _ = walked(photos / "a.jpg", photos, photos / ".." / "photos" / "b.jpg")

    assert found == [str(photos / "a.jpg"), str(photos / "b.jpg")]
