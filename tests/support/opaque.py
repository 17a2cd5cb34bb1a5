"""A backend whose memory cannot be looked into: the CPU's kernels on arrays that no NumPy function takes.

It stands for a device in tests of everything above the backends: whoever touches an element without asking the memory
fails. New arrays are full of NaN, messages go through staging buffers which are overwritten as soon as they may be.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from sqd_mpi.backends.cpu import block as cpu
from sqd_mpi.distribution import vectors
from sqd_mpi.distribution.memory import HOST, HostBuffers
from sqd_mpi.distribution.mirror import Unfolding


class OpaqueArray:
    """Elements that only `OpaqueMemory` can reach."""

    __array_ufunc__ = None
    __iter__ = None

    def __init__(self, hidden: np.ndarray):
        self._hidden = hidden
        self.shape, self.size, self.nbytes, self.dtype = hidden.shape, hidden.size, hidden.nbytes, hidden.dtype

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("an opaque array is not a NumPy array")

    def __getitem__(self, key: int | slice) -> OpaqueArray:
        if not isinstance(key, int | np.integer | slice):
            raise TypeError(f"views of an opaque array are of consecutive rows; got {key!r}")
        return OpaqueArray(self._hidden[key])


def uncover(array: Any) -> Any:
    """What kernels on the device see."""
    return array._hidden if isinstance(array, OpaqueArray) else array


class OpaqueVectors:
    """`distribution.vectors` on opaque arrays; refuses any other vector."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(vectors, name)

        def called(*arguments: Any) -> Any:
            for argument in arguments:
                # coefficients, energies and lists of positions are small host arrays; vectors are not
                assert not isinstance(argument, np.ndarray) or argument.size <= 4096
            assert any(isinstance(argument, OpaqueArray) for argument in arguments)
            return function(*(uncover(argument) for argument in arguments))

        return called


class OpaquePort:
    """Messages through one staging buffer."""

    def __init__(self, size: int, host: np.ndarray | None):
        self.buffer = np.full(size, np.nan) if host is None else host

    def sending(self, array: OpaqueArray) -> np.ndarray:
        """A copy in the staging buffer."""
        assert isinstance(array, OpaqueArray)
        part = self.buffer[: array.size]
        part[:] = array._hidden
        return part

    def receiving(self, array: OpaqueArray) -> np.ndarray:
        """The staging buffer."""
        assert isinstance(array, OpaqueArray)
        return self.buffer[: array.size]

    def received(self, array: OpaqueArray) -> None:
        """Copy from the staging buffer."""
        array._hidden[:] = self.buffer[: array.size]


class OpaqueArrivals:
    """Two buffers in turn; what lay in the other one is gone when its turn comes again."""

    buffers = HostBuffers()

    def __init__(self, capacity: int):
        self.arrays = [np.full(capacity, np.nan) for _ in range(2)]
        self.turn = 0

    def bring(self, block: np.ndarray) -> OpaqueArray:
        """A copy of the block."""
        assert isinstance(block, np.ndarray)
        self.turn = 1 - self.turn
        array = self.arrays[self.turn]
        array[:] = np.nan
        array[: block.size] = block
        return OpaqueArray(array[: block.size])

    def release(self) -> None:
        """Nothing is under way."""


class OpaqueUnfolding(Unfolding):
    """Unfolds opaque arrays."""

    def unfold(self, own: Any, mirror: Any, whole: Any, part: int = 0, n_parts: int = 1) -> None:
        """See `Unfolding`."""
        assert all(isinstance(each, OpaqueArray) for each in (own, mirror, whole))
        super().unfold(uncover(own), uncover(mirror), uncover(whole), part, n_parts)


class OpaqueMemory:
    """See `distribution.memory.Memory`."""

    device = "opaque"
    identity = None
    kind = "host"
    dtype, single = np.float64, None
    vectors: Any = OpaqueVectors()

    def empty(self, shape):
        """An array full of NaN."""
        return OpaqueArray(np.full(shape, np.nan))

    def zero(self, array):
        """See `Memory`."""
        array._hidden[:] = 0.0

    def copy(self, source, out):
        """See `Memory`."""
        out._hidden[:] = source._hidden

    def to_host(self, array, out=None):
        """A copy."""
        assert isinstance(array, OpaqueArray)
        out = np.empty(array.shape) if out is None else out
        out[:] = array._hidden
        return out

    def from_host(self, host, out=None):
        """A copy."""
        assert isinstance(host, np.ndarray)
        out = self.empty(host.shape) if out is None else out
        out._hidden[:] = host
        return out

    @contextmanager
    def filling(self, array):
        """See `Memory`."""
        host = np.full(array.shape, np.nan)
        yield host
        array._hidden[:] = host

    def fill_random(self, generator, out):
        """See `Memory`."""
        out._hidden[:] = generator.normal(size=out.shape)

    def smallest(self, array, count):
        """See `Memory`."""
        assert isinstance(array, OpaqueArray)
        return HOST.smallest(array._hidden, count)

    def put(self, positions, values, out):
        """See `Memory`."""
        HOST.put(positions, values, out._hidden)

    def indices(self, positions):
        """See `Memory`."""
        return OpaqueArray(positions)

    def unfolding(self, layout, ia, ib):
        """See `Memory`."""
        return OpaqueUnfolding(layout, ia, ib)

    def port(self, size, host=None):
        """See `Memory`."""
        return OpaquePort(size, host)

    def image_of(self, host):
        """See `Memory`."""
        return self.empty(host.shape)

    def finish(self):
        """Nothing is under way."""

    def limit(self, n_sharing):
        """No limit."""

    def reserve(self, n_bytes):
        """See `Memory`."""

    def arrivals(self, capacity):
        """See `Memory`."""
        return OpaqueArrivals(capacity)


class OpaqueBlock:
    """A block of the CPU that takes opaque arrays only."""

    def __init__(self, block: Any):
        self._block = block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    @property
    def mirrored(self) -> Any:
        """What mirrored tasks have given, which is folded into opaque arrays."""
        found = self._block.mirrored
        return None if found is None else SimpleNamespace(nbytes=found.nbytes, fold=lambda s: found.fold(uncover(s)))

    def apply(self, task: Any, ket: Any, sigma: Any, interaction: Any) -> None:
        """See `SigmaBlock`."""
        assert isinstance(ket, OpaqueArray) and isinstance(sigma, OpaqueArray)
        self._block.apply(task, ket._hidden, sigma._hidden, interaction)

    def diagonal(self, interaction: Any, out: OpaqueArray) -> None:
        """See `SigmaBlock`."""
        self._block.diagonal(interaction, out._hidden)


class OpaqueBackend:
    """What `get_backend` returns, with an opaque memory."""

    create_share = staticmethod(cpu.create_share)

    @staticmethod
    def create_block(*arguments: Any) -> OpaqueBlock:
        """A block on opaque arrays."""
        return OpaqueBlock(cpu.create_block(*arguments))

    @staticmethod
    def create_memory(*_: Any, **__: Any) -> OpaqueMemory:
        """The opaque memory."""
        return OpaqueMemory()
