"""Solves whose vectors live in a memory that nobody but the backend can look into: the numbers are those of the CPU."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from sqd_mpi.app.checkpoints import Checkpoints
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver import fitting, solve
from tests.support.opaque import OpaqueBackend
from tests.support.problems import close_strings, make_hamiltonian, random_strings
from tests.support.shapes import LABELS

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def few_ranks(comm):
    """Four ranks have every kind of message."""
    if comm.size > 4:
        pytest.skip("up to four ranks")


@pytest.fixture
def opaque(monkeypatch):
    """A function that makes further solves use the opaque memory, or not."""

    def switch(on: bool) -> None:
        monkeypatch.undo()
        if on:
            monkeypatch.setattr(fitting, "get_backend", lambda name: OpaqueBackend)

    return switch


def both(opaque, comm, hamiltonian, strings, options, **more):
    """The result with host memory and that with opaque memory."""
    found = []
    for on in (False, True):
        opaque(on)
        found.append(solve.solve_subspace(comm, hamiltonian, *strings, options, **more))
    return found


def check_equal(comm, expected, found):
    """The same numbers to the last bit, and host arrays wherever a result is looked at."""
    np.testing.assert_array_equal(found.energies, expected.energies)
    assert (found.n_iterations, found.n_sigma) == (expected.n_iterations, expected.n_sigma)
    for new, old in zip(found.roots, expected.roots, strict=True):
        assert isinstance(new.vector, np.ndarray)
        same = comm.allreduce(int(np.array_equal(new.vector, old.vector)))
        assert same == comm.size
        assert (new.residual_norm, new.spin_square) == (old.residual_norm, old.spin_square)
        np.testing.assert_array_equal(new.occupancies, old.occupancies)


def some_shapes(n: int, number: int) -> list[tuple[int, int, int, int]]:
    """Two grids that cut alpha strings or tasks, or two that cut beta strings or rows; a mixed one of 4 ranks."""
    pairs = [(n, 1, 1, 1), (1, 1, n, 1)], [(1, n, 1, 1), (1, 1, 1, n)]
    mixed = [[(1, 2, 2, 1)], [(2, 1, 1, 2)]][number] if n == 4 else []
    return list(dict.fromkeys(pairs[number] + mixed))


def square_shape(n: int, number: int) -> tuple[int, int, int, int]:
    """A grid that spin-flip symmetry can use, with task groups or row groups, or four blocks."""
    if number == 0:
        return 1, 1, n, 1
    return (2, 2, 1, 1) if n == 4 else (1, 1, 1, n)


@pytest.mark.parametrize("share_blocks", ["auto", "off"])
def test_several_roots_and_sectors(comm, opaque, share_blocks):
    hamiltonian = make_hamiltonian(7, (3, 4), seed=2, labels=LABELS)
    strings = random_strings(7, 3, 20), random_strings(7, 4, 18, seed=1)
    for shape in some_shapes(comm.size, int(share_blocks == "off")):
        options = SolveOptions(grid=shape, nroots=2, model_space=5, share_blocks=share_blocks, max_iterations=6)
        check_equal(comm, *both(opaque, comm, hamiltonian, strings, options))


@pytest.mark.parametrize("share_blocks", ["auto", "off"])
@pytest.mark.parametrize("number", [0, 1])
def test_spin_flip_with_a_small_subspace(comm, opaque, share_blocks, number):
    """Both parities of halves on square grids, with restarts of the eigensolver."""
    hamiltonian = make_hamiltonian(8, (4, 4), seed=6)
    strings = (close_strings(8, 4, 30),) * 2
    options = SolveOptions(
        grid=square_shape(comm.size, number), nroots=2, model_space=4, share_blocks=share_blocks, max_subspace=6,
        max_iterations=6,
    )  # fmt: skip
    expected, found = both(opaque, comm, hamiltonian, strings, options)
    check_equal(comm, expected, found)
    assert {root.parity for root in found.roots} <= {1, -1}


@pytest.mark.parametrize("spin_square", [0.0, 2.0])
def test_spin_penalty(comm, opaque, spin_square):
    """The linear and the quadratic form."""
    hamiltonian = make_hamiltonian(6, (3, 3), 5)
    strings = close_strings(6, 3, 15), close_strings(6, 3, 14, seed=1)
    for shape in some_shapes(comm.size, int(spin_square == 0.0)):
        options = SolveOptions(grid=shape, spin_square=spin_square, model_space=8, max_iterations=6)
        check_equal(comm, *both(opaque, comm, hamiltonian, strings, options))


def test_more_roots_than_start_vectors_are_filled_with_the_same_random_numbers(comm, opaque):
    hamiltonian = make_hamiltonian(7, (3, 3), seed=4)
    strings = close_strings(7, 3, 12), close_strings(7, 3, 11, seed=2)
    options = SolveOptions(grid=(1, 1, comm.size, 1), nroots=4, model_space=8, max_iterations=4)
    check_equal(comm, *both(opaque, comm, hamiltonian, strings, options))


@pytest.mark.every_size
def test_checkpoints_go_from_one_memory_to_the_other(comm, opaque):
    """Stopped after three iterations with either memory, taken up with either: the same checkpoint, the same energy."""
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 25), close_strings(8, 4, 24, seed=1)
    grid = (1, comm.size, 1, 1)
    problem = SimpleNamespace(hamiltonian=hamiltonian, strings_a=strings[0], strings_b=strings[1])
    energies = []
    with TemporaryDirectory() as mine:
        folder = Path(comm.bcast(mine))
        for first, second in ((False, True), (True, False)):
            checkpoints = Checkpoints(ranks_of(comm), folder / f"{first}.h5", problem, "x", Log.silent())

            def hook(progress, checkpoints=checkpoints):
                if progress.iteration == 3:
                    assert checkpoints.write(progress) is None
                return progress.iteration == 3

            opaque(first)
            options = SolveOptions(grid=grid, nroots=2, model_space=4, tol=1e-8)
            assert solve.solve_subspace(comm, hamiltonian, *strings, options, hook=hook).stopped
            opaque(second)
            resumed = options.replace(start=checkpoints.newest)
            result = solve.solve_subspace(comm, hamiltonian, *strings, resumed)
            assert result.converged
            energies.append(result.energies)
        comm.Barrier()
    np.testing.assert_array_equal(*energies)
