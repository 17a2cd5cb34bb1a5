"""Communicators whose ranks can be called back: an error on one rank ends the wait of the others.

MPI itself leaves ranks for ever in a collective operation that one of them does not enter. Here each operation begins
with a barrier that does not block; a rank looks, while it waits there, whether another one has given up. When all have
met, the operation itself cannot wait for anybody. What a failed attempt leaves open (barriers, communicators, windows)
is abandoned, and the next attempt has a communicator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import sched_yield
from time import perf_counter, sleep
from typing import Any, cast

import numpy as np
from mpi4py import MPI

from sqd_mpi.errors import Recalled

_TAG = 1
# How long a waiting rank asks without a pause, and how long it then sleeps between two questions; seconds.
_PATIENCE_SECONDS = 0.005
_NAP_SECONDS = 0.0005


class Group:
    """Ranks that try something together, again if need be.

    Collective over the communicator at construction, in `attempt`, `settle` and `free`.

    Args:
        comm: communicator of several ranks.
    """

    def __init__(self, comm: MPI.Intracomm):
        self._comm = comm.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        self._gave_up = False
        self._calls: list[MPI.Request] = []
        self._open: list[_Persistent] = []
        self._freed: list[MPI.Intracomm] = []

    def attempt(self) -> Recallable:
        """A fresh communicator of all ranks for one attempt; `settle` gives it back."""
        comm = self._comm.Dup()
        self.later(comm)
        return self.adopt(comm)

    def adopt(self, comm: MPI.Intracomm) -> Recallable:
        """The same communicator as one of this group's."""
        adopted = Recallable(comm)
        adopted.origin = self
        return adopted

    def give_up(self) -> None:
        """Call all other ranks back: this one takes no part any more in the attempt."""
        self._gave_up = True
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._calls = [self._comm.Isend(np.empty(0), dest=rank, tag=_TAG) for rank in others]

    def until(self, done: Callable[[], bool]) -> None:
        """Return when done() is true.

        Raises:
            Recalled: another rank has given up.
        """
        began = perf_counter()
        while not done():
            if self._comm.Iprobe(tag=_TAG):
                raise Recalled("another rank of the group has given up")
            # other ranks may need this core
            if perf_counter() - began > _PATIENCE_SECONDS:
                sleep(_NAP_SECONDS)
            else:
                sched_yield()

    def settle(self, mine: Any) -> list[Any]:
        """One object of every rank, once all of them are here, having ended their attempt or given up."""
        for request in self._open:  # a late message must not arrive in memory that is used for something else
            request.break_off()
        arrived = self._comm.Ibarrier()
        while not arrived.Test():
            sleep(_NAP_SECONDS)
        answers = self._comm.allgather((mine, self._gave_up))
        for rank, (_, gave_up) in enumerate(answers):
            if gave_up and rank != self.rank:
                self._comm.Recv(np.empty(0), source=rank, tag=_TAG)
        MPI.Request.Waitall(self._calls)
        if not any(gave_up for _, gave_up in answers):
            for comm in self._freed:
                comm.Free()
        self._gave_up = False
        self._calls, self._open, self._freed = [], [], []
        return [answer for answer, _ in answers]

    def opened(self, request: MPI.Prequest, receives: bool) -> MPI.Prequest:
        """The same persistent request as one that is broken off with the attempt; its buffer is kept until then."""
        kept = _Persistent(request)
        kept.origin, kept.receives = self, receives
        self._open.append(kept)
        return kept

    def closed(self, request: MPI.Prequest) -> None:
        """Forget a persistent request."""
        self._open = [each for each in self._open if each is not request]

    def later(self, comm: MPI.Intracomm) -> None:
        """Free a communicator when the attempt has gone well on all ranks."""
        self._freed.append(comm)

    def free(self) -> None:
        """Give the communicator back."""
        self._comm.Free()


class _Persistent(MPI.Prequest):
    """A persistent request of a group."""

    origin: Group
    receives: bool

    def Free(self) -> None:
        """Release the request."""
        self.origin.closed(self)
        super().Free()

    def break_off(self) -> None:
        """Cancel a receive that is under way."""
        if self.receives and not self.Get_status():
            self.Cancel()
            self.Wait()


class Recallable(MPI.Intracomm):
    """A communicator of a `Group`: its operations raise `Recalled` when another rank has given up.

    It has those operations that this package uses. `Free` waits for the end of the attempt.
    """

    origin: Group

    def complete(self, requests: Sequence[MPI.Request]) -> None:
        """Wait for all of the requests."""
        self.origin.until(lambda: MPI.Request.Testall(requests))

    def _meet(self) -> None:
        self.complete([super().Ibarrier()])

    def Free(self) -> None:
        """Give the communicator back at the end of the attempt."""
        self.origin.later(MPI.Intracomm(self))

    def Split(self, color: int = 0, key: int = 0) -> Recallable:
        """As in MPI."""
        self._meet()
        return self.origin.adopt(cast("MPI.Intracomm", super().Split(color, key)))

    def Split_type(self, split_type: int, key: int = 0, info: MPI.Info = MPI.INFO_NULL) -> Recallable:
        """As in MPI."""
        self._meet()
        return self.origin.adopt(cast("MPI.Intracomm", super().Split_type(split_type, key, info)))

    def Dup(self, info: MPI.Info | None = None) -> Recallable:
        """As in MPI."""
        self._meet()
        return self.origin.adopt(MPI.Intracomm(self).Dup(info))

    def Send_init(self, buf: Any, dest: int, tag: int = 0) -> MPI.Prequest:
        """As in MPI."""
        return self.origin.opened(super().Send_init(buf, dest, tag), False)

    def Recv_init(self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG) -> MPI.Prequest:
        """As in MPI."""
        return self.origin.opened(super().Recv_init(buf, source, tag), True)

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """As in MPI."""
        self._transfer([self.Send_init(buf, dest, tag)])

    def Recv(
        self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: MPI.Status | None = None
    ) -> None:
        """As in MPI."""
        self._transfer([self.Recv_init(buf, source, tag)])

    def Sendrecv(
        self, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = MPI.ANY_SOURCE,
        recvtag: int = MPI.ANY_TAG, status: MPI.Status | None = None,
    ) -> None:  # fmt: skip
        """As in MPI."""
        self._transfer([self.Recv_init(recvbuf, source, recvtag), self.Send_init(sendbuf, dest, sendtag)])

    def _transfer(self, requests: list[MPI.Prequest]) -> None:
        MPI.Prequest.Startall(requests)
        self.complete(requests)
        for request in requests:
            request.Free()

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """As in mpi4py."""
        data = np.frombuffer(MPI.pickle.dumps(obj), np.uint8)
        self.Send(data, dest, tag)

    def recv(
        self, buf: Any = None, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: MPI.Status | None = None
    ) -> Any:
        """As in mpi4py."""
        found = MPI.Status()
        self.origin.until(lambda: self.Iprobe(source, tag, found))
        data = np.empty(found.Get_count(MPI.BYTE), np.uint8)
        self.Recv(data, found.source, found.tag)
        return MPI.pickle.loads(data)


def _meeting(name: str) -> Callable[..., Any]:
    """A collective operation of MPI that begins when all ranks are there."""
    plain = getattr(MPI.Intracomm, name)

    def operation(self: Recallable, *arguments: Any, **named: Any) -> Any:
        self._meet()
        return plain(self, *arguments, **named)

    operation.__doc__ = plain.__doc__
    return operation


for _name in ("Barrier", "Bcast", "Allreduce", "Allgather", "Allgatherv", "Alltoall", "Reduce_scatter", "bcast",
              "allgather", "allreduce", "gather"):  # fmt: skip
    setattr(Recallable, _name, _meeting(_name))
