"""The methods that PySCF expects of a solver beside `kernel`.

Density matrices of distributed vectors are made on all ranks. Everything of arrays over all strings is PySCF's own;
what exists for arrays only says so in one sentence where it gets something else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from math import comb
from typing import Any, TypeVar, cast

import numpy as np
from pyscf.fci import direct_spin1, direct_spin1_symm, direct_uhf, spin_op
from pyscf.fci.direct_spin1 import _unpack_nelec

from sqd_mpi.adapters.pyscf.vectors import SubspaceVector, of_complete_space, why_no_array
from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings

Method = TypeVar("Method", bound=Callable[..., Any])

# What these make is as long as a vector over all strings.
_OF_ALL_STRINGS = ("make_hdiag", "pspace")


def _of_arrays(name: str, *vectors: str, of_two_spins: bool = False) -> Callable[..., Any]:
    """PySCF's method, with a check that the vectors are arrays over all strings.

    Args:
        name: of the method of PySCF's `FCISolver`.
        vectors: names of the arguments that are vectors.
        of_two_spins: whether integrals may be spin-dependent, for which PySCF has another function.
    """
    base = getattr(direct_spin1.FCISolver, name)
    signature = inspect.signature(base)

    @wraps(base)
    def method(self: FCIInterface, *arguments: Any, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        given = bound.arguments
        nelec = given["nelec"] = _unpack_nelec(given["nelec"], self.spin)
        if name in _OF_ALL_STRINGS:
            self._needs_all_strings(name, given["norb"], nelec)
        for vector in vectors:
            given[vector] = self._array(given[vector], name, given["norb"], nelec)
        if of_two_spins and isinstance(next(given[k] for k in ("eri", "f1e") if k in given), list | tuple):
            return getattr(direct_uhf, name)(*bound.args[1:], **bound.kwargs)
        return base(*bound.args, **bound.kwargs)

    return method


def _or_of_arrays(*vectors: str) -> Callable[[Method], Method]:
    """Decorate a method of distributed vectors: where one of them is none, PySCF's method of that name is called.

    Args:
        vectors: names of the arguments that are vectors.
    """

    def decorate(own: Method) -> Method:
        of_arrays, signature = _of_arrays(own.__name__, *vectors), inspect.signature(own)

        @wraps(own)
        def method(self: FCIInterface, *arguments: Any, **named: Any) -> Any:
            given = signature.bind(self, *arguments, **named).arguments
            is_own = all(isinstance(given[name], SubspaceVector) for name in vectors)
            return (own if is_own else of_arrays)(self, *arguments, **named)

        return cast(Method, method)

    return decorate


class FCIInterface(direct_spin1.FCISolver):
    """PySCF's FCI interface on vectors of both kinds; attributes are those of `SubspaceSolver`."""

    array_limit: int
    spin: int | None
    strings: Any

    absorb_h1e = _of_arrays("absorb_h1e", of_two_spins=True)
    make_hdiag = _of_arrays("make_hdiag", of_two_spins=True)
    pspace = _of_arrays("pspace", of_two_spins=True)
    contract_1e = _of_arrays("contract_1e", "fcivec", of_two_spins=True)
    contract_2e = _of_arrays("contract_2e", "fcivec", of_two_spins=True)
    contract_ss = _of_arrays("contract_ss", "fcivec")
    energy = _of_arrays("energy", "fcivec", of_two_spins=True)
    make_rdm123s = _of_arrays("make_rdm123s", "fcivec")
    make_rdm123 = _of_arrays("make_rdm123", "fcivec")
    if hasattr(direct_spin1.FCISolver, "make_rdm1234s"):  # in newer versions of PySCF
        make_rdm1234s = _of_arrays("make_rdm1234s", "fcivec")
        make_rdm1234 = _of_arrays("make_rdm1234", "fcivec")
    transform_ci_for_orbital_rotation = _of_arrays("transform_ci_for_orbital_rotation", "fcivec")

    @_or_of_arrays("fcivec")
    def make_rdm1s(self, fcivec: Any, norb: int, nelec: Any, link_index: Any = None) -> tuple[FloatArray, FloatArray]:
        """(alpha, beta) one-particle density matrices, (norb, norb) each, [p, q] = <q+ p>."""
        found = self._own(fcivec, norb, nelec).density_matrices(1)
        return found.alpha, found.beta

    @_or_of_arrays("fcivec")
    def make_rdm1(self, fcivec: Any, norb: int, nelec: Any, link_index: Any = None) -> FloatArray:
        """(norb, norb) one-particle density matrix summed over spin."""
        return self._own(fcivec, norb, nelec).density_matrices(1).rdm1

    @_or_of_arrays("fcivec")
    def make_rdm12s(
        self, fcivec: Any, norb: int, nelec: Any, link_index: Any = None, reorder: bool = True
    ) -> tuple[Any, Any]:
        """(alpha, beta) one-particle and (aa, ab, bb) two-particle matrices, [p, q, r, s] = <p+ r+ s q>."""
        found = self._own(fcivec, norb, nelec, reorder).density_matrices(2)
        return (found.alpha, found.beta), (found.two_aa, found.two_ab, found.two_bb)

    @_or_of_arrays("fcivec")
    def make_rdm12(
        self, fcivec: Any, norb: int, nelec: Any, link_index: Any = None, reorder: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """One- and two-particle density matrices summed over spin."""
        found = self._own(fcivec, norb, nelec, reorder).density_matrices(2)
        return found.rdm1, found.rdm2

    def make_rdm2(self, fcivec: Any, norb: int, nelec: Any, link_index: Any = None, reorder: bool = True) -> FloatArray:
        """Two-particle density matrix summed over spin."""
        return self.make_rdm12(fcivec, norb, nelec, link_index, reorder)[1]

    @_or_of_arrays("cibra", "ciket")
    def trans_rdm1s(
        self, cibra: Any, ciket: Any, norb: int, nelec: Any, link_index: Any = None
    ) -> tuple[FloatArray, FloatArray]:
        """(alpha, beta) transition density matrices, [p, q] = <bra|q+ p|ket>."""
        found = self._own(cibra, norb, nelec).transition_to(self._own(ciket, norb, nelec), 1)
        return found.alpha, found.beta

    @_or_of_arrays("cibra", "ciket")
    def trans_rdm1(self, cibra: Any, ciket: Any, norb: int, nelec: Any, link_index: Any = None) -> FloatArray:
        """Transition density matrix summed over spin."""
        return self._own(cibra, norb, nelec).transition_to(self._own(ciket, norb, nelec), 1).rdm1

    @_or_of_arrays("cibra", "ciket")
    def trans_rdm12s(
        self, cibra: Any, ciket: Any, norb: int, nelec: Any, link_index: Any = None, reorder: bool = True
    ) -> tuple[Any, Any]:
        """(alpha, beta) and (aa, ab, ba, bb) transition density matrices."""
        matrices = self._own(cibra, norb, nelec, reorder).transition_to(self._own(ciket, norb, nelec), 2)
        return (matrices.alpha, matrices.beta), (matrices.two_aa, matrices.two_ab, matrices.two_ba, matrices.two_bb)

    @_or_of_arrays("cibra", "ciket")
    def trans_rdm12(
        self, cibra: Any, ciket: Any, norb: int, nelec: Any, link_index: Any = None, reorder: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """One- and two-particle transition density matrices summed over spin."""
        matrices = self._own(cibra, norb, nelec, reorder).transition_to(self._own(ciket, norb, nelec), 2)
        return matrices.rdm1, matrices.rdm2

    def spin_square(
        self, fcivec: Any, norb: int, nelec: Any, mo_coeff: Any = None, ovlp: Any = 1
    ) -> tuple[float, float]:
        """(<S^2>, 2 S + 1).

        Args:
            fcivec: (n_alpha, n_beta) array, or a `SubspaceVector`.
            norb: number of orbitals.
            nelec: (n_alpha, n_beta) or their sum.
            mo_coeff: orbitals of alpha and beta, where these differ; else one set, or None.
            ovlp: overlap of their basis functions.

        Raises:
            InputError: alpha and beta orbitals differ, and `mo_coeff` is not given.
        """
        if mo_coeff is not None:
            found: tuple[float, float] = spin_op.spin_square(fcivec, norb, nelec, mo_coeff, ovlp, self)
            return found
        if not isinstance(fcivec, SubspaceVector):
            return spin_op.spin_square0(
                self._array(fcivec, "spin_square", norb, nelec), norb, _unpack_nelec(nelec, self.spin)
            )
        mean = self._own(fcivec, norb, nelec).spin_square
        if mean is None:
            raise InputError("<S^2> of spin-dependent orbitals needs mo_coeff and ovlp")
        return mean, float(np.sqrt(max(4.0 * mean + 1.0, 0.0)))

    @_or_of_arrays("fcivec")
    def large_ci(
        self, fcivec: Any, norb: int, nelec: Any, tol: float = 0.1, return_strs: bool = True
    ) -> list[tuple[float, Any, Any]]:
        """Coefficients above `tol` in magnitude, or the largest one, with their alpha and beta strings.

        Args:
            fcivec: (n_alpha, n_beta) array, or a `SubspaceVector`.
            norb: number of orbitals.
            nelec: (n_alpha, n_beta) or their sum.
            tol: threshold.
            return_strs: strings as texts such as "0b11", else as arrays of occupied orbitals.
        """
        values, strings = self._own(fcivec, norb, nelec).large(tol)
        alpha: list[Any]
        beta: list[Any]
        if return_strs:
            alpha, beta = ([bin(each) for each in bitstrings.to_integers(spin)] for spin in strings)
        else:
            alpha, beta = ([np.flatnonzero(row) for row in bitstrings.unpack(spin, norb)] for spin in strings)
        return list(zip(values, alpha, beta, strict=True))

    def get_init_guess(self, norb: int, nelec: Any, nroots: int, hdiag: Any) -> list[FloatArray]:
        """Single determinants of lowest diagonal element, as PySCF starts from."""
        self._needs_all_strings("get_init_guess", norb, nelec)
        guess: list[FloatArray] = super().get_init_guess(norb, _unpack_nelec(nelec, self.spin), nroots, hdiag)
        return guess

    def guess_wfnsym(
        self, norb: int, nelec: Any, fcivec: Any = None, orbsym: Any = None, wfnsym: Any = None, **named: Any
    ) -> int:
        """Number of the irrep of a vector, or of the determinant that fills the first orbitals.

        Raises:
            InputError: no irreps of the orbitals are known.
        """
        orbsym = self.orbsym if orbsym is None else orbsym
        if orbsym is None:
            raise InputError("guess_wfnsym needs the irreps of the orbitals, orbsym")
        nelec = _unpack_nelec(nelec, self.spin)
        first = fcivec[0] if isinstance(fcivec, list | tuple) else fcivec
        if isinstance(first, SubspaceVector):
            _, alpha, beta = max(
                self.large_ci(first, norb, nelec, 0.5, return_strs=False), key=lambda entry: abs(entry[0])
            )
            occupied = np.concatenate([alpha, beta]).astype(np.int64)
            return int(np.bitwise_xor.reduce(np.asarray(orbsym)[occupied] % 10, initial=0))
        found: int = direct_spin1_symm.guess_wfnsym(self, norb, nelec, fcivec, orbsym, wfnsym, **named)
        return found

    def to_gpu(self) -> Any:
        """Refused: GPUs are a matter of the option `backend`.

        Raises:
            InputError: always.
        """
        raise InputError("to_gpu is not for this solver: SubspaceSolver(backend='gpu') solves on GPUs")

    def _own(self, ci: SubspaceVector, norb: int, nelec: Any, reorder: bool = True) -> SubspaceVector:
        """A distributed vector, if it is one of that many orbitals and electrons."""
        pair = tuple(int(n) for n in _unpack_nelec(nelec, self.spin))
        if (ci.norb, ci.nelec) != (norb, pair):
            raise InputError(
                f"the vector has {ci.norb} orbitals and {ci.nelec} electrons; got norb = {norb}, nelec = {pair}"
            )
        if not reorder:
            raise InputError("reorder = False needs a CI vector as an array; this one is distributed")
        return ci

    def _needs_all_strings(self, what: str, norb: int, nelec: Any) -> None:
        """Raise InputError unless the solver's strings are all strings."""
        alpha, beta = _unpack_nelec(nelec, self.spin)
        chosen = self.strings
        complete = chosen is None or isinstance(chosen, str)
        if not complete and not callable(chosen):
            complete = all(len(each) == comb(norb, n) for each, n in zip(chosen, (alpha, beta), strict=True))
        if not complete:
            raise InputError(why_no_array(what, 0, False, self.array_limit))

    def _array(self, ci: Any, what: str, norb: int, nelec: Any) -> FloatArray:
        """A CI vector over all strings as an array."""
        alpha, beta = _unpack_nelec(nelec, self.spin)
        return of_complete_space(ci, what, (comb(norb, alpha), comb(norb, beta)), self.array_limit)
