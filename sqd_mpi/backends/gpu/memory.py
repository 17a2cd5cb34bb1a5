"""The memory of a device, as operator and eigensolver see it (`distribution.memory`), and messages from and to it.

Messages are staged through pinned host memory, or go from the device's own memory where the MPI library can do that
(--gpu-aware-mpi). Ket blocks are uploaded on streams of their own, into two buffers in turn: the next block comes in
while kernels use the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.gpu import costs
from sqd_mpi.backends.gpu.device import Device, DeviceArray
from sqd_mpi.backends.gpu.vectors import DeviceVectors, Line
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.memory import Arrivals, Port, smallest
from sqd_mpi.distribution.mirror import Unfolding

_CHUNK = 1 << 22  # random numbers made at a time
_HALF = float(np.sqrt(0.5))
_SQUARE = 32  # rows and columns that a thread block turns at a time
_THREADS = 256
_STRETCH = 1024  # neighbouring elements of which the smallest is looked at first
_SHARE = 0.95  # of the memory that is free, to be taken


class DeviceMemory:
    """Arrays of a device; see `distribution.memory.Memory`.

    Args:
        device: the device.
        direct: whether MPI takes arrays of the device.
    """

    def __init__(self, device: Device, direct: bool = False):
        self._device = device
        self.device: str | None = device.name
        self.identity: str | None = device.identity
        self.kind = device.kind
        self.dtype, self.single = np.float64, None
        self.vectors: Any = DeviceVectors(device)
        self._direct = direct
        self._n_sharing = 1

    def empty(self, shape: int | tuple[int, ...]) -> DeviceArray:
        """See `Memory`."""
        return self._device.empty(shape)

    def zero(self, array: DeviceArray) -> None:
        """See `Memory`."""
        self._device.zero(array)

    def copy(self, source: DeviceArray, out: DeviceArray) -> None:
        """See `Memory`."""
        self._device.copy(source, out)

    def to_host(self, array: DeviceArray, out: FloatArray | None = None) -> FloatArray:
        """See `Memory`."""
        return self._device.download(array, out)

    def from_host(self, host: FloatArray, out: DeviceArray | None = None) -> DeviceArray:
        """See `Memory`."""
        target = self._device.empty(host.shape) if out is None else out
        whole = np.ascontiguousarray(host)
        self._device.copy_in(whole, target)
        self._device.synchronize()  # the host array may change now
        return target

    @contextmanager
    def filling(self, array: DeviceArray) -> Iterator[FloatArray]:
        """See `Memory`."""
        host = np.full(array.shape, np.nan)  # what is not filled shows
        yield host
        self.from_host(host, array)

    def fill_random(self, generator: np.random.Generator, out: DeviceArray) -> None:
        """See `Memory`. The generator's numbers do not depend on how many are asked for at a time."""
        for start in range(0, out.size, _CHUNK):
            stop = min(start + _CHUNK, out.size)
            self.from_host(generator.normal(size=stop - start), out[start:stop])

    def smallest(self, array: DeviceArray, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        """See `Memory`. Of a long array only those stretches come to the host whose smallest elements are smallest."""
        device, size = self._device, array.size
        n_stretches = -(-size // _STRETCH)
        if n_stretches <= count:
            host = device.download(array)
            found = smallest(host, count)
            return found, host[found]
        lowest, numbers = device.empty(n_stretches), (np.int64(_STRETCH), np.int64(size))
        kernel = device.kernel("vectors", "smallest_of_stretches")
        kernel(n_stretches, _THREADS, (array, lowest, *numbers), 8 * _THREADS)
        chosen = np.sort(smallest(device.download(lowest), count))
        there, out = device.upload(chosen), device.empty(len(chosen) * _STRETCH)
        arguments = (array, there, out, np.float64(np.inf), *numbers)
        device.kernel("vectors", "take_stretches")(len(chosen), _THREADS, arguments)
        values = device.download(out)
        found = smallest(values, count)
        return chosen[found // _STRETCH] * _STRETCH + found % _STRETCH, values[found]

    def put(self, positions: NDArray[np.int64], values: FloatArray, out: DeviceArray) -> None:
        """See `Memory`."""
        device = self._device
        device.zero(out)
        arguments = (device.upload(np.ascontiguousarray(positions)), device.upload(np.ascontiguousarray(values)), out)
        device.kernel("vectors", "put")(-(-len(values) // _THREADS), _THREADS, (*arguments, np.int64(len(values))))
        device.synchronize()  # the small arrays end here

    def indices(self, positions: NDArray[np.int64]) -> Line:
        """See `Memory`."""
        return DeviceVectors(self._device).line(positions)

    def unfolding(self, layout: Layout, ia: int, ib: int) -> DeviceUnfolding:
        """See `Memory`."""
        return DeviceUnfolding(self._device, Unfolding(layout, ia, ib))

    def port(self, size: int, host: FloatArray | None = None) -> Port:
        """See `Memory`."""
        return _DirectPort(self._device) if self._direct and host is None else _StagedPort(self._device, size, host)

    def image_of(self, host: FloatArray) -> DeviceArray:
        """See `Memory`."""
        return self._device.empty(host.shape)

    def arrivals(self, capacity: int) -> Arrivals:
        """See `Memory`."""
        return _DirectArrivals(self._device) if self._direct else _StagedArrivals(self._device, capacity)

    def finish(self) -> None:
        """See `Memory`."""
        self._device.synchronize()

    def limit(self, n_sharing: int) -> int:
        """Bytes that each of several ranks may take."""
        self._n_sharing = n_sharing
        return int(_SHARE * self._device.memory()[0] / n_sharing)

    def reserve(self, n_bytes: int) -> None:
        """See `Memory`."""
        self._device.spare_bytes = int(costs.spare_bytes(self._device.memory()[0] / self._n_sharing, n_bytes))


class _StagedPort:
    """Messages through one host buffer, pinned unless others read it as well."""

    def __init__(self, device: Device, size: int, host: FloatArray | None):
        self._device, self._size, self._host = device, size, host

    def _part(self, array: DeviceArray) -> FloatArray:
        if self._host is None:
            self._host = self._device.pinned(self._size)
        return self._host[: array.size]

    def sending(self, array: DeviceArray) -> FloatArray:
        """See `Port`."""
        part = self._part(array)
        self._device.copy_out(array, part)
        self._device.synchronize()
        return part

    def receiving(self, array: DeviceArray) -> FloatArray:
        """See `Port`."""
        return self._part(array)

    def received(self, array: DeviceArray) -> None:
        """See `Port`."""
        self._device.copy_in(self._part(array), array)
        self._device.synchronize()  # the next message may overwrite the buffer


class _DirectPort:
    """MPI takes the arrays of the device; kernels must be through before."""

    def __init__(self, device: Device):
        self._device = device

    def sending(self, array: DeviceArray) -> Any:
        """See `Port`."""
        self._device.synchronize()
        return self._device.message(array)

    def receiving(self, array: DeviceArray) -> Any:
        """See `Port`."""
        self._device.synchronize()
        return self._device.message(array)

    def received(self, array: DeviceArray) -> None:
        """See `Port`."""


class _Pinned:
    """Buffers for messages in pinned host memory."""

    def __init__(self, device: Device):
        self._device = device

    def empty(self, size: int) -> NDArray[Any]:
        """A buffer."""
        return self._device.pinned(size)

    def message(self, array: NDArray[Any]) -> NDArray[Any]:
        """The buffer itself."""
        return array


class _StagedArrivals:
    """Uploads blocks into two arrays in turn, each with a stream; see `Arrivals`."""

    def __init__(self, device: Device, capacity: int):
        self._device = device
        self.buffers: Any = _Pinned(device)
        self._arrays = [device.empty(capacity) for _ in range(2 if capacity else 0)]
        self._streams = [device.stream() for _ in self._arrays]
        for stream in self._streams:
            device.wait(stream, None)  # kernels may still use what the arrays are made of
        self._turn = 0

    def bring(self, block: FloatArray) -> DeviceArray:
        """The block on the device; kernels that were started before go on meanwhile."""
        device, self._turn = self._device, 1 - self._turn
        # What comes after this block goes where kernels read that are started by now: it has to wait for them.
        device.wait(self._streams[1 - self._turn], None)
        array, stream = self._arrays[self._turn][: block.size], self._streams[self._turn]
        device.copy_in(block, array, stream)
        device.wait(None, stream)  # kernels that are started from now on see the block
        device.synchronize(stream)
        return array

    def release(self) -> None:
        """The block has been read when `bring` returns."""


class _OnDevice:
    """Buffers for messages in the memory of the device."""

    def __init__(self, device: Device):
        self._device = device

    def empty(self, size: int) -> DeviceArray:
        """A buffer."""
        array = self._device.empty(size)
        self._device.synchronize()  # MPI does not wait for kernels that still use what it is made of
        return array

    def message(self, array: DeviceArray) -> Any:
        """What MPI is given for it."""
        return self._device.message(array)


class _DirectArrivals:
    """MPI puts blocks where kernels read them; see `Arrivals`."""

    def __init__(self, device: Device):
        self._device = device
        self.buffers: Any = _OnDevice(device)

    def bring(self, block: DeviceArray) -> DeviceArray:
        """The block itself."""
        return block

    def release(self) -> None:
        """Wait for the kernels that read the block: the next message but one overwrites it."""
        self._device.synchronize()


class DeviceUnfolding:
    """`mirror.Unfolding` on a device.

    Args:
        device: the device.
        host: where the elements lie.
    """

    def __init__(self, device: Device, host: Unfolding):
        self.own, self.mirror, self.parity = host.own, host.mirror, host.parity
        self._device = device
        up = device.upload
        target = host.offset[host.own.row]
        self._place = up(host.own.offset), up(host.own.stop), up(target)
        self._turn = tuple(
            up(each) for each in (host.mirror.offset, host.mirror.stop, host.first_row, host.mirror.column, host.offset)
        )
        self._n_squares = -(-int(host.mirror.stop.max(initial=0)) // _SQUARE)
        self._line = up(host.own.offset + host.own.stop - 1), up(target + host.line) if len(host.line) else None

    def unfold(self, own: DeviceArray, mirror: DeviceArray, whole: DeviceArray) -> None:
        """Fill the whole block; see `mirror.Unfolding.unfold`."""
        n_rows, n_mirrored = len(self.own.stop), len(self.mirror.stop)
        self._kernel("place")(n_rows, _THREADS, (own, *self._place, np.float64(_HALF), whole))
        n_blocks = -(-n_mirrored // _SQUARE) * self._n_squares
        factor, sizes = np.float64(self.parity * _HALF), (np.int64(n_mirrored), np.int64(self._n_squares))
        self._kernel("turn")(
            n_blocks, _THREADS, (mirror, *self._turn, factor, whole, *sizes), 8 * _SQUARE * (_SQUARE + 1)
        )
        last, target = self._line
        if target is not None:
            arguments = (own, last, target, np.int32(self.parity > 0), whole, np.int64(n_rows))
            self._kernel("set_line")(-(-n_rows // _THREADS), _THREADS, arguments)

    def _kernel(self, name: str) -> Any:
        return self._device.kernel("vectors", name)
