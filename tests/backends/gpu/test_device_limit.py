"""The memory limit of a run on a device counts the connection lists: before anything is allocated, and after."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends.gpu import block as gpu_block
from sqd_mpi.backends.gpu import process_device
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner import gpu_memory
from sqd_mpi.planner.memory import density_bytes
from sqd_mpi.planner.profile import MachineProfile
from sqd_mpi.planner.work import Work
from sqd_mpi.solver.density_matrices import predict_bytes
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim.host_device import HostDevice
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_child  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
OPTIONS = SolveOptions(backend="gpu", symmetry="off", max_iterations=9, tol=1e-3, nroots=2)
HAMILTONIAN, STRINGS = make_hamiltonian(10, (4, 4)), close_strings(10, 4, 150)


@pytest.fixture
def small_scratch(monkeypatch):
    """Scratch of the matrix products as small as the problems here."""
    monkeypatch.setattr(gpu_block, "_SCRATCH_BYTES", 8)
    monkeypatch.setattr(gpu_memory, "SCRATCH_BYTES", 8)


@pytest.fixture
def make_device(monkeypatch):
    """Makes the device of this process, with so many bytes, and watches it."""

    def make(n_bytes: int) -> gpu_child.WatchedDevice:
        device = HostDevice(memory_bytes=n_bytes)
        watched = gpu_child.WatchedDevice(device)
        monkeypatch.setattr(process_device, "_process_device", [device])
        return watched

    return make


def predicted(size: int) -> int:
    """Bytes of a solve with so many basis vectors."""
    problem = planner.Problem.create(HAMILTONIAN, STRINGS, STRINGS, False)
    return planner.rank_bytes(problem, (1, 1, 1, 1), planner.MemoryLimits(2**60, size, size, 10**12))[size]


def solve(log=None):
    return solve_subspace(None, HAMILTONIAN, STRINGS, STRINGS, OPTIONS, log=log)


def test_lists_that_do_not_fit_are_refused_before_anything_is_allocated(make_device, small_scratch):
    watched = make_device(int(0.9 * predicted(2)))
    with pytest.raises(InputError, match="vectors, buffers and connection lists need .* of host shim are allowed"):
        solve()
    assert watched.peak_bytes == 0


def test_auto_on_a_device_that_is_too_small_names_the_cpu(make_device, small_scratch, monkeypatch):
    """A space that does not fit on the device that a profile has chosen is refused like any other."""
    monkeypatch.setattr("sqd_mpi.solver.fitting.device_is_there", lambda: True)
    monkeypatch.setattr(planner, "named_profiles", lambda: {"gpu": planner.assumed_device()})
    monkeypatch.setattr(planner, "choose_backend", lambda *_: planner.Choice("gpu", 2.0, 1.0))
    options = OPTIONS.replace(backend="auto")
    make_device(10**9)
    assert solve_subspace(None, HAMILTONIAN, STRINGS, STRINGS, options).backend == "gpu"
    watched = make_device(int(0.9 * predicted(2)))
    with pytest.raises(InputError, match="of host shim are allowed, .* too few; .*backend cpu takes the memory"):
        solve_subspace(None, HAMILTONIAN, STRINGS, STRINGS, options)
    assert watched.peak_bytes == 0


@pytest.mark.slow
def test_fewer_basis_vectors_leave_room_for_lists(make_device, small_scratch):
    room = int(1.02 * predicted(8) / 0.95 / 0.95)
    vectors = planner.predict_memory((1, 1, 1, 1), 150 * 151 // 2, 10, 150 * 150).total
    assert vectors < 0.95**2 * room  # without the lists all vectors would be thought to fit
    watched = make_device(room)
    result = solve()
    assert result.max_subspace in (7, 8, 9) and watched.peak_bytes < room
    full = make_device(10**9)
    expected = solve()
    assert expected.max_subspace == 10 and full.peak_bytes > watched.peak_bytes
    assert result.energies[0] == pytest.approx(expected.energies[0], abs=1e-2)


@pytest.mark.parametrize("made", [1.0, 50.0])
def test_lists_longer_than_predicted_take_the_place_of_vectors(make_device, small_scratch, monkeypatch, made, capsys):
    """What was made counts in the end."""
    make_device(int(1.02 * predicted(10) / 0.95 / 0.95))
    monkeypatch.setattr(planner, "rank_bytes", lambda problem, shape, limits: dict.fromkeys(range(1, 11), 0))
    honest = GpuShare.nbytes.fget
    extra = int(made * 6 * 8 * 150 * 151 / 2)  # six vectors and more
    monkeypatch.setattr(GpuShare, "nbytes", property(lambda self: honest(self) + extra))
    if made == 1.0:
        solve(Log(0))
        shown = capsys.readouterr().err
        assert "memory limit:" in shown and "lists are longer than predicted" in shown
        return
    with pytest.raises(InputError, match="vectors, buffers and connection lists need"):
        solve()


def test_large_devices_need_no_counting(make_device, monkeypatch):
    make_device(100 * 10**9)
    monkeypatch.setattr(planner, "rank_bytes", lambda *arguments: pytest.fail("connections were counted"))
    assert solve().max_subspace == 10


@pytest.mark.parametrize("n_labels", [1, 4])
def test_no_lists_exceed_the_bound(n_labels):
    labels = np.arange(10) % n_labels
    hamiltonian = make_hamiltonian(10, (4, 4), labels=labels)
    problem = planner.Problem.create(hamiltonian, STRINGS, STRINGS, n_labels > 1)
    bound = planner.most_bytes(problem.alpha.strings, problem.beta.strings, 10, (4, 4))
    for shape in ((1, 1, 1, 1), (2, 2, 1, 1), (1, 3, 1, 1)):
        work = Work(problem, shape, planner.assumed_device(), 1)
        assert gpu_memory.device_structure_bytes(work) + gpu_memory.SCRATCH_BYTES < bound


def test_density_matrices_are_part_of_a_plan():
    problem = planner.Problem.create(HAMILTONIAN, STRINGS, STRINGS, False)
    for profile in (MachineProfile(), planner.assumed_device()):
        limits = [planner.MemoryLimits(10**12, 7, 3, None, 2, order) for order in (0, 1, 2)]
        none, one, two = (planner.predict(problem, (1, 1, 1, 1), profile, 1, each) for each in limits)
        assert none.density_bytes == 0 < one.density_bytes < two.density_bytes
        assert two.density_bytes > predict_bytes(10, 2)
        assert two.bytes_per_rank >= max(none.bytes_per_rank, two.density_bytes + two.structure_bytes)
        assert two.device_bytes == none.device_bytes
        tight = planner.MemoryLimits(two.bytes_per_rank - 1, 7, 3, None, 2, 2)
        assert planner.predict(problem, (1, 1, 1, 1), profile, 1, tight).fits == (
            two.density_bytes < two.vectors_bytes and not two.device_bytes
        )
    work = Work(problem, (2, 2, 1, 1), MachineProfile(), 1)
    assert density_bytes(work, 1, 0) == 0 < density_bytes(work, 1, 1) < density_bytes(work, 3, 1)
    large = planner.Problem.create(make_hamiltonian(66, (2, 2)), *[close_strings(66, 2, 5)] * 2, False)
    found = planner.predict(large, (1, 1, 1, 1), MachineProfile(), 1, planner.MemoryLimits(10**9, 7, 3, None, 1, 2))
    assert not found.fits and found.missing_bytes > 0 and "density_bytes" in found.to_dict()
