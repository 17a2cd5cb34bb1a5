"""Scaling studies: scripts/scaling.py on a tiny input, and its arithmetic."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.files import records
from tests.support.launching import mpiexec
from tests.support.paths import ROOT
from tests.support.problems import all_strings, make_hamiltonian
from tests.support.waiting import HANG

SCRIPT = ROOT / "scripts" / "scaling.py"
specification = importlib.util.spec_from_file_location("scaling", SCRIPT)
scaling = importlib.util.module_from_spec(specification)
sys.modules["scaling"] = scaling
specification.loader.exec_module(scaling)


def run(n_ranks=1, solve=1.0, fingerprint="a", n_threads=1, timings=None, **fields):
    """A result as read from a file."""
    summary = {
        "n_ranks": n_ranks, "n_threads": n_threads, "grid": [n_ranks, 1, 1, 1], "dimension": 100, "n_sigma": 10,
        "sector_dimension": 50, "solve_seconds": solve, "sigma_seconds": solve / 20, "wall_seconds": solve + 1,
        "peak_rss_bytes": 10**8, "all_converged": True, "energy": [-1.0],
    }  # fmt: skip
    return scaling.Run(fingerprint, {**summary, **fields}, timings or {})


def tiny_input(path: Path, n_strings: int = 35) -> Path:
    strings = all_strings(7, 3)[:n_strings]
    records.write_input(path, make_hamiltonian(7, (3, 3), 4, np.array([0, 1, 2, 3, 0, 1, 2])), strings, strings)
    return path


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=HANG
    )


@pytest.mark.slow
def test_a_study_on_this_machine(tmp_path):
    mpiexec()
    tiny_input(tmp_path / "input.h5")
    done = command(
        *"run input.h5 --grid 1,1,1,1 --grid 2,1,1,1 --grid 2,2,1,1 --repeats 2 -o study --json -- --tol 1e-5".split(),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)
    assert study["scaling"] == "strong" and study["measure"] == "solve"
    assert [(row["n_ranks"], row["grid"], row["repeats"]) for row in study["rows"]] == [
        (1, [1, 1, 1, 1], 2), (2, [2, 1, 1, 1], 2), (4, [2, 2, 1, 1], 2)
    ]  # fmt: skip
    cores = study["machine_cores"]
    assert [row["oversubscribed"] for row in study["rows"]] == [n > cores for n in (1, 2, 4)]
    for row in study["rows"]:
        assert sum(row["shares"].values()) == pytest.approx(1.0, abs=0.05) and row["shares"]["compute"] > 0
        assert row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
    names = [line.split()[0] for line in done.stderr.splitlines()]
    order = ((1, "1x1x1x1"), (2, "2x1x1x1"), (4, "2x2x1x1"))  # repeats are interleaved
    assert names[:3] == [f"input-{n}ranks-{grid}-1threads-1.h5" for n, grid in order]
    assert len(names) == 6
    again = command("collect", "study", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("strong scaling") and "2,2,1,1" in again.stdout
    assert ("say nothing" in again.stdout) == (cores < 4)


def test_strong_scaling_is_relative_to_the_fastest_of_the_smallest_cases():
    runs = [run(2, 8.0), run(2, 6.0), run(2, 7.0), run(4, 5.0), run(8, 2.0), run(2, 9.0, grid=[1, 1, 1, 2])]
    study = scaling.analyse(runs)
    assert [(row["n_ranks"], row["repeats"], row["seconds"]) for row in study["rows"]] == [
        (2, 1, 9.0), (2, 3, 7.0), (4, 1, 5.0), (8, 1, 2.0)
    ]  # fmt: skip
    assert [row["speed_up"] for row in study["rows"]] == pytest.approx([7 / 9, 1.0, 1.4, 3.5])
    assert [row["efficiency"] for row in study["rows"]] == pytest.approx([7 / 9, 1.0, 0.7, 0.875])
    assert study["notes"] == [] and "cpu_seconds" not in study["rows"][0]


def test_weak_scaling_compares_the_time_of_one_sigma():
    study = scaling.analyse([run(1, 4.0, "a"), run(4, 5.0, "b")])
    assert (study["scaling"], study["measure"]) == ("weak", "sigma")
    assert [row["efficiency"] for row in study["rows"]] == pytest.approx([1.0, 0.8])
    assert [row["speed_up"] for row in study["rows"]] == pytest.approx([1.0, 3.2])


def test_threads_count_as_cores():
    study = scaling.analyse([run(1, 4.0), run(1, 1.0, n_threads=4)], cores=2, measure="wall")
    assert [row["seconds"] for row in study["rows"]] == [5.0, 2.0]
    assert [row["efficiency"] for row in study["rows"]] == pytest.approx([1.0, 0.625])
    assert [row["oversubscribed"] for row in study["rows"]] == [False, True]
    assert "the 2 cores of this machine" in study["notes"][0]


def test_shares_of_phases():
    timings = {"mixed": (1.0, 2.0, 3.0), "alpha": (0.0, 1.0, 1.0), "wait": (0.0, 0.5, 1.0), "sigma": (3.0, 4.0, 5.0)}
    shares = scaling.phase_shares(run(solve=5.0, timings=timings))
    assert shares == pytest.approx(
        {"compute": 0.6, "wait": 0.1, "replicas": 0, "reduce": 0, "vectors": 0, "structure": 0, "other": 0.3}
    )


def test_what_looks_wrong_is_said():
    notes = scaling.analyse([run(1, energy=[-1.0]), run(2, energy=[-1.001])])["notes"]
    assert "differ by 1.0e-03 hartree" in notes[0]
    notes = scaling.analyse([run(1), run(2, all_converged=False, energy=[-0.9])])["notes"]
    assert len(notes) == 1 and "--measure sigma" in notes[0]


def test_processor_time_is_shown_where_known():
    study = scaling.analyse([run(1, cpu_seconds=3.0), run(2)])
    assert study["rows"][0]["cpu_seconds"] == 3.0 and "CPU s/rank" in scaling.table(study)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    study = scaling.analyse([run(n, 8.0 / n**0.9, timings={"mixed": (0, 4.0 / n, 0)}) for n in (1, 2, 4, 8)], cores=2)
    scaling.plot(study, tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(scaling.StudyError, match="cannot write"):
        scaling.plot(study, tmp_path / "study.nonsense")


def test_without_matplotlib_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(scaling.StudyError, match=r"sqd_mpi\[report\]"):
        scaling.plot(scaling.analyse([run()]), tmp_path / "study.png")


def test_scripts_of_a_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("small.h5", "large.h5"):
        Path(name).touch()
    assert scaling.main("submit generic small.h5 large.h5 --nodes 1,4 -o study --dry-run -- --tol 1e-5".split()) == 0
    assert capsys.readouterr().out.split() == ["study/small-1nodes.sh", "study/large-4nodes.sh"]
    text = Path("study/large-4nodes.sh").read_text()
    assert "#SBATCH --nodes=4" in text and f"input={tmp_path}/large.h5" in text and "--tol 1e-5" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("collect missing", "there is no missing"),
        ("collect .", "there are no results in ."),
        ("collect input.txt", "cannot read input.txt"),
        ("collect . -- --tol 1", "collect takes no options"),
        ("run input.txt -o study --ranks 0", "positive integers"),
        ("run input.txt -o study --grid 2,2", "four positive integers"),
        ("run input.txt -o study --grid auto", "use --ranks"),
        ("run input.txt -o study --repeats 0", "--repeats needs a positive integer"),
        ("run input.txt input.txt -o study --ranks 1,2,4", "an input for each of the 3 cases; got 2"),
        ("submit nowhere input.txt --nodes 1 -o study", "unknown machine 'nowhere'"),
        ("submit generic input.txt --nodes 1 -o study -- --tolerance 1", "'--tolerance'"),
        ("submit generic input.txt input.txt --nodes 1 -o study", "got 2"),
        ("nonsense", "nonsense"),
    ],
)
def test_bad_options_are_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("input.txt").write_text("nothing")
    assert scaling.main(arguments.split()) == 2
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
    assert not Path("study").exists()


def test_a_run_that_fails_is_reported(tmp_path):
    mpiexec()
    tiny_input(tmp_path / "input.h5")
    done = command(*"run input.h5 --ranks 1 --repeats 1 -o study -- --tolerance 1".split(), folder=tmp_path)
    assert done.returncode == 2 and "unknown option --tolerance" in done.stderr.splitlines()[-1]
