"""What people hit with programs of this kind, from their input files to the energy.

Each test says in its docstring where the case was reported: a project and the number of its issue. Right values are
those of PySCF's full CI, of dense matrices or of a formula; a number that stands here as well was found by other
programs.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numba
import numpy as np
import pytest
from pyscf import ao2mo, fci, gto, lib, mcscf, scf
from pyscf.tools import fcidump

from sqd_mpi.adapters.pyscf import SubspaceSolver
from sqd_mpi.app.cli import main
from sqd_mpi.distribution import mpi
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.problem import bitstrings, sampling
from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support.fcidump_files import HUBBARD, HUBBARD_ENERGY, six_parts
from tests.support.launching import mpiexec
from tests.support.problems import dense_matrix, pair_matrix
from tests.support.programs import check_refusal, environment, sqd_mpi
from tests.support.waiting import HANG

H2_ENERGY, LIH_ENERGY, LIH_MEAN_FIELD = -1.1372838345, -7.8823243789, -7.8618647698
H2_STRINGS = "01\n10\n"
LIH_STRINGS = "".join(f"{bits:06b}\n" for bits in range(64) if bits.bit_count() == 2)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in an empty directory, in this process, without MPI; threads are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpi, "world", lambda: None)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = numba.get_num_threads()
    with lib.with_omp_threads(1):
        yield
    numba.set_num_threads(before)


def text_of(molecule: gto.Mole) -> tuple[str, np.ndarray]:
    """The FCIDUMP that PySCF writes of a restricted mean field, and all energies of full CI."""
    mean_field = scf.RHF(molecule).run(conv_tol=1e-13)
    fcidump.from_scf(mean_field, "written.fcidump", tol=1e-15)
    solver = fci.FCI(mean_field)
    size = fci.cistring.num_strings(molecule.nao, molecule.nelectron // 2) ** 2
    h1e = mean_field.mo_coeff.T @ mean_field.get_hcore() @ mean_field.mo_coeff
    eri = ao2mo.full(molecule, mean_field.mo_coeff)
    _, matrix = solver.pspace(h1e, eri, molecule.nao, molecule.nelec, np=size)
    return Path("written.fcidump").read_text(), np.linalg.eigvalsh(matrix) + molecule.energy_nuc()


@pytest.fixture
def h2() -> tuple[str, np.ndarray]:
    """H2 in STO-3G at 0.74 angstrom."""
    return text_of(gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0))


@pytest.fixture
def lih() -> tuple[str, np.ndarray]:
    """LiH in STO-3G at 1.6 angstrom."""
    return text_of(gto.M(atom="Li 0 0 0; H 0 0 1.6", basis="sto-3g", verbose=0))


def make(text: str | bytes, alpha: str | bytes, beta: str | bytes | None = None, output: str = "input.h5") -> int:
    """Exit code of `import fcidump` of these contents."""
    for name, content in (("integrals", text), ("alpha", alpha), ("beta", beta)):
        if content is not None:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["import", "fcidump", "integrals", "--alpha", "alpha", "-o", output]
    return main(command + ["--beta", "beta"] * (beta is not None))


def solve(*options: str, source: str = "input.h5", output: str = "result.h5") -> dict[str, Any]:
    """The summary after `run`."""
    assert main(["run", source, "-o", output, "--threads", "1", *options]) == 0
    return records.read_summary(output)


def energy_of(text: str | bytes, alpha: str | bytes, beta: str | bytes | None = None) -> float:
    """The lowest energy, by way of the files."""
    assert make(text, alpha, beta) == 0
    return solve()["energy"][0]


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a refusal, behind what a log says first."""
    printed = capsys.readouterr()
    *before, sentence = printed.err.splitlines()
    assert printed.out == "" and sentence.startswith("sqd_mpi: error: ")
    assert all(re.match(r"sqd_mpi \d", line) for line in before), printed.err
    return sentence


def in_header(line: str) -> Any:
    """A change that puts a line behind ISYM."""
    return lambda text: text.replace("ISYM=1,\n", f"ISYM=1,\n{line}\n")


# --- FCIDUMP


@pytest.mark.parametrize(
    "change",
    [
        in_header("  IUHF=.FALSE. ,"),
        in_header("  UHF=F,"),
        lambda text: text.replace("&END\n", "&END\n 0.1234567890123456-100 2 1 0 0\n"),
        lambda text: re.sub(r"^ *(-?)0(\.\d+)", r"\1\2D+00", text, flags=re.M),
        lambda text: text.replace(",\n", ", ").replace("&END", " /"),
        in_header("  ! H2/STO-3G"),
        in_header("  TITLE='H2/STO-3G',"),
        lambda text: "! from our script\n" + text,
        lambda text: text.replace("NELEC= 2", "NELEC=1*2"),
        lambda text: text.lower(),
        lambda text: text.replace("&END", "/"),
        lambda text: text.replace("&END", "$END").replace("&FCI", "$FCI"),
        lambda text: re.sub(r"ORBSYM=[\d,]*", "ORBSYM= 2*1,", text),
        lambda text: re.sub(r"ORBSYM=[\d,]*", "ORBSYM = 1 1", text),
        lambda text: text.replace("ISYM=1,", ""),
        lambda text: text.replace("ISYM=1,", "ISYM=-1,"),
        lambda text: text.replace("MS2=0,", ""),
        in_header("  PNTGRP='D2h', NPROP=1 1 1,"),
        lambda text: text + " -0.5782 1 0 0 0\n 0.6711 2 0 0 0\n",
        lambda text: text + text.splitlines()[-1] + "\n",
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()),
    ],
    ids="IUHF UHF no-E D one-line slash-in-comment slash-in-text comment-first repeat lower-case slash dollar "
    "ORBSYM-repeat ORBSYM-blanks no-ISYM ISYM-1 no-MS2 PNTGRP orbital-energies core-twice tabs windows mark gzip "
    "all-three".split(),
)
def test_every_header_and_form_of_a_file_gives_the_same_energy(h2, change):
    """StackBlock #7, NumPy #5557, cclib #460, PySCF #443, #696 and #1586, Psi4 #1951, NWChem #645, nmrglue #251."""
    text, exact = h2
    changed = change(text)
    assert changed != text
    assert energy_of(changed, H2_STRINGS) == pytest.approx(exact[0], abs=1e-9)
    assert exact[0] == pytest.approx(H2_ENERGY, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (in_header("  IUHF=.TRUE.,"), "holds spin-dependent (UHF) integrals by its header"),
        (lambda text: text.replace("NELEC= 2", "NELEC=2*1"), "NELEC = '2*1', which is not an integer"),
        (lambda text: re.sub(r"^ *(\S+) +1 +1 +1 +1", r"\1 0 1 1 1 1", text, flags=re.M), "complex integrals are"),
        (lambda text: re.sub(r"^ *(\S+) +1 +1 +1 +1", r"(\1,0.0) 1 1 1 1", text, flags=re.M), "complex integrals are"),
        (lambda text: re.sub(r" 1 +1 +0 +0\n", " 5 5 0 0\n", text), "orbital 5 is out of range; NORB = 2"),
    ],
)
def test_conventions_that_are_not_taken_are_named(h2, capsys, change, says):
    """StackBlock #7, sbd #35, qiskit-nature's FCIDump: nothing is written."""
    changed = change(h2[0])
    assert changed != h2[0]
    assert make(changed, H2_STRINGS) == 2
    assert says in error_of(capsys) and not Path("input.h5").exists()


@pytest.mark.parametrize(
    ("text", "strings", "warning"),
    [
        (HUBBARD, "01\n10\n", "has no core energy; 0 is taken"),
        (HUBBARD + " 0.0 0 0 0 0\n", "01\n10\n", ""),
        (HUBBARD.replace("NORB=2", "NORB=3") + " 0.0 0 0 0 0\n", "001\n010\n", "no integral of orbital 3; 0 is taken"),
    ],
)
def test_hubbard_models_whose_writers_leave_out_zeros(capsys, text, strings, warning):
    """ModelHamiltonian, PYQCTools and dumpham: U / 2 - sqrt(U^2 / 4 + 4 t^2)."""
    assert make(text, strings) == 0
    assert (warning in capsys.readouterr().err) if warning else capsys.readouterr().err == ""
    assert solve()["energy"][0] == pytest.approx(HUBBARD_ENERGY, abs=1e-9)


def test_six_parts_of_an_unrestricted_radical():
    """Block #55: OH of UHF; PySCF's `direct_uhf`."""
    mean_field = scf.UHF(gto.M(atom="O 0 0 0; H 0 0 1", basis="sto-3g", spin=1, verbose=0)).run(conv_tol=1e-12)
    exact = fci.FCI(mean_field).kernel()[0]
    alpha, beta = ("".join(f"{k:06b}\n" for k in range(64) if k.bit_count() == n) for n in (5, 4))
    found = energy_of(six_parts(Hamiltonian.from_pyscf(mean_field)), alpha, beta)
    assert found == pytest.approx(exact, abs=1e-8)
    assert found == pytest.approx(-74.391149992222, abs=1e-8)


def test_more_orbitals_than_bits_of_a_word():
    """ffsim #384: strings with bits 63, 64 and 69 of 70 orbitals."""
    norb, rng = 70, np.random.default_rng(5)
    low = sorted({0, 1, 2, 3, 4, 62, 63, 64, 65, 69})
    lines = [f"{k / 50 - 0.3!r} {k + 1} {k + 1} 0 0" for k in range(norb)]
    for p, q in itertools.combinations_with_replacement(low, 2):
        lines += [f"{float(rng.normal() / 10)!r} {p + 1} {q + 1} 0 0"] * (p != q)
        lines += [f"{abs(float(rng.normal() / 10))!r} {p + 1} {p + 1} {q + 1} {q + 1}"]
        lines += [f"{float(rng.normal() / 20)!r} {p + 1} {q + 1} {p + 1} {q + 1}"] * (p != q)
    text = f"&FCI NORB={norb},NELEC=4,MS2=0 /\n" + "\n".join([*lines, "0.25 0 0 0 0"]) + "\n"
    pairs = (0, 1), (0, 63), (1, 64), (63, 64), (64, 69), (2, 69)
    integers = [1 << p | 1 << q for p, q in pairs]
    assert make(text, "".join(f"{k:070b}\n" for k in integers)) == 0
    problem = records.read_input("input.h5")
    matrix = dense_matrix(problem.hamiltonian, problem.strings_a, problem.strings_b)
    assert bitstrings.to_integers(problem.strings_a) == sorted(integers)
    assert np.count_nonzero(matrix) > len(matrix)
    # one element by hand: 0, 1 of alpha with 64, 69 of beta
    value = {tuple(map(int, line.split()[1:])): float(line.split()[0]) for line in lines}
    orbitals = (0, 0), (1, 0), (64, 1), (69, 1)
    diagonal = 0.25 + sum(value[p + 1, p + 1, 0, 0] for p, _ in orbitals)
    for (p, spin), (q, other) in itertools.combinations(orbitals, 2):
        diagonal += value[p + 1, p + 1, q + 1, q + 1]
        diagonal -= value[p + 1, q + 1, p + 1, q + 1] * (spin == other)
    a, b = (bitstrings.find(problem.strings_a, bitstrings.from_integers([k], norb))[0] for k in (3, 1 << 64 | 1 << 69))
    assert matrix[6 * a + b, 6 * a + b] == pytest.approx(diagonal, abs=1e-12)
    found = solve("--nroots", "3", "--tol", "1e-8")["energy"]
    np.testing.assert_allclose(found, np.linalg.eigvalsh(matrix)[:3], atol=1e-9)


# --- strings


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", " \t\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()),
    ],
    ids="windows old-mac blanks no-last-line-end mark gzip all-three".split(),
)
def test_strings_in_every_form(lih, change):
    """nmrglue #251, griffe #387, python-gedcom #5, xacc-vqe #5: files of other systems, of spreadsheets, packed."""
    assert energy_of(lih[0], change(LIH_STRINGS)) == pytest.approx(lih[1][0], abs=1e-9)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0" * 10**6, "6 characters were expected, one per orbital; there are 1000000"),
        ("000011,", "',' is not 0 or 1"),
        ('"000011"', "'\"' is not 0 or 1"),
        ("000011 000101", "' ' is not 0 or 1"),
        ("0x3", "'x' is not 0 or 1"),
        ("0000\u00a011", "no-break space (U+00A0) is not 0 or 1"),
        ("00001\u200b1", "zero width space (U+200B) is not 0 or 1"),
    ],
    ids="long comma quotes two hex no-break-space zero-width".split(),
)
def test_lines_that_are_no_strings_are_named(lih, capsys, line, says):
    """As above: the line is named, and the character where it cannot be seen."""
    assert make(lih[0], f"000011\n{line}\n000101\n") == 2
    error = error_of(capsys)
    assert "alpha line 2: " in error and says in error and len(error) < 300


# --- energies of whole spaces


def test_full_ci_of_small_molecules(h2, lih):
    """sbd #13: energies that differ in the fourth digit."""
    for (text, exact), strings, energy in ((h2, H2_STRINGS, H2_ENERGY), (lih, LIH_STRINGS, LIH_ENERGY)):
        assert energy_of(text, strings) == pytest.approx(exact[0], abs=1e-9)
        assert exact[0] == pytest.approx(energy, abs=1e-9)


@pytest.mark.parametrize("nroots", [4, 6])
def test_degenerate_roots_are_not_lost(lih, nroots):
    """Psi4 #3083 and #558: four roots cut a pair in two."""
    assert make(lih[0], LIH_STRINGS) == 0
    found = solve("--nroots", str(nroots))["energy"]
    np.testing.assert_allclose(found, lih[1][:nroots], atol=1e-9)
    assert sum(abs(each - -7.716588238) < 1e-8 for each in lih[1][:6]) == 2


def test_energies_of_density_matrices_in_a_file(lih):
    """GQCP and v2rdm #15: conventions of density matrices."""
    assert make(lih[0], LIH_STRINGS) == 0
    found = solve("--nroots", "4", "--rdm", "2", "--tol", "1e-8")["energy"]
    hamiltonian, pair = records.read_input("input.h5").hamiltonian, pair_matrix(6)
    eri = hamiltonian.eri_pairs()[pair[:, :, None, None], pair[None, None]]
    with h5py.File("result.h5") as file:
        for root, energy in enumerate(found):
            group = file[f"density_matrices/{root}"]
            one = group["alpha"][:] + group["beta"][:]
            mixed = group["two_ab"][:]
            two = group["two_aa"][:] + group["two_bb"][:] + mixed + mixed.transpose(2, 3, 0, 1)
            rebuilt = hamiltonian.ecore + np.sum(hamiltonian.h1e * one) + 0.5 * np.sum(eri * two)
            assert rebuilt == pytest.approx(energy, abs=1e-9)
            assert rebuilt == pytest.approx(lih[1][root], abs=1e-9)


def test_the_energy_of_a_state_is_not_the_penalised_one(h2, capsys):
    """qiskit-addon-sqd #140: the one determinant with both electrons apart is half a triplet."""
    text, _ = h2
    assert make(text, "01\n", "10\n") == 0
    capsys.readouterr()
    assert main(["run", "input.h5", "--spin-square", "0"]) == 3
    found = records.read_summary("result.h5")
    hamiltonian = records.read_input("input.h5").hamiltonian
    energy = hamiltonian.ecore + np.trace(hamiltonian.h1e) + hamiltonian.eri_pairs()[0, 2]
    assert found["energy"][0] == pytest.approx(energy, abs=1e-10)
    assert energy == pytest.approx(-0.3495628950, abs=1e-9)
    assert found["spin_square"][0] == pytest.approx(1.0, abs=1e-12) and found["spin_pure"] == [False]
    log = capsys.readouterr().err
    header = next(line for line in log.splitlines() if "residual" in line and "iter" in line)
    assert "with penalty" in header and "energy" not in header
    assert "warning: " in log and "<S^2> 1.0000" in log


# --- starts and repeats


def test_a_start_from_another_molecule(h2, lih, capsys):
    """A restart with a changed input: the energy is right, and there is a word."""
    assert make(lih[0], LIH_STRINGS, output="lih.h5") == make(h2[0], H2_STRINGS) == 0
    solve("--save-vector", source="lih.h5", output="lih_result.h5")
    capsys.readouterr()
    assert solve("--start", "lih_result.h5")["energy"][0] == pytest.approx(h2[1][0], abs=1e-9)
    log = capsys.readouterr().err
    assert "lih_result.h5 has none of the alpha and beta strings of this space; its vectors are not used" in log


def test_resume_with_another_hamiltonian_and_with_fewer_strings(h2, lih, capsys):
    """A restart in the same directory."""
    assert make(lih[0], LIH_STRINGS) == 0
    assert main(["run", "input.h5", "--threads", "1", "--time-limit", "1e-9"]) == 4
    assert make(h2[0], H2_STRINGS) == 0
    capsys.readouterr()
    assert main(["run", "input.h5", "--resume"]) == 2
    assert "another Hamiltonian" in capsys.readouterr().err
    some = "".join(LIH_STRINGS.splitlines(keepends=True)[:-2])
    assert make(lih[0], some) == 0
    problem = records.read_input("input.h5")
    exact = np.linalg.eigvalsh(dense_matrix(problem.hamiltonian, problem.strings_a, problem.strings_b))[0]
    assert solve("--resume")["energy"][0] == pytest.approx(exact, abs=1e-9)


# --- files and environments


@pytest.mark.parametrize("name", ["with blank.h5", "größe.h5", "-dash.h5", "日本.h5", "a'b\"c.h5"])
def test_odd_names_of_files(h2, name):
    """Blanks, umlauts, hyphens in front."""
    assert make(h2[0], H2_STRINGS) == 0
    Path("input.h5").rename(name)
    assert main(["run", "-o", f"./{name}.result", "--", name]) == 0
    assert records.read_summary(f"./{name}.result")["energy"][0] == pytest.approx(h2[1][0], abs=1e-9)


@pytest.mark.parametrize("way", ["same", "spelling", "symbolic link", "hard link", "null", "missing", "folder"])
def test_outputs_that_cannot_be(h2, capsys, way):
    """One sentence, and the input stays."""
    assert make(h2[0], H2_STRINGS) == 0
    content = Path("input.h5").read_bytes()
    named = {"same": "input.h5", "spelling": f"../{Path.cwd().name}/input.h5", "null": "/dev/null"}
    output = named.get(way, "o.h5")
    if way == "symbolic link":
        Path(output).symlink_to("input.h5")
    elif way == "hard link":
        os.link("input.h5", output)
    elif way == "missing":
        output = "missing/o.h5"
    elif way == "folder":
        Path(output).mkdir()
    capsys.readouterr()
    assert main(["run", "input.h5", "-o", output]) == 2
    assert output in error_of(capsys)
    assert Path("input.h5").read_bytes() == content


def test_a_run_in_a_poor_environment(h2, tmp_path):
    """Cron and daemons: no home, no folder for temporary files, no language, a terminal without columns."""
    assert make(h2[0], H2_STRINGS) == 0
    poor = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "LANG": "C", "LC_ALL": "C", "COLUMNS": "0"}
    done = sqd_mpi(tmp_path, "run", "input.h5", **poor, OMP_NUM_THREADS="0")
    assert done.returncode == 0 and "OMP_NUM_THREADS needs a positive integer; got '0'" in done.stderr
    assert "Traceback" not in done.stderr
    assert records.read_summary("result.h5")["energy"][0] == pytest.approx(h2[1][0], abs=1e-9)


@pytest.mark.slow
def test_more_ranks_than_cores_and_strings(h2, tmp_path):
    """Five ranks for two strings."""
    assert make(h2[0], H2_STRINGS) == 0
    command = [mpiexec(), "-n", "5", sys.executable, "-m", "sqd_mpi", "run", "input.h5", "--threads", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(SLURM_PROCID="3"), capture_output=True, text=True, timeout=HANG,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = records.read_summary("result.h5")
    assert found["n_ranks"] == 5 and found["energy"][0] == pytest.approx(h2[1][0], abs=1e-9)


@pytest.mark.slow
def test_a_task_of_slurm_that_is_alone(h2, tmp_path):
    """Open MPI #13523, sirepo #3676: tables and errors of a process that has a number and no partners."""
    assert make(h2[0], H2_STRINGS) == 0
    check_refusal(sqd_mpi(tmp_path, "run", "input.h5", "--nroots", "99", "--quiet", SLURM_PROCID="3"), "--nroots 99")
    done = sqd_mpi(tmp_path, "run", "input.h5", "--json", PMI_RANK="2", SLURM_PROCID="2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["energy"][0] == pytest.approx(h2[1][0], abs=1e-9) and "residual" in done.stderr
    done = sqd_mpi(tmp_path, "bench", "--threads", "1", SLURM_PROCID="3")
    assert done.returncode == 0 and done.stdout.startswith("this machine\n"), done.stderr


# --- sampled bit-strings


def problem_of(text: str, counts: Any, name: str = "counts.json") -> int:
    """Exit code of `import counts`."""
    Path("integrals").write_text(text)
    if isinstance(counts, dict):
        Path(name).write_text(json.dumps(counts))
    else:
        np.save(name, counts)
    return main(["import", "counts", "--hamiltonian", "integrals", "--counts", name, "-o", "problem.h5"])


def test_every_form_of_samples_is_the_same(h2):
    """Qiskit #5424, #12063, #8744, #8607 and #4501, mitiq #355, cunqa #204."""
    primitives = pytest.importorskip("qiskit.primitives")
    counts = {"0110": 3, "1001": 1, "0101": 4}
    array = primitives.BitArray.from_counts(counts)
    shots = np.array([[int(bit) for bit in text] for text, n in counts.items() for _ in range(n)])
    two = primitives.BitArray.from_bool_array(shots.reshape(2, 4, 4).astype(bool), order="big")
    assert two.shape == (2,) and two.num_shots == 4
    expected = sampling.from_counts(counts, 2)
    found = [sampling.from_bit_array(array), sampling.from_bit_array(two), sampling.from_bit_array(two, 2)]
    registers = {f"{text[:2]} {text[2:]}": n for text, n in counts.items()}
    mixed = {"0110": 3, "0x9": 1, "01 01": 2, "0b101": 1, "0X5": 1}
    forms = [counts, registers, {hex(int(text, 2)): n for text, n in counts.items()}, mixed]
    forms += [shots.astype(bool), array.array, two.array]
    for number, form in enumerate(forms):
        name = f"samples{number}." + ("json" if isinstance(form, dict) else "npy")
        assert problem_of(h2[0], form, name) == 0
        found.append(records.read_problem("problem.h5")[1])
    for each in found:
        assert np.array_equal(each.alpha, expected.alpha) and np.array_equal(each.beta, expected.beta)
        assert each.probabilities == pytest.approx(expected.probabilities, abs=1e-15)
    assert bitstrings.to_text(expected.beta, 2) == ["01", "01", "10"]
    assert bitstrings.to_text(expected.alpha, 2) == ["01", "10", "01"]
    with pytest.raises(InputError, match="with 8 columns"):
        sampling.from_bit_array(array, 4)


def test_counts_of_eighty_orbitals():
    """ffsim #384: keys of 160 bits, binary and hexadecimal."""
    alpha, beta = [1 << 79 | 1 << 63, 3], [1 << 64 | 1, 1 << 79 | 1 << 78]
    whole = [b << 80 | a for a, b in zip(alpha, beta, strict=True)]
    counts = {f"{whole[0]:0160b}": 1, hex(whole[1]): 3}
    found = sampling.from_counts(counts, 80)
    halves = [bitstrings.to_integers(each) for each in (found.beta, found.alpha)]
    shares = dict(zip(zip(*halves, strict=True), found.probabilities, strict=True))
    assert shares == dict(zip(zip(beta, alpha, strict=True), [0.25, 0.75], strict=True))


def loop(*options: str) -> int:
    """Exit code of `sqd`."""
    return main(["sqd", "problem.h5", "--workers", "0", "--threads", "1", *options])


def test_loops_of_few_samples(lih, capsys):
    """qiskit-addon-sqd #337 and #360: one sample, batches larger than all samples, the smallest space."""
    assert problem_of(lih[0], {"000011000011": 7}) == 0
    assert loop("--max-dim", "1") == 0
    mean_field = dense_matrix(records.read_problem("problem.h5")[0], *2 * [bitstrings.from_integers([3], 6)])[0, 0]
    assert records.read_summary("result.h5")["energy"][0] == pytest.approx(mean_field, abs=1e-9)
    assert mean_field == pytest.approx(LIH_MEAN_FIELD, abs=1e-8)
    everything = {a + b: 1 for a in LIH_STRINGS.split() for b in LIH_STRINGS.split()}
    assert problem_of(lih[0], everything) == 0
    assert loop("--samples-per-batch", "1000000", "--batches", "2") == 0
    assert records.read_summary("result.h5")["energy"][0] == pytest.approx(lih[1][0], abs=1e-8)
    assert problem_of(lih[0], {"000111000001": 7}) == 0
    capsys.readouterr()
    assert loop() == 2
    assert "no sample has 2 alpha and 2 beta electrons" in error_of(capsys)


def test_a_loop_of_an_open_shell_cannot_be_symmetrised(lih, capsys):
    """qiskit-addon-sqd #337."""
    text = re.sub("NELEC= 4", "NELEC=3", re.sub("MS2=0", "MS2=1", lih[0]))
    assert problem_of(text, {"000001000011": 7}) == 0
    capsys.readouterr()
    assert loop("--symmetrize-spin") == 2
    assert "--symmetrize-spin needs as many alpha as beta electrons" in error_of(capsys)


@pytest.mark.parametrize("dtype", [float, int, bool])
def test_recovery_by_occupancies_of_zero_and_one(dtype):
    """qiskit-addon-sqd #38, #274 and #275, qiskit-addon-sqd-hpc #33: no division by zero."""
    samples = sampling.from_counts({"00110111": 1}, 4)
    for seed in range(20):
        with np.errstate(all="raise"):
            occupancies = np.array([[1, 1, 0, 0]] * 2, dtype)
            found = sampling.recover(samples, occupancies, (2, 2), np.random.default_rng(seed))
        assert bitstrings.to_text(found.beta, 4) == ["0011"] and bitstrings.counts(found.alpha).tolist() == [2]
        assert found.probabilities.tolist() == [1.0]


# --- drop-ins of qiskit-addon-sqd


@pytest.fixture
def ours() -> Any:
    """The module."""
    return pytest.importorskip("sqd_mpi.adapters.qiskit")


def test_bits_beyond_the_precision_of_floats(ours):
    """qiskit-addon-sqd #225: 57 orbitals; the energy of a determinant of uncoupled orbitals is a sum."""
    levels = np.arange(57) / 7 - 1
    occupied = 0, 1, 52, 53, 54, 55, 56
    string = np.array([sum(1 << k for k in occupied)])
    energy, state, occupancies, _ = ours.solve_fermion((string, string), np.diag(levels), np.zeros((57,) * 4))
    assert energy == pytest.approx(2 * levels[list(occupied)].sum(), abs=1e-11)
    assert state.ci_strs_a.tolist() == string.tolist()
    assert np.flatnonzero(occupancies[0]).tolist() == list(occupied)


def test_integrals_of_atomic_orbitals_are_taken_as_given(ours):
    """qiskit-addon-sqd #141, PySCF #2695: below full CI, as orbitals that overlap are taken for orthonormal ones."""
    molecule = gto.M(atom="H 0 0 0; H 0 0 0.735", basis="sto-3g", verbose=0)
    h1e, eri = scf.hf.get_hcore(molecule), molecule.intor("int2e")
    pair = np.array([1, 2]), np.array([1, 2])
    energy = ours.solve_fermion(pair, h1e, eri)[0]
    exact = np.linalg.eigvalsh(fci.direct_spin1.pspace(h1e, ao2mo.restore(4, eri, 2), 2, (1, 1), np=4)[1])[0]
    assert energy == pytest.approx(exact, abs=1e-10)
    assert energy == pytest.approx(-2.314848185065, abs=1e-9)
    theirs = pytest.importorskip("qiskit_addon_sqd.fermion")
    assert energy == pytest.approx(theirs.solve_fermion(pair, h1e, eri)[0], abs=1e-9)


def test_one_state_is_returned(ours):
    """qiskit-addon-sqd #247."""
    pair = np.array([1, 2]), np.array([1, 2])
    with pytest.raises(InputError, match="one state is returned; got nroots = 2"):
        ours.solve_fermion(pair, np.eye(2), np.zeros((2,) * 4), nroots=2)


def test_no_beta_electrons(ours):
    """PySCF #3091: one electron has the lowest orbital energy and no pair density."""
    molecule = gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)
    mean_field = scf.RHF(molecule).run()
    h1e = mean_field.mo_coeff.T @ mean_field.get_hcore() @ mean_field.mo_coeff
    eri = ao2mo.restore(1, ao2mo.full(molecule, mean_field.mo_coeff), 2)
    found = ours.solve_sci((np.array([1, 2]), np.array([0])), h1e, eri, 2, (1, 0), rdm=2)
    assert found.energy == pytest.approx(np.linalg.eigvalsh(h1e)[0], abs=1e-10)
    assert np.trace(found.rdm1) == pytest.approx(1.0) and not found.rdm2.any()


# --- active spaces of PySCF


@pytest.mark.parametrize(
    ("norb", "nelec"), [(2, (2, 0)), (2, (1, 0)), (2, (1, 1)), (2, 2), (1, 2), (1, (1, 0)), (1, 0)]
)
def test_the_smallest_active_spaces(norb, nelec):
    """PySCF #3091 and #1808: no beta electrons, two orbitals, one."""
    total = nelec if isinstance(nelec, int) else sum(nelec)
    molecule = gto.M(atom="O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", basis="sto-3g", verbose=0, charge=total % 2,
                     spin=total % 2)  # fmt: skip
    mean_field = scf.ROHF(molecule).run(conv_tol=1e-12)
    ncore = (molecule.nelectron - total) // 2
    expected, found = (mcscf.CASCI(mean_field, norb, nelec, ncore=ncore) for _ in range(2))
    found.fcisolver = SubspaceSolver().set(verbose=0)
    assert found.kernel()[0] == pytest.approx(expected.kernel()[0], abs=1e-9)
    np.testing.assert_allclose(found.make_rdm1(), expected.make_rdm1(), atol=1e-6)


@pytest.mark.parametrize("odd", [0, 1])
def test_casscf_with_density_fitting_and_an_odd_number_of_electrons(odd):
    """PySCF #299, #1167, #569."""
    molecule = gto.M(atom="B 0 0 0; H 0 0 1.25", basis="6-31g", charge=odd, spin=odd, verbose=0)
    mean_field = scf.ROHF(molecule).density_fit().run(conv_tol=1e-12)
    found = []
    for solver in (None, SubspaceSolver().set(verbose=0)):
        mc = mcscf.CASSCF(mean_field, 4, 4 - odd)
        mc.fcisolver = solver or mc.fcisolver
        mc.conv_tol, mc.chkfile = 1e-10, f"{solver is None}.chk"
        mc.kernel()
        assert mc.converged
        found.append((mc.e_tot, lib.chkfile.load(mc.chkfile, "mcscf/e_tot")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-8)
