"""Whole solves in one process against PySCF, dense matrices and published energies."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.errors import InputError
from sqd_mpi.log import Log
from sqd_mpi.options import SolveOptions
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.solver import sector_search
from sqd_mpi.solver.density_matrices import density_matrices
from sqd_mpi.solver.sectors import HOW_DECIDED, Sector
from sqd_mpi.solver.solve import Progress, solve_subspace
from sqd_mpi.timing import Timers
from tests.support.problems import all_strings, close_strings, dense_matrix, make_hamiltonian, random_strings
from tests.support.searches import count_searches

LABELS = np.array([0, 1, 2, 3, 0, 1, 2])


def strings_of(norb: int, nelec: tuple[int, int], counts: tuple[int, int], seed: int = 0):
    """Random alpha and beta strings, mostly connected; the only string where there is just one."""
    return tuple(
        close_strings(norb, n, count, seed + k) if 0 < n < norb else all_strings(norb, n)
        for k, (n, count) in enumerate(zip(nelec, counts, strict=True))
    )


def pyscf_answer(hamiltonian: Hamiltonian, strings) -> tuple[float, float, np.ndarray]:
    """Energy, <S^2> and occupancies (2, norb) of PySCF's selected_ci in the same product of strings."""
    from pyscf import lib
    from pyscf.fci import selected_ci

    lib.num_threads(1)
    solver = selected_ci.SelectedCI()
    solver.verbose, solver.max_cycle, solver.max_space = 0, 300, 30
    integers = [np.array(bitstrings.to_integers(each), np.int64) for each in strings]
    norb, nelec = hamiltonian.norb, hamiltonian.nelec
    energy, vector = selected_ci.kernel_fixed_space(
        solver, hamiltonian.h1e, hamiltonian.eri_pairs(), norb, nelec, integers, tol=1e-14, tol_residual=1e-8,
        ecore=hamiltonian.ecore,
    )  # fmt: skip
    rdm1 = solver.make_rdm1s(vector, norb, nelec)
    return energy, solver.spin_square(vector, norb, nelec)[0], np.array([np.diag(each) for each in rdm1])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("norb", "nelec", "counts"),
    [
        (6, (3, 3), (12, 12)),
        (7, (3, 3), (25, 18)),
        (8, (5, 2), (30, 20)),
        (8, (6, 3), (9, 40)),
        (9, (1, 1), (5, 7)),
        (7, (4, 1), (20, 6)),
        (10, (2, 8), (30, 25)),
    ],
)
def test_agrees_with_pyscf(norb, nelec, counts, seed):
    hamiltonian = make_hamiltonian(norb, nelec, seed)
    strings = strings_of(norb, nelec, counts, seed)
    energy, spin_square, occupancies = pyscf_answer(hamiltonian, strings)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(tol=1e-8))
    root = result.roots[0]
    assert result.converged and root.converged
    assert root.energy == pytest.approx(energy, abs=1e-10)
    # <S^2> and occupancies are linear in the error of both vectors.
    assert root.spin_square == pytest.approx(spin_square, abs=1e-6)
    np.testing.assert_allclose(root.occupancies, occupancies, atol=1e-6)
    np.testing.assert_allclose(root.occupancies.sum(axis=1), nelec, atol=1e-12)


def test_symmetric_molecule_agrees_with_pyscf():
    from pyscf import gto, scf

    molecule = gto.M(atom="O 0 0 0; H 0 0.757 0.587; H 0 -0.757 0.587", basis="6-31g", symmetry=True, verbose=0)
    hamiltonian = Hamiltonian.from_pyscf(scf.RHF(molecule).run(conv_tol=1e-12))
    strings = strings_of(13, (5, 5), (80, 60))
    energy, spin_square, occupancies = pyscf_answer(hamiltonian, strings)
    result = solve_subspace(None, hamiltonian, *strings)
    assert result.symmetry.n_labels == 4
    assert result.energies[0] == pytest.approx(energy, abs=1e-10)
    assert result.roots[0].spin_square == pytest.approx(spin_square, abs=1e-5)
    np.testing.assert_allclose(result.roots[0].occupancies, occupancies, atol=1e-5)


def one_spin_matrix(hamiltonian: Hamiltonian, strings) -> np.ndarray:
    """H over strings of one spin from products of creation and annihilation operators: the definition, no kernels."""
    norb = hamiltonian.norb
    integers = bitstrings.to_integers(strings)
    everything = bitstrings.to_integers(all_strings(norb, hamiltonian.nelec[0]))
    excite = np.zeros((norb, norb, len(everything), len(everything)))  # E_pq over all strings
    where = {integer: k for k, integer in enumerate(everything)}
    for k, ket in enumerate(everything):
        for q in (orbital for orbital in range(norb) if ket >> orbital & 1):
            hole = ket ^ 1 << q
            for p in (orbital for orbital in range(norb) if not hole >> orbital & 1):
                below = (ket & ((1 << q) - 1)).bit_count() + (hole & ((1 << p) - 1)).bit_count()
                excite[p, q, where[hole | 1 << p], k] = (-1) ** below
    rows, columns = np.tril_indices(norb)
    pair = np.zeros((norb, norb), np.int64)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    eri = hamiltonian.eri_pairs()[pair[:, :, None, None], pair[None, None]]
    effective = hamiltonian.h1e - 0.5 * np.einsum("prrq->pq", eri)
    matrix = np.einsum("pq,pqij->ij", effective, excite)
    matrix += 0.5 * np.einsum("pqrs,pqij,rsjk->ik", eri, excite, excite, optimize=True)
    chosen = [where[integer] for integer in integers]
    return matrix[np.ix_(chosen, chosen)] + hamiltonian.ecore * np.eye(len(chosen))


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize(("norb", "n_electrons", "count"), [(6, 3, 15), (6, 1, 5), (5, 4, 5), (7, 2, 12)])
def test_electrons_of_one_spin_only(norb, n_electrons, count, beta):
    hamiltonian = make_hamiltonian(norb, (n_electrons, 0), seed=2)
    strings, none = close_strings(norb, n_electrons, count), all_strings(norb, 0)
    exact = np.linalg.eigvalsh(one_spin_matrix(hamiltonian, strings))[0]
    if beta:
        hamiltonian = Hamiltonian(hamiltonian.h1e, hamiltonian.eri, hamiltonian.ecore, norb, (0, n_electrons))
    result = solve_subspace(None, hamiltonian, *((none, strings) if beta else (strings, none)))
    assert result.energies[0] == pytest.approx(exact, abs=1e-10)
    assert result.roots[0].spin_square == pytest.approx(n_electrons / 2 * (n_electrons / 2 + 1), abs=1e-12)
    assert result.roots[0].occupancies[0 if beta else 1].tolist() == [0.0] * norb


@pytest.mark.parametrize(("nelec", "counts"), [((2, 3), (12, 9)), ((1, 1), (8, 8)), ((64, 2), (6, 10))])
def test_sixty_five_orbitals_against_the_reference_backend(nelec, counts):
    hamiltonian = make_hamiltonian(65, nelec, seed=1)
    strings = tuple(
        bitstrings.canonical(np.concatenate([close_strings(65, n, count - 3, k), random_strings(65, n, 3, k + 9)]))[0]
        for k, (n, count) in enumerate(zip(nelec, counts, strict=True))
    )
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[0]
    results = [
        solve_subspace(None, hamiltonian, *strings, SolveOptions(backend=name, model_space=5, tol=1e-8))
        for name in ("cpu", "reference")
    ]
    assert [result.backend for result in results] == ["cpu", "reference"]
    for result in results:
        assert result.converged and result.n_iterations > 1
        assert result.energies[0] == pytest.approx(exact, abs=1e-10)
    assert results[0].roots[0].spin_square == pytest.approx(results[1].roots[0].spin_square, abs=1e-7)


@pytest.mark.parametrize(("nelec", "counts"), [((3, 3), (1, 1)), ((3, 2), (1, 10)), ((3, 2), (8, 1)), ((6, 0), (1, 1))])
def test_one_string(nelec, counts):
    hamiltonian = make_hamiltonian(6, nelec, seed=4)
    strings = strings_of(6, nelec, counts)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(model_space=2))
    assert result.converged
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[0]
    assert result.energies[0] == pytest.approx(exact, abs=1e-10)
    if max(counts) == 1:
        assert result.roots[0].weights.alpha.tolist() == result.roots[0].weights.beta.tolist() == [1.0]
        assert result.roots[0].residual_norm < 1e-12


def test_spin_states_of_the_whole_space():
    # Full CI: every eigenvector is a spin eigenfunction.
    hamiltonian = make_hamiltonian(4, (2, 2), seed=6)
    strings = all_strings(4, 2), all_strings(4, 2)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=6, tol=1e-8, model_space=8))
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))
    np.testing.assert_allclose(result.energies, exact[:6], atol=1e-10)
    for root in result.roots:
        assert min(abs(root.spin_square - value) for value in (0.0, 2.0, 6.0)) < 1e-6


@pytest.mark.parametrize("nelec", [(3, 4), (2, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_symmetry_makes_no_difference(nelec, seed):
    hamiltonian = make_hamiltonian(7, nelec, seed, LABELS)
    strings = tuple(random_strings(7, n, 14, seed + k) for k, n in enumerate(nelec))
    auto, off = (
        solve_subspace(None, hamiltonian, *strings, SolveOptions(symmetry=name, nroots=4, model_space=6, tol=1e-8))
        for name in ("auto", "off")
    )
    assert (auto.symmetry.n_labels, off.symmetry.n_labels) == (4, 1)
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[:4]
    np.testing.assert_allclose(auto.energies, exact, atol=1e-10)
    np.testing.assert_allclose(off.energies, exact, atol=1e-10)
    for one, other in zip(auto.roots, off.roots, strict=True):
        assert one.spin_square == pytest.approx(other.spin_square, abs=1e-6)
        np.testing.assert_allclose(one.occupancies, other.occupancies, atol=1e-6)
        np.testing.assert_allclose(one.weights.alpha, other.weights.alpha, atol=1e-6)
    assert {root.sector for root in off.roots} == {0}


def two_sector_problem(shift: float) -> tuple[Hamiltonian, np.ndarray, np.ndarray]:
    """The lowest determinant is alone in its sector; four others, a little higher, couple to the lowest state.

    Orbital 0 has label 0, orbitals 1 to 4 have label 1 and hop among each other. One beta electron stays in orbital 0,
    one alpha electron is anywhere.
    """
    norb = 5
    h1e = np.diag([-1.0, *(shift + 0.001 * k for k in range(4))])
    h1e[1:, 1:] -= 0.4 * (1 - np.eye(4))
    n_pairs = norb * (norb + 1) // 2
    eri = np.zeros((n_pairs, n_pairs))
    eri[0, 0] = 0.3
    hamiltonian = Hamiltonian(h1e, eri[np.tril_indices(n_pairs)], 0.0, norb, (1, 1))
    return hamiltonian, all_strings(norb, 1), all_strings(norb, 1)[:1]


@pytest.mark.parametrize("model_space", [1, 2, 300])
@pytest.mark.parametrize("shift", [-0.6, -0.2])
def test_lowest_state_in_another_sector_than_the_lowest_determinant(shift, model_space):
    hamiltonian, *strings = two_sector_problem(shift)
    matrix = dense_matrix(hamiltonian, *strings)
    assert np.argmin(np.diag(matrix)) == 0 and np.diag(matrix)[0] == pytest.approx(-1.7)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(model_space=model_space))
    assert result.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-10)
    assert result.energies[0] < -1.75
    labels = result.symmetry.labels
    assert result.symmetry.n_labels == 2
    assert result.roots[0].sector == labels[0] ^ labels[1] == 1
    assert set(result.sectors_examined) == {Sector(0), Sector(1)}
    decision = result.sectors_examined[Sector(1)]
    assert decision.energy == pytest.approx(result.energies[0], abs=1e-12)
    assert decision.n_found == 1 and decision.how in HOW_DECIDED and result.proven


@pytest.mark.parametrize("seed", range(6))
def test_no_sector_is_missed_with_a_small_model_space(seed):
    # Strong coupling, so that model-space energies say little about the order of the sectors.
    weak = make_hamiltonian(7, (3, 3), seed, LABELS)
    hamiltonian = Hamiltonian(3 * weak.h1e - 2.5 * np.diag(np.diag(weak.h1e)), 2 * weak.eri, 0.0, 7, (3, 3))
    strings = all_strings(7, 3)[::2], all_strings(7, 3)[1::2]
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(model_space=12, tol=1e-7))
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))[0]
    assert result.converged
    assert result.energies[0] == pytest.approx(exact, abs=1e-10)


def test_strings_in_any_order_and_duplicates_make_no_difference():
    hamiltonian = make_hamiltonian(7, (3, 3))
    strings = close_strings(7, 3, 12)
    mixed = strings[np.random.default_rng(0).permutation(np.concatenate([np.arange(12), [3, 5]]))]
    expected, found = (solve_subspace(None, hamiltonian, each, strings) for each in (strings, mixed))
    assert found.energies[0] == pytest.approx(expected.energies[0], abs=1e-12)
    assert np.array_equal(found.roots[0].weights.alpha.shape, (12,))


def test_history_timings_and_counts(monkeypatch):
    monkeypatch.setattr(sector_search, "LEAST_STIRRED", np.inf)  # so that there is a guard
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    timers = Timers()
    options = SolveOptions(model_space=4, spin_flip="off")  # one sector
    result = solve_subspace(None, hamiltonian, strings, strings, options, log=Log.silent(), timers=timers)
    n_iterations = result.n_iterations
    assert {"sector", "energy", "residual_norm", "seconds"} <= set(result.history)
    assert {len(values) for values in result.history.values()} == {n_iterations}
    energies, norms = result.history["energy"], result.history["residual_norm"]
    alone = np.isnan(energies[:, 1])  # then a second root shows whether there is none below
    assert np.all(np.diff(energies[alone, 0]) < 1e-12) and energies[alone, 0][-1] == result.energies[0]
    assert norms[alone, 0][-1] == result.roots[0].residual_norm <= 1e-6
    assert energies[-1, 0] == pytest.approx(result.energies[0], abs=1e-11) and energies[-1, 1] > result.energies[0]
    assert np.all(np.diff(result.history["seconds"]) > 0)
    assert alone.sum() > 3 and n_iterations <= result.n_sigma <= n_iterations + 3
    assert {"sigma", "symmetry", "structure", "model space"} <= set(result.timings)
    for low, mean, high in result.timings.values():
        assert 0 <= low <= mean <= high
    assert result.solve_seconds >= result.timings["sigma"][1] > 0
    assert result.sigma_seconds > 0


def test_not_converged_is_a_result():
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    options = SolveOptions(model_space=4, max_iterations=3, spin_flip="off")
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    assert not result.converged and not result.roots[0].converged and not result.stopped
    assert result.n_iterations == 3
    assert result.roots[0].residual_norm > 1e-6


def test_hook_stops_the_solve():
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    seen: list[int] = []

    def hook(progress: Progress) -> bool:
        seen.append(progress.iteration)
        return progress.iteration == 2

    result = solve_subspace(None, hamiltonian, strings, strings, SolveOptions(model_space=4), hook=hook)
    assert result.stopped and seen == [1, 2]


@pytest.mark.parametrize("max_subspace", [4, 5, 40])
def test_size_of_the_subspace_makes_no_difference(max_subspace):
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    options = SolveOptions(model_space=4, max_subspace=max_subspace, max_iterations=400)
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    exact = solve_subspace(None, hamiltonian, strings, strings)
    assert result.converged and result.max_subspace == max_subspace
    assert result.energies[0] == pytest.approx(exact.energies[0], abs=1e-10)


def test_one_root_takes_ten_vectors(monkeypatch):
    """Four of the basis, their images, the diagonal, and the root that is known while others are sought."""
    monkeypatch.setattr(sector_search, "LEAST_STIRRED", np.inf)  # so that a root is guarded
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    widths = []

    def hook(progress: Progress) -> bool:
        widths.append((len(progress.step.energies), progress.step.subspace))
        return False

    options = SolveOptions(model_space=4, spin_flip="off", symmetry="off")
    result = solve_subspace(None, hamiltonian, strings, strings, options, hook=hook)
    assert result.converged and result.proven
    assert {width for width, _ in widths} == {1, 2} and max(size for _, size in widths) <= 4
    assert result.memory["vectors"] == 10 * 8 * 900


@pytest.mark.parametrize("max_subspace", [6, None])
def test_several_roots_take_what_was_planned(max_subspace):
    hamiltonian = make_hamiltonian(8, (4, 4), seed=1)
    strings = close_strings(8, 4, 30)
    options = SolveOptions(model_space=4, nroots=2, max_subspace=max_subspace, spin_flip="off", max_iterations=400)
    result = solve_subspace(None, hamiltonian, strings, strings, options)
    np.testing.assert_allclose(result.energies, np.linalg.eigvalsh(dense_matrix(hamiltonian, strings, strings))[:2])
    assert result.memory["vectors"] <= (2 * result.max_subspace + 2) * 8 * 900


def test_residual_norm_is_that_of_the_vector():
    hamiltonian = make_hamiltonian(6, (3, 2), seed=5)
    strings = strings_of(6, (3, 2), (14, 11))
    matrix = dense_matrix(hamiltonian, *strings)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=2, tol=1e-5, model_space=4))
    for k, root in enumerate(result.roots):
        vector = result.gather(k).ravel()
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-12)
        residual = np.linalg.norm(matrix @ vector - root.energy * vector)
        assert residual == pytest.approx(root.residual_norm, rel=1e-4, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a, b: (a[:0], b), "no alpha strings"),
        (lambda a, b: (b, b), "alpha string 1 has 2 electrons; the Hamiltonian has 3"),
        (lambda a, b: (a, b | np.uint64(1 << 40)), "occupies orbital 40"),
        (lambda a, b: (a, np.repeat(b, 2, axis=1)), "are an array"),
    ],
)
def test_strings_that_do_not_fit(change, sentence):
    strings = strings_of(6, (3, 2), (5, 4))
    with pytest.raises(InputError, match=sentence):
        solve_subspace(None, make_hamiltonian(6, (3, 2)), *change(*strings))


def test_more_roots_than_determinants():
    strings = strings_of(6, (3, 2), (2, 2))
    hamiltonian = make_hamiltonian(6, (3, 2))
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=4))
    np.testing.assert_allclose(result.energies, np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings)), atol=1e-10)
    with pytest.raises(InputError, match="^nroots 5 needs"):
        solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=5))


@pytest.mark.parametrize(
    ("folder", "name", "n_strings", "energy"),
    [
        ("h2o", "h2o-1em3-alpha.txt", 275, -76.2359466308),
        ("h2o", "h2o-1em4-alpha.txt", 1543, -76.2429584823),
        ("n2", "1em3-alpha.txt", 239, -109.0416210981),
    ],
)
def test_published_inputs(data_dir, folder, name, n_strings, energy):
    hamiltonian = Hamiltonian.from_fcidump(data_dir / folder / "fcidump.txt")
    strings = bitstrings.read_text_file(data_dir / folder / name, hamiltonian.norb)
    assert len(strings) == n_strings
    result = solve_subspace(None, hamiltonian, strings, strings)
    assert result.converged
    assert result.energies[0] == pytest.approx(energy, abs=1e-9)
    assert -1e-6 < result.roots[0].spin_square < 0.01  # a singlet, up to what the choice of strings breaks


@pytest.mark.parametrize("seed", [3, 4, 17])
@pytest.mark.parametrize("model_space, nroots", [(10, 1), (10, 3), (60, 1), (120, 3)])
def test_no_state_is_missed_for_a_poor_model_space(seed, model_space, nroots):
    hamiltonian = make_hamiltonian(7, (3, 4), seed, np.array([0, 1, 2, 3, 0, 1, 2]))
    strings = all_strings(7, 3)[:30], all_strings(7, 4)[5:]
    exact = np.linalg.eigvalsh(dense_matrix(hamiltonian, *strings))
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(model_space=model_space, nroots=nroots))
    assert result.converged
    np.testing.assert_allclose(result.energies, exact[:nroots], atol=1e-10)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("labels", [None, LABELS], ids=["one label", "four labels"])
def test_singles_are_found_once_a_spin(same, labels, monkeypatch):
    """Sectors, model spaces, both operators and density matrices take them from the space."""
    hamiltonian = make_hamiltonian(7, (3, 3), 2, labels)
    strings = close_strings(7, 3, 30), close_strings(7, 3, 30 if same else 29)
    degrees = count_searches(monkeypatch)
    result = solve_subspace(None, hamiltonian, *strings, SolveOptions(nroots=3, model_space=5))
    density_matrices(result, 1, 2)
    assert result.converged and degrees.count(1) == (1 if same else 2)


def test_the_line_of_an_iteration_shows_the_lowest_energy_and_the_largest_residual(capsys):
    hamiltonian, strings = make_hamiltonian(7, (3, 3), 1), close_strings(7, 3, 30)
    result = solve_subspace(None, hamiltonian, strings, strings, SolveOptions(nroots=3, model_space=5), log=Log(0))
    rows = [line.split() for line in capsys.readouterr().err.splitlines() if line.split()[0].isdigit()]
    shown = [(float(row[2]), float(row[4])) for row in rows]
    energies, norms = np.nanmin(result.history["energy"], axis=1), np.nanmax(result.history["residual_norm"], axis=1)
    kept = list(zip(energies, norms, strict=True))
    close = [any(np.allclose(one, other, rtol=1e-3, atol=1e-9) for other in kept) for one in shown]
    assert len(shown) > 2 and all(close)
