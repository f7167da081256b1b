"""Limits on what an archive may contain, and the count of what has been unpacked from it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.errors import DiskFull, UnsafeArchive

_SPLIT_HINT = "Post fewer or smaller files, or ask the operator of this service to raise its limit."


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """Upper bounds. They hold for the bytes that are really unpacked, not for the sizes that an archive claims."""

    max_files: int = 200_000  # entries, including folders
    max_bytes: int = 20 * 2**30  # unpacked
    max_ratio: float = 100.0  # unpacked bytes per packed byte; deflate reaches 1032, photographs stay near 1
    ratio_from_bytes: int = 2**20  # up to this many unpacked bytes the ratio is not checked: small images may be blank


class Budget:
    """Counts what is unpacked from one archive and refuses the archive as soon as it exceeds a limit."""

    def __init__(self, limits: ArchiveLimits, *, packed_bytes: int, free_bytes: int) -> None:
        self.limits = limits
        self._packed_bytes = packed_bytes
        self._free_bytes = free_bytes
        self._entries = 0
        self._bytes = 0

    def take_entry(self) -> None:
        """Counts one entry. Raises UnsafeArchive."""
        self._entries += 1
        self.check_entries(self._entries)

    def take_bytes(self, count: int) -> None:
        """Counts `count` unpacked bytes. Raises UnsafeArchive, DiskFull."""
        self._bytes += count
        self.check_bytes(self._bytes)

    def check_entries(self, count: int) -> None:
        """Raises UnsafeArchive if `count` entries are too many."""
        if count > self.limits.max_files:
            raise UnsafeArchive(
                f"The archive contains more than {self.limits.max_files:,} files and folders.", hint=_SPLIT_HINT
            )

    def check_bytes(self, total: int) -> None:
        """Checks `total` unpacked bytes against the limit, the size of the archive and the free space on the disk.

        Raises UnsafeArchive, DiskFull.
        """
        if total > self.limits.max_bytes:
            raise UnsafeArchive(f"The archive unpacks to more than {self.limits.max_bytes:,} bytes.", hint=_SPLIT_HINT)
        if total > max(self.limits.ratio_from_bytes, self.limits.max_ratio * self._packed_bytes):
            raise UnsafeArchive(
                f"The archive unpacks to more than {self.limits.max_ratio:g} times its size of "
                f"{self._packed_bytes:,} bytes. A collection of images does not.",
                hint="Post the images as JPEG or PNG files, which are compressed already.",
            )
        if total > self._free_bytes:
            raise DiskFull(
                f"The archive unpacks to {total:,} bytes or more, but only {self._free_bytes:,} bytes are free.",
                hint="Delete datasets, jobs or model versions that are no longer needed.",
            )
