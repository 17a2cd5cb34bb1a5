"""FCIDUMP files in the forms of many programs, compared with arrays, PySCF's own numbers and known energies."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscf import ao2mo, fci, gto, scf
from pyscf.tools import fcidump

from sqd_mpi.errors import InputError, InputWarning
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from tests.support.fcidump_files import (
    BODY,
    HEADER,
    HUBBARD,
    HUBBARD_ENERGY,
    expected_small,
    header,
    six_parts,
    spin_orbital_lines,
    write,
)
from tests.support.problems import dense_matrix


def assert_same(first: Hamiltonian, second: Hamiltonian, tolerance: float = 0.0) -> None:
    assert (first.norb, first.nelec) == (second.norb, second.nelec)
    for name in ("h1e", "eri", "ecore"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)


def lowest_in(hamiltonian: Hamiltonian, strings: bitstrings.Strings) -> float:
    """Lowest energy in the space of all pairs of strings, by the definition of the matrix elements."""
    return float(np.linalg.eigvalsh(dense_matrix(hamiltonian, strings, strings))[0]) + hamiltonian.ecore


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        "&FCI NORB=2,NELEC=2,MS2=0,\n/\n",
        " &FCI NORB=2, NELEC=2, MS2=0, ORBSYM=1,1, ISYM=1 /\n",
        "&fci norb=2,\nnelec = 2,\nms2=0\norbsym=1,\n1\n&end\n",
        "\n  $FCI NORB=2 NELEC=2 MS2=0\n$END\n",
        "&FCI NORB=2,NELEC=2,UHF=.FALSE.,IUHF=0 &END\n",
        "&FCI NORB=2, ! orbitals\n NELEC=2,\n&END\n",
        HEADER.replace(" ISYM=1", " ! H2/STO-3G\n ISYM=1"),
        HEADER.replace(" ISYM=1", " TITLE='H2/STO-3G, R=0.74 & more ! it''s',\n ISYM=1"),
        HEADER.replace("ISYM=1,", 'TITLE="NORB=7, / &END",'),
        "! from our script\n" + HEADER,
        "H2 in a small basis; 2 & 2\n! &FCI NORB=9 /\n#\n" + HEADER,
        "&FCI NORB=1*2,NELEC=1*2,MS2=,ORBSYM=2*1,\n/\n",
        "&FCI ORBSYM(1)=1,1, NORB=2 NELEC=2 IUHF=.FALSE. UHF=f MS2=1*\n/\n",
        "&FCI NORB=+2,NELEC=02,TREL=.FALSE.,SYMLZ=2*0,NPROP=1 1 1,ST=0,CORE=0.0 /\n",
        "&FCI NORB=2,NELEC=2 / and more\n",
        "&FCI NORB=2,NELEC=2 &END ! of the header\n\n",
        "&FCI NORB=2,NELEC=2,PNTGRP=O'Neil's,MS2=0/\n",
    ],
)
def test_fcidump_headers(tmp_path: Path, text: str) -> None:
    assert_same(Hamiltonian.from_fcidump(write(tmp_path, text + BODY)), expected_small())


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("0.0625", "0.625D-01"),
        BODY.replace("0.0625", "0.625d-01"),
        BODY.replace("0.0625", "6.25E-2"),
        re.sub(r"(\d) (\d) (\d) (\d)$", r",\1,\2, \3,\4", BODY, flags=re.MULTILINE),
        BODY.replace("\n", "\r\n"),
        BODY.replace("\n", "\n\n"),
        BODY.rstrip("\n"),
        BODY.replace("2 1 2 1", "1 2 2 1").replace("2 2 1 1", "1 1 2 2").replace("2 1 0 0", "1 2 0 0"),
        "".join(reversed(BODY.splitlines(keepends=True))),
        BODY + " 0.125 1 2 1 2\n 0.125 1 2 2 1\n 0.125 2 1 1 2\n 0.125 2 1 2 1\n 0.7 0 0 0 0\n",
        BODY + "-0.9 1 0 0 0\n 0.3 2 0 0 0\n",
        BODY.replace("0.125", "0.125+000").replace("0.0625", "62.5-003"),
        BODY.replace("0.0625", "625.-4").replace("0.125", ".125q0").replace(" 0.7 ", "+7d-1"),
        BODY.replace("1 1 1 1", "4*1").replace("0 0 0 0", "4*0").replace("1 1 0 0", "2*1,2*0"),
        BODY.replace("2 1 2 1", "2\t1 2 1 the exchange integral 7").replace("0 0 0 0", "0 0 0 0 ! core"),
        BODY.replace("0.125 2 1", "0.125\n 2 1").replace("2 2 0 0", "2,\n2 0 0"),
        BODY.replace("2 2 2 2", "2.0 2. 2 +2"),
    ],
    ids="D d E commas windows blank-lines no-final-newline permuted reversed duplicates orbital-energies three-digits "
    "forms-of-numbers repeat-counts texts-behind several-lines real-indices".split(),
)
def test_fcidump_bodies(tmp_path: Path, body: str) -> None:
    assert_same(Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)), expected_small())


def test_exponents_of_three_digits_have_lost_their_letter(tmp_path: Path) -> None:
    found = Hamiltonian.from_fcidump(write(tmp_path, HEADER + BODY + " 0.1234567890123456-100 2 2 2 1\n"))
    assert found.eri[4] == 0.1234567890123456e-100


def test_fcidump_missing_core_is_zero(tmp_path: Path) -> None:
    body = BODY.replace(" 0.7   0 0 0 0\n", "")
    with pytest.warns(InputWarning, match="FCIDUMP has no core energy; 0 is taken"):
        assert Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)).ecore == 0.0


def test_fcidump_without_some_diagonal_integrals_warns(tmp_path: Path) -> None:
    body = BODY.replace("-1.5   1 1 0 0\n", "")
    with pytest.warns(InputWarning, match="no one-electron integral of these orbitals with themselves: 1; 0 is taken"):
        assert Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)).h1e[0, 0] == 0.0


@pytest.mark.parametrize("text", [HEADER + BODY, HUBBARD], ids=["molecule", "zeros-left-out"])
def test_fcidump_cut_anywhere_is_refused_or_warned_about(tmp_path: Path, text: str) -> None:
    """At every character: an error or a doubt, except where only a line end is gone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        whole = Hamiltonian.from_fcidump(write(tmp_path, text))
    for length in range(len(text)):
        path = write(tmp_path, text[:length])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = Hamiltonian.from_fcidump(path)
            except InputError:
                continue
        doubts = [str(warning.message) for warning in caught if "Is the file whole?" in str(warning.message)]
        assert found.fingerprint() == whole.fingerprint() or doubts, text[:length]


def test_a_line_that_ends_too_early_is_doubted(tmp_path: Path) -> None:
    """With the core energy first nothing but the line end tells 1 from the beginning of 11."""
    core = BODY.splitlines(keepends=True)[-1]
    with pytest.warns(InputWarning, match="ends within its last line, which is not the core energy"):
        Hamiltonian.from_fcidump(write(tmp_path, HEADER + core + BODY.replace(core, "").rstrip("\n")))


# --- zeros that writers leave out


def test_hubbard_without_its_zeros(tmp_path: Path) -> None:
    with pytest.warns(InputWarning, match="has no core energy; 0 is taken. Is the file whole"):
        hamiltonian = Hamiltonian.from_fcidump(write(tmp_path, HUBBARD))
    strings = bitstrings.from_text(["01", "10"])
    assert lowest_in(hamiltonian, strings) == pytest.approx(HUBBARD_ENERGY, abs=1e-9) == -0.8284271247
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = Hamiltonian.from_fcidump(write(tmp_path, HUBBARD + " 0.0 0 0 0 0\n"))
    assert whole.fingerprint() == hamiltonian.fingerprint()


def test_a_site_without_any_integral(tmp_path: Path) -> None:
    text = HUBBARD.replace("NORB=2", "NORB=3") + " 0.0 0 0 0 0\n"
    with pytest.warns(InputWarning, match="has NORB = 3, but no integral of orbital 3; 0 is taken. Is the file whole"):
        hamiltonian = Hamiltonian.from_fcidump(write(tmp_path, text))
    assert hamiltonian.norb == 3
    strings = bitstrings.from_text(["001", "010"])
    assert lowest_in(hamiltonian, strings) == pytest.approx(HUBBARD_ENERGY, abs=1e-9)


def test_only_two_electron_integrals(tmp_path: Path) -> None:
    """The Hubbard model without hopping: one electron on each site does not feel the other."""
    text = HUBBARD.replace(" -1.0 1 2 0 0\n", "")
    with pytest.warns(InputWarning, match="has no core energy and no one-electron integrals; 0 is taken"):
        hamiltonian = Hamiltonian.from_fcidump(write(tmp_path, text))
    assert lowest_in(hamiltonian, bitstrings.from_text(["01", "10"])) == pytest.approx(0.0, abs=1e-9)


# --- lines that give the same integral


@pytest.mark.parametrize("noise", [1e-9, 7e-7])
def test_lines_that_disagree_by_noise_give_their_mean(tmp_path: Path, noise: float) -> None:
    text = HEADER + BODY.replace(" 2 2 1 1\n", f" 2 2 1 1\n {0.5 + noise!r} 1 1 2 2\n 0.5 2 2 1 1\n")
    with pytest.warns(InputWarning, match="FCIDUMP: lines that give the same integral disagree: they differ by up to"):
        found = Hamiltonian.from_fcidump(write(tmp_path, text))
    assert found.eri[3] == pytest.approx(0.5 + noise / 2, rel=0, abs=1e-16)


def test_the_last_of_lines_that_agree_is_taken(tmp_path: Path) -> None:
    """Without a word, as every other reader does; published files list all permutations, each rounded by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Hamiltonian.from_fcidump(write(tmp_path, HEADER + BODY + " 0.50000000001 1 1 2 2\n"))
    assert found.eri[3] == 0.50000000001


@pytest.mark.parametrize(
    ("numbers", "nelec"),
    [("NELEC=2,MS2=2", (2, 0)), ("NELEC=3,MS2=1", (2, 1)), ("NELEC=2,MS2=-2", (0, 2)), ("NELEC=0", (0, 0))],
)
def test_fcidump_electron_numbers(tmp_path: Path, numbers: str, nelec: tuple[int, int]) -> None:
    path = write(tmp_path, f"&FCI NORB=2,{numbers} /\n{BODY}")
    assert Hamiltonian.from_fcidump(path).nelec == nelec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("NELEC=2,", "") + BODY, "FCIDUMP has no NELEC in its header"),
        (HEADER.replace("NORB=2,", "") + BODY, "FCIDUMP has no NORB in its header"),
        (HEADER.replace("NORB=2", "NORB=two") + BODY, "NORB = 'two', which is not an integer"),
        (HEADER.replace("NORB=2", "NORB=0") + BODY, "NORB = 0; at least one orbital"),
        (HEADER.replace("MS2=0", "MS2=1") + BODY, "NELEC = 2 and MS2 = 1; they must be both even or both odd"),
        (HEADER.replace("NELEC=2", "NELEC=6") + BODY, "3 alpha and 3 beta electrons, which do not fit 2 orbitals"),
        (HEADER.replace("MS2=0", "MS2=4") + BODY, "3 alpha and -1 beta electrons"),
        (HEADER.replace("ISYM=1,", "ISYM=1,UHF=.TRUE.,") + BODY, r"spin-dependent \(UHF\) integrals .* 1 lines have"),
        (HEADER.replace("ISYM=1,", "IUHF=.TRUE. ,") + BODY, r"spin-dependent \(UHF\) integrals by its header"),
        (HEADER.replace("ISYM=1,", "IUHF=1,") + BODY, r"spin-dependent \(UHF\) integrals"),
        (HEADER.replace("ISYM=1,", "IUHF=maybe,") + BODY, "IUHF = 'maybe', which is neither an integer"),
        (HEADER.replace("NELEC=2", "NELEC=2*1") + BODY, r"NELEC = '2\*1', which is not an integer"),
        (HEADER.replace("NELEC=2", "NELEC=1,1") + BODY, "NELEC = '1,1', which is not an integer"),
        (HEADER.replace("NELEC=2", "NELEC=") + BODY, "FCIDUMP has no NELEC in its header"),
        (HEADER.replace("ISYM=1", "TREL=.TRUE.") + BODY, "TREL = .TRUE.: relativistic integrals are not supported"),
        (HEADER.replace("ISYM=1", "ICMPLX=1") + BODY, "complex integrals are not supported"),
        (HEADER.replace("ISYM=1", "SYMLZ=1,-1") + BODY, "integrals of complex orbitals .* are not supported"),
        (HEADER.replace("ISYM=1", "SYMLZ(2)=2*1") + BODY, "integrals of complex orbitals .* are not supported"),
        (HEADER.replace("ISYM=1", "ST=1") + BODY, "similarity-transformed integrals, which are not symmetric, are not"),
        (HEADER.replace("ISYM=1", "NPROP=2 2 1") + BODY, "several k points are not supported"),
        (HEADER.replace("ISYM=1", "NPY2='a.npy'") + BODY, "integrals in other files are not supported"),
        (HEADER.replace("ISYM=1", "CORE=0.7") + BODY.replace(" 0.7   0 0 0 0\n", ""), "has CORE = 0.7 in its header"),
        (HEADER.replace("&END\n", "/ 0.3 1 1 0 0\n") + BODY, "line 4: integrals must begin in the line below"),
        (HEADER.replace("&END", "") + BODY, "not a FCIDUMP file"),
        (BODY, "not a FCIDUMP file"),
        ("", "not a FCIDUMP file"),
        ("\x89HDF\r\n\x1a\n", "not a FCIDUMP file"),
        (HEADER, "ends after its header"),
        (HEADER.replace("NORB=2", "NORB=1000000") + BODY, "NORB = 1000000: its two-electron integrals need .* GiB"),
        (HEADER.replace("NORB=2", "NORB=99999999999") + BODY, "NORB = 99999999999: its two-electron integrals need"),
        (HEADER.replace("MS2=0", "MS2=0,norb=3") + BODY, "has a header with two values of NORB"),
        (HEADER + BODY.rstrip()[:-2], "line 12: a value .* were expected, 4 words were found: it seems to be cut off"),
        (HEADER + BODY + "\n 0.1 1\n", "FCIDUMP line 14: a value and four .* 2 words"),
        (HEADER + BODY.replace(" 1 1 1 1", " 1 1 1"), "FCIDUMP line 5: a value and four .*, 4 words were found"),
        (HEADER + " 7 1 1 1\n 2 2 2 2 2\n" + BODY, "FCIDUMP line 5: a value and four .*, 4 words were found"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 1 1"), "FCIDUMP line 6: .* 6 numbers were found .complex integrals"),
        (HEADER + BODY.replace("0.125", "0,125"), "FCIDUMP line 6: .* 6 numbers were found"),
        (HEADER + BODY.replace("0.125 2 1 2 1", "0.125 0.0 2 1 2 1"), "line 6: .* 6 numbers were found .complex"),
        (HEADER + BODY.replace("2 1 2 1", "2 1,,1"), "FCIDUMP line 6: .* between two commas there is nothing"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 /"), "FCIDUMP line 6: '/' is not a number"),
        (HEADER + BODY + "! the end\n", "FCIDUMP line 13: '!' is not a number"),
        (HEADER + BODY.replace("0.125", "0.125_0"), "FCIDUMP line 6: '0.125_0' is not a number"),
        (HEADER + BODY.replace("0.125", "0.1x5"), "FCIDUMP line 6: '0.1x5' is not a number"),
        (HEADER + BODY.replace("0.125", "(0.1,0.2)"), "FCIDUMP line 6: complex integrals are not supported"),
        (HEADER + BODY.replace("0.125", "NaN"), "FCIDUMP line 6: a value is not finite"),
        (HEADER + BODY.replace("0.125", "inf"), "FCIDUMP line 6: a value is not finite"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 3 1"), "FCIDUMP line 6: orbital 3 is out of range; NORB = 2"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 -1 1"), "FCIDUMP line 6: orbital -1 is out of range"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 1.5"), "FCIDUMP line 6: an orbital index is not an integer"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 10-1"), "FCIDUMP line 6: an orbital index is not an integer"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 " + 25 * "9"), "FCIDUMP line 6: orbital .* is out of range"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 0"), r"FCIDUMP line 6: indices \[2, 1, 2, 0\] name no integral"),
        (HEADER + BODY.replace("2 1 2 1", "0 0 2 1"), r"FCIDUMP line 6: indices \[0, 0, 2, 1\] name no integral"),
        (HEADER + "\n" + BODY + "0.126 1 2 2 1\n", "FCIDUMP line 7: gives an integral a value that another line"),
        (HEADER + BODY + "0.8 0 0 0 0\n", "another line contradicts"),
    ],
)
def test_fcidump_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Hamiltonian.from_fcidump(write(tmp_path, text))
    assert "\n" not in str(caught.value)


# --- indices of spin orbitals


@pytest.fixture(scope="module")
def hydroxyl() -> Hamiltonian:
    """OH at 1 angstrom, all orbitals of UHF."""
    mean_field = scf.UHF(gto.M(atom="O 0 0 0; H 0 0 1", basis="sto-3g", spin=1, verbose=0)).run(conv_tol=1e-12)
    return Hamiltonian.from_pyscf(mean_field)


def assert_same_spin_dependent(first: Hamiltonian, second: Hamiltonian) -> None:
    assert (first.norb, first.nelec, first.ecore) == (second.norb, second.nelec, second.ecore)
    for name in ("h1e", "eri", "h1e_b", "eri_bb", "eri_ab"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def spin_dependent_energy(hamiltonian: Hamiltonian) -> float:
    """Full-CI energy by PySCF."""
    norb = hamiltonian.norb
    pairs = hamiltonian.coupling()
    p, q = np.tril_indices(norb)
    mixed = np.zeros((norb,) * 4)
    for left, right in ((p, q), (q, p)):
        for third, fourth in ((p, q), (q, p)):
            mixed[left[:, None], right[:, None], third[None], fourth[None]] = pairs
    eri = ao2mo.restore(1, hamiltonian.eri, norb), mixed, ao2mo.restore(1, hamiltonian.eri_bb, norb)
    solver = fci.direct_uhf.FCI()
    solver.conv_tol = 1e-13
    return solver.kernel((hamiltonian.h1e, hamiltonian.h1e_b), eri, norb, hamiltonian.nelec)[0] + hamiltonian.ecore


@pytest.mark.parametrize(
    ("norb", "more", "layout", "mixed_first"),
    [
        (6, "", "interleaved", "ab"),  # sbd
        (6, "", "interleaved", "ba"),
        (6, "", "blocked", "ab"),  # qiskit-nature
        (6, "IUHF=.TRUE.,", "interleaved", "ba"),
        (12, "UHF=.TRUE.,", "interleaved", "ab"),  # HANDE, NECI, Psi4, TREXIO
        (12, "IUHF=1,", "interleaved", "ba"),
        (12, "UHF=T,", "blocked", "ab"),
    ],
)
def test_indices_of_spin_orbitals(
    tmp_path: Path, hydroxyl: Hamiltonian, norb: int, more: str, layout: str, mixed_first: str
) -> None:
    text = header(hydroxyl, norb, more) + spin_orbital_lines(hydroxyl, layout, mixed_first)
    found = Hamiltonian.from_fcidump(write(tmp_path, text))
    assert_same_spin_dependent(found, hydroxyl)
    assert_same_spin_dependent(Hamiltonian.from_fcidump(tmp_path / "FCIDUMP", spin_orbitals=layout), hydroxyl)
    other = {"interleaved": "blocked", "blocked": "interleaved"}[layout]
    with pytest.raises(InputError, match=f"of {other} spin orbitals mix the spins"):
        Hamiltonian.from_fcidump(tmp_path / "FCIDUMP", spin_orbitals=other)


def test_six_parts_and_spin_orbitals_are_the_same_molecule(tmp_path: Path, hydroxyl: Hamiltonian) -> None:
    parts = Hamiltonian.from_fcidump(write(tmp_path, six_parts(hydroxyl)))
    assert_same_spin_dependent(parts, hydroxyl)
    lines = spin_orbital_lines(hydroxyl, "interleaved")
    found = Hamiltonian.from_fcidump(write(tmp_path, header(hydroxyl, 6) + lines))
    assert spin_dependent_energy(found) == pytest.approx(-74.391149992222, abs=1e-9)


def test_zeros_that_mix_spins_harm_nothing(tmp_path: Path, hydroxyl: Hamiltonian) -> None:
    """Some writers list every pair of spin orbitals."""
    lines = spin_orbital_lines(hydroxyl, "interleaved") + "0.0 2 1 0 0\n0.0 1 1 4 1\n0.0 3 2 3 2\n"
    found = Hamiltonian.from_fcidump(write(tmp_path, header(hydroxyl, 12, "UHF=.TRUE.,") + lines))
    assert_same_spin_dependent(found, hydroxyl)


def test_spin_orbitals_without_a_word_in_the_header(tmp_path: Path, hydroxyl: Hamiltonian) -> None:
    """NORB counts spin orbitals and no index is beyond it: only the integrals tell, which is not enough."""
    for layout in ("interleaved", "blocked"):
        path = write(tmp_path, header(hydroxyl, 12) + spin_orbital_lines(hydroxyl, layout))
        with pytest.warns(InputWarning, match=f"looks as if its indices were those of {layout} spin orbitals"):
            assert Hamiltonian.from_fcidump(path).norb == 12
        assert_same_spin_dependent(Hamiltonian.from_fcidump(path, spin_orbitals=layout), hydroxyl)


def test_order_of_spin_orbitals_must_be_known(tmp_path: Path) -> None:
    """Diagonal integrals fit both orders."""
    lines = "".join(f"{p}.0 {p} {p} 0 0\n" for p in (1, 2, 3, 4)) + "0.5 0 0 0 0\n"
    path = write(tmp_path, HEADER + lines)
    with pytest.raises(InputError, match="the option spin-orbitals must say interleaved .* or blocked"):
        Hamiltonian.from_fcidump(path)
    found = [Hamiltonian.from_fcidump(path, spin_orbitals=layout) for layout in ("interleaved", "blocked")]
    assert [np.diag(each.h1e).tolist() for each in found] == [[1, 3], [1, 2]]
    assert [np.diag(each.h1e_b).tolist() for each in found] == [[2, 4], [3, 4]]
    # a program that counts spin orbitals interleaves them
    flagged = Hamiltonian.from_fcidump(write(tmp_path, HEADER.replace("NORB=2", "NORB=4,UHF=T") + lines))
    assert flagged.fingerprint() == found[0].fingerprint()
    with pytest.raises(InputError, match="spin orbitals are auto, interleaved, blocked; got 'both'"):
        Hamiltonian.from_fcidump(path, spin_orbitals="both")
    odd = write(tmp_path, HEADER.replace("NORB=2", "NORB=3") + BODY)
    with pytest.raises(InputError, match="spin orbitals are an even number"):
        Hamiltonian.from_fcidump(odd, spin_orbitals="blocked")


def test_six_parts_without_a_core_energy(tmp_path: Path, hydroxyl: Hamiltonian) -> None:
    text = six_parts(hydroxyl)
    text = text[: text.rstrip("\n").rindex("\n") + 1]
    with pytest.warns(InputWarning, match="has no core energy; 0 is taken"):
        assert Hamiltonian.from_fcidump(write(tmp_path, text)).ecore == 0.0


def test_fcidump_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the FCIDUMP file .*none: No such file"):
        Hamiltonian.from_fcidump(tmp_path / "none")
    with pytest.raises(InputError, match="Is a directory"):
        Hamiltonian.from_fcidump(tmp_path)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_fcidump_of_any_order_keeps_every_bit(tmp_path_factory, norb: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    npair = norb * (norb + 1) // 2
    numbers = rng.normal(size=npair * (npair + 1) // 2) * 10.0 ** rng.integers(-12, 4, size=npair * (npair + 1) // 2)
    h1e = rng.normal(size=(norb, norb))
    expected = Hamiltonian.from_arrays(h1e + h1e.T, numbers, rng.normal(), (1, norb - 1))
    full = ao2mo.restore(1, expected.eri, norb)
    lines = [f"{expected.ecore!r} 0 0 0 0"]
    for p, q in zip(*np.tril_indices(norb), strict=True):
        first, second = rng.permutation([p, q]) + 1
        lines.append(f"{float(expected.h1e[p, q])!r} {first} {second} 0 0")
        for r, s in zip(*np.tril_indices(norb), strict=True):
            if r * (r + 1) // 2 + s <= p * (p + 1) // 2 + q:
                pairs = rng.permutation([rng.permutation([p, q]), rng.permutation([r, s])]) + 1
                lines.append(f"{float(full[p, q, r, s])!r} " + " ".join(str(index) for index in pairs.ravel()))
    order = rng.permutation(len(lines))
    begin = f"&FCI NORB={norb},NELEC={norb},MS2={2 - norb}\n/\n"
    path = write(tmp_path_factory.mktemp("fcidump"), begin + "".join(lines[i] + "\n" for i in order))
    assert Hamiltonian.from_fcidump(path).fingerprint() == expected.fingerprint()


def test_fcidump_written_by_pyscf(tmp_path: Path) -> None:
    mean_field = scf.RHF(gto.M(atom="N 0 0 0; N 0 0 1.1", basis="sto-3g", verbose=0)).run(conv_tol=1e-12)
    expected = Hamiltonian.from_pyscf(mean_field, ncas=8, nelecas=10)
    path = tmp_path / "FCIDUMP"
    arguments = (str(path), expected.h1e, expected.eri, 8, expected.nelec, expected.ecore)
    fcidump.from_integrals(*arguments, tol=0, float_format=" %.17g")
    assert Hamiltonian.from_fcidump(path).fingerprint() == expected.fingerprint()
    fcidump.from_integrals(*arguments)  # PySCF's default of 16 digits
    assert_same(Hamiltonian.from_fcidump(path), expected, tolerance=2e-14)


@pytest.mark.parametrize(("molecule", "norb", "nelec"), [("h2o", 24, (5, 5)), ("n2", 18, (7, 7))])
def test_published_fcidump(data_dir: Path, molecule: str, norb: int, nelec: tuple[int, int]) -> None:
    path = data_dir / molecule / "fcidump.txt"
    hamiltonian = Hamiltonian.from_fcidump(path)
    theirs = fcidump.read(str(path), verbose=False)
    expected = Hamiltonian.from_arrays(theirs["H1"], ao2mo.restore(8, theirs["H2"], norb), theirs["ECORE"], nelec)
    assert hamiltonian.fingerprint() == expected.fingerprint()
