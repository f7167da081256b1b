"""Files and directories that are whole or absent: write beside, fsync, rename.

Two things change on disk in Fovea: a version directory appears (never over another), and a small file is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Flushes that wait at the same time share one commit of the file system's journal: thousands of images take a third
# of the time.
_SYNC_THREADS = 16


def replace_file(path: Path, content: bytes) -> None:
    """Puts `content` at `path` so that a reader sees the old file or the new one, never a part; it survives a crash.

    Raises OSError; then the old file is untouched.
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
    """Renames `temporary` (on the file system of `parent`) to the next free integer under `parent` and returns it.

    Exclusive among any number of writers: renaming onto a non-empty directory fails, and then the next number is tried.
    Files are synced before the rename, so a version that can be seen is whole.
    above: the number is larger than this one too, so that a deleted version's is not given again.
    prepare: called before each try, to write down in `temporary` which version it becomes.
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
    """The sha256 of a file's content, in hexadecimal digits."""
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
