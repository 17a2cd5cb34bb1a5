"""The space and the Hamiltonian of one solve, from what PySCF gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyscf import lib
from pyscf.fci import cistring
from pyscf.fci.direct_spin1 import _unpack_nelec

from sqd_mpi.adapters.pyscf.start import StringPair
from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.space import Space
from sqd_mpi.problem.symmetry import OrbitalLabels

Rule = Callable[[int, tuple[int, int], Any, Any], tuple[ArrayLike, ArrayLike]]

# Relative to the largest integral: what effective integrals may lack of their symmetries, by rounding and by noise.
_SYMMETRY_TOLERANCE = 1e-6
_MOST_STRINGS = 2**31


@dataclass(frozen=True, eq=False)
class RequestedSpace:
    """What is to be diagonalised."""

    hamiltonian: Hamiltonian = field(repr=False)
    """Integrals in hartree."""
    strings: StringPair = field(repr=False)
    """(alpha, beta), (n, nwords) uint64 in canonical order."""
    labelled: bool
    """Whether symmetry labels are used."""

    @property
    def n_determinants(self) -> int:
        """Of all symmetry sectors."""
        return len(self.strings[0]) * len(self.strings[1])

    @property
    def complete(self) -> bool:
        """Whether these are all strings."""
        norb = self.hamiltonian.norb
        return all(len(each) == comb(norb, n) for each, n in zip(self.strings, self.hamiltonian.nelec, strict=True))

    @cached_property
    def _sorted(self) -> Space:
        return Space.create(self.hamiltonian, *self.strings, self.labelled)

    @property
    def labels(self) -> OrbitalLabels:
        """Symmetry labels of the orbitals, as the solver finds them."""
        return self._sorted.labels

    @cached_property
    def sector_sizes(self) -> NDArray[np.int64]:
        """(n_labels,) determinants of every symmetry sector."""
        alpha, beta = (np.diff(each.label_start) for each in (self._sorted.alpha, self._sorted.beta))
        every = np.arange(self.labels.n_labels)
        return np.array([np.sum(alpha * beta[every ^ sector]) for sector in every])


def make_space(
    chosen: Any, h1e: Any, eri: Any, norb: int, nelec: Any, spin: int | None, ecore: float, labelled: bool
) -> RequestedSpace:
    """The space of a solve.

    Args:
        chosen: strings as `SubspaceSolver` takes them.
        h1e: (norb, norb), or those of alpha and beta; hartree.
        eri: with 8- or 4-fold symmetry or none; or a triple alpha alpha, alpha beta, beta beta; hartree.
        norb: number of orbitals.
        nelec: (n_alpha, n_beta), or their sum.
        spin: n_alpha - n_beta where the sum is given; goes before a pair, as in PySCF.
        ecore: hartree.
        labelled: whether symmetry labels are used.

    Raises:
        InputError: strings, integrals or electron numbers do not fit.
    """
    pair = tuple(int(n) for n in _unpack_nelec(nelec, spin))
    one, two = _symmetric_integrals(h1e, eri, norb)
    hamiltonian = Hamiltonian.from_arrays(one, two, float(ecore), (pair[0], pair[1]))
    return RequestedSpace(hamiltonian, _strings(chosen, norb, hamiltonian.nelec, one, two), labelled)


def all_strings(norb: int, n_electrons: int) -> NDArray[np.uint64]:
    """Every string in canonical order, which is PySCF's order too.

    Raises:
        InputError: there are too many.
    """
    count = comb(norb, n_electrons)
    if count >= _MOST_STRINGS:
        raise InputError(f"all strings of {n_electrons} electrons in {norb} orbitals are {count}; give some of them")
    if norb < 64:
        return np.asarray(cistring.make_strings(range(norb), n_electrons)).astype(np.uint64)[:, None]
    integers = (sum(1 << orbital for orbital in each) for each in combinations(range(norb), n_electrons))
    return bitstrings.canonical(bitstrings.from_integers(integers, norb))[0]


def as_strings(strings: ArrayLike, norb: int) -> NDArray[np.uint64]:
    """(n, nwords) uint64 from that or from (n,) integers.

    Raises:
        InputError: they are neither, or do not fit the orbitals.
    """
    array = np.asarray(strings)
    if array.ndim == 2 and array.dtype.kind in "iu":
        return np.ascontiguousarray(array, np.uint64)
    return bitstrings.from_sequence(strings, norb)


def _strings(chosen: Any, norb: int, nelec: tuple[int, int], h1e: Any, eri: Any) -> StringPair:
    """Both spins' strings in canonical order."""
    if chosen is None or (isinstance(chosen, str) and chosen == "all"):
        alpha = all_strings(norb, nelec[0])
        return alpha, alpha if nelec[0] == nelec[1] else all_strings(norb, nelec[1])
    if callable(chosen):
        chosen = chosen(norb, nelec, h1e, eri)
    if isinstance(chosen, str) or len(chosen) != 2:
        raise InputError(f'strings are "all", a pair (alpha, beta) or a function that returns one; got {chosen!r}')
    alpha, beta = (bitstrings.canonical(as_strings(each, norb))[0] for each in chosen)
    return alpha, beta


def _symmetric_integrals(h1e: Any, eri: Any, norb: int) -> tuple[Any, Any]:
    """Integrals with the symmetries of real orbitals; eri as (npair, npair), of two spins as a triple of these."""
    if isinstance(eri, list | tuple):
        if len(eri) != 3 or np.shape(h1e) != (2, norb, norb):
            raise InputError("integrals of two spins are h1e (2, norb, norb) and three eri: alpha, mixed and beta")
        alpha, mixed, beta = (np.asarray(each) for each in eri)
        one = np.stack([_mean(np.asarray(each), (1, 0)) for each in h1e])
        return one, (_paired(alpha, norb, 8), _paired(mixed, norb, 4), _paired(beta, norb, 8))
    return _mean(np.asarray(h1e), (1, 0)), _paired(np.asarray(eri), norb, 8)


def _paired(eri: FloatArray, norb: int, fold: int) -> FloatArray:
    """(npair, npair) from integrals in any of PySCF's forms; symmetric where they have eight symmetries."""
    n_pair = norb * (norb + 1) // 2
    if eri.size == norb**4 and norb > 1:
        eri = _mean(eri.reshape(norb, norb, norb, norb), (1, 0, 2, 3))
        eri = _mean(eri, (0, 1, 3, 2))
        rows, columns = np.tril_indices(norb)
        eri = eri[rows, columns][:, rows, columns]
    elif fold == 8 and eri.size == n_pair * (n_pair + 1) // 2:
        eri = lib.unpack_tril(eri.ravel())
    if eri.size != n_pair**2:
        raise InputError(f"two-electron integrals of {norb} orbitals are ({n_pair}, {n_pair}); got {eri.shape}")
    eri = eri.reshape(n_pair, n_pair)
    return _mean(eri, (1, 0)) if fold == 8 else eri


def _mean(array: FloatArray, order: tuple[int, ...]) -> FloatArray:
    """Mean of integrals and their mirror image, which effective integrals of PySCF equal up to rounding.

    Raises:
        InputError: they are no mirror image.
    """
    if array.ndim != len(order) or array.dtype.kind not in "fiu":
        kind = f"an array {array.shape} of {array.dtype}"
        raise InputError(f"integrals are real numbers, of {len(order)} indices here; got {kind}")
    mirrored = array.transpose(order)
    if array.shape != mirrored.shape:
        raise InputError(f"integrals have as many rows as columns; got an array {array.shape}")
    difference = float(np.abs(array - mirrored).max(initial=0.0))
    if difference > _SYMMETRY_TOLERANCE * max(1.0, float(np.abs(array).max(initial=0.0))):
        raise InputError(f"integrals lack the symmetry of real orbitals: they differ by up to {difference:.1e}")
    return 0.5 * (array + mirrored)
