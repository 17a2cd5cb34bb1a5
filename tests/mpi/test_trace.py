"""The trace of several ranks: clocks, order of the pieces, one file."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from sqd_mpi.app import trace
from sqd_mpi.distribution.clock import clock_offset
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import ranks_of

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]


def test_ranks_of_a_host_share_a_clock(comm):
    assert clock_offset(ranks_of(comm)) == 0.0


@pytest.mark.parametrize("ranks_per_host", [1, 2])
def test_offsets_of_clocks_are_found(comm, ranks_per_host):
    host = comm.rank // ranks_per_host
    offset = clock_offset(ranks_of(comm), f"host {host}", lambda: perf_counter() + 100.0 * host)
    offsets = comm.allgather(offset)
    expected = [-100.0 * (rank // ranks_per_host) for rank in range(comm.size)]
    # Ranks that share cores wait for each other; with cores of their own the error is some microseconds.
    assert np.allclose(offsets, expected, rtol=0.0, atol=0.2), offsets
    assert offsets[0] == 0.0


def test_pieces_come_rank_after_rank(comm):
    mine = (f"{comm.rank}.{k} ".encode() for k in range(comm.rank % 3))
    found = list(ranks_of(comm).pieces_of_all_ranks(mine))
    expected = [f"{rank}.{k} ".encode() for rank in range(comm.size) for k in range(rank % 3)]
    assert found == (expected if comm.rank == 0 else [])


@pytest.fixture
def folder(comm, tmp_path):
    """A directory that all ranks see."""
    return comm.bcast(tmp_path)


def make_tracer(comm, n_events: int, limit: int) -> trace.Tracer:
    """Returns a tracer whose rank k began k seconds after rank 0, by the same clock."""
    tracer = trace.Tracer(limit)
    for k in range(n_events):
        tracer.add("phase", 1000.0 + comm.rank + 0.01 * k, 1000.005 + comm.rank + 0.01 * k)
    return tracer


def test_all_ranks_write_one_file(comm, folder, monkeypatch):
    monkeypatch.setattr(trace, "_PIECE_EVENTS", 7)
    grid = ProcessGrid(comm, (1, comm.size, 1, 1))
    path = folder / "run.json.gz"
    sentence = trace.write(path, make_tracer(comm, 20 + comm.rank, 1000), grid, {"input": "x.h5"})
    found = trace.read(path) if comm.rank == 0 else None
    verdict = sentence is None
    if found is not None:
        counts = np.bincount(found.rank, minlength=comm.size)
        starts = [found.start[found.rank == rank].min() for rank in range(comm.size)]
        verdict &= counts.tolist() == [20 + rank for rank in range(comm.size)]
        verdict &= np.allclose(starts, np.arange(comm.size))
        verdict &= found.about["n_ranks"] == comm.size and found.about["input"] == "x.h5"
    assert comm.allgather(verdict) == [True] * comm.size
    grid.free()


def test_the_bound_of_one_rank_is_told(comm, folder):
    grid = ProcessGrid(comm, (comm.size, 1, 1, 1))
    last = comm.size - 1
    tracer = make_tracer(comm, 30 if comm.rank == last else 10, limit=25)
    sentences = comm.allgather(trace.write(folder / "cut.json", tracer, grid, {}))
    assert f"5 later ones of 1 of {comm.size} ranks are missing" in sentences[0]
    grid.free()


def test_an_error_of_the_disk_leaves_no_rank_waiting(comm, folder):
    grid = ProcessGrid(comm, (comm.size, 1, 1, 1))
    sentences = comm.allgather(trace.write(folder / "missing" / "run.json", make_tracer(comm, 5, 10), grid, {}))
    assert "could not be written: No such file or directory" in sentences[0]
    assert sentences[1:] == [None] * (comm.size - 1)
    grid.free()
