"""Distributed vectors: written on every grid, read on every other one, matched to other strings and labels."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.distribution.layout import Layout
from sqd_mpi.distribution.process_grid import ProcessGrid
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums, records
from sqd_mpi.files.distributed import StoredVectors, labels_in_canonical_order, write_file
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import string_labels
from tests.support.problems import random_strings
from tests.support.shapes import shapes

pytestmark = [pytest.mark.mpi, pytest.mark.every_size]

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
NONE = np.zeros(7, np.int64)


@contextmanager
def shared_file(comm):
    """A path in a new directory that all ranks know; removed when all are done."""
    with tempfile.TemporaryDirectory() as mine:
        yield Path(comm.bcast(mine)) / "vectors.h5"
        comm.Barrier()


def place_of(grid: ProcessGrid) -> tuple[int, int, int, int]:
    """(ia, ib, it, ir) of this rank."""
    here = grid.coordinates
    return here.ia, here.ib, here.it, here.ir


def indices(grid: ProcessGrid, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Canonical positions (alpha, beta) of the elements of this rank's slice."""
    where = layout.geometry(*place_of(grid))
    rows, columns = where.locate(np.arange(where.size, dtype=np.int64))
    return layout.alpha.canonical[where.alpha[rows]], layout.beta.canonical[where.beta[columns]]


def in_working_order(strings, labels, n_labels):
    """Both spins' strings sorted by label."""
    return tuple(SpinStrings.from_canonical(each, labels, n_labels) for each in strings)


def allowed(strings, labels, sector):
    """Which determinants lie in a sector."""
    label_a, label_b = (string_labels(each, labels) for each in strings)
    return (label_a[:, None] ^ label_b[None, :]) == sector


def write(comm, path, shape, strings, labels, n_labels, wholes, sectors):
    """Write whole vectors, one per sector, from a grid."""
    grid = ProcessGrid(comm, shape)
    alpha, beta = in_working_order(strings, labels, n_labels)
    vectors = []
    for whole, sector in zip(wholes, sectors, strict=True):
        layout = Layout.create(alpha, beta, sector, shape)
        vectors.append((layout, np.ascontiguousarray(whole[indices(grid, layout)])))

    def fill(file):
        file.attrs["fingerprint"] = "none"
        file["strings/alpha"], file["strings/beta"] = strings

    write_file(grid, path, records.RESULT, fill, vectors)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    checksums.verify(ranks_of(comm), path)
    comm.Barrier()
    grid.free()


def read(comm, path, shape, strings, labels, n_labels, root, sectors):
    """A stored vector put together from the slices that a grid's ranks read, over all given sectors."""
    grid = ProcessGrid(comm, shape)
    alpha, beta = in_working_order(strings, labels, n_labels)
    whole = np.zeros((alpha.size, beta.size))
    stored = StoredVectors(path, alpha, beta)
    for sector in sectors:
        layout = Layout.create(alpha, beta, sector, shape)
        out = np.full(layout.slice_size(*place_of(grid)), np.nan)
        stored.fill(grid, layout, root, out)
        whole[indices(grid, layout)] = out
    nroots = stored.nroots
    stored.close()
    grid.sum_over_all(whole)
    grid.free()
    return whole, nroots


@pytest.fixture
def strings():
    """17 x 13 strings of seven orbitals."""
    return random_strings(7, 3, 17), random_strings(7, 4, 13, seed=1)


@pytest.fixture
def wholes(strings):
    """One random vector in each of the sectors 1 and 2."""
    rng = np.random.default_rng(7)
    return [rng.normal(size=(17, 13)) * allowed(strings, LABELS, sector) for sector in (1, 2)]


def test_written_on_every_grid_and_read_on_every_other(comm, strings, wholes):
    everyone = shapes(comm.size)
    step = 1 + len(everyone) // 4
    for k, shape in enumerate(everyone):
        with shared_file(comm) as path:
            write(comm, path, shape, strings, LABELS, 4, wholes, [1, 2])
            for other in everyone[k % step :: step]:  # in turn, so that every shape is read often
                root = (other[0] + other[1]) % 2
                found, nroots = read(comm, path, other, strings, LABELS, 4, root, range(4))
                assert nroots == 2
                assert np.array_equal(found, wholes[root]), f"written on {shape}, read on {other}"


def test_one_wrong_bit_is_noticed_on_all_ranks(comm, strings, wholes):
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[-1], strings, LABELS, 4, wholes, [1, 2])
        size = path.stat().st_size
        for place in (0, 30, 511, 512, size // 2, size - 1):
            if comm.rank == 0:
                content = bytearray(path.read_bytes())
                content[place] ^= 16
                path.write_bytes(content)
            comm.Barrier()
            with pytest.raises(InputError, match="is damaged"):
                checksums.verify(ranks_of(comm), path)
            if comm.rank == 0:
                content[place] ^= 16
                path.write_bytes(content)
            comm.Barrier()
        checksums.verify(ranks_of(comm), path)


def test_what_cannot_be_written_is_one_error_on_all_ranks(comm, strings, wholes, monkeypatch):
    """Rank 0 lays the file out and the last rank fails to write into it: no rank waits, nothing new appears."""

    def full(descriptor, values, offset):
        raise OSError(28, "No space left on device")

    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[-1], strings, LABELS, 4, wholes, [1, 2])
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            if comm.rank == comm.size - 1:
                patch.setattr("sqd_mpi.files.distributed.os.pwrite", full)
            with pytest.raises(OSError, match="cannot write .*vectors.h5: No space left on device"):
                write(comm, path, (comm.size, 1, 1, 1), strings, LABELS, 4, wholes, [1, 2])
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_one_process_reads_what_all_wrote(comm, strings, wholes):
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[-1], strings, LABELS, 4, wholes, [1, 2])
        found, _ = read(_self(), path, (1, 1, 1, 1), strings, LABELS, 4, 1, [2])
        assert np.array_equal(found, wholes[1])


def _self():
    """The communicator of this rank alone."""
    from mpi4py import MPI

    return MPI.COMM_SELF


def test_file_does_not_depend_on_the_grid(comm, strings, wholes):
    contents = []
    for shape in (shapes(comm.size)[0], shapes(comm.size)[-1]):
        with shared_file(comm) as path:
            write(comm, path, shape, strings, LABELS, 4, wholes, [1, 2])
            with records.VectorReader(path) as reader:
                pieces = [
                    reader.read_block(root, x, 0, reader.piece_shape(root, x)[0], 0, reader.piece_shape(root, x)[1])
                    for root in range(2)
                    for x in range(4)
                ]
            contents.append(pieces)
    for one, other in zip(*contents, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("stored_labels", [LABELS, NONE])
@pytest.mark.parametrize("new_labels", [LABELS, NONE, np.array([0, 1, 0, 1, 0, 1, 0])])
def test_other_labels(comm, strings, stored_labels, new_labels):
    whole = np.random.default_rng(3).normal(size=(17, 13)) * allowed(strings, stored_labels, 0)
    n_stored, n_new = 1 << int(stored_labels.max()).bit_length(), 1 << int(new_labels.max()).bit_length()
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[0], strings, stored_labels, n_stored, [whole], [0])
        for shape in shapes(comm.size)[:4]:
            found, _ = read(comm, path, shape, strings, new_labels, n_new, 0, range(n_new))
            assert np.array_equal(found, whole)


def test_other_strings_get_what_the_file_has_and_zeros(comm, strings, wholes):
    new = tuple(
        bitstrings.canonical(np.concatenate([each[::2], random_strings(7, n, 8, seed=20 + n)]))[0]
        for n, each in zip((3, 4), strings, strict=True)
    )
    row, column = (bitstrings.find(old, each) for old, each in zip(strings, new, strict=True))
    known = (row[:, None] >= 0) & (column[None, :] >= 0)
    expected = np.where(known, wholes[0][row[:, None], column[None, :]], 0.0)
    assert 0 < known.sum() < known.size
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[0], strings, LABELS, 4, wholes, [1, 2])
        for shape in shapes(comm.size)[::2]:
            found, _ = read(comm, path, shape, new, LABELS, 4, 0, range(4))
            assert np.array_equal(found, expected)
            found, _ = read(comm, path, shape, new, NONE, 1, 0, [0])
            assert np.array_equal(found, expected)


def test_strings_of_another_size_have_nothing_in_common(comm, strings, wholes):
    wide = random_strings(70, 3, 5), random_strings(70, 4, 4)
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[0], strings, LABELS, 4, wholes, [1, 2])
        found, _ = read(comm, path, shapes(comm.size)[0], wide, np.zeros(70, np.int64), 1, 0, [0])
        assert not found.any()


@pytest.mark.parametrize("counts", [(1, 1), (1, 9), (2, 1)])
def test_more_ranks_than_strings(comm, counts):
    few = random_strings(7, 3, counts[0]), random_strings(7, 4, counts[1])
    whole = np.random.default_rng(0).normal(size=counts)
    for shape in shapes(comm.size)[:: 1 + comm.size // 3]:
        with shared_file(comm) as path:
            write(comm, path, shape, few, NONE, 1, [whole], [0])
            found, _ = read(comm, path, shapes(comm.size)[-1], few, NONE, 1, 0, [0])
            assert np.array_equal(found, whole)


def test_long_strings(comm):
    strings = random_strings(130, 3, 11), random_strings(130, 2, 6)
    labels = np.random.default_rng(0).integers(2, size=130)
    whole = np.random.default_rng(1).normal(size=(11, 6)) * allowed(strings, labels, 1)
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[-1], strings, labels, 2, [whole], [1])
        found, _ = read(comm, path, shapes(comm.size)[0], strings, labels, 2, 0, range(2))
        assert np.array_equal(found, whole)


def test_many_pieces_travel_one_after_the_other(comm, strings, wholes, monkeypatch):
    monkeypatch.setattr("sqd_mpi.files.distributed._PIECE_BYTES", 16)
    with shared_file(comm) as path:
        write(comm, path, shapes(comm.size)[-1], strings, LABELS, 4, wholes, [1, 2])
        found, _ = read(comm, path, shapes(comm.size)[0], strings, LABELS, 4, 1, range(4))
        assert np.array_equal(found, wholes[1])


def test_labels_of_the_strings_in_canonical_order(strings):
    alpha, _ = in_working_order(strings, LABELS, 4)
    assert np.array_equal(labels_in_canonical_order(alpha), string_labels(strings[0], LABELS))


def test_a_file_without_vectors(comm, strings):
    with shared_file(comm) as path:
        if comm.rank == 0:
            with records.AtomicFile(path, records.RESULT) as file:
                file.attrs["fingerprint"] = "none"
        comm.Barrier()
        with pytest.raises(InputError, match="no vectors"):
            StoredVectors(path, *in_working_order(strings, LABELS, 4))
