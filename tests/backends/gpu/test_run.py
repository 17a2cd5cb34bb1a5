"""`run --backend gpu` from the input file to the exit code; the kernels run on the CPU, by the host shim."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.backends.gpu import process_device as device_module
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.errors import InputError, RunError
from sqd_mpi.files import records
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner.profile import MachineProfile, write_profile
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.support.problems import close_strings, make_hamiltonian
from tests.support.runs import check_refusal, info, run

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with an input of 30 x 30 strings, which a model space does not solve."""
    strings = close_strings(8, 4, 30)
    options = {"threads": 1, "model_space": 4}
    records.write_input(tmp_path / "input.h5", make_hamiltonian(8, (4, 4), seed=6), strings, strings, options)
    return tmp_path


@pytest.fixture
def host_shim(monkeypatch):
    """The host shim as the device of this process and of those that it starts."""
    monkeypatch.setenv("SQD_MPI_GPU", SHIM)
    device_module.close_device()
    yield
    device_module.close_device()


@pytest.mark.slow
@needs_compiler
def test_results_of_gpu_and_cpu(folder: Path, host_shim) -> None:
    """Energies, observables, density matrices and corrections; the record names the device."""
    asked = ["input.h5", "--rdm", "2", "--pt2", "--nroots", "2"]
    for backend in ("cpu", "gpu"):
        finished = run(folder, *asked, "-o", f"{backend}.h5", "--backend", backend, ranks=2)
        assert finished.returncode == 0, finished.stderr
    on_cpu, on_gpu = info(folder, "cpu.h5"), info(folder, "gpu.h5")
    assert (on_cpu["backend"], on_cpu["device"]) == ("cpu", None)
    assert (on_gpu["backend"], on_gpu["device"]) == ("gpu", "host shim")
    assert "host shim, for tests only" in finished.stderr
    for name, error in (("energy", 1e-10), ("energy_pt2", 1e-6), ("variance", 1e-6), ("natural_occupations", 1e-5)):
        np.testing.assert_allclose(on_gpu[name], on_cpu[name], rtol=0, atol=error)
    assert on_gpu["n_sigma"] == on_cpu["n_sigma"]
    with h5py.File(folder / "cpu.h5") as expected, h5py.File(folder / "gpu.h5") as found:
        for root, name in itertools.product("01", ("alpha", "beta", "two_aa", "two_ab", "two_bb")):
            one, other = (file[f"density_matrices/{root}/{name}"][:] for file in (found, expected))
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5, err_msg=name)


@needs_compiler
@pytest.mark.parametrize("form", ["direct", "product", "tiled"])
def test_solves_with_every_form_of_opposite_spin(host_shim, monkeypatch, form: str) -> None:
    """Two roots with spin flip, and a spin target: energies and <S^2> of the CPU."""
    chosen = functools.partialmethod(GpuBlock.__init__, form=form)
    monkeypatch.setattr(GpuBlock, "__init__", chosen)
    hamiltonian, strings = make_hamiltonian(7, (3, 3), seed=2), close_strings(7, 3, 25)
    for asked in ({"nroots": 2}, {"spin_square": 2.0}):
        expected, found = (
            solve_subspace(None, hamiltonian, strings, strings, SolveOptions(backend=backend, **asked))
            for backend in ("cpu", "gpu")
        )
        assert expected.converged and found.converged and found.backend == "gpu"
        np.testing.assert_allclose(found.energies, expected.energies, rtol=0, atol=1e-10)
        for one, other in zip(found.roots, expected.roots, strict=True):
            assert one.spin_square == pytest.approx(other.spin_square, abs=1e-6)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("first", "second"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_a_checkpoint_of_one_backend_is_taken_up_by_the_other(folder: Path, host_shim, first: str, second: str) -> None:
    stopped = run(folder, "input.h5", "--backend", first, "--checkpoint-every", "2", "--max-iterations", "3")
    assert stopped.returncode == 3, stopped.stderr
    finished = run(folder, "input.h5", "--backend", second, "--resume")
    assert finished.returncode == 0 and "resuming from" in finished.stderr, finished.stderr
    problem = records.read_input(folder / "input.h5")
    exact = solve_subspace(None, problem.hamiltonian, problem.strings_a, problem.strings_b, SolveOptions())
    np.testing.assert_allclose(info(folder)["energy"], exact.energies, rtol=0, atol=1e-10)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="needs a Python without CuPy")
def test_without_a_device_one_sentence_says_what_to_install(folder: Path) -> None:
    check_refusal(run(folder, "input.h5", "--backend", "gpu"), "needs CuPy", "pip install")
    check_refusal(run(folder, "input.h5", "--gpu-aware-mpi"), "--backend gpu")


@pytest.fixture
def name_profiles(monkeypatch, tmp_path):
    """Returns what writes machine profiles of changed rates and names them in the environment; a GPU is there."""
    monkeypatch.setattr(device_module, "is_there", lambda: True)
    kinds = {"cpu": MachineProfile(), "gpu": planner.assumed_device().model_copy(update={"name": "measured"})}

    def write(**changes: dict[str, object]) -> None:
        for kind, changed in changes.items():
            write_profile(tmp_path / kind, kinds[kind].model_copy(update=changed))
        monkeypatch.setenv("SQD_MPI_MACHINE", os.pathsep.join(str(tmp_path / kind) for kind in changes))

    return write


def solve_with_auto(log: Log | None = None) -> str:
    """The backend that a small solve takes."""
    strings = close_strings(6, 3, 8)
    return solve_subspace(None, make_hamiltonian(6, (3, 3)), strings, strings, log=log).backend


SLOW = {"mixed_seconds": 1e-3}
SLOWER = {"mixed_seconds": 1.0, "device_rates": None}


@needs_compiler
@pytest.mark.parametrize(
    ("profiles", "expected"),
    [({"cpu": SLOW, "gpu": {}}, "gpu"), ({"gpu": {}}, "cpu"), ({"cpu": SLOW, "gpu": SLOWER}, "cpu")],
)
def test_auto_takes_the_faster_one(host_shim, name_profiles, capsys, profiles, expected) -> None:
    """The start of a GPU alone takes longer than this solve, if the profiles do not say that the CPU is far slower."""
    name_profiles(**profiles)
    assert solve_with_auto(Log(0)) == expected
    shown = capsys.readouterr().err
    assert f"backend auto takes the {expected.upper()}: by the profile in SQD_MPI_MACHINE a solve of 15" in shown
    assert shown.count(" s on the ") == 2


@pytest.mark.parametrize(("profiles", "there"), [({}, True), ({"cpu": SLOW}, True), ({"cpu": SLOW, "gpu": {}}, False)])
def test_auto_is_the_cpu_without_a_measured_gpu(name_profiles, monkeypatch, capsys, profiles, there) -> None:
    """No profile of a GPU, or no GPU: nothing is predicted, and without a profile nobody looks for a GPU."""
    name_profiles(**profiles)
    if "gpu" in profiles:
        monkeypatch.setattr(device_module, "is_there", lambda: there)
    else:
        monkeypatch.setattr(device_module, "is_there", lambda: pytest.fail("a GPU was looked for"))
    monkeypatch.setattr(planner, "choose_backend", lambda *arguments: pytest.fail("a prediction was made"))
    assert solve_with_auto(Log(0)) == "cpu"
    assert "backend auto takes" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_profile_that_does_not_serve_is_one_sentence(folder: Path, name_profiles, monkeypatch, tmp_path) -> None:
    (tmp_path / "machine.json").write_text("{}")
    monkeypatch.setenv("SQD_MPI_MACHINE", str(tmp_path / "machine.json"))
    check_refusal(run(folder, "input.h5", ranks=2), "SQD_MPI_MACHINE: ", "machine.json is no machine profile")
    name_profiles(gpu={"name": planner.assumed_device().name})
    with pytest.raises(InputError, match="SQD_MPI_MACHINE needs what bench .*backend gpu has measured; .*gpu is an as"):
        solve_with_auto()


@pytest.mark.parametrize(
    ("named", "why"),
    [("host", "No module named 'host'"), ("os:no_such", "no attribute 'no_such'"), ("os:path", "cannot be called")],
)
def test_what_cannot_take_the_place_of_a_gpu_is_one_sentence(monkeypatch, named: str, why: str) -> None:
    monkeypatch.setenv("SQD_MPI_GPU", named)
    device_module.close_device()
    with pytest.raises(InputError, match=f"SQD_MPI_GPU names as MODULE:NAME .*; got '{named}': .*{why}"):
        device_module.open_device()


def test_a_wrong_name_ends_a_run_with_code_2(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("SQD_MPI_GPU", "host")
    finished = run(folder, "input.h5", "--backend", "gpu", ranks=2)
    check_refusal(finished, "SQD_MPI_GPU names as MODULE:NAME what opens a device for tests", "got 'host'")


@needs_compiler
def test_a_device_that_is_full_is_one_sentence(host_shim, monkeypatch) -> None:
    """Too little room for the vectors as predicted, and none when they are asked for."""
    device = device_module.open_device()
    monkeypatch.setattr(device, "_memory_bytes", 10**5)
    strings = close_strings(8, 4, 60)
    options = SolveOptions(backend="gpu", spin_flip="off")
    with pytest.raises(InputError, match="of host shim are allowed, .* GiB too few"):
        solve_subspace(None, make_hamiltonian(8, (4, 4)), strings, strings, options)
    monkeypatch.setattr(device, "memory", lambda: (0, 10**6))
    monkeypatch.setattr("sqd_mpi.backends.gpu.memory.DeviceMemory.limit", lambda self, n: 10**9)
    with pytest.raises(RunError, match="too little memory: the device needs"):
        solve_subspace(None, make_hamiltonian(8, (4, 4)), strings, strings, options)
