"""Small FCIDUMP files for tests, and writers of spin-dependent ones in the conventions of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sqd_mpi.problem.hamiltonian import Hamiltonian

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
# U = 4, t = 1; the writers leave out what is zero
HUBBARD = """\
 &FCI NORB=2,NELEC=2,MS2=0,
  ORBSYM=1,1,
 &END
 4.0 1 1 1 1
 4.0 2 2 2 2
 -1.0 1 2 0 0
"""
HUBBARD_ENERGY = 2 - np.sqrt(8)


def expected_small() -> Hamiltonian:
    """What HEADER + BODY holds."""
    eri = np.zeros((2, 2, 2, 2))
    eri[0, 0, 0, 0], eri[1, 1, 1, 1] = 0.75, 0.25
    eri[0, 0, 1, 1] = eri[1, 1, 0, 0] = 0.5
    eri[0, 1, 0, 1] = eri[0, 1, 1, 0] = eri[1, 0, 0, 1] = eri[1, 0, 1, 0] = 0.125
    return Hamiltonian.from_arrays(np.array([[-1.5, 0.0625], [0.0625, -0.5]]), eri, 0.7, (1, 1))


def write(folder: Path, text: str) -> Path:
    """A file of this text."""
    path = folder / "FCIDUMP"
    path.write_text(text)
    return path


def _numbers(hamiltonian: Hamiltonian) -> Iterator[tuple[str, float, tuple[int, ...]]]:
    """Kind ("aa", "bb", "ab", "a", "b"), value and orbitals from 1 of all different integrals."""
    norb = hamiltonian.norb
    pairs = [(p + 1, q + 1) for p in range(norb) for q in range(p + 1)]
    matrices = hamiltonian.same_spin(0)[1], hamiltonian.same_spin(1)[1], hamiltonian.coupling()
    for kind, matrix in zip(("aa", "bb", "ab"), matrices, strict=True):
        for i, first in enumerate(pairs):
            for j, second in enumerate(pairs):
                if kind == "ab" or j <= i:
                    yield kind, float(matrix[i, j]), (*first, *second)
    for spin, kind in enumerate("ab"):
        for p, q in pairs:
            yield kind, float(hamiltonian.same_spin(spin)[0][p - 1, q - 1]), (p, q)


def header(hamiltonian: Hamiltonian, norb: int, more: str = "") -> str:
    """A header with NORB as given and further keys."""
    n_alpha, n_beta = hamiltonian.nelec
    return f" &FCI NORB={norb},NELEC={n_alpha + n_beta},MS2={n_alpha - n_beta},{more}\n  ISYM=1,\n &END\n"


def six_parts(hamiltonian: Hamiltonian, more: str = "IUHF=1,") -> str:
    """As Molpro writes them."""
    lines, last = [], "aa"
    for kind, value, orbitals in _numbers(hamiltonian):
        if kind != last:
            lines.append("0.0 0 0 0 0")
        last = kind
        lines.append(" ".join(map(str, (value, *orbitals, *(4 - len(orbitals)) * (0,)))))
    lines += ["0.0 0 0 0 0", f"{hamiltonian.ecore!r} 0 0 0 0"]
    return header(hamiltonian, hamiltonian.norb, more) + "\n".join(lines) + "\n"


def spin_orbital_lines(hamiltonian: Hamiltonian, layout: str, mixed_first: str = "ab") -> str:
    """Lines with indices of spin orbitals, (alpha alpha|beta beta) or (beta beta|alpha alpha) as given."""
    norb = hamiltonian.norb

    def index(orbital: int, spin: str) -> int:
        return 2 * orbital - (spin == "a") if layout == "interleaved" else orbital + norb * (spin == "b")

    lines = []
    for kind, value, orbitals in _numbers(hamiltonian):
        spins = "".join(2 * spin for spin in kind)
        indices = [index(orbital, spin) for orbital, spin in zip(orbitals, spins, strict=True)]
        if kind == "ab" and mixed_first == "ba":
            indices = indices[2:] + indices[:2]
        lines.append(" ".join(map(str, (value, *indices, *(4 - len(indices)) * (0,)))))
    return "\n".join([*lines, f"{hamiltonian.ecore!r} 0 0 0 0"]) + "\n"
