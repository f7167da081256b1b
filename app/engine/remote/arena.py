"""Shared memory: one process writes it and another reads it, so tensors do not go through a socket. Linux only.

The memory is a memfd, not a file in /dev/shm. It has no name, so no other process can open it and a killed process
leaves nothing behind. The 64 MB that containers give /dev/shm do not limit it. The kernel allocates a page at the first
write to it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import weakref
from bisect import insort
from collections import deque

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]

_ALIGNED_TO = 64  # bytes: a cache line, which also suits every dtype
_KEPT_BYTES = 64 * 1024**2  # an idle arena keeps these pages: new ones cost more than a copy


class Arena:
    """Shared memory that this process writes, divided into slots. Several threads may use it at once."""

    def __init__(self, size_bytes: int) -> None:
        """size_bytes: the upper bound of all slots together."""
        self.size_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor = os.memfd_create("fovea-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self.size_bytes)
        # it must not shrink: SIGBUS would kill a process that reads beyond the end
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.descriptor, self.size_bytes)
        self._bytes: Bytes = np.frombuffer(self._memory, np.uint8)
        self._address = self._bytes.ctypes.data
        self._gaps = [(0, self.size_bytes)]  # offset and size, in order
        self._slots: dict[int, int] = {}  # size by offset
        self._freed: deque[int] = deque()
        self._lock = threading.Lock()
        self._touched_bytes = 0  # counted from offset 0

    @property
    def used_bytes(self) -> int:
        """The size of all slots that are in use."""
        with self._lock:
            self._take_back()
            return sum(self._slots.values())

    def allocate(self, size_bytes: int) -> int | None:
        """Takes a slot and returns its offset, or None if there is no room. `free` returns the slot."""
        wanted = max(_ALIGNED_TO, -(-size_bytes // _ALIGNED_TO) * _ALIGNED_TO)
        with self._lock:
            self._take_back()
            # the first gap that fits, so that low pages are reused
            for number, (offset, room) in enumerate(self._gaps):
                if room >= wanted:
                    self._gaps[number : number + 1] = [(offset + wanted, room - wanted)] if room > wanted else []
                    self._slots[offset] = wanted
                    self._touched_bytes = max(self._touched_bytes, offset + wanted)
                    return offset
        return None

    def free(self, offset: int) -> None:
        """Returns a slot. It takes no lock, so the garbage collector may call it at any moment, in any thread."""
        self._freed.append(offset)

    def slot(self, offset: int, size_bytes: int) -> Bytes:
        """Returns the memory of a slot, writable, uint8 [size_bytes]."""
        return self._bytes[offset : offset + size_bytes]

    def place(self, tensor: Tensor) -> Tensor | None:
        """Copies `tensor`, uint8, into a slot; returns None if there is no room. The slot is freed with the copy."""
        offset = self.allocate(tensor.nbytes)
        if offset is None:
            return None
        memory = self.slot(offset, tensor.nbytes)
        weakref.finalize(memory, self.free, offset).atexit = False  # PyTorch keeps `memory` while a view of it exists
        # NumPy copies in this thread; PyTorch's copy_ would wait for a pool of threads
        np.copyto(memory.reshape(tensor.shape), tensor.numpy())
        return torch.from_numpy(memory).view(tensor.shape)

    def offset_of(self, tensor: Tensor) -> int | None:
        """Returns the offset of a contiguous tensor in this arena, or None if it is not in it."""
        offset = tensor.data_ptr() - self._address
        return offset if 0 <= offset < self.size_bytes and tensor.is_contiguous() else None

    def trim(self) -> None:
        """Returns the pages of an empty arena to the system if there are many."""
        if self._touched_bytes <= _KEPT_BYTES:
            return
        with self._lock:
            self._take_back()
            if not self._slots:
                self._memory.madvise(mmap.MADV_REMOVE, 0, -(-self._touched_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
                self._touched_bytes = 0

    def close(self) -> None:
        """Closes the descriptor. The kernel frees the memory when no process maps it."""
        os.close(self.descriptor)

    def _take_back(self) -> None:
        while self._freed:
            offset = self._freed.popleft()
            insort(self._gaps, (offset, self._slots.pop(offset)))
            self._join_around(offset)

    def _join_around(self, offset: int) -> None:
        number = next(at for at, gap in enumerate(self._gaps) if gap[0] == offset)
        for left in (number, number - 1):
            if 0 <= left < len(self._gaps) - 1:
                (start, size), (next_start, next_size) = self._gaps[left : left + 2]
                if start + size == next_start:
                    self._gaps[left : left + 2] = [(start, size + next_size)]


class PeerArena:
    """The arena of another process, for reading."""

    def __init__(self, descriptor: int) -> None:
        """Maps the arena and closes the descriptor."""
        try:
            self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def slot(self, offset: int, size_bytes: int) -> Bytes:
        """Returns the content of a slot, uint8 [size_bytes]. Raises ValueError if it lies outside the arena."""
        return np.frombuffer(self._memory, np.uint8, size_bytes, offset)
