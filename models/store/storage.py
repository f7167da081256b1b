"""Writes files and directories atomically: to a temporary path, then fsync, then rename.

Only two things change on disk in Fovea: a new version directory appears, and a small file is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Concurrent flushes share one commit of the file system's journal. With thousands of images that takes a third of the
# time.
_SYNC_THREADS = 16


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically and durably: a reader sees the old file or the new one, never a part.

    Raises OSError, and then leaves the old file unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def publish_directory(
    temporary: Path, parent: Path, *, above: int = 0, prepare: Callable[[int], None] | None = None
) -> int:
    """Renames `temporary` (on the file system of `parent`) to the next free number under `parent`; returns the number.

    Two writers never get the same number: renaming onto a non-empty directory fails, and the next number is tried.
    Files are synced before the rename, so a visible version is complete.
    above: the number is also larger than this, so that the number of a deleted version is not reused.
    prepare: called before each try with the number, to write it into `temporary`.
    """
    version = max(above, *version_numbers(parent), 0) + 1
    while True:
        if prepare:
            prepare(version)
        sync_tree(temporary)
        try:
            temporary.rename(parent / str(version))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            version += 1
        else:
            sync_directory(parent)
            return version


def version_numbers(parent: Path) -> list[int]:
    """The version numbers under `parent`, ascending; none if it does not exist."""
    if not parent.is_dir():
        return []
    return sorted(int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal() and entry.is_dir())


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(root: Path) -> None:
    """Flushes every file and directory under `root` to the disk."""
    paths = [Path(directory, name) for directory, _, files in os.walk(root) for name in files]
    shares = [paths[start::_SYNC_THREADS] for start in range(min(_SYNC_THREADS, len(paths)))]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for done in [pool.submit(_sync_files, share) for share in shares]:
            done.result()
    for directory, _, _ in os.walk(root):
        sync_directory(Path(directory))


def sync_directory(directory: Path) -> None:
    """Flushes the names in `directory` to the disk."""
    _sync(directory, os.O_RDONLY | os.O_DIRECTORY)


def _sync_files(paths: list[Path]) -> None:
    for path in paths:
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
