"""The Hamiltonian from arrays and PySCF objects, compared with PySCF's own numbers."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from pyscf import ao2mo, dft, fci, gto, mcscf, scf

from sqd_mpi.errors import InputError, InputWarning
from sqd_mpi.problem.hamiltonian import Hamiltonian


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


@pytest.mark.parametrize(
    ("where", "complaint"),
    [("h1e", "one-electron integrals are not symmetric"), ("eri", "two-electron integrals lack the symmetry")],
)
def test_noise_is_averaged_with_a_warning(random_hamiltonian, where: str, complaint: str) -> None:
    exact = random_hamiltonian(3, (1, 1))
    h1e, eri = exact.h1e.copy(), ao2mo.restore(1, exact.eri, 3)
    noisy = {"h1e": h1e, "eri": eri}[where]
    place = (0, 1, 0, 1)[: noisy.ndim]
    noisy[place] += 1e-8
    with pytest.warns(InputWarning, match=f"{complaint}.*: they differ by up to 1.0e-08; the mean is taken") as caught:
        found = Hamiltonian.from_arrays(h1e, eri, exact.ecore, (1, 1))
    assert len(caught) == 1
    assert_same(found, exact, tolerance=1e-8)
    assert abs(getattr(found, where) - getattr(exact, where)).max() > 1e-10
    noisy[place] += 1e-4
    with pytest.raises(InputError, match=f"{complaint}.*; at most 1e-06 of the largest is taken for noise"):
        Hamiltonian.from_arrays(h1e, eri, exact.ecore, (1, 1))


def test_single_precision_is_near_enough(random_hamiltonian) -> None:
    exact = random_hamiltonian(4, (2, 2))
    eri = ao2mo.restore(1, exact.eri, 4)
    noise = np.finfo(np.float32).eps * np.random.default_rng(0).uniform(-1, 1, eri.shape)
    with pytest.warns(InputWarning, match="two-electron integrals lack the symmetry of real orbitals"):
        found = Hamiltonian.from_arrays(exact.h1e, (eri * (1 + noise)).astype(np.float32), exact.ecore, (2, 2))
    assert_same(found, exact, tolerance=1e-6)


@pytest.mark.parametrize("imaginary", [0.0, 1e-13, 1e-8])
def test_complex_numbers_without_imaginary_parts(random_hamiltonian, imaginary: float) -> None:
    exact = random_hamiltonian(3, (1, 1))
    eri = ao2mo.restore(1, exact.eri, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Hamiltonian.from_arrays(exact.h1e + imaginary * 1j, eri + imaginary * 1j, exact.ecore + 0j, (1, 1))
    assert_same(found, exact)
    said = ["complex, with imaginary parts up to 1.0e-08; the real parts" in str(each.message) for each in caught]
    assert said == ([True, True] if imaginary > 1e-10 else [])


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
        ({"h1e": np.eye(2) * 1j}, "one-electron integrals must be real; these are complex, with imaginary parts up to"),
        ({"eri": np.full(6, 1 + 0.1j)}, "two-electron integrals must be real; these are complex"),
        ({"h1e": np.array([["a", "b"], ["c", "d"]])}, "one-electron integrals must be real numbers; got <U1"),
        ({"h1e": np.full((2, 2), None)}, "one-electron integrals must be real numbers; got object"),
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
