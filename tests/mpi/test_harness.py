"""The ranks of a job of tests see one another."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]


def test_ranks_are_counted(comm) -> None:
    assert comm.allreduce(comm.rank) == comm.size * (comm.size - 1) // 2
