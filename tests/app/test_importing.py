"""`import fcidump` and `import counts`: odd files of other programs end as right input, with their warnings."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sqd_mpi.app.cli import main
from sqd_mpi.files import records
from tests.support.fcidump_files import (
    BODY,
    HEADER,
    HUBBARD,
    HUBBARD_ENERGY,
    expected_small,
    header,
    spin_orbital_lines,
)
from tests.support.problems import dense_matrix, make_hamiltonian, spin_dependent


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Work in a directory with strings of two orbitals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("strings.txt").write_text("01\n10\n")


def imported(*more: str) -> int:
    """Exit code of `import fcidump`."""
    return main(["import", "fcidump", "FCIDUMP", "--alpha", "strings.txt", *more, "-o", "input.h5"])


def test_packed_and_marked_files(capsys):
    Path("FCIDUMP").write_bytes(gzip.compress((HEADER + BODY).encode()))
    Path("strings.txt").write_bytes(codecs.BOM_UTF16_LE + "01\r\n10\r\n".encode("utf-16-le"))
    assert imported() == 0
    assert capsys.readouterr() == ("input.h5: 2 orbitals, 1 alpha and 1 beta electrons, 2 x 2 strings\n", "")
    found = records.read_input("input.h5")
    assert found.hamiltonian.fingerprint() == expected_small().fingerprint()
    assert found.strings_a.ravel().tolist() == found.strings_b.ravel().tolist() == [1, 2]


def test_zeros_that_are_left_out_are_said(capsys):
    Path("FCIDUMP").write_text(HUBBARD)
    assert imported() == 0
    warning = "sqd_mpi: warning: FCIDUMP has no core energy; 0 is taken. Is the file whole?\n"
    assert capsys.readouterr().err == warning
    found = records.read_input("input.h5")
    lowest = np.linalg.eigvalsh(dense_matrix(found.hamiltonian, found.strings_a, found.strings_b))[0]
    assert lowest == pytest.approx(HUBBARD_ENERGY, abs=1e-12)
    Path("counts.json").write_text('{"0110": 3, "0x9": 1}')
    assert main(["import", "counts", "--hamiltonian", "FCIDUMP", "--counts", "counts.json", "-o", "problem.h5"]) == 0
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
def test_the_order_of_spin_orbitals_can_be_given(capsys, layout):
    whole = spin_dependent(4, (2, 1))
    Path("FCIDUMP").write_text(header(whole, 8) + spin_orbital_lines(whole, layout))
    Path("strings.txt").write_text("0011\n0101\n")
    Path("beta.txt").write_text("0001\n0010\n")
    assert imported("--beta", "beta.txt", "--spin-orbitals", layout) == 0
    said = "input.h5: 4 orbitals, 2 alpha and 1 beta electrons, 2 x 2 strings, spin-dependent integrals\n"
    assert capsys.readouterr() == (said, "")
    found = records.read_input("input.h5").hamiltonian
    for name in ("h1e", "eri", "h1e_b", "eri_bb", "eri_ab"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    Path("counts.json").write_text(json.dumps({"0001 0011": 1}))
    command = ["import", "counts", "--hamiltonian", "FCIDUMP", "--counts", "counts.json", "-o", "problem.h5"]
    assert main([*command, "--spin-orbitals", layout]) == 0
    assert records.read_problem("problem.h5")[0].fingerprint() == found.fingerprint()


def test_what_does_not_tell_is_refused_with_the_name_of_the_option(capsys):
    Path("FCIDUMP").write_text(HEADER + "".join(f"{p}.0 {p} {p} 0 0\n" for p in (1, 2, 3, 4)) + "0.5 0 0 0 0\n")
    assert imported() == 2
    error = capsys.readouterr().err
    assert "the option spin-orbitals must say interleaved" in error and error.count("\n") == 1
    assert not Path("input.h5").exists()


def test_noise_of_an_input_file_reaches_log_and_result(capfd):
    """One-electron integrals that another program wrote, not quite symmetric."""
    import h5py

    from sqd_mpi.app import run

    hamiltonian = make_hamiltonian(3, (1, 1))
    strings = np.array([[1], [2], [4]], np.uint64)
    records.write_input("input.h5", hamiltonian, strings, strings)
    with h5py.File("input.h5", "r+") as file:
        file["hamiltonian/h1e"][0, 1] += 1e-8
    assert run.run_file(None, "input.h5", "result.h5", {"threads": 1}) == 0
    sentence = "one-electron integrals are not symmetric: they differ by up to 1.0e-08; the mean is taken"
    assert f"warning: {sentence}" in capfd.readouterr().err
    assert sentence in records.read_run("result.h5")["warnings"]
