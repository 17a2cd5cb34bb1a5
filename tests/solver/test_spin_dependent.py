"""Spin-dependent (UHF) Hamiltonians: against PySCF's direct_uhf and the brute-force definition."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.app.cli import main
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.symmetry import find_labels
from sqd_mpi.solver.density_matrices import density_matrices
from sqd_mpi.solver.solve import solve_subspace
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian, spin_dependent, turned


@pytest.mark.parametrize(("norb", "nelec"), [(5, (3, 2)), (5, (2, 2)), (5, (2, 0)), (4, (4, 1))])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_against_pyscf(norb, nelec, backend):
    from pyscf import fci, lib

    lib.num_threads(1)
    hamiltonian = spin_dependent(norb, nelec)
    strings = tuple(all_strings(norb, n) for n in nelec)
    h1e = hamiltonian.same_spin(0)[0], hamiltonian.same_spin(1)[0]
    eri = hamiltonian.same_spin(0)[1], hamiltonian.coupling(), hamiltonian.same_spin(1)[1]
    shape = tuple(len(each) for each in strings)
    link = fci.direct_uhf.absorb_h1e(h1e, eri, norb, nelec, 0.5)
    rows = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    exact = np.linalg.eigvalsh([fci.direct_uhf.contract_2e(link, row, norb, nelec).ravel() for row in rows])
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=2, tol=1e-8, backend=backend))
    np.testing.assert_allclose(result.energies, exact[:2] + hamiltonian.ecore, atol=1e-10)
    assert all(root.parity == 0 for root in result.roots)


@pytest.mark.parametrize("nelec", [(3, 3), (4, 2), (2, 3)])
def test_kernels_against_the_definition(nelec):
    labels = np.array([0, 1, 0, 1, 0, 1, 1])
    for hamiltonian in (spin_dependent(7, nelec), spin_dependent(7, nelec, 4, labels)):
        strings = tuple(close_strings(7, n, 12, k) for k, n in enumerate(nelec))
        square = dense_matrix(hamiltonian, *strings, Interaction.spin_square(hamiltonian))
        exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))
        result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=2, tol=1e-9, model_space=5))
        np.testing.assert_allclose(result.energies, exact[:2], atol=1e-10)
        for k, root in enumerate(result.roots):
            vector = result.gather(k).ravel()
            assert root.spin_square == pytest.approx(vector @ square @ vector, abs=1e-10)


@pytest.mark.parametrize("spin_square", [None, 0.0, 2.0, 6.0])
def test_turned_orbitals_change_nothing_in_full_ci(spin_square):
    restricted = make_hamiltonian(5, (3, 3), 2)
    strings = all_strings(5, 3), all_strings(5, 3)
    strength = None if spin_square is None else 3.0
    options = SolveOptions(spin_square=spin_square, nroots=2, tol=1e-8, spin_penalty=strength)
    expected, found = (solve_subspace(None, each, *strings, options) for each in (restricted, turned(restricted)))
    np.testing.assert_allclose(found.energies, expected.energies, atol=1e-10)
    for one, other in zip(found.roots, expected.roots, strict=True):
        assert one.spin_square == pytest.approx(other.spin_square, abs=1e-7)
        assert one.parity == 0


def test_labels_from_the_joint_null_space():
    labels = np.array([0, 1, 2, 3, 0, 1, 2])
    restricted = make_hamiltonian(7, (3, 3), 1, labels)
    both = turned(restricted, 5, labels)
    found = find_labels(both)
    assert found.n_labels == 4
    assert np.array_equal(found.both[0], found.both[1])  # the overlap ties them together
    free = Hamiltonian(
        both.h1e, both.eri, both.ecore, 7, (3, 3), h1e_b=both.h1e_b, eri_bb=both.eri_bb, eri_ab=both.eri_ab
    )
    assert find_labels(free).n_labels == 4
    strings = close_strings(7, 3, 25), close_strings(7, 3, 20, 4)
    on, off = (solve_subspace(None, free, *strings, SolveOptions(symmetry=each)) for each in ("auto", "off"))
    assert on.energies[0] == pytest.approx(off.energies[0], abs=1e-10)
    assert on.roots[0].layout.dimension < off.roots[0].layout.dimension


@pytest.mark.parametrize("seed", [0, 3])
def test_energy_from_density_matrices(seed):
    hamiltonian = spin_dependent(6, (3, 2), seed, np.array([0, 1, 1, 0, 0, 1]) if seed else None)
    strings = close_strings(6, 3, 14), close_strings(6, 2, 11)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(tol=1e-9))
    found = density_matrices(result)
    p, q = np.tril_indices(6)
    full = np.zeros((6, 6), np.int64)
    full[p, q] = full[q, p] = np.arange(len(p))
    aa, bb, ab = (
        each[full[:, :, None, None], full[None, None]]
        for each in (hamiltonian.same_spin(0)[1], hamiltonian.same_spin(1)[1], hamiltonian.coupling())
    )
    energy = hamiltonian.ecore + np.sum(hamiltonian.h1e * found.alpha) + np.sum(hamiltonian.h1e_b * found.beta)
    energy += 0.5 * np.sum(aa * found.two_aa) + 0.5 * np.sum(bb * found.two_bb) + np.sum(ab * found.two_ab)
    assert energy == pytest.approx(result.energies[0], abs=1e-9)
    overlap = hamiltonian.overlap_ab
    square = 0.75 + 2 - np.einsum("ps,qr,pqrs->", overlap, overlap, found.two_ab)
    assert result.roots[0].spin_square == pytest.approx(square, abs=1e-9)


@pytest.mark.parametrize("norb", [65, pytest.param(130, marks=pytest.mark.slow)])
def test_many_orbitals(norb):
    rng = np.random.default_rng(0)
    restricted = [make_hamiltonian(norb, (2, 3), k) for k in range(2)] if norb == 65 else None
    npair = norb * (norb + 1) // 2
    if restricted is None:  # a sparse set of integrals: random ones of this size take too long
        h1e = np.stack([np.diag(np.linspace(-2, 2, norb)), np.diag(np.linspace(-2, 2.2, norb))])
        h1e += 0.1 * (np.eye(norb, k=1) + np.eye(norb, k=-1))
        eri = np.zeros(npair * (npair + 1) // 2)
        eri[rng.integers(0, len(eri), 100_000)] = 0.1
        ab = np.zeros((npair, npair))
        ab[rng.integers(0, npair, 100_000), rng.integers(0, npair, 100_000)] = 0.1
        hamiltonian = Hamiltonian(h1e[0], eri, 0.0, norb, (2, 3), h1e_b=h1e[1], eri_bb=2 * eri, eri_ab=ab)
    else:
        one, other = restricted
        hamiltonian = Hamiltonian(
            one.h1e, one.eri, 0.0, norb, (2, 3), h1e_b=other.h1e, eri_bb=other.eri, eri_ab=one.eri_pairs(),
            overlap_ab=np.eye(norb),
        )  # fmt: skip
    low = [(1 << k) | (1 << (k + d)) for k, d in ((0, 1), (62, 1), (62, 2), (63, 1), (norb - 2, 1), (1, 63))]
    strings_a = bitstrings.canonical(bitstrings.from_integers(low, norb))[0]
    strings_b = close_strings(norb, 3, 8)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, strings_a, strings_b))[0]
    options = SolveOptions(model_space=3, tol=1e-8, symmetry="off")
    result = solve_subspace(None, hamiltonian, strings_a, strings_b, options)
    assert result.converged
    assert result.energies[0] == pytest.approx(exact, abs=1e-10)


def test_missing_overlap():
    whole = spin_dependent(5, (2, 2))
    hamiltonian = Hamiltonian(
        whole.h1e, whole.eri, 0.0, 5, (2, 2), h1e_b=whole.h1e_b, eri_bb=whole.eri_bb, eri_ab=whole.eri_ab
    )
    strings = all_strings(5, 2), all_strings(5, 2)
    log = Log.silent()
    result = solve_subspace(None, hamiltonian, *strings, log=log)
    assert result.converged and result.roots[0].spin_square is None and result.roots[0].spin_pure is None
    assert ["<S^2> is not known" in warning for warning in log.warnings] == [True]
    with pytest.raises(InputError, match="^spin_square needs the overlap"):
        solve_subspace(None, hamiltonian, *strings, SolveOptions(spin_square=0))


def test_pyscf_objects():
    from pyscf import fci, gto, mcscf, scf

    mol = gto.M(atom="O 0 0 0; H 0 0 0.97", basis="sto-3g", spin=1, verbose=0)
    mean_field = scf.UHF(mol).run(conv_tol=1e-12)
    hamiltonian = Hamiltonian.from_pyscf(mean_field)
    strings = tuple(all_strings(hamiltonian.norb, n) for n in hamiltonian.nelec)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(tol=1e-8))
    cisolver = fci.FCI(mean_field)
    cisolver.conv_tol = 1e-13
    energy = cisolver.kernel()[0]
    assert result.energies[0] == pytest.approx(energy, abs=1e-9)
    assert result.roots[0].spin_square == pytest.approx(0.75, abs=1e-6) and result.roots[0].spin_pure
    active = Hamiltonian.from_pyscf(mean_field, 4, (3, 2))
    assert active.spin_dependent and active.overlap_ab is None
    expected = mcscf.UCASCI(mean_field, 4, (3, 2)).run(verbose=0).e_tot
    found = solve_subspace(None, active, all_strings(4, 3), all_strings(4, 2))
    assert found.energies[0] == pytest.approx(expected, abs=1e-9)


def write_fcidump(path, hamiltonian: Hamiltonian, header: str) -> None:
    """The six parts of a UHF FCIDUMP."""
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    pairs = [(p + 1, q + 1) for p in range(norb) for q in range(p + 1)]
    lines = [f"&FCI NORB={norb},NELEC={sum(nelec)},MS2={nelec[0] - nelec[1]},{header},", " ISYM=1,", "&END"]
    for spins, matrix in (
        ("aa", hamiltonian.same_spin(0)[1]), ("bb", hamiltonian.same_spin(1)[1]), ("ab", hamiltonian.coupling())
    ):  # fmt: skip
        for i, (p, q) in enumerate(pairs):
            lines += [
                f"{matrix[i, j]!r} {p} {q} {r} {s}".replace("np.float64(", "").replace(")", "")
                for j, (r, s) in enumerate(pairs)
                if spins == "ab" or j <= i
            ]
        lines.append("0.0 0 0 0 0")
    for spin in (0, 1):
        h1e = hamiltonian.same_spin(spin)[0]
        lines += [f"{float(h1e[p - 1, q - 1])!r} {p} {q} 0 0" for p, q in pairs] + ["0.0 0 0 0 0"]
    path.write_text("\n".join([*lines, f"{hamiltonian.ecore!r} 0 0 0 0"]) + "\n")


@pytest.mark.parametrize("header", ["IUHF=1", "UHF=.TRUE."])
def test_fcidump_and_input_files(tmp_path, header, capsys):
    whole = spin_dependent(4, (2, 1))
    dump = tmp_path / "FCIDUMP"
    write_fcidump(dump, whole, header)
    found = Hamiltonian.from_fcidump(dump)
    assert found.spin_dependent and found.nelec == (2, 1) and found.ecore == whole.ecore
    for name in ("h1e", "eri", "h1e_b", "eri_bb", "eri_ab"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    records.write_input(tmp_path / "input.h5", whole, all_strings(4, 2), all_strings(4, 1))
    again = records.read_input(tmp_path / "input.h5").hamiltonian
    assert again.fingerprint() == whole.fingerprint() != found.fingerprint()
    assert records.read_summary(tmp_path / "input.h5")["spin_dependent"] is True
    (tmp_path / "alpha.txt").write_text("0011\n0101\n")
    (tmp_path / "beta.txt").write_text("0001\n0010\n")
    arguments = ["--alpha", str(tmp_path / "alpha.txt"), "--beta", str(tmp_path / "beta.txt")]
    assert main(["import", "fcidump", str(dump), *arguments, "-o", str(tmp_path / "other.h5")]) == 0
    assert records.read_input(tmp_path / "other.h5").hamiltonian.fingerprint() == found.fingerprint()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("0.0 0 0 0 0\n", "", 1), "5 lines have no index"),
        (lambda text: text[: len(text) // 2], "lines have no index"),
        (lambda text: text.replace(" 1 1 1 1\n", " 1 1 0 0\n", 1), "do not belong into this part"),
    ],
)
def test_broken_fcidump(tmp_path, change, sentence):
    dump = tmp_path / "FCIDUMP"
    write_fcidump(dump, spin_dependent(3, (1, 1)), "IUHF=1")
    text = change(dump.read_text())
    dump.write_text(text[: text.rindex("\n")] + "\n")
    with pytest.raises(InputError, match=sentence):
        Hamiltonian.from_fcidump(dump)


def test_arrays_are_checked():
    whole = spin_dependent(3, (1, 1))
    with pytest.raises(InputError, match="one lacks"):
        Hamiltonian(whole.h1e, whole.eri, 0.0, 3, (1, 1), h1e_b=whole.h1e_b)
    with pytest.raises(InputError, match=r"eri_ab of 3 orbitals is \(6, 6\)"):
        Hamiltonian(
            whole.h1e, whole.eri, 0.0, 3, (1, 1), h1e_b=whole.h1e_b, eri_bb=whole.eri_bb, eri_ab=np.zeros((3, 3))
        )
    with pytest.raises(InputError, match="an overlap of alpha and beta orbitals needs"):
        Hamiltonian(whole.h1e, whole.eri, 0.0, 3, (1, 1), overlap_ab=np.eye(3))
    with pytest.raises(InputError, match="three arrays"):
        Hamiltonian.from_arrays(np.zeros((2, 3, 3)), np.zeros(21), 0.0, (1, 1))


@pytest.mark.parametrize("command", [["run", "input.h5", "--pt2"], ["extrapolate", "input.h5", "--thresholds", "1e-2"]])
def test_second_order_is_refused_before_the_solve(tmp_path, monkeypatch, capsys, command):
    strings = [all_strings(4, n) for n in (2, 1)]
    records.write_input(tmp_path / "input.h5", spin_dependent(4, (2, 1)), *strings)
    monkeypatch.chdir(tmp_path)
    assert main([*command, "-o", "output"]) == 2
    sentence = "sqd_mpi: error: the second-order correction needs integrals that do not depend on spin\n"
    assert capsys.readouterr().err == sentence
    assert [path.name for path in tmp_path.iterdir()] == ["input.h5"]
