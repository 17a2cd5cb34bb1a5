"""What ranks promise, checked on those of a communicator and on their serial twin."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from sqd_mpi.distribution.clock import clock_offset
from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.files.new_files import WriteError


def numbers(ranks: Ranks) -> None:
    """Every rank has a number of its own; objects of all ranks come in their order."""
    assert 0 <= ranks.rank < ranks.size
    assert ranks.gather_objects(ranks.rank) == list(range(ranks.size))
    assert ranks.gather_on_root(ranks.rank) == (list(range(ranks.size)) if ranks.rank == 0 else [])
    assert ranks.broadcast({"rank": ranks.rank}) == {"rank": 0}
    assert ranks.count_alike(str(ranks.rank)) == 1 and ranks.count_alike("x") == ranks.size


def waiting(ranks: Ranks) -> None:
    """All come."""
    ranks.barrier()
    assert ranks.meet(0.0) and ranks.meet(0.001, 60.0)


def sums_and_maxima(ranks: Ranks) -> None:
    """In place, of numbers and of words modulo 2^64."""
    n = ranks.size
    values = np.array([ranks.rank + 1.0, -ranks.rank])
    assert ranks.sum(values) is values and values.tolist() == [n * (n + 1) / 2, -n * (n - 1) / 2]
    words = ranks.sum(np.array([2**64 - 1], np.uint64))
    assert words.tolist() == [2**64 - n]
    flags = np.array([ranks.rank, -ranks.rank], np.int64)
    assert ranks.maximum(flags) is flags and flags.tolist() == [n - 1, 0]


def slices(ranks: Ranks) -> None:
    """Put together, and scattered as parts of a sum; some are empty."""
    counts = [(3 * k + 1) % 4 for k in range(ranks.size)]
    mine, whole = np.full(counts[ranks.rank], float(ranks.rank)), np.empty(sum(counts))
    ranks.put_together(mine, whole, counts)
    assert whole.tolist() == [float(k) for k, n in enumerate(counts) for _ in range(n)]
    ranks.scatter_sum(whole.copy(), mine, counts)
    assert mine.tolist() == [float(ranks.size * ranks.rank)] * len(mine)
    if type(ranks) is Ranks:  # the twin may be given the same array
        ranks.scatter_sum(mine, mine, counts)
        assert mine.tolist() == [0.0]


def to_other_ranks(ranks: Ranks) -> None:
    """Arrays and objects, in a ring of pairs; a rank that is alone has nobody."""
    mine, theirs = np.full(3, float(ranks.rank)), np.empty(3)
    if type(ranks) is Ranks:
        for call in (
            lambda: ranks.send(mine, 1, 0), lambda: ranks.receive(mine, 1, 0), lambda: ranks.swap(mine, theirs, 1),
            lambda: ranks.send_object(1, 1), lambda: ranks.receive_object(1),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="no other rank"):
                call()
        return
    partner = ranks.rank ^ 1
    if partner >= ranks.size:
        return
    ranks.swap(mine, theirs, partner)
    assert theirs.tolist() == [float(partner)] * 3
    if ranks.rank < partner:
        ranks.send(mine, partner, 7)
        ranks.send_object("text", partner)
    else:
        ranks.receive(theirs, partner, 7)
        assert theirs.tolist() == [float(partner)] * 3 and ranks.receive_object(partner) == "text"


def pieces(ranks: Ranks) -> None:
    """Rank after rank."""
    mine = (f"{ranks.rank}.{k} ".encode() for k in range((ranks.rank + 1) % 3))
    expected = [f"{rank}.{k} ".encode() for rank in range(ranks.size) for k in range((rank + 1) % 3)]
    assert list(ranks.pieces_of_all_ranks(mine)) == (expected if ranks.rank == 0 else [])


def nodes(ranks: Ranks) -> None:
    """Numbers on a node, and the cores of all its ranks."""
    local_rank, n_local = ranks.local()
    assert 0 <= local_rank < n_local <= ranks.size
    node = ranks.split_node()
    assert (node.rank, node.size) == (local_rank, n_local)
    node.free()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[local_rank % len(cores)]})
    try:
        assert ranks.cores_of_node() == (min(n_local, len(cores)), n_local)
    finally:
        os.sched_setaffinity(0, cores)


def clocks(ranks: Ranks) -> None:
    """Ranks of one machine share theirs."""
    assert clock_offset(ranks) == 0.0


def errors_of_one_rank(ranks: Ranks) -> None:
    """All raise that of the lowest rank which has one."""
    last = ranks.size - 1
    ranks.agree_on_error(None)
    with pytest.raises(InputError, match=f"rank {last} has bad news"):
        ranks.agree_on_error(f"rank {ranks.rank} has bad news" if ranks.rank == last else None)
    with pytest.raises(InputError, match="rank 0 has bad news"):
        ranks.agree_on_error(f"rank {ranks.rank} has bad news")


def work_of_rank_0(ranks: Ranks) -> None:
    """What it finds is given, and what it raises is raised, on all."""
    assert ranks.from_rank_0(lambda: ranks.rank) == 0
    for kind in (InputError, RunError, WriteError):

        def fail(kind: type[Exception] = kind) -> None:
            raise kind("rank 0 has bad news about --nroots")

        with pytest.raises(kind, match="^rank 0 has bad news about nroots$"):
            ranks.from_rank_0(fail)


def minimum_mean_maximum(ranks: Ranks) -> None:
    """A phase that a rank did not have took no time there; one that rank 0 did not have is left out."""
    n = ranks.size
    found = ranks.minimum_mean_maximum({"b": 2.0, "a": float(ranks.rank)})
    assert found == {"a": (0.0, (n - 1) / 2, n - 1.0), "b": (2.0, 2.0, 2.0)}
    mine = {"x": 1.0} if ranks.rank == 0 else {"y": 1.0}
    assert ranks.minimum_mean_maximum(mine) == {"x": (float(n == 1), 1 / n, 1.0)}


PROMISES: tuple[Callable[[Ranks], None], ...] = (
    numbers, waiting, sums_and_maxima, slices, to_other_ranks, pieces, nodes, clocks, errors_of_one_rank,
    work_of_rank_0, minimum_mean_maximum,
)  # fmt: skip
