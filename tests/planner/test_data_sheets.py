"""Plans for GPUs: counted work against brute force, data sheets, profiles, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi import planner
from sqd_mpi.app.cli import main
from sqd_mpi.backends.gpu import block as gpu_block
from sqd_mpi.backends.gpu import process_device
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.options import SolveOptions
from sqd_mpi.planner import data_sheets, gpu_memory
from sqd_mpi.planner.profile import MachineProfile, read_profile, write_profile
from sqd_mpi.planner.text import plan_text
from sqd_mpi.solver.davidson import subspace_sizes
from sqd_mpi.solver.solve import solve_subspace
from tests.gpu_shim.host_device import HostDevice
from tests.support.paths import ROOT
from tests.support.problems import close_strings, make_hamiltonian

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]
import gpu_child  # noqa: E402
import predict_devices  # noqa: E402
from device_work import count_device_work  # noqa: E402

H100 = data_sheets.assumed_profile(data_sheets.data_sheet("h100"))


def make_problem(spin_flip: bool = False, same: bool = True) -> planner.Problem:
    """60 x 60 strings over 9 orbitals, or 60 x 40, without labels."""
    alpha = close_strings(9, 4, 60)
    beta = alpha if same else close_strings(9, 3, 40)
    return planner.Problem.create(make_hamiltonian(9, (4, 4 if same else 3)), alpha, beta, False, spin_flip)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 1, 1), (3, 1, 1, 2), (1, 2, 3, 1)])
def test_multiply_adds_are_those_of_the_definition(shape):
    problem = make_problem(same=False)
    words_a, words_b = (found.strings.strings[:, 0] for found in (problem.alpha, problem.beta))
    distance_a, distance_b = (np.bitwise_count(words[:, None] ^ words) for words in (words_a, words_b))
    singles_a, singles_b = (distance_a == 2).sum(), (distance_b == 2).sum()
    same_a, same_b = ((distance > 0) & (distance <= 4) for distance in (distance_a, distance_b))
    work = count_device_work(problem, shape)
    assert work.direct.sum() == pytest.approx(singles_a * (singles_b + len(words_b)))
    # singles of beta count twice: their element of H_beta, and the field of the alpha string
    assert work.same_spin == pytest.approx(same_a.sum() * 40 + (same_b.sum() + singles_b) * 60)
    assert work.useful == work.direct.sum() + work.same_spin
    assert work.gathered.sum() == pytest.approx(8 * singles_a * 40)
    pairs = len({(x ^ y) for x in words_b for y in words_b if bin(x ^ y).count("1") == 2}) + 9
    assert work.product.sum() == pytest.approx(singles_a * pairs * 40)


def test_spin_flip_halves_the_sum():
    work, half = (count_device_work(each) for each in (make_problem(), make_problem(spin_flip=True)))
    assert half.direct.sum() == pytest.approx(0.5 * work.direct.sum())
    assert half.same_spin == pytest.approx(0.5 * work.same_spin)
    np.testing.assert_allclose(half.product, work.product)


def test_no_kernel_beats_the_floor():
    work = count_device_work(make_problem())
    for sheet in data_sheets.DATA_SHEETS:
        floor = work.floor_seconds(sheet)
        assert set(floor) == {"opposite", "same", "vectors"} and min(floor.values()) > 0.0
        assert sum(work.floor_seconds(sheet, 8).values()) == pytest.approx(sum(floor.values()) / 8)
        # neither form is faster than its arithmetic, and no more is done than is useful
        least = min(2 * work.direct.sum() / sheet.vector_flops, 2 * work.product.sum() / sheet.matrix_flops)
        assert floor["opposite"] >= least
        twice = replace(sheet, vector_flops=2 * sheet.vector_flops, matrix_flops=2 * sheet.matrix_flops)
        assert sum(work.floor_seconds(twice).values()) <= sum(floor.values())


def test_one_string_asks_for_nothing_but_its_vector():
    strings = close_strings(6, 3, 1)
    problem = planner.Problem.create(make_hamiltonian(6, (3, 3)), strings, strings)
    work = count_device_work(problem)
    assert work.useful == work.gathered.sum() == work.product.sum() == 0.0 and work.vector_bytes > 0.0


def test_profiles_in_the_repository_are_those_of_the_data_sheets():
    for sheet in data_sheets.DATA_SHEETS:
        profile = read_profile(ROOT / "scripts" / "machines" / f"{sheet.key}.json")
        assert profile == data_sheets.assumed_profile(sheet) and profile.name.startswith("assumed: ")
        assert profile.backend == "gpu" and profile.device_bytes == sheet.n_bytes and sheet.source in profile.name
    with pytest.raises(InputError, match="a device is one of a100, .*; got 'abacus'"):
        data_sheets.data_sheet("abacus")


@pytest.mark.parametrize(
    ("n_ranks", "n_devices", "sharing"), [(8, 8, 1), (8, 4, 2), (7, 4, 2), (2, 4, 1), (8, None, 1)]
)
def test_ranks_share_the_devices_of_their_node(n_ranks, n_devices, sharing):
    profile = H100.model_copy(update={"ranks_per_node": n_ranks, "devices_per_node": n_devices})
    assert profile.ranks_per_device == sharing


def test_vectors_are_planned_on_the_device_and_messages_in_host_memory():
    problem = make_problem()
    limits = planner.MemoryLimits(10**12, 7, 3)
    for shape in ((1, 1, 1, 1), (2, 1, 1, 2), (2, 2, 2, 1)):
        on_cpu = planner.predict(problem, shape, MachineProfile(), 4, limits)
        plan = planner.predict(problem, shape, H100, 4, limits)
        assert (plan.vectors_bytes, plan.buffers_bytes) == (on_cpu.vectors_bytes, on_cpu.buffers_bytes)
        assert plan.device_bytes > plan.vectors_bytes + plan.buffers_bytes + H100.context_bytes
        assert plan.bytes_per_rank == plan.structure_bytes + plan.staging_bytes + plan.process_bytes
        assert on_cpu.device_bytes == on_cpu.staging_bytes == on_cpu.missing_device_bytes == 0 < plan.staging_bytes
        slower = H100.model_copy(update={"staging_bytes_per_second": 1e3})
        waits = planner.predict(problem, shape, slower, 4, limits).seconds_per_sigma > plan.seconds_per_sigma
        assert waits == (plan.message_bytes_per_rank > 0)


def test_a_small_device_means_fewer_vectors_before_it_means_no():
    problem = make_problem()
    need = planner.predict(problem, (1, 1, 1, 1), H100, 1, planner.MemoryLimits(10**12, 7, 3)).device_bytes
    fewer = planner.predict(problem, (1, 1, 1, 1), H100, 1, planner.MemoryLimits(10**12, 7, 3, need - 8))
    assert fewer.max_subspace == 6 and fewer.fits
    shared = H100.model_copy(update={"ranks_per_node": 2, "devices_per_node": 1})
    plan = planner.make_plan(problem, 1, shared, 1, planner.MemoryLimits(10**12, 7, 3, need))
    (least,) = plan.too_large
    assert plan.chosen is None and least.missing_bytes == 0
    assert least.missing_device_bytes == least.device_bytes - need // 2
    assert plan.to_dict()["missing_device_bytes"] == least.missing_device_bytes
    text = " ".join(plan_text(plan, "title").split())
    lacks = f"{least.missing_device_bytes / 1e9:.3g} GB on the GPU"
    assert f"GB of a GPU per rank; (1,1,1,1) comes nearest and lacks {lacks}" in text and f" lacks {lacks} " in text


@pytest.fixture(scope="module")
def input_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("devices") / "input.h5"
    strings = close_strings(9, 4, 60)
    records.write_input(path, make_hamiltonian(9, (4, 4)), strings, strings)
    return path


@pytest.mark.slow
def test_plan_for_gpus_from_the_command_line(input_path, tmp_path, capsys):
    arguments = ["plan", str(input_path), "--ranks", "2", "--backend", "gpu"]
    assert main([*arguments, "--memory", "8GB"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "GPU GB" in shown and "80 GB of a GPU; assumed: H100 SXM" in shown
    assert main([*arguments, "--device-memory", "100MB", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"] is None and found["missing_device_bytes"] > 4e8 and found["missing_bytes"] == 0
    profile = tmp_path / "mine.json"
    write_profile(profile, H100.model_copy(update={"device_bytes": 10**9, "name": "mine"}))
    assert main(["plan", str(input_path), "--ranks", "2", "--profile", str(profile)]) == 0
    assert "1 GB of a GPU; mine" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--device-memory", "8GB"], "--device-memory needs --backend gpu or the profile of a GPU"),
        (["--backend", "gpu", "--device-memory", "big"], "--device-memory: a size is a number"),
        (["--backend", "gpu", "--profile", "CPU"], "--backend gpu needs the profile of a GPU"),
        (
            ["--backend", "cpu", "--profile", "GPU"],
            "is the profile of a GPU; --backend cpu needs one of the backend cpu",
        ),
        (["--backend", "gpu", "--profile", "GPU"], "does not say what memory its GPU has; --device-memory SIZE does"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, input_path, tmp_path, capsys):
    write_profile(tmp_path / "cpu.json", MachineProfile())
    write_profile(tmp_path / "gpu.json", H100.model_copy(update={"device_bytes": None}))
    names = {"CPU": str(tmp_path / "cpu.json"), "GPU": str(tmp_path / "gpu.json")}
    words = [names.get(word, word) for word in arguments]
    assert main(["plan", str(input_path), "--ranks", "1", *words]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_predictions_are_printed_and_marked(input_path, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert predict_devices.main([str(input_path), "--devices", "h100,mi250x-die", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Predicted, not measured") and "| h100 | mi250x-die |" in shown and "(60)" in shown
    found = json.loads(report.read_text())
    assert found["predicted"] is True and [sheet["key"] for sheet in found["data_sheets"]] == ["h100", "mi250x-die"]
    (result,) = found["results"]
    for row in result["devices"]:
        assert 0.0 < row["floor_seconds"] < row["expected_seconds"] and row["fits"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "input files or --profiles DIR are needed"),
        (["i.h5", "--devices", "abacus"], "a device is one of"),
        (["i.h5", "--grid", "auto"], "--grid needs four positive integers"),
        (["none.h5"], "none.h5"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options_of_the_script(arguments, sentence, capsys):
    try:
        assert predict_devices.main(arguments) == 2
    except SystemExit as stop:
        assert stop.code == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1


@pytest.mark.parametrize("spin_flip", ["auto", "off"])
def test_predicted_bytes_are_those_that_the_device_allocates(spin_flip, monkeypatch):
    """A whole solve on the emulated device: the peak of its arrays against the plan, scratch left out."""
    device = HostDevice(memory_bytes=10**9)
    watched = gpu_child.WatchedDevice(device)
    monkeypatch.setattr(process_device, "_process_device", [device])
    monkeypatch.setattr(gpu_block, "_SCRATCH_BYTES", 8)
    monkeypatch.setattr(gpu_memory, "SCRATCH_BYTES", 8)
    hamiltonian, strings = make_hamiltonian(10, (4, 4)), close_strings(10, 4, 150)
    options = SolveOptions(backend="gpu", spin_flip=spin_flip, symmetry="off", max_iterations=9, tol=1e-3)
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    assert result.backend == "gpu" and result.n_sigma > 7
    problem = planner.Problem.create(hamiltonian, strings, strings, False, spin_flip == "auto")
    profile = H100.model_copy(update={"context_bytes": 0})
    plan = planner.predict(problem, (1, 1, 1, 1), profile, 1, planner.MemoryLimits(10**12, *subspace_sizes(1)))
    assert watched.peak_bytes == pytest.approx(plan.device_bytes, rel=0.1)
