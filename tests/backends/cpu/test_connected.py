"""Which orbital pairs take part, counted from the integrals one by one."""

from __future__ import annotations

import numpy as np
import pytest

from sqd_mpi.backends.cpu.connected import ConnectedPairs
from tests.support.problems import make_hamiltonian, pair_matrix, spin_dependent, with_few_integrals

NORB, NELEC = 6, (3, 2)


def by_definition(hamiltonian) -> dict[str, np.ndarray]:
    """The three lists, integral by integral, of pairs p > q; of p = q nothing is said."""
    norb, pair, coupling = hamiltonian.norb, pair_matrix(hamiltonian.norb), hamiltonian.coupling()
    h1e, eri = hamiltonian.same_spin(1)
    found = {name: np.zeros(len(coupling), bool) for name in ("coupled_alpha", "coupled_beta", "moving_beta")}
    orbitals = range(norb)
    apart = [(p, q) for p in orbitals for q in range(p)]
    for p, q in apart:
        pq = pair[p, q]
        found["coupled_alpha"][pq] = any(coupling[pq, pair[r, s]] != 0 for r in orbitals for s in orbitals)
        found["coupled_beta"][pq] = any(coupling[pair[r, s], pq] != 0 for r, s in apart)
        elements = [
            h1e[p, q],
            *(eri[pq, pair[r, r]] for r in orbitals),
            *(eri[pair[p, r], pair[q, r]] for r in orbitals),
        ]
        found["moving_beta"][pq] = any(elements) or any(coupling[pair[r, r], pq] != 0 for r in orbitals)
    return found


@pytest.mark.parametrize("kind", ["sites", "extended", "impurity", "pairs", "all", "unlike"])
def test_pairs_that_take_part(kind):
    if kind == "all":
        hamiltonian = make_hamiltonian(NORB, NELEC)
    elif kind == "unlike":
        hamiltonian = spin_dependent(NORB, NELEC, labels=np.array([0, 0, 1, 1, 2, 3]))
    else:
        hamiltonian = with_few_integrals(kind, NORB, NELEC)
    found, expected = ConnectedPairs.of(hamiltonian), by_definition(hamiltonian)
    p, q = np.tril_indices(NORB)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(getattr(found, name)[p > q], wanted[p > q])
    n_coupled = {"sites": 0, "extended": 5, "impurity": 3, "pairs": 15, "all": 15}
    assert kind not in n_coupled or expected["coupled_alpha"].sum() == n_coupled[kind]
    assert found.all_coupled == all(expected[name][p > q].all() for name in ("coupled_alpha", "coupled_beta"))


def test_hopping_alone_moves_beta_electrons_on_a_lattice():
    hamiltonian = with_few_integrals("sites", NORB, NELEC)
    hamiltonian.h1e[np.subtract.outer(range(NORB), range(NORB)) ** 2 > 1] = 0.0
    p, q = np.tril_indices(NORB)
    moving = ConnectedPairs.of(hamiltonian).moving_beta
    np.testing.assert_array_equal(moving[p > q], (p - q == 1)[p > q])
