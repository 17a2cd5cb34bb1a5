"""A device whose sums are not those of the CPU is refused, before it solves anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.backends import gpu
from sqd_mpi.backends.gpu import process_device as device_module
from sqd_mpi.backends.gpu import self_check, sources
from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim import SHIM
from tests.gpu_shim.host_device import HostDevice
from tests.support.problems import close_strings, make_hamiltonian

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def device(monkeypatch, tmp_path: Path) -> HostDevice:
    """The host shim that passes for a GPU, with a cache of its own."""
    monkeypatch.setenv(device_module.CHOICE, SHIM)
    device_module.close_device()
    found = device_module.open_device()
    found.kind = "cuda"
    monkeypatch.setenv(sources.CACHE, str(tmp_path))
    yield found
    device_module.close_device()


def test_all_forms_are_those_of_the_cpu() -> None:
    found = dict(self_check.deviations(HostDevice()))
    assert len(found) == 7 and max(found.values()) < 1e-12
    assert any("tiled" in what and "spin flip" in what for what in found)


def test_a_check_is_made_once(device: HostDevice, tmp_path: Path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(self_check, "deviations", lambda device: calls.append(device) or [("sigma", 1e-14)])
    for _ in range(2):
        gpu.create_memory()
    assert calls == [device] and len(list(tmp_path.glob("*.checked"))) == 1
    device.software = "another driver"
    gpu.create_memory()
    assert len(calls) == 2


@pytest.mark.parametrize("deviation", [1e-3, np.nan])
def test_wrong_sums_are_refused_every_time(device: HostDevice, tmp_path: Path, monkeypatch, deviation: float) -> None:
    """One sentence, whether they are a little wrong or no numbers at all."""
    monkeypatch.setattr(self_check, "deviations", lambda device: [("vectors", 0.0), ("sigma (tiled)", deviation)])
    strings = close_strings(6, 3, 8)
    for _ in range(2):
        with pytest.raises(InputError, match=r"not to be trusted on host shim: sigma \(tiled\) .* use backend cpu"):
            solve_subspace(
                None, make_hamiltonian(6, (3, 3)), strings, strings, SolveOptions(backend="gpu"), log=Log.silent()
            )
    assert not list(tmp_path.glob("*.checked"))


def test_a_wrong_kernel_is_noticed(monkeypatch) -> None:
    """The sum of a device that leaves out the last thread of every block."""
    device = HostDevice()
    honest = device.kernel

    def kernel(source_name: str, kernel_name: str):
        launch = honest(source_name, kernel_name)
        if kernel_name != "opposite_tiled":
            return launch
        return lambda n_blocks, *rest: launch(n_blocks - 1, *rest)

    monkeypatch.setattr(device, "kernel", kernel)
    found = dict(self_check.deviations(device))
    assert {what for what, deviation in found.items() if not deviation <= self_check.MOST} == {
        what for what in found if "tiled" in what
    }
