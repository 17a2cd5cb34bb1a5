"""The serial twin keeps what ranks promise."""

from __future__ import annotations

import pytest

from sqd_mpi.distribution.ranks import MpiRanks, Ranks, ranks_of
from tests.support.ranks import PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_one_process_alone(promise):
    promise(Ranks())


def test_what_may_be_given():
    """None, ranks, and communicators; one of a single rank needs no MPI."""

    class Communicator:
        rank, size = 0, 1

    alone, several = Communicator(), Communicator()
    several.size = 2
    for given in (None, alone):
        assert type(ranks_of(given)) is Ranks
    found = ranks_of(several)
    assert isinstance(found, MpiRanks) and found.comm is several and ranks_of(found) is found
