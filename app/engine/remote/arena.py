"""Memory that one process writes and another looks into: what is in it is never copied through a socket.

A memfd and no file in /dev/shm: it has no name that others could open or that a killed process leaves behind, it is not
bound by the 64 MB that containers give /dev/shm, and its pages are taken when they are first written. Linux only.
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

_ALIGNED_TO = 64  # bytes: a cache line, and every dtype begins where it may
_KEPT_BYTES = 64 * 1024**2  # that an idle arena keeps: taking pages anew costs more than copying into them


class Arena:
    """Memory of this process, given out in slots. May be used by several threads at once."""

    def __init__(self, size_bytes: int) -> None:
        """size_bytes: at most so much is in use at once."""
        self.size_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor = os.memfd_create("fovea-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self.size_bytes)
        # it cannot shrink: whoever looks into it would be killed by SIGBUS
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.descriptor, self.size_bytes)
        self._bytes: Bytes = np.frombuffer(self._memory, np.uint8)
        self._address = self._bytes.ctypes.data
        self._gaps = [(0, self.size_bytes)]  # offset and size, in order
        self._slots: dict[int, int] = {}  # size by offset
        self._freed: deque[int] = deque()
        self._lock = threading.Lock()
        self._touched_bytes = 0  # from the start on

    @property
    def used_bytes(self) -> int:
        """In slots that were not given back."""
        with self._lock:
            self._take_back()
            return sum(self._slots.values())

    def allocate(self, size_bytes: int) -> int | None:
        """The offset of a slot that is free until `free`; None if there is no room."""
        wanted = max(_ALIGNED_TO, -(-size_bytes // _ALIGNED_TO) * _ALIGNED_TO)
        with self._lock:
            self._take_back()
            for number, (offset, room) in enumerate(self._gaps):  # the first that fits: low pages are used again
                if room >= wanted:
                    self._gaps[number : number + 1] = [(offset + wanted, room - wanted)] if room > wanted else []
                    self._slots[offset] = wanted
                    self._touched_bytes = max(self._touched_bytes, offset + wanted)
                    return offset
        return None

    def free(self, offset: int) -> None:
        """Gives a slot back. Takes no lock, so the garbage collector may call it at any moment, in any thread."""
        self._freed.append(offset)

    def slot(self, offset: int, size_bytes: int) -> Bytes:
        """What is in a slot, to be written."""
        return self._bytes[offset : offset + size_bytes]

    def place(self, tensor: Tensor) -> Tensor | None:
        """A copy of `tensor`, uint8, in a slot that goes back by itself with the copy; None if there is no room."""
        offset = self.allocate(tensor.nbytes)
        if offset is None:
            return None
        memory = self.slot(offset, tensor.nbytes)
        weakref.finalize(
            memory, self.free, offset
        ).atexit = False  # PyTorch keeps `memory` while any view of it is left
        # by one thread: PyTorch's copy_ would wait for several that share what cores there are
        np.copyto(memory.reshape(tensor.shape), tensor.numpy())
        return torch.from_numpy(memory).view(tensor.shape)

    def offset_of(self, tensor: Tensor) -> int | None:
        """Where a contiguous tensor lies in here; None if elsewhere."""
        offset = tensor.data_ptr() - self._address
        return offset if 0 <= offset < self.size_bytes and tensor.is_contiguous() else None

    def trim(self) -> None:
        """Gives the pages of an empty arena back to the system, if they are many."""
        if self._touched_bytes <= _KEPT_BYTES:
            return
        with self._lock:
            self._take_back()
            if not self._slots:
                self._memory.madvise(mmap.MADV_REMOVE, 0, -(-self._touched_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)
                self._touched_bytes = 0

    def close(self) -> None:
        """The memory itself goes when nobody, here or elsewhere, looks into it any more."""
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
    """Another process's arena, to be read."""

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor."""
        try:
            self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def slot(self, offset: int, size_bytes: int) -> Bytes:
        """What is in a slot. Raises ValueError where there cannot be one."""
        return np.frombuffer(self._memory, np.uint8, size_bytes, offset)
