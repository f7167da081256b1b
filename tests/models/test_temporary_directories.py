"""Temporary directories and full disks."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from models.store.temporary_directories import remove_abandoned_directories, temporary_directory
from workers.datasets.disk_space import disk_full_errors
from workers.errors import DiskFull


def test_temporary_directory_is_gone_afterwards_with_its_files(tmp_path: Path) -> None:
    with temporary_directory(tmp_path / "root") as path:
        (path / "file").write_text("a")

    assert list((tmp_path / "root").iterdir()) == []


def test_temporary_directory_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_directory(tmp_path):
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_directory_in_use_is_not_abandoned(tmp_path: Path) -> None:
    with temporary_directory(tmp_path) as path:
        assert remove_abandoned_directories(tmp_path) == 0
        assert path.is_dir()


def test_abandoned_directory_is_removed_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".tmp-dead").mkdir()
    (tmp_path / ".tmp-dead" / "file").write_text("a")
    (tmp_path / "ants-bees").mkdir()

    assert remove_abandoned_directories(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ants-bees"]


def test_root_that_does_not_exist_has_nothing_abandoned(tmp_path: Path) -> None:
    assert remove_abandoned_directories(tmp_path / "nowhere") == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_space_is_a_full_disk(number: int) -> None:
    with pytest.raises(DiskFull, match="The disk is full") as caught, disk_full_errors():
        raise OSError(number, "words")
    assert "no longer needed" in str(caught.value.hint)


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), disk_full_errors():
        raise PermissionError(errno.EACCES, "words")
