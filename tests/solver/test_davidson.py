"""The eigensolver on dense matrices in numpy: no package arrays, no kernels, no MPI."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sqd_mpi.distribution import vectors as fast_vectors
from sqd_mpi.distribution.memory import HOST
from sqd_mpi.solver.davidson import Step, davidson, default_subspace, least_subspace


def _residuals(basis, images, coefficients, energies, shifts, diagonal, floor, out):
    """The definition of `vectors.residuals`."""
    residual = coefficients @ images - energies[:, None] * (coefficients @ basis)
    squares = (residual**2).sum(axis=1)
    denominator = shifts[:, None] - diagonal[None, :]
    small = np.abs(denominator) < floor
    denominator = np.where(small, np.where(denominator >= 0, floor, -floor), denominator)
    out[:] = residual / denominator
    return squares, (residual * out).sum(axis=1), out @ basis.T, out @ out.T


def _project_out(vectors, basis, overlaps, transform):
    """The definition of `vectors.project_out`."""
    vectors[: len(transform)] = transform @ (vectors - overlaps @ basis)


def _rotate(vectors, coefficients):
    """The definition of `vectors.rotate`."""
    vectors[: len(coefficients)] = coefficients @ vectors[: coefficients.shape[1]]


PLAIN = SimpleNamespace(
    gram=lambda first, second: first @ second.T, grams=lambda a, b, basis: (a @ basis.T, b @ basis.T),
    residuals=_residuals, project_out=_project_out, rotate=_rotate,
    dot=np.dot,
)  # fmt: skip


class Dense:
    """A symmetric matrix as an operator."""

    memory = HOST
    rough = False

    def __init__(self, matrix, vectors=PLAIN):
        self.matrix = matrix
        self.vectors = vectors
        self.size = self.dimension = len(matrix)
        self.n_sigma = self.n_sums = 0

    def matvec(self, vector, out):
        """out = matrix vector."""
        self.n_sigma += 1
        out[:] = self.matrix @ vector

    exact = matvec

    def purify(self, vector, scratch=(), exact=True):
        """Nothing to take out."""
        return 1.0

    def diagonal(self):
        """Diagonal of the matrix."""
        return np.diag(self.matrix).copy()

    def lowest_diagonal(self, count):
        """The lowest elements of it."""
        return np.sort(np.append(self.diagonal(), np.full(count, np.inf)))[:count]

    def sum_over_ranks(self, values):
        """There is one rank."""
        assert values.flags.c_contiguous
        self.n_sums += 1


class Rounded(Dense):
    """The same with products in single precision but for the diagonal, or far rougher ones."""

    rough = True

    def __init__(self, matrix, noise=0.0):
        super().__init__(matrix)
        self.rounded = (matrix - np.diag(np.diag(matrix))).astype(np.float32)
        self.n_exact, self.noise, self.rng = 0, noise, np.random.default_rng(1)

    def matvec(self, vector, out):
        """out = matrix vector, nearly."""
        self.n_sigma += 1
        out[:] = self.rounded @ vector.astype(np.float32) + np.diag(self.matrix) * vector
        out += self.noise * self.rng.normal(size=len(vector)) / np.sqrt(len(vector))

    def exact(self, vector, out):
        """out = matrix vector."""
        self.n_exact += 1
        super().matvec(vector, out)


def molecule_like(size: int, seed: int = 0, coupling: float = 0.1) -> np.ndarray:
    """A matrix with a spread diagonal and weaker random coupling."""
    rng = np.random.default_rng(seed)
    matrix = coupling * rng.normal(size=(size, size))
    return matrix + matrix.T + np.diag(np.linspace(-3.0, 6.0, size) + 0.05 * rng.normal(size=size))


def with_spectrum(values: list[float], size: int, seed: int = 1) -> np.ndarray:
    """A matrix with these lowest eigenvalues (the others above them) and eigenvectors close to unit vectors."""
    rng = np.random.default_rng(seed)
    spectrum = np.concatenate([values, np.linspace(max(values) + 1.0, max(values) + 8.0, size - len(values))])
    noise = 0.02 * rng.normal(size=(size, size))
    rotation, _ = np.linalg.qr(np.eye(size) + noise - noise.T)
    return rotation @ np.diag(spectrum) @ rotation.T


def unit_start(matrix: np.ndarray, count: int):
    """Start vectors: the unit vectors of the lowest diagonal elements."""

    def start(out):
        n_start = min(count, len(matrix), len(out))
        out[:n_start] = np.eye(len(matrix))[np.argsort(np.diag(matrix))[:n_start]]
        return n_start

    return start


def check(matrix, found, nroots, tol):
    """Energies, vectors, norms and residuals against numpy."""
    exact = np.linalg.eigvalsh(matrix)[:nroots]
    assert found.converged.tolist() == [True] * nroots
    np.testing.assert_allclose(found.energies, exact, atol=1e-10)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(nroots), atol=1e-10)
    residual = found.vectors @ matrix - found.energies[:, None] * found.vectors
    np.testing.assert_allclose(np.linalg.norm(residual, axis=1), found.residual_norms, atol=1e-10)
    assert np.all(found.residual_norms <= tol)
    assert not found.stopped


@pytest.mark.parametrize("vectors", [PLAIN, fast_vectors], ids=["plain", "fast"])
@pytest.mark.parametrize("nroots", [1, 2, 5])
def test_lowest_roots(nroots, vectors):
    matrix = molecule_like(200)
    operator = Dense(matrix, vectors)
    found = davidson(operator, unit_start(matrix, nroots), nroots, tol=1e-7)
    check(matrix, found, nroots, 1e-7)
    assert found.n_sigma == operator.n_sigma
    assert found.vectors.flags.c_contiguous


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("extra", [0, 1, 2, 4])
@pytest.mark.parametrize("nroots", [1, 3])
def test_small_subspaces(nroots, extra, seed):
    matrix = molecule_like(60, seed, coupling=0.02)
    size = least_subspace(nroots) + extra
    found = davidson(Dense(matrix), unit_start(matrix, nroots), nroots, 1e-7, 2000, size)
    check(matrix, found, nroots, 1e-7)


def test_the_subspace_keeps_its_limit():
    matrix = molecule_like(150, coupling=0.08)
    sizes = []

    def callback(step: Step) -> bool:
        sizes.append(step.subspace)
        return False

    davidson(Dense(matrix), unit_start(matrix, 2), 2, 1e-7, 400, 6, callback)
    assert max(sizes) <= 6 and len(sizes) > 6


def test_restarts_cost_little():
    matrix = molecule_like(300, coupling=0.02)
    unlimited = davidson(Dense(matrix), unit_start(matrix, 1), 1, 1e-7, 200, 200)
    default = davidson(Dense(matrix), unit_start(matrix, 1), 1, 1e-7, 200, default_subspace(1))
    assert default.n_iterations <= 1.3 * unlimited.n_iterations + 2


@pytest.mark.parametrize("nroots", [2, 3, 4])
def test_degenerate_roots(nroots):
    matrix = with_spectrum([-2.0, -2.0, -2.0, -1.5], 80)
    found = davidson(Dense(matrix), unit_start(matrix, nroots), nroots, 1e-7)
    check(matrix, found, nroots, 1e-7)


def test_nearly_degenerate_roots():
    matrix = with_spectrum([-2.0, -2.0 + 1e-7, -1.999], 60)
    check(matrix, davidson(Dense(matrix), unit_start(matrix, 3), 3, 1e-8), 3, 1e-8)


@pytest.mark.parametrize(("dimension", "nroots"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("max_subspace", ["least", None, 50])
def test_smallest_spaces(dimension, nroots, max_subspace):
    matrix = molecule_like(dimension, seed=4, coupling=0.5)
    size = least_subspace(nroots) if max_subspace == "least" else max_subspace
    found = davidson(Dense(matrix), unit_start(matrix, nroots), nroots, 1e-9, 200, size)
    check(matrix, found, nroots, 1e-9)


def test_diagonal_matrix_converges_at_once():
    matrix = np.diag(np.arange(20.0))
    found = davidson(Dense(matrix), unit_start(matrix, 3), 3)
    check(matrix, found, 3, 1e-6)
    assert (found.n_iterations, found.n_sigma) == (1, 3)


@pytest.mark.parametrize("vectors", [PLAIN, fast_vectors], ids=["plain", "fast"])
@pytest.mark.parametrize("coupling", [0.0, 1e-8, 1e-4, 1e-2])
@pytest.mark.parametrize("nroots", [1, 3])
def test_nearly_diagonal_matrix_from_random_vectors(nroots, coupling, vectors):
    """There r / (E - d) is nearly -x, which leads nowhere."""
    matrix = molecule_like(400, coupling=coupling)

    def start(out):
        out[:nroots] = np.random.default_rng(3).normal(size=(nroots, 400))
        return nroots

    found = davidson(Dense(matrix, vectors), start, nroots, tol=1e-8, max_iterations=150)
    check(matrix, found, nroots, 1e-8)


def test_matrix_of_zeros():
    matrix = np.zeros((6, 6))
    check(matrix, davidson(Dense(matrix), unit_start(matrix, 2), 2), 2, 1e-6)


def test_exact_start_vectors():
    matrix = molecule_like(50)
    eigenvectors = np.linalg.eigh(matrix)[1]

    def start(out):
        out[:2] = eigenvectors[:, :2].T
        return 2

    found = davidson(Dense(matrix), start, 2, 1e-8)
    check(matrix, found, 2, 1e-8)
    assert found.n_iterations == 1


def test_start_vectors_need_no_normalisation():
    matrix = molecule_like(50)

    def start(out):
        out[:2] = 1e3 * np.eye(50)[:2] + 5.0
        return 2

    check(matrix, davidson(Dense(matrix), start, 1, 1e-8), 1, 1e-8)


@pytest.mark.parametrize("nroots", [1, 2])
def test_linearly_dependent_start_vectors(nroots):
    matrix = molecule_like(60)

    def start(out):
        rng = np.random.default_rng(0)
        out[:2] = rng.normal(size=(2, 60))
        out[2] = out[0] - 2.0 * out[1]
        out[3] = out[1] + 1e-9 * out[0]
        return 4

    check(matrix, davidson(Dense(matrix), start, nroots, 1e-7), nroots, 1e-7)


def test_fewer_independent_start_vectors_than_roots():
    matrix = molecule_like(60)

    def start(out):
        out[:3] = np.random.default_rng(0).normal(size=60)
        return 3

    check(matrix, davidson(Dense(matrix), start, 3, 1e-7), 3, 1e-7)


def test_not_converged_is_said():
    matrix = molecule_like(200)
    found = davidson(Dense(matrix), unit_start(matrix, 2), 2, tol=1e-9, max_iterations=3)
    assert not found.converged.any() and not found.stopped
    assert found.n_iterations == 3
    assert np.all(found.residual_norms > 1e-9)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.einsum("ij,jk,ik->i", found.vectors, matrix, found.vectors), found.energies)


def test_unreachable_tolerance_ends():
    # Rounding bounds the residual; the solver must not spin or fail when nothing new is left.
    matrix = molecule_like(30)
    found = davidson(Dense(matrix), unit_start(matrix, 1), 1, tol=1e-300, max_iterations=150)
    assert not found.converged[0]
    assert found.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-12)
    assert found.residual_norms[0] < 1e-12


def test_callback_sees_every_iteration_and_stops():
    matrix = molecule_like(200)
    steps: list[Step] = []

    def callback(step: Step) -> bool:
        steps.append(step)
        return step.iteration == 4

    found = davidson(Dense(matrix), unit_start(matrix, 1), 1, tol=1e-9, callback=callback)
    assert found.stopped and not found.converged.any()
    assert [step.iteration for step in steps] == [1, 2, 3, 4]
    assert all(later.energies[0] < earlier.energies[0] for earlier, later in zip(steps, steps[1:], strict=False))
    assert steps[-1].energies[0] == found.energies[0]
    assert [step.n_sigma for step in steps] == [1, 2, 3, 4]
    assert all(step.residual_norms.shape == (1,) and step.seconds >= 0 for step in steps)


@pytest.mark.parametrize("nroots", [1, 2])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("max_subspace", ["least", None])
def test_ritz_vectors_for_a_checkpoint_do_not_disturb_the_solve(nroots, every, max_subspace):
    matrix = molecule_like(120, coupling=0.08)
    seen = []

    def callback(step: Step) -> bool:
        if step.iteration % every == 0:
            vectors = np.array(step.vectors()[:nroots])
            np.testing.assert_allclose(vectors @ vectors.T, np.eye(nroots), atol=1e-10)
            energies = np.einsum("ij,jk,ik->i", vectors, matrix, vectors)
            np.testing.assert_allclose(energies, step.energies, atol=1e-10)
            seen.append(step.iteration)
        return False

    size = least_subspace(nroots) if max_subspace == "least" else None
    found = davidson(Dense(matrix), unit_start(matrix, nroots), nroots, 1e-7, 300, size, callback)
    check(matrix, found, nroots, 1e-7)
    assert len(seen) >= 2


def test_going_on_from_the_ritz_vectors_of_a_stopped_solve():
    matrix = molecule_like(120, coupling=0.08)
    first = davidson(Dense(matrix), unit_start(matrix, 2), 2, 1e-8, callback=lambda step: step.iteration == 8)

    def start(out):
        out[:2] = first.vectors
        return 2

    again = davidson(Dense(matrix), start, 2, 1e-8)
    check(matrix, again, 2, 1e-8)
    np.testing.assert_allclose(
        np.einsum("ij,jk,ik->i", first.vectors, matrix, first.vectors), first.energies, atol=1e-12
    )


def test_few_reductions_per_iteration():
    matrix = molecule_like(200)
    operator = Dense(matrix)
    found = davidson(operator, unit_start(matrix, 3), 3, 1e-7)
    # Two per iteration, two for the start, and a few more where orthogonalisation is repeated.
    assert operator.n_sums <= 3 * found.n_iterations + 2


def test_state_below_the_lowest_diagonal_element_is_found():
    # Off-diagonal coupling pulls a state from far above to the bottom.
    matrix = np.diag(np.linspace(0.0, 1.0, 40))
    matrix[20:, 20:] -= 0.5
    check(matrix, davidson(Dense(matrix), unit_start(matrix, 21), 1, 1e-8, max_subspace=25), 1, 1e-8)


def test_dependent_exact_start_vectors_are_filled_up():
    matrix = np.diag(np.arange(5.0))

    def start(out):
        out[:2] = np.eye(5)[0]
        return 2

    result = davidson(Dense(matrix), start, nroots=2, tol=1e-8)
    assert result.converged.all()
    np.testing.assert_allclose(result.energies, [0.0, 1.0], atol=1e-12)


def lowest(matrix: np.ndarray, chosen: list[int], error: float = 0.0) -> np.ndarray:
    """Eigenvectors by number, with random errors of about that norm, of norm 1."""
    rows = np.linalg.eigh(matrix)[1].T[chosen]
    rows = rows + error / np.sqrt(len(matrix)) * np.random.default_rng(5).normal(size=rows.shape)
    return np.ascontiguousarray(np.linalg.qr(rows.T)[0].T)


@pytest.mark.parametrize("vectors", [PLAIN, fast_vectors], ids=["plain", "fast"])
@pytest.mark.parametrize("error", [0.0, 1e-8, 1e-6])
@pytest.mark.parametrize("known", [[0], [1], [0, 1, 2], [0, 3]], ids=str)
@pytest.mark.parametrize("nroots", [1, 2])
def test_roots_beside_locked_ones(vectors, error, known, nroots):
    """Those that are missing are found, below a known one as well, and known ones are left alone."""
    matrix = molecule_like(150, coupling=0.05)
    missing = [k for k in range(10) if k not in known][:nroots]
    locked, operator = lowest(matrix, known, error), Dense(matrix, vectors)
    before = locked.copy()
    found = davidson(operator, unit_start(matrix, nroots), nroots, 2e-5, locked=locked)
    assert found.converged.all() and found.n_sigma == operator.n_sigma
    np.testing.assert_allclose(found.energies, np.linalg.eigvalsh(matrix)[missing], atol=1e-8)
    np.testing.assert_allclose(found.vectors @ locked.T, 0.0, atol=1e-13)
    residual = found.vectors @ matrix - found.energies[:, None] * found.vectors
    np.testing.assert_allclose(np.linalg.norm(residual, axis=1), found.residual_norms, atol=1e-12)
    np.testing.assert_array_equal(locked, before)


@pytest.mark.parametrize("n_known", [1, 2, 3])
def test_copies_of_locked_degenerate_states(n_known):
    """Any vectors of the space of a degenerate state may be locked."""
    matrix = with_spectrum([-2.0, -2.0, -2.0, -1.5], 80)
    mixed = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0] @ lowest(matrix, [0, 1, 2])
    found = davidson(Dense(matrix), unit_start(matrix, 3), 1, 1e-7, locked=np.ascontiguousarray(mixed[:n_known]))
    assert found.converged.all()
    assert found.energies[0] == pytest.approx(-2.0 if n_known < 3 else -1.5, abs=1e-10)


def test_start_vectors_that_are_locked_are_of_no_use():
    matrix = molecule_like(60)
    locked = lowest(matrix, [0, 1], 1e-9)
    found = davidson(Dense(matrix), lambda out: fill(out, locked), 1, 1e-7, locked=locked)
    assert found.converged.all()
    assert found.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix)[2], abs=1e-10)


def test_the_last_root_beside_all_others():
    matrix = molecule_like(4, coupling=0.5)
    found = davidson(Dense(matrix), unit_start(matrix, 1), 1, 1e-9, locked=lowest(matrix, [0, 1, 2]))
    assert found.converged.all() and found.n_sigma == 1
    assert found.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix)[3], abs=1e-12)


def test_poorly_known_locked_vectors_do_not_hold_the_iterations_up():
    """The residual that is reported is the true one, above the tolerance here."""
    matrix = molecule_like(100, coupling=0.05)
    found = davidson(Dense(matrix), unit_start(matrix, 1), 1, 1e-7, locked=lowest(matrix, [0], 3e-4))
    assert found.converged.all() and found.n_iterations < 40 and found.residual_norms[0] > 2e-7
    residual = found.vectors[0] @ matrix - found.energies[0] * found.vectors[0]
    assert np.linalg.norm(residual) == pytest.approx(found.residual_norms[0], rel=1e-6)


def test_locked_vectors_take_no_reductions():
    matrix, counts = molecule_like(200), []
    for locked in (None, lowest(matrix, [5])):
        operator = Dense(matrix)
        found = davidson(operator, unit_start(matrix, 1), 1, 1e-7, locked=locked)
        counts.append(operator.n_sums - 2 * found.n_iterations)
    assert counts[1] <= counts[0] + 3  # what they have among themselves, and with the start


def test_known_pairs_go_before_those_that_were_found():
    matrix = molecule_like(60)
    known = davidson(Dense(matrix), unit_start(matrix, 3), 3, 1e-8)
    upper = known.taken(np.array([1, 2]))
    seen = []

    def callback(step: Step) -> bool:
        seen.append(step.behind(upper))
        return False

    found = davidson(Dense(matrix), unit_start(matrix, 1), 1, 1e-8, callback=callback, locked=upper.vectors)
    assert seen[-1].energies.tolist() == [*upper.energies, found.energies[0]]
    assert seen[-1].residual_norms.tolist() == [*upper.residual_norms, found.residual_norms[0]]
    assert seen[-1].corrections[:2].tolist() == seen[-1].first_order_norms[:2].tolist() == [0.0, 0.0]
    together = found.behind(upper)
    check(matrix, together.taken(np.argsort(together.energies)), 3, 1e-8)


def test_a_checkpoint_beside_locked_vectors_does_not_disturb_the_solve():
    matrix = molecule_like(120, coupling=0.08)
    locked = lowest(matrix, [0, 2])

    def callback(step: Step) -> bool:
        rows = np.array(step.vectors())
        np.testing.assert_allclose(rows @ locked.T, 0.0, atol=1e-13)
        assert rows[0] @ matrix @ rows[0] == pytest.approx(step.energies[0], abs=1e-10)
        return False

    found = davidson(Dense(matrix), unit_start(matrix, 2), 1, 1e-7, callback=callback, locked=locked)
    assert found.converged.all()
    assert found.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix)[1], abs=1e-10)


def fill(out: np.ndarray, rows: np.ndarray) -> int:
    """Put rows into the first rows of out; returns how many."""
    out[: len(rows)] = rows
    return len(rows)


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-6, 1e-9])
@pytest.mark.parametrize("nroots", [1, 3])
@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_products_in_single_precision_lead_to_the_same_eigenpairs(tol: float, nroots: int, noise: float) -> None:
    """Residual norms and energies are those of double precision, for about one exact product a root."""
    matrix = molecule_like(400)
    operator = Rounded(matrix, noise)
    found = davidson(operator, unit_start(matrix, nroots), nroots, tol, 300)
    assert found.converged.all()
    true = np.linalg.norm(found.vectors @ matrix - found.energies[:, None] * found.vectors, axis=1)
    np.testing.assert_allclose(found.residual_norms, true, rtol=1e-3, atol=tol / 10)
    assert (true <= 1.1 * tol).all()
    np.testing.assert_allclose(found.energies, np.linalg.eigvalsh(matrix)[:nroots], rtol=0, atol=20 * tol**2 + 1e-12)
    assert found.n_exact == operator.n_exact <= (3 if noise == 0.0 else 4) * nroots
    exact = davidson(Dense(matrix), unit_start(matrix, nroots), nroots, tol, 300)
    assert exact.n_exact == exact.n_sigma
    if noise == 0.0:
        assert found.n_sigma <= exact.n_sigma + 4 * nroots


def test_few_iterations_in_single_precision_end_with_exact_energies() -> None:
    """What is given up as not converged has energies and residual norms of double precision."""
    matrix = molecule_like(400)
    found = davidson(Rounded(matrix), unit_start(matrix, 1), 1, 1e-8, max_iterations=4)
    assert not found.converged.any()
    vector = found.vectors[0]
    assert found.energies[0] == pytest.approx(vector @ matrix @ vector, abs=1e-12)
    assert found.residual_norms[0] == pytest.approx(np.linalg.norm(matrix @ vector - found.energies[0] * vector))


def test_what_is_stirred_in_leads_to_a_state_that_the_start_cannot_reach():
    """Two blocks without coupling; the start lies in that with the higher lowest eigenvalue."""
    n = 60
    matrix = np.zeros((2 * n, 2 * n))
    matrix[:n, :n], matrix[n:, n:] = molecule_like(n, 1), molecule_like(n, 2) - 0.25 * np.eye(n)
    lowest = [np.linalg.eigvalsh(matrix[k : k + n, k : k + n])[0] for k in (0, n)]
    assert lowest[0] > lowest[1] + 1e-3

    def start(rows):
        rows[0] = 0.0
        rows[0, np.argmin(np.diag(matrix)[:n])] = 1.0
        return 1

    calls, noise = [], np.random.default_rng(3).normal(size=2 * n)

    def stir(rows, scratch):
        calls.append(rows.shape)
        scratch[:] = np.nan  # it is free
        if len(calls) != 2:
            return np.inf
        rows[0] += 0.5 * np.linalg.norm(rows[0]) / np.linalg.norm(noise) * noise
        return 1e-6

    alone = davidson(Dense(matrix), start)
    np.testing.assert_allclose(alone.energies, lowest[:1], atol=1e-10)
    operator = Dense(matrix)
    found = davidson(operator, start, stir=stir, max_iterations=200)
    assert found.converged.all() and calls == [(1, 2 * n)] * 2  # then no more
    np.testing.assert_allclose(found.energies, lowest[1:], atol=1e-10)
    residual = matrix @ found.vectors[0] - found.energies[0] * found.vectors[0]
    assert np.linalg.norm(residual) <= 1e-6


def test_stirred_roots_are_followed_further_than_they_must_and_count_as_converged_before():
    matrix, calls = molecule_like(200), []

    def stir(rows, scratch):
        calls.append(1)
        return np.inf if len(calls) < 3 else 1e-8

    start = unit_start(matrix, 1)
    loose = davidson(Dense(matrix), start, tol=1e-3, stir=lambda *rows: np.inf)
    sharp = davidson(Dense(matrix), start, tol=1e-3, stir=stir)
    assert 1e-8 < loose.residual_norms[0] <= 1e-3 and sharp.residual_norms[0] <= 1e-8 and len(calls) == 3
    short = davidson(Dense(matrix), start, tol=1e-3, stir=lambda *rows: 1e-8, max_iterations=loose.n_iterations)
    assert short.converged.all() and short.residual_norms[0] > 1e-8
    strict = davidson(Dense(matrix), start, tol=1e-9, stir=lambda *rows: 1e-8)
    assert strict.residual_norms[0] <= 1e-9
