"""Whole solves on the GPU backend, its kernels run on the CPU by the host shim: the energies are those of the CPU."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from sqd_mpi.app.checkpoints import Checkpoints
from sqd_mpi.backends.gpu import costs
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.process_device import close_device
from sqd_mpi.backends.gpu.same_spin import SameSpin
from sqd_mpi.distribution import mpi
from sqd_mpi.distribution.ranks import ranks_of
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.support.problems import close_strings, make_hamiltonian, random_strings
from tests.support.shapes import LABELS

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")]


@pytest.fixture(autouse=True)
def host_shim(monkeypatch):
    """The host shim as the device of this process."""
    close_device()
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    yield
    close_device()


def some_shapes(n: int) -> list[tuple[int, int, int, int]]:
    """One grid for every way of dividing."""
    shapes = [(n, 1, 1, 1), (1, n, 1, 1), (1, 1, n, 1), (1, 1, 1, n)]
    if n in (4, 6):
        shapes += [(2, 1, n // 2, 1), (2, 2, 1, 1) if n == 4 else (1, 3, 1, 2)]
    return list(dict.fromkeys(shapes))


def square_shapes(n: int) -> list[tuple[int, int, int, int]]:
    """Grids that spin-flip symmetry can use."""
    shapes = [(1, 1, n, 1), (1, 1, 1, n)] + ([(2, 2, 1, 1)] if n == 4 else [])
    return list(dict.fromkeys(shapes))


def check(comm, hamiltonian, strings, shapes, **options):
    """GPU against CPU on every grid; the last result."""
    given = {"tol": 1e-6, "model_space": 8, **options}
    expected = solve_subspace(comm, hamiltonian, *strings, SolveOptions(**given, grid=shapes[0]))
    for number, shape in enumerate(shapes):
        # Of every two grids one shares blocks in host memory; with messages from the device none does.
        direct, share = number % 3 == 2, "auto" if number % 2 else "off"
        chosen = SolveOptions(**given, grid=shape, backend="gpu", gpu_aware_mpi=direct, share_blocks=share)
        found = solve_subspace(comm, hamiltonian, *strings, chosen)
        assert all(root.residual_norm <= given["tol"] for root in found.roots)
        assert found.backend == "gpu" and found.device == "host shim" and found.converged == expected.converged
        np.testing.assert_allclose(found.energies, expected.energies, rtol=0, atol=1e-10)
        for new, old in zip(found.roots, expected.roots, strict=True):
            assert new.spin_square == pytest.approx(old.spin_square, abs=1e-5)
            np.testing.assert_allclose(new.occupancies, old.occupancies, atol=1e-5)
    return found


def test_several_roots_in_several_sectors(comm):
    hamiltonian = make_hamiltonian(7, (3, 4), seed=2, labels=LABELS)
    strings = random_strings(7, 3, 20), random_strings(7, 4, 18, seed=1)
    check(comm, hamiltonian, strings, some_shapes(comm.size), nroots=3)


@pytest.mark.parametrize("form", ["direct", "tiled"])
def test_spin_flip_of_both_parities(comm, monkeypatch, form):
    monkeypatch.setattr(GpuBlock, "__init__", functools.partialmethod(GpuBlock.__init__, form=form))
    hamiltonian = make_hamiltonian(8, (4, 4), seed=6)
    strings = (close_strings(8, 4, 18),) * 2
    found = check(comm, hamiltonian, strings, square_shapes(comm.size), nroots=2, max_subspace=8)
    assert {root.parity for root in found.roots} == {1, -1}


@pytest.mark.slow
def test_streams_that_are_late(comm, monkeypatch):
    """Copies and kernels in any order that the streams allow, with messages of every kind."""
    monkeypatch.setenv("SQD_MPI_GPU_HOST_LATE", str(comm.size))
    close_device()
    hamiltonian = make_hamiltonian(7, (3, 3), seed=6)
    strings = close_strings(7, 3, 20), close_strings(7, 3, 19, seed=1)
    check(comm, hamiltonian, strings, some_shapes(comm.size)[:3])
    check(comm, hamiltonian, strings[:1] * 2, square_shapes(comm.size)[-1:])


@pytest.mark.slow
def test_dense_matrices_of_same_spin(comm, monkeypatch):
    """Parts of tasks and of their rows on several ranks, triangles among them."""
    monkeypatch.setattr(SameSpin, "_saved_seconds", lambda self, task: np.ones(self.layout.n_labels))
    monkeypatch.setattr(costs, "_LEAST_CHUNK", 4)
    hamiltonian = make_hamiltonian(8, (4, 4), seed=6)
    check(comm, hamiltonian, (close_strings(8, 4, 30),) * 2, square_shapes(comm.size)[-2:], max_subspace=6)


@pytest.mark.slow
@pytest.mark.parametrize("spin_square", [0.0, 2.0])
def test_spin_penalty(comm, spin_square):
    """The linear and the quadratic form."""
    hamiltonian = make_hamiltonian(6, (3, 3), 5)
    strings = close_strings(6, 3, 15), close_strings(6, 3, 14, seed=1)
    shapes = some_shapes(comm.size)[-2:] if spin_square else some_shapes(comm.size)[:1]
    check(comm, hamiltonian, strings, shapes, spin_square=spin_square)


def test_one_string_and_empty_blocks(comm):
    hamiltonian = make_hamiltonian(5, (2, 2))
    check(comm, hamiltonian, (close_strings(5, 2, 1),) * 2, [(1, comm.size, 1, 1)])
    strings = close_strings(6, 3, 5), close_strings(6, 0, 1)
    check(comm, make_hamiltonian(6, (3, 0)), strings, [(comm.size, 1, 1, 1)])


@pytest.mark.slow
def test_checkpoints_go_from_one_backend_to_the_other(comm):
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 25), close_strings(8, 4, 24, seed=1)
    problem = SimpleNamespace(hamiltonian=hamiltonian, strings_a=strings[0], strings_b=strings[1])
    options = SolveOptions(grid=(1, comm.size, 1, 1), nroots=2, model_space=4, tol=1e-8)
    exact = solve_subspace(comm, hamiltonian, *strings, options).energies
    with TemporaryDirectory() as mine:
        folder = Path(comm.bcast(mine))
        for first, second in (("cpu", "gpu"), ("gpu", "cpu")):
            checkpoints = Checkpoints(ranks_of(comm), folder / f"{first}.h5", problem, "x", Log.silent())

            def hook(progress, checkpoints=checkpoints):
                if progress.iteration == 3:
                    assert checkpoints.write(progress) is None
                return progress.iteration == 3

            assert solve_subspace(comm, hamiltonian, *strings, options.replace(backend=first), hook=hook).stopped
            resumed = options.replace(start=checkpoints.newest, backend=second, grid=(comm.size, 1, 1, 1))
            result = solve_subspace(comm, hamiltonian, *strings, resumed)
            assert result.converged
            np.testing.assert_allclose(result.energies, exact, rtol=0, atol=1e-10)
        comm.Barrier()


def test_too_little_memory_is_one_sentence(comm):
    hamiltonian = make_hamiltonian(8, (4, 4))
    strings = (close_strings(8, 4, 40),) * 2
    with pytest.raises(InputError, match="GiB per rank of host shim are allowed, .* GiB too few"):
        solve_subspace(comm, hamiltonian, *strings, SolveOptions(backend="gpu", memory=1000))


def test_messages_from_host_memory_are_not_those_of_a_device(comm):
    strings = (close_strings(5, 2, 4),) * 2
    with pytest.raises(InputError, match="gpu_aware_mpi needs vectors on a GPU"):
        solve_subspace(comm, make_hamiltonian(5, (2, 2)), *strings, SolveOptions(gpu_aware_mpi=True))


def test_an_mpi_library_that_does_not_know_devices_is_refused(comm, monkeypatch):
    monkeypatch.delenv("MPICH_GPU_SUPPORT_ENABLED", raising=False)
    assert all(isinstance(mpi._answer_on_gpus(kind), bool) for kind in ("cuda", "hip"))
    monkeypatch.setattr(mpi, "_answer_on_gpus", lambda kind: kind == "hip")
    assert "--gpu-aware-mpi needs an MPI library that sends from the memory of GPUs" in mpi.no_messages_from("cuda")
    assert mpi.no_messages_from("hip") is None
    assert mpi.no_messages_from("host") is None
