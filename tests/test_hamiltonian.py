"""The Hamiltonian from arrays, PySCF objects and FCIDUMP files, compared with PySCF's own numbers."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscf import ao2mo, dft, fci, gto, mcscf, scf
from pyscf.tools import fcidump

from sqd_mpi.hamiltonian import Hamiltonian
from sqd_mpi.options import InputError

HEADER = "&FCI NORB=2,NELEC=2,MS2=0,\n ORBSYM=1,1,\n ISYM=1,\n&END\n"
BODY = """\
 0.75  1 1 1 1
 0.125 2 1 2 1
 0.5   2 2 1 1
 0.25  2 2 2 2
-1.5   1 1 0 0
 0.0625 2 1 0 0
-0.5   2 2 0 0
 0.7   0 0 0 0
"""


def n2(spin: int = 0) -> gto.Mole:
    return gto.M(atom="N 0 0 0; N 0 0 1.1", basis="sto-3g", spin=spin, verbose=0)


@pytest.fixture(scope="module")
def rhf() -> scf.hf.RHF:
    return scf.RHF(n2()).run(conv_tol=1e-12)


def lowest(hamiltonian: Hamiltonian) -> float:
    """Full-CI energy by PySCF."""
    solver = fci.direct_spin1.FCI()
    solver.conv_tol = 1e-12
    eri = ao2mo.restore(1, hamiltonian.eri, hamiltonian.norb)
    return solver.kernel(hamiltonian.h1e, eri, hamiltonian.norb, hamiltonian.nelec, ecore=hamiltonian.ecore)[0]


def write(folder: Path, text: str) -> Path:
    path = folder / "FCIDUMP"
    path.write_text(text)
    return path


def assert_same(first: Hamiltonian, second: Hamiltonian, tolerance: float = 0.0) -> None:
    assert (first.norb, first.nelec) == (second.norb, second.nelec)
    for name in ("h1e", "eri", "ecore"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)


# --- arrays


@pytest.mark.parametrize("norb", [1, 2, 5])
@pytest.mark.parametrize("symmetry", [1, 4, 8])
def test_arrays_of_any_symmetry(random_hamiltonian, norb: int, symmetry: int) -> None:
    expected = random_hamiltonian(norb, (1, 0))
    eri = ao2mo.restore(symmetry, expected.eri, norb)
    assert_same(Hamiltonian.from_arrays(expected.h1e, eri, expected.ecore, (1, 0)), expected)


@pytest.mark.parametrize("norb", [1, 2, 5])
def test_eri_pairs(random_hamiltonian, norb: int) -> None:
    hamiltonian = random_hamiltonian(norb, (1, 1))
    np.testing.assert_array_equal(hamiltonian.eri_pairs(), ao2mo.restore(4, hamiltonian.eri, norb))
    full = ao2mo.restore(1, hamiltonian.eri, norb)
    for p, q, r, s in np.ndindex((norb,) * 4):
        if p >= q and r >= s:
            assert hamiltonian.eri_pairs()[p * (p + 1) // 2 + q, r * (r + 1) // 2 + s] == full[p, q, r, s]


def test_fingerprint_depends_on_every_number(random_hamiltonian) -> None:
    hamiltonian = random_hamiltonian(4, (2, 1))
    arguments = {name: getattr(hamiltonian, name) for name in ("h1e", "eri", "ecore", "norb", "nelec")}
    assert re.fullmatch("[0-9a-f]{64}", hamiltonian.fingerprint())
    assert Hamiltonian(**arguments).fingerprint() == hamiltonian.fingerprint()
    h1e, eri = hamiltonian.h1e.copy(), hamiltonian.eri.copy()
    h1e[3, 3] = np.nextafter(h1e[3, 3], 9)
    eri[-1] = np.nextafter(eri[-1], 9)
    changes = [{"h1e": h1e}, {"eri": eri}, {"ecore": np.nextafter(hamiltonian.ecore, 9)}, {"nelec": (1, 2)}]
    prints = {Hamiltonian(**(arguments | change)).fingerprint() for change in changes}
    assert len(prints | {hamiltonian.fingerprint()}) == 5


def test_rounding_noise_in_h1e_is_symmetrised() -> None:
    h1e = np.array([[1.0, 0.5], [0.5 + 1e-13, 2.0]])
    hamiltonian = Hamiltonian.from_arrays(h1e, np.zeros(6), 0.0, (1, 1))
    np.testing.assert_array_equal(hamiltonian.h1e, hamiltonian.h1e.T)


@pytest.mark.parametrize("nelec", [(0, 0), (2, 0), (0, 1), (2, 2), (np.int64(1), np.int32(1))])
def test_any_electron_numbers(nelec: tuple[int, int]) -> None:
    assert Hamiltonian.from_arrays(np.zeros((2, 2)), np.zeros(6), 0, nelec).nelec == nelec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h1e": np.array([[0, 1.0], [2.0, 0]])}, "one-electron integrals are not symmetric: they differ by up to"),
        ({"h1e": np.zeros((2, 3))}, "square matrix"),
        ({"h1e": np.zeros((0, 0))}, "needs at least one orbital; got norb = 0"),
        ({"h1e": np.array([[np.nan, 0], [0, 0]])}, "one-electron integrals contain a value that is not finite"),
        ({"h1e": np.eye(2) * 1j}, "one-electron integrals must be real"),
        ({"eri": np.full(6, np.inf)}, "two-electron integrals contain a value that is not finite"),
        ({"eri": np.zeros(5)}, "two-electron integrals of 2 orbitals are"),
        ({"eri": np.arange(16.0).reshape(2, 2, 2, 2)}, "two-electron integrals lack the symmetry of real orbitals"),
        ({"eri": np.arange(9.0).reshape(3, 3)}, "two-electron integrals lack the symmetry of real orbitals"),
        ({"ecore": np.nan}, "core energy contain"),
        ({"ecore": np.zeros(2)}, "core energy is one number"),
        ({"nelec": (3, 0)}, "2 orbitals hold 0 to 2 alpha electrons; got 3"),
        ({"nelec": (1, -1)}, "2 orbitals hold 0 to 2 beta electrons; got -1"),
        ({"nelec": 2}, r"nelec is a pair of integers \(n_alpha, n_beta\); got 2"),
        ({"nelec": (1.0, 1.0)}, "nelec is a pair of integers"),
    ],
)
def test_wrong_arrays_are_refused(change: dict, message: str) -> None:
    arguments = {"h1e": np.eye(2), "eri": np.zeros(6), "ecore": 0.0, "nelec": (1, 1)} | change
    with pytest.raises(InputError, match=message):
        Hamiltonian.from_arrays(**arguments)


# --- PySCF objects


def test_pyscf_mean_field(rhf: scf.hf.RHF) -> None:
    hamiltonian = Hamiltonian.from_pyscf(rhf)
    assert (hamiltonian.norb, hamiltonian.nelec) == (10, (7, 7))
    assert hamiltonian.ecore == pytest.approx(rhf.mol.energy_nuc(), abs=1e-12)
    assert lowest(hamiltonian) == pytest.approx(fci.FCI(rhf).run(conv_tol=1e-12).e_tot, abs=1e-9)


@pytest.mark.parametrize("nelecas", [6, (3, 3), (4, 2)])
def test_pyscf_active_space(rhf: scf.hf.RHF, nelecas: int | tuple[int, int]) -> None:
    hamiltonian = Hamiltonian.from_pyscf(rhf, ncas=6, nelecas=nelecas)
    reference = mcscf.CASCI(rhf, 6, nelecas)
    reference.fcisolver.conv_tol = 1e-12
    assert hamiltonian.nelec == reference.nelecas
    assert lowest(hamiltonian) == pytest.approx(reference.run(verbose=0).e_tot, abs=1e-9)


def test_pyscf_open_shell_and_kohn_sham() -> None:
    triplet = scf.ROHF(n2(spin=2)).run()
    hamiltonian = Hamiltonian.from_pyscf(triplet, ncas=6, nelecas=6)
    assert hamiltonian.nelec == (4, 2)
    assert lowest(hamiltonian) == pytest.approx(mcscf.CASCI(triplet, 6, (4, 2)).run(verbose=0).e_tot, abs=1e-8)
    assert Hamiltonian.from_pyscf(triplet).nelec == (8, 6)
    kohn_sham = dft.RKS(n2()).run(xc="pbe")
    energy = mcscf.CASCI(kohn_sham, 6, 6).run(verbose=0).e_tot
    assert lowest(Hamiltonian.from_pyscf(kohn_sham, ncas=6, nelecas=6)) == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("method", [mcscf.CASCI, mcscf.CASSCF])
def test_pyscf_casci_and_casscf(rhf: scf.hf.RHF, method) -> None:
    source = method(rhf, 6, 6).run(verbose=0)
    hamiltonian = Hamiltonian.from_pyscf(source)
    assert (hamiltonian.norb, hamiltonian.nelec) == (6, (3, 3))
    assert lowest(hamiltonian) == pytest.approx(source.e_tot, abs=1e-7)


def test_pyscf_object_that_does_not_fit_is_refused(rhf: scf.hf.RHF) -> None:
    unrestricted = scf.UHF(n2()).run()
    cases = [
        (unrestricted, {"ncas": 14, "nelecas": 14}, "does not fit 14 electrons in 10 orbitals"),
        (mcscf.UCASCI(unrestricted, 6, 6), {}, r"spin-dependent \(UHF\) orbitals are not supported"),
        (scf.GHF(n2()), {}, "must be a mean field .* got GHF"),
        (scf.RHF(n2()), {}, "has no orbitals yet; run it first"),
        (n2(), {}, "must be a mean field .* got Mole"),
        (rhf, {"ncas": 6}, "needs both ncas and nelecas"),
        (rhf, {"nelecas": 6}, "needs both ncas and nelecas"),
        (rhf, {"ncas": 11, "nelecas": 14}, "does not fit 14 electrons in 10 orbitals"),
        (rhf, {"ncas": 6, "nelecas": 5}, "does not fit"),
        (rhf, {"ncas": 6, "nelecas": 16}, "does not fit"),
        (mcscf.CASCI(rhf, 6, 6), {"ncas": 6, "nelecas": 6}, "has its own active space"),
    ]
    for source, options, message in cases:
        with pytest.raises(InputError, match=message):
            Hamiltonian.from_pyscf(source, **options)


def test_pyscf_mean_field_that_is_not_converged_warns() -> None:
    with pytest.warns(UserWarning, match="not converged"):
        Hamiltonian.from_pyscf(scf.RHF(n2()).run(max_cycle=1))


# --- FCIDUMP


def expected_small() -> Hamiltonian:
    eri = np.zeros((2, 2, 2, 2))
    eri[0, 0, 0, 0], eri[1, 1, 1, 1] = 0.75, 0.25
    eri[0, 0, 1, 1] = eri[1, 1, 0, 0] = 0.5
    eri[0, 1, 0, 1] = eri[0, 1, 1, 0] = eri[1, 0, 0, 1] = eri[1, 0, 1, 0] = 0.125
    return Hamiltonian.from_arrays(np.array([[-1.5, 0.0625], [0.0625, -0.5]]), eri, 0.7, (1, 1))


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "&FCI NORB=2,NELEC=2,MS2=0,\n/\n",
        " &FCI NORB=2, NELEC=2, MS2=0, ORBSYM=1,1, ISYM=1 /\n",
        "&fci norb=2,\nnelec = 2,\nms2=0\norbsym=1,\n1\n&end\n",
        "\n  $FCI NORB=2 NELEC=2 MS2=0\n$END\n",
        "&FCI NORB=2,NELEC=2,UHF=.FALSE.,IUHF=0 &END\n",
        "&FCI NORB=2, ! orbitals\n NELEC=2,\n&END\n",
    ],
)
def test_fcidump_headers(tmp_path: Path, header: str) -> None:
    assert_same(Hamiltonian.from_fcidump(write(tmp_path, header + BODY)), expected_small())


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
        BODY + " 0.125 1 2 1 2\n 0.1250000001 1 2 2 1\n 0.125 2 1 1 2\n 0.125 2 1 2 1\n",
        BODY + "-0.9 1 0 0 0\n 0.3 2 0 0 0\n",
    ],
    ids="D d E commas windows blank-lines no-final-newline permuted reversed duplicates orbital-energies".split(),
)
def test_fcidump_bodies(tmp_path: Path, body: str) -> None:
    assert_same(Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)), expected_small())


def test_fcidump_missing_core_is_zero(tmp_path: Path) -> None:
    body = BODY.replace(" 0.7   0 0 0 0\n", "")
    with pytest.warns(UserWarning, match="FCIDUMP has no core energy; 0 is taken"):
        assert Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)).ecore == 0.0


def test_fcidump_without_some_diagonal_integrals_warns(tmp_path: Path) -> None:
    body = BODY.replace("-1.5   1 1 0 0\n", "")
    with pytest.warns(UserWarning, match="no one-electron integral of these orbitals with themselves: 1; 0 is taken"):
        assert Hamiltonian.from_fcidump(write(tmp_path, HEADER + body)).h1e[0, 0] == 0.0


def test_fcidump_cut_anywhere_is_refused_or_warned_about(tmp_path: Path) -> None:
    """At every character: an error, except where only zeros of the core energy or a line break are gone."""
    text = HEADER + BODY
    whole = expected_small()
    for length in range(len(text)):
        path = write(tmp_path, text[:length])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = Hamiltonian.from_fcidump(path)
            except InputError:
                continue
        assert found.fingerprint() == whole.fingerprint() or "no core energy" in str(caught[0].message), text[:length]


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
        (HEADER.replace("ISYM=1,", "ISYM=1,UHF=.TRUE.,") + BODY, r"spin-dependent \(UHF\) integrals"),
        (HEADER.replace("ISYM=1,", "IUHF=1,") + BODY, r"spin-dependent \(UHF\) integrals"),
        (HEADER.replace("&END", "") + BODY, "not a FCIDUMP file"),
        (BODY, "not a FCIDUMP file"),
        ("", "not a FCIDUMP file"),
        ("\x89HDF\r\n\x1a\n", "not a FCIDUMP file"),
        (HEADER, "ends after its header"),
        (HEADER + " 0.75  1 1 1 1\n 0.5 2 2 1 1\n", "neither one-electron integrals nor a core energy"),
        (HEADER.replace("NORB=2", "NORB=3") + BODY, "NORB = 3, but no integral of orbital 3: it seems to be cut off"),
        (HEADER.replace("NORB=2", "NORB=1000000") + BODY, "NORB = 1000000, but no integral of most orbitals"),
        (HEADER.replace("MS2=0", "MS2=0,norb=3") + BODY, "has a header with two values of NORB"),
        (HEADER + BODY.partition("-0.5")[0], "neither a core energy nor the one-electron integral of orbital 2"),
        (HEADER + BODY.rstrip()[:-2], "FCIDUMP line 12: a value and four orbital indices were expected, 4 words"),
        (HEADER + BODY + "\n 0.1 1\n", "FCIDUMP line 14: a value and four .* 2 words"),
        (HEADER + BODY.replace(" 1 1 1 1", " 1 1 1"), "FCIDUMP line 5: a value and four"),
        (HEADER + BODY.replace("0.125", "0.1x5"), "FCIDUMP line 6: '0.1x5' is not a number"),
        (HEADER + BODY.replace("0.125", "(0.1,0.2)"), "FCIDUMP line 6: "),
        (HEADER + BODY.replace("0.125", "NaN"), "FCIDUMP line 6: a value is not finite"),
        (HEADER + BODY.replace("0.125", "inf"), "FCIDUMP line 6: a value is not finite"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 3 1"), "FCIDUMP line 6: orbital 3 is out of range; NORB = 2"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 -1 1"), "FCIDUMP line 6: orbital -1 is out of range"),
        (HEADER + BODY.replace("2 1 2 1", "2 1 2 1.5"), "FCIDUMP line 6: an orbital index is not an integer"),
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
    header = f"&FCI NORB={norb},NELEC={norb},MS2={2 - norb}\n/\n"
    path = write(tmp_path_factory.mktemp("fcidump"), header + "\n".join(lines[i] for i in order))
    assert Hamiltonian.from_fcidump(path).fingerprint() == expected.fingerprint()


def test_fcidump_written_by_pyscf(tmp_path: Path, rhf: scf.hf.RHF) -> None:
    expected = Hamiltonian.from_pyscf(rhf, ncas=8, nelecas=10)
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
