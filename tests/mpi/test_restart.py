"""Restarts: a vector that was written is the vector that is read, on any grid, with and without the spin flip."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.app.checkpoints import Checkpoints
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.files import distributed, items, records
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver import sector_search
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import close_strings, dense_matrix, make_hamiltonian
from tests.support.shapes import shapes

pytestmark = pytest.mark.mpi

LABELS = np.array([0, 1, 0, 1, 0, 1, 0])


@contextmanager
def folder_of_all(comm):
    """A new directory that all ranks know; removed when all are done."""
    with tempfile.TemporaryDirectory() as mine:
        yield Path(comm.bcast(mine))
        comm.Barrier()


def problem(spins: str, labels=None):
    """Hamiltonian and strings, equal ones of both spins or not."""
    nelec = (3, 3) if spins == "equal" else (4, 3)
    hamiltonian = make_hamiltonian(7, nelec, seed=4, labels=labels)
    strings = close_strings(7, 3, 16)
    return hamiltonian, strings if spins == "equal" else close_strings(7, 4, 15, seed=1), strings


def write(result, path, hamiltonian, strings):
    """A result file with the vectors of a solve."""

    def fill(file):
        file.attrs["fingerprint"] = records.fingerprint(hamiltonian, *strings)
        file["strings/alpha"], file["strings/beta"] = strings
        summary = {"residual_norm": [root.residual_norm for root in result.roots]}
        items.write_tree(file.create_group("summary"), summary)

    vectors = [(root.layout, root.vector) for root in result.roots]
    distributed.write_file(result.grid, path, records.RESULT, fill, vectors)


def first_residuals(result):
    """Residual norms in the first iteration of every sector that holds roots."""
    history = result.history
    found = []
    for sector in {(root.sector, root.parity) for root in result.roots}:
        n_roots = sum((root.sector, root.parity) == sector for root in result.roots)
        first = np.flatnonzero((history["sector"] == sector[0]) & (history["parity"] == sector[1]))[0]
        found.extend(history["residual_norm"][first][:n_roots])
    return np.array(found)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["no labels", "labels"])
@pytest.mark.parametrize("spins", ["equal", "unlike"])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("auto", "auto"),
        ("off", "off"),
        pytest.param("auto", "off", marks=pytest.mark.slow),
        pytest.param("off", "auto", marks=pytest.mark.slow),
    ],
)
def test_a_converged_vector_shows_its_residual_in_the_first_iteration(comm, written, read, spins, labels):
    hamiltonian, *strings = problem(spins, labels)
    common = {"nroots": 3, "model_space": 150}
    # The first and the last grids are all row groups and all alpha: what lies between is shared out over the cases.
    n_grids = 2 if comm.size < 4 else 1
    drawn = np.random.default_rng([written == "off", read == "off", spins == "equal", labels is None])
    writers, readers = (
        drawn.permutation([grid for grid in shapes(comm.size) if flip == "off" or grid[0] == grid[1]])[:number].tolist()
        for flip, number in [(written, n_grids), (read, n_grids + 1)]
    )
    for writer in writers:
        first = solve_subspace(
            comm, hamiltonian, *strings, SolveOptions(grid=writer, spin_flip=written, tol=1e-9, **common)
        )
        assert first.converged
        if spins == "equal" and written == "auto":
            assert {root.parity for root in first.roots} == {1, -1}
        with folder_of_all(comm) as folder:
            write(first, folder / "vectors.h5", hamiltonian, strings)
            for reader in readers:
                options = SolveOptions(grid=reader, spin_flip=read, start=folder / "vectors.h5", **common)
                again = solve_subspace(comm, hamiltonian, *strings, options)
                assert first_residuals(again).max() < 1e-8
                np.testing.assert_allclose(again.energies, first.energies, atol=1e-11)
                again.grid.free()
        first.grid.free()


def stop_after(n_iterations, writer):
    """A hook that writes a checkpoint and stops."""
    seen = []

    def hook(progress):
        seen.append((progress.layout.sector, progress.layout.parity, progress.step.residual_norms.copy()))
        if progress.iteration < n_iterations:
            return False
        assert writer.write(progress) is None
        return True

    return hook, seen


@pytest.mark.every_size
@pytest.mark.parametrize("spins", ["equal", "unlike"])
@pytest.mark.parametrize("nroots", [1, 3])
@pytest.mark.parametrize("n_iterations", [1, 6])
def test_a_stopped_solve_goes_on_where_it_was(comm, spins, nroots, n_iterations):
    hamiltonian, *strings = problem(spins)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[:nroots]
    options = SolveOptions(nroots=nroots, model_space=6)
    known = records.Problem(hamiltonian, *strings, {}, (0, 0))
    fingerprint = records.fingerprint(hamiltonian, *strings)
    grids = [grid for grid in shapes(comm.size) if grid[0] == grid[1]]
    with folder_of_all(comm) as folder:
        writer = Checkpoints(ranks_of(comm), folder / "result.h5", known, fingerprint, Log.silent())
        hook, seen = stop_after(n_iterations, writer)
        stopped = solve_subspace(comm, hamiltonian, *strings, options.replace(grid=grids[0]), hook=hook)
        assert stopped.stopped and stopped.n_iterations == n_iterations
        resumed = options.replace(grid=grids[-1], resume=True, start=writer.newest)
        result = solve_subspace(comm, hamiltonian, *strings, resumed)
    sector, parity, norms = seen[-1]
    assert result.converged and result.n_iterations > n_iterations
    np.testing.assert_allclose(result.energies, exact, atol=1e-10)
    history = result.history
    assert len(history["seconds"]) == result.n_iterations
    assert (history["sector"][n_iterations], history["parity"][n_iterations]) == (sector, parity)
    np.testing.assert_allclose(history["residual_norm"][n_iterations][: len(norms)], norms, rtol=0.02)
    assert np.all(np.diff(history["seconds"]) >= 0)


@pytest.mark.every_size
def test_a_guard_that_was_stopped_goes_on_beside_the_known_root(comm, monkeypatch):
    """The known root is the first of the checkpoint and is not iterated again; the one that was sought follows it."""
    monkeypatch.setattr(sector_search, "LEAST_STIRRED", np.inf)  # else there is no need of one
    hamiltonian, *strings = problem("unlike")
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[0]
    options = SolveOptions(model_space=6)
    known = records.Problem(hamiltonian, *strings, {}, (0, 0))
    fingerprint = records.fingerprint(hamiltonian, *strings)
    steps = []
    with folder_of_all(comm) as folder:
        writer = Checkpoints(ranks_of(comm), folder / "result.h5", known, fingerprint, Log.silent())

        def hook(progress):
            steps.append(progress.step)
            if sum(len(step.energies) == 2 for step in steps) < 5:
                return False
            assert writer.write(progress) is None
            return True

        grids = shapes(comm.size)
        whole = solve_subspace(comm, hamiltonian, *strings, options.replace(grid=grids[0]))
        stopped = solve_subspace(comm, hamiltonian, *strings, options.replace(grid=grids[0]), hook=hook)
        assert stopped.stopped and len(steps[-1].energies) == 2
        resumed = options.replace(grid=grids[-1], resume=True, start=writer.newest)
        result = solve_subspace(comm, hamiltonian, *strings, resumed)
    assert result.converged and result.proven
    assert result.energies[0] == pytest.approx(exact, abs=1e-10)
    history, n = result.history, stopped.n_iterations
    np.testing.assert_allclose(history["energy"][n], steps[-1].energies, atol=1e-10)
    np.testing.assert_allclose(history["residual_norm"][n], steps[-1].residual_norms, rtol=0.02)
    assert result.n_sigma <= whole.n_sigma + 6


@pytest.mark.every_size
def test_stirred_iterations_that_were_stopped_need_no_guard_either(comm):
    """A checkpoint says that random vectors have come into them."""
    hamiltonian, *strings = problem("unlike")
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[0]
    options = SolveOptions(model_space=6)
    known = records.Problem(hamiltonian, *strings, {}, (0, 0))
    fingerprint = records.fingerprint(hamiltonian, *strings)
    grids = shapes(comm.size)
    with folder_of_all(comm) as folder:
        writer = Checkpoints(ranks_of(comm), folder / "result.h5", known, fingerprint, Log.silent())
        hook, _ = stop_after(8, writer)
        whole = solve_subspace(comm, hamiltonian, *strings, options.replace(grid=grids[0]))
        solve_subspace(comm, hamiltonian, *strings, options.replace(grid=grids[0]), hook=hook)
        resumed = options.replace(grid=grids[-1], resume=True, start=writer.newest)
        result = solve_subspace(comm, hamiltonian, *strings, resumed)
    for each in (whole, result):
        assert each.converged and each.proven and each.history["energy"].shape[1] == 1
        assert each.energies[0] == pytest.approx(exact, abs=1e-10)
    assert result.n_sigma <= whole.n_sigma + 6
