"""A host shim with streams: what is put on them is done late, in any order that the streams allow, as on a real device.

Finds what the plain host shim cannot: a missing wait, a buffer that is used again before its copy is through, memory
that is given back while a stream still uses it. Which order is taken depends on a seed.
"""

from __future__ import annotations

import random
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sqd_mpi.backends.gpu.device import Stream
from tests.gpu_shim.host_device import HostArray, HostDevice, HostStream, _fill

_MOST_STEPS = 8  # done between two calls, where anything is


@dataclass
class _Event:
    """A place in a stream: what waits for it goes on once all before it is done."""

    reached: bool = False


@dataclass(frozen=True)
class _Entry:
    """Something on a stream: done by a call, which says whether it could be; and the memory that it keeps."""

    act: Callable[[], bool]
    kept: tuple[HostArray, ...] = ()


class LateDevice(HostDevice):
    """The CPU as a device whose streams are real; see `HostDevice`.

    Memory behaves like that of CuPy's pool: it belongs to the default stream. A new array is made of memory that
    kernels there may still use, and one that ends may be given out again at once to them.

    Args:
        seed: of the order. Every second one leaves everything until it is awaited, the others do some at every call.
        options: as for `HostDevice`.
    """

    def __init__(self, seed: int, **options: Any):
        super().__init__(**options)
        self._random = random.Random(seed)
        self._lazy = seed % 2 == 0
        self._queues: dict[HostStream | None, deque[_Entry]] = {None: deque()}

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> HostArray:
        """A new array; until the default stream is here, what used its memory before may write there."""
        try:
            array = super().empty(shape, dtype)
        except MemoryError:
            self.synchronize()  # memory that has been given back is free now
            array = super().empty(shape, dtype)
        address, n_bytes = array.address, array.nbytes
        self._submit(lambda: _fill(address, 0xFF, n_bytes), None, (array,), ())
        return array

    def copy_out(self, array: HostArray, host: NDArray[Any], stream: Stream = None) -> None:
        """Copy a device array into a C-contiguous host array, which has no content until the stream is through."""
        super().copy_out(array, host, stream)
        if self._pending(stream):
            _fill(host.ctypes.data, 0xFF, host.nbytes)

    def stream(self) -> HostStream:
        """A new stream."""
        stream = HostStream()
        self._queues[stream] = deque()
        return stream

    def wait(self, stream: Stream, other: Stream) -> None:
        """What is put on `stream` from now on starts after what `other` holds now."""
        event = _Event()

        def reach() -> bool:
            event.reached = True
            return True

        self._queues[other].append(_Entry(reach))
        self._queues[stream].append(_Entry(lambda: event.reached))

    def synchronize(self, stream: Stream = None) -> None:
        """Wait until a stream, or the whole device, is through."""
        while self._pending(stream) if stream is not None else any(self._queues.values()):
            self._step()

    def _wait_for(self, stream: Stream) -> None:
        while self._pending(stream):
            self._step()

    def _pending(self, stream: Stream) -> bool:
        return len(self._queues[stream]) > 0

    def _submit(
        self, action: Callable[[], None], stream: Stream, arrays: Sequence[HostArray], hosts: Sequence[NDArray[Any]]
    ) -> None:
        """Put something on a stream."""
        # Memory of the default stream is kept, since who gets it next comes after this; that of other streams is not.
        kept = tuple(arrays) if stream is None else ()
        owners = [weakref.ref(each.owner) for each in arrays]
        memories = [weakref.ref(_owner(each)) for each in hosts]

        def act() -> bool:
            if any(owner() is None for owner in owners):
                raise RuntimeError("memory of the device was given back while a stream still used it")
            if any(memory() is None for memory in memories):
                raise RuntimeError("a host array ended before its copy was through")
            action()
            return True

        self._queues[stream].append(_Entry(act, kept))
        if not self._lazy:
            for _ in range(self._random.randrange(_MOST_STEPS)):
                self._step()

    def _step(self) -> None:
        """Do what stands first in any one of the streams, if it need not wait."""
        queue = self._random.choice([queue for queue in self._queues.values() if queue] or [deque()])
        if queue and queue[0].act():
            queue.popleft()


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    """The array whose memory this one shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
