"""How much an archive may hold, and the running account of what has come out of it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.errors import DiskFull, UnsafeArchive

_SPLIT_HINT = "Post fewer or smaller files, or ask the operator of this service to raise its limit."


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """What is refused, whatever an archive says of itself."""

    max_files: int = 200_000  # entries, folders included
    max_bytes: int = 20 * 2**30  # unpacked
    max_ratio: float = 100.0  # unpacked over packed; deflate reaches 1032, photos stay near 1
    ratio_from_bytes: int = 2**20  # unpacked bytes up to which the ratio is not looked at: small files may be blank


class Budget:
    """Counts what comes out of one archive and refuses it as soon as a limit is passed."""

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
        """Raises UnsafeArchive if an archive of `count` entries holds too many."""
        if count > self.limits.max_files:
            raise UnsafeArchive(
                f"The archive holds more than {self.limits.max_files:,} files and folders.", hint=_SPLIT_HINT
            )

    def check_bytes(self, total: int) -> None:
        """Raises if `total` unpacked bytes are too many: by themselves, for the archive's size, or for the disk."""
        if total > self.limits.max_bytes:
            raise UnsafeArchive(f"The archive unpacks to more than {self.limits.max_bytes:,} bytes.", hint=_SPLIT_HINT)
        if total > max(self.limits.ratio_from_bytes, self.limits.max_ratio * self._packed_bytes):
            raise UnsafeArchive(
                f"The archive unpacks to more than {self.limits.max_ratio:g} times its {self._packed_bytes:,} bytes, "
                "as no collection of pictures does.",
                hint="Post the pictures as JPEG or PNG files, which are small by themselves.",
            )
        if total > self._free_bytes:
            raise DiskFull(
                f"The archive unpacks to {total:,} bytes or more, and {self._free_bytes:,} are free.",
                hint="Delete data sets, jobs or model versions that are no longer needed.",
            )
