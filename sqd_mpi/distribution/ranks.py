"""Ranks that work together: those of an MPI communicator, and their serial twin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError, RunError
from sqd_mpi.resources import available_cores

if TYPE_CHECKING:
    from mpi4py import MPI

    Communicator = MPI.Intracomm
    # What public functions take: an mpi4py communicator, ranks, or None for this process alone.
    SomeRanks: TypeAlias = "Communicator | Ranks | None"

T = TypeVar("T")
Numbers = TypeVar("Numbers", bound=NDArray[Any])


class Ranks:
    """Ranks that work together. This class is the serial twin of `MpiRanks`: one process alone.

    All methods but `send`, `receive` and their kin are collective over the ranks; those raise RuntimeError where there
    is no other rank. Arrays may have any shape where none is said.
    """

    rank = 0
    """Number of this one."""
    size = 1
    """How many there are."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0 on every rank."""
        return value

    def gather_objects(self, mine: T) -> list[T]:
        """One small object of every rank, on all ranks."""
        return [mine]

    def gather_on_root(self, mine: T) -> list[T]:
        """One object of every rank on rank 0, nothing on the others."""
        return [mine]

    def barrier(self) -> None:
        """Wait for all ranks."""

    def meet(self, nap: float, seconds: float = np.inf) -> bool:
        """Whether all ranks come here within some seconds; a waiting one takes no core: it naps between looks."""
        return True

    def sum(self, values: Numbers) -> Numbers:
        """The array, to which those of the other ranks have been added; words modulo 2^64."""
        return values

    def maximum(self, values: Numbers) -> Numbers:
        """The array, whose elements have become the largest ones of all ranks."""
        return values

    def put_together(self, mine: NDArray[np.float64], whole: NDArray[np.float64], counts: list[int]) -> None:
        """Put slices (counts[rank],) of all ranks together on each of them, (sum of counts,)."""
        whole[:] = mine

    def scatter_sum(self, partial: NDArray[np.float64], mine: NDArray[np.float64], counts: list[int]) -> None:
        """Add arrays (sum of counts,) over the ranks and leave each its slice, (counts[rank],)."""
        if mine is not partial:
            mine[:] = partial

    def send(self, array: NDArray[Any], destination: int, tag: int) -> None:
        """Send an array to another rank; returns when the array may change."""
        raise RuntimeError("there is no other rank to send to")

    def receive(self, array: NDArray[Any], source: int, tag: int) -> None:
        """Receive an array from another rank."""
        raise RuntimeError("there is no other rank to receive from")

    def swap(self, mine: NDArray[np.float64], theirs: NDArray[np.float64], partner: int) -> None:
        """Exchange arrays with another rank."""
        raise RuntimeError("there is no other rank to exchange with")

    def send_object(self, value: Any, destination: int) -> None:
        """Send a small object to another rank."""
        raise RuntimeError("there is no other rank to send to")

    def receive_object(self, source: int) -> Any:
        """Receive a small object from another rank."""
        raise RuntimeError("there is no other rank to receive from")

    def split_node(self) -> Ranks:
        """Those of this node, in their order; to be freed."""
        return self

    def free(self) -> None:
        """Give the communicator back, if it is one that `split` or `split_node` has made."""

    # What follows is the same for both.

    def from_rank_0(self, work: Callable[[], Any]) -> Any:
        """What work() returns on rank 0, on all ranks.

        Raises:
            InputError: work() raised it on rank 0, so all do.
            RunError: the same.
        """
        outcome: Any = None
        if self.rank == 0:
            try:
                outcome = work()
            except (InputError, RunError) as error:
                outcome = error
        outcome = self.broadcast(outcome)
        if isinstance(outcome, InputError | RunError):
            raise outcome
        return outcome

    def agree_on_error(self, message: str | None) -> None:
        """Raise the same InputError on every rank if any rank has a message.

        Raises:
            InputError: with the message of the lowest rank that has one.
        """
        for text in self.gather_objects(message):
            if text is not None:
                raise InputError(text)

    def minimum_mean_maximum(self, values: dict[str, float]) -> dict[str, tuple[float, float, float]]:
        """(minimum, mean, maximum) over the ranks of every named number; names of rank 0 are used by all."""
        names = sorted(self.broadcast(list(values)))
        gathered = np.array(self.gather_objects(np.array([values.get(name, 0.0) for name in names])))
        lows, means, highs = gathered.min(axis=0), gathered.mean(axis=0), gathered.max(axis=0)
        return {name: (float(lows[k]), float(means[k]), float(highs[k])) for k, name in enumerate(names)}

    def count_alike(self, text: str) -> int:
        """How many ranks gave the same text as this one."""
        return self.gather_objects(text).count(text)

    def local(self) -> tuple[int, int]:
        """This rank's number among the ranks of its node, and how many these are."""
        with self._on_node() as node:
            return node.rank, node.size

    def cores_of_node(self) -> tuple[int, int]:
        """How many cores the ranks of this node may use together, and how many ranks these are.

        A rank that is bound to cores of its own does not see those of the others.
        """
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())
        with self._on_node() as node:
            return len(set().union(*node.gather_objects(set(mine)))), node.size

    @contextmanager
    def _on_node(self) -> Iterator[Ranks]:
        node = self.split_node()
        yield node
        node.free()

    def pieces_of_all_ranks(self, mine: Iterable[bytes]) -> Iterator[bytes]:
        """On rank 0 the pieces of bytes of all ranks, rank after rank; on the others nothing.

        Every rank must exhaust the iterator. A rank makes its pieces when its turn comes, and only one travels at a
        time. No piece may be empty.
        """
        if self.rank == 0:
            yield from mine
            for source in range(1, self.size):
                self.send_object(None, source)  # its turn: pieces that nobody waits for would pile up here
                while piece := self.receive_object(source):
                    yield piece
        else:
            self.receive_object(0)
            for piece in mine:
                self.send_object(piece, 0)
            self.send_object(b"", 0)


class MpiRanks(Ranks):
    """The ranks of a communicator; methods are documented at `Ranks`.

    Args:
        comm: the communicator; stays the caller's.
    """

    def __init__(self, comm: Communicator):
        self.comm = comm
        self.rank, self.size = comm.rank, comm.size

    @cached_property
    def _mpi(self) -> Any:
        from mpi4py import MPI

        return MPI

    def broadcast(self, value: Any) -> Any:
        return self.comm.bcast(value)

    def gather_objects(self, mine: T) -> list[T]:
        return self.comm.allgather(mine)

    def gather_on_root(self, mine: T) -> list[T]:
        return self.comm.gather(mine) or []

    def barrier(self) -> None:
        self.comm.Barrier()

    def meet(self, nap: float, seconds: float = np.inf) -> bool:
        request, deadline = self.comm.Ibarrier(), perf_counter() + seconds
        while not request.Test():
            if perf_counter() > deadline:
                return False
            sleep(nap)
        return True

    def sum(self, values: Numbers) -> Numbers:
        self.comm.Allreduce(self._mpi.IN_PLACE, values, op=self._mpi.SUM)
        return values

    def maximum(self, values: Numbers) -> Numbers:
        self.comm.Allreduce(self._mpi.IN_PLACE, values, op=self._mpi.MAX)
        return values

    def put_together(self, mine: NDArray[np.float64], whole: NDArray[np.float64], counts: list[int]) -> None:
        displacements = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.comm.Allgatherv(mine, [whole, (counts, displacements)])

    def scatter_sum(self, partial: NDArray[np.float64], mine: NDArray[np.float64], counts: list[int]) -> None:
        self.comm.Reduce_scatter(partial, mine, recvcounts=counts, op=self._mpi.SUM)

    def send(self, array: NDArray[Any], destination: int, tag: int) -> None:
        self.comm.Send(array, dest=destination, tag=tag)

    def receive(self, array: NDArray[Any], source: int, tag: int) -> None:
        self.comm.Recv(array, source=source, tag=tag)

    def swap(self, mine: NDArray[np.float64], theirs: NDArray[np.float64], partner: int) -> None:
        self.comm.Sendrecv(mine, dest=partner, recvbuf=theirs, source=partner)

    def send_object(self, value: Any, destination: int) -> None:
        self.comm.send(value, dest=destination)

    def receive_object(self, source: int) -> Any:
        return self.comm.recv(source=source)

    def split(self, color: int, key: int = 0) -> MpiRanks:
        """Those that give the same color, in the order of their keys; to be freed."""
        return MpiRanks(cast("Communicator", self.comm.Split(color, key)))

    def split_node(self) -> MpiRanks:
        return MpiRanks(cast("Communicator", self.comm.Split_type(self._mpi.COMM_TYPE_SHARED, self.rank)))

    def free(self) -> None:
        self.comm.Free()

    def wait_for_all(self, requests: list[Any]) -> None:
        """Return when all requests are done; on a communicator of a `cancellable.Group`, raise if a rank gives up."""
        getattr(self.comm, "complete", self._mpi.Request.Waitall)(requests)


def ranks_of(comm: SomeRanks) -> Ranks:
    """The ranks of what a caller has given: a communicator, ranks, or None for this process alone."""
    if isinstance(comm, Ranks):
        return comm
    return Ranks() if comm is None or comm.size == 1 else MpiRanks(comm)
