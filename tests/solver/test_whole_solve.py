"""Predicted seconds of whole solves: parts, and what they depend on."""

from __future__ import annotations

import pytest

from sqd_mpi import planner
from sqd_mpi.backends.gpu import costs
from sqd_mpi.planner import data_sheets
from sqd_mpi.planner.profile import MachineProfile
from tests.support.problems import close_strings, make_hamiltonian

SIZES = (7, 3)


@pytest.fixture(scope="module")
def problem() -> planner.Problem:
    strings = close_strings(10, 4, 150)
    return planner.Problem.create(make_hamiltonian(10, (4, 4)), strings, strings)


def test_parts_of_a_solve(problem):
    on_cpu = planner.predict_solve(problem, MachineProfile(), 2, SIZES)
    on_gpu = planner.predict_solve(problem, planner.assumed_device(), 2, SIZES)
    assert on_cpu.start == on_cpu.copies == 0.0 < on_gpu.copies
    assert on_gpu.start == costs.START_SECONDS and on_gpu.lists == on_cpu.lists
    for found in (on_cpu, on_gpu):
        assert found.total == pytest.approx(
            found.start + found.lists + found.copies + found.model + found.sigmas + found.vectors
        )
        assert min(found.lists, found.model, found.sigmas, found.vectors) > 0.0


def test_what_the_parts_depend_on(problem):
    one = planner.predict_solve(problem, MachineProfile(), 1, SIZES)
    four = planner.predict_solve(problem, MachineProfile(), 4, SIZES)
    assert four.lists == pytest.approx(one.lists / 4) and four.sigmas < one.sigmas
    ranks = planner.predict_solve(problem, MachineProfile(), 1, SIZES, n_ranks=4)
    assert ranks.sigmas == pytest.approx(one.sigmas / 4) and ranks.model == one.model
    long = planner.predict_solve(problem, MachineProfile(), 1, SIZES, n_sigmas=31)
    assert long.sigmas == pytest.approx(2 * one.sigmas)
    assert planner.predict_solve(problem, MachineProfile(), 1, SIZES, n_sectors=8).model == 8 * one.model
    h200 = planner.predict_solve(problem, data_sheets.assumed_profile(data_sheets.data_sheet("h200")), 4, SIZES)
    a100 = planner.predict_solve(problem, data_sheets.assumed_profile(data_sheets.data_sheet("a100")), 4, SIZES)
    assert h200.sigmas < a100.sigmas and h200.vectors < a100.vectors


def test_small_problems_stay_on_the_cpu_and_slow_cpus_lose(problem):
    profiles = {"gpu": planner.assumed_device()}
    choice = planner.choose_backend(problem, profiles, 2, SIZES, 1)
    assert choice.backend == "cpu" and choice.cpu_seconds < choice.gpu_seconds
    profiles["cpu"] = MachineProfile(mixed_seconds=1e-3)
    choice = planner.choose_backend(problem, profiles, 2, SIZES, 1)
    assert choice.backend == "gpu" and choice.cpu_seconds > choice.gpu_seconds
    assert f"{choice.cpu_seconds:.2g} s on the CPU and {choice.gpu_seconds:.2g} s on the GPU" in choice.sentence
