"""Ranks of a communicator, and of one whose ranks can be called back, keep what ranks promise."""

from __future__ import annotations

import pytest

from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.cancellable import Group
from sqd_mpi.distribution.ranks import MpiRanks
from tests.support.ranks import PROMISES

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]


@pytest.mark.parametrize("promise", PROMISES)
def test_ranks_of_a_communicator(comm, promise):
    promise(MpiRanks(comm))


@pytest.mark.parametrize("promise", [each for each in PROMISES if each.__name__ not in ("waiting", "to_other_ranks")])
def test_ranks_of_an_attempt(comm, promise):
    group = Group(comm)
    promise(MpiRanks(group.attempt()))
    assert group.settle(None) == [None] * group.size
    group.free()


def test_parts(comm):
    part = MpiRanks(comm).split(comm.rank % 2, -comm.rank)
    assert part.gather_objects(comm.rank) == [rank for rank in range(comm.size) if rank % 2 == comm.rank % 2][::-1]
    part.free()


def test_library_version_is_one_line():
    text = mpi.library_version()
    assert text and "\n" not in text and "\x00" not in text
