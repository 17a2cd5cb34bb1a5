"""Ranks that can be called back: operations give what MPI gives, and end on all ranks when one has given up."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

from sqd_mpi.distribution.cancellable import Group
from sqd_mpi.errors import Recalled

pytestmark = pytest.mark.mpi

LARGE = 300_000  # numbers that no MPI library sends before the receiver asks for them


@pytest.fixture
def group(comm):
    """All ranks as a group."""
    made = Group(comm)
    yield made
    made.free()


def split_and_sum(comm):
    """A sum over the even or the odd ranks."""
    part = comm.Split(comm.rank % 2, comm.rank)
    values = np.array([float(comm.rank)])
    part.Allreduce(MPI.IN_PLACE, values)
    part.Free()
    return values[0] == sum(range(comm.rank % 2, comm.size, 2))


def share_memory(comm):
    """A window of the ranks of a node."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    window = MPI.Win.Allocate_shared(8, 8, comm=node)
    node.Barrier()
    window.Free()
    node.Free()
    return node.size >= 1


def gather_and_broadcast(comm):
    """Python objects, small and large."""
    found = comm.allgather({"rank": comm.rank})
    text = comm.bcast("x" * LARGE if comm.rank == 0 else None)
    return [each["rank"] for each in found] == list(range(comm.size)) and len(text) == LARGE


def around_the_ring(comm):
    """Arrays to the next rank, in one operation."""
    mine, theirs = np.full(LARGE, float(comm.rank)), np.empty(LARGE)
    comm.Sendrecv(mine, dest=(comm.rank + 1) % comm.size, recvbuf=theirs, source=(comm.rank - 1) % comm.size)
    return bool((theirs == (comm.rank - 1) % comm.size).all())


def to_rank_0(comm):
    """Objects and arrays to rank 0, one rank after another."""
    if comm.rank > 0:
        comm.recv(source=0)
        comm.send(np.full(LARGE, comm.rank), dest=0)
        return True
    good = True
    for source in range(1, comm.size):
        comm.send("your turn", dest=source)
        good = good and bool((comm.recv(source=source) == source).all())
    return good


def slide(comm):
    """Persistent requests."""
    mine, theirs = np.full(LARGE, float(comm.rank)), np.empty(LARGE)
    sends = [comm.Send_init(mine, dest=(comm.rank + 1) % comm.size)]
    receives = [comm.Recv_init(theirs, source=(comm.rank - 1) % comm.size)]
    good = True
    for _ in range(2):
        theirs[:] = -1.0
        MPI.Prequest.Startall(sends)
        receives[0].Start()
        comm.complete(receives)
        comm.complete(sends)
        good = good and bool((theirs == (comm.rank - 1) % comm.size).all())
    for request in sends + receives:
        request.Free()
    return good


OPERATIONS = (split_and_sum, share_memory, gather_and_broadcast, around_the_ring, to_rank_0, slide)


@pytest.mark.every_size
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_give_what_mpi_gives(group, operation):
    assert operation(group.attempt())
    assert group.settle(group.rank) == list(range(group.size))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_a_rank_that_gives_up_ends_the_wait_of_the_others(group, operation, last):
    if group.size == 1:
        pytest.skip("needs several ranks")
    loser = group.size - 1 if last else 0
    comm = group.attempt()
    outcome = "done"
    if group.rank == loser:
        group.give_up()
        outcome = "gave up"
    else:
        try:
            operation(comm)
            comm.Barrier()
        except Recalled:
            outcome = "recalled"
            group.give_up()
    assert outcome == ("gave up" if group.rank == loser else "recalled")
    assert group.settle(outcome).count("recalled") == group.size - 1
    # and the next attempt is not harmed by what was left open
    assert operation(group.attempt())
    assert group.settle(None) == [None] * group.size


@pytest.mark.slow
def test_attempts_that_go_well_leave_no_communicators(group):
    """MPI libraries have room for some 2,000 at a time; long loops make more attempts than that."""
    for _ in range(2500 if group.size <= 2 else 20):
        group.attempt()
        group.settle(None)


def test_all_ranks_may_give_up_at_once(group):
    for _ in range(3):
        group.attempt()
        group.give_up()
        assert group.settle("lost") == ["lost"] * group.size
