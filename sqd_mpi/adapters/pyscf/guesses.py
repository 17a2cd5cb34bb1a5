"""Start vectors from what PySCF and its users give as `ci0`."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from sqd_mpi.adapters.pyscf.session import Reference, Session
from sqd_mpi.adapters.pyscf.space import RequestedSpace, all_strings, as_strings
from sqd_mpi.adapters.pyscf.start import StringPair, placed, positions, same_strings
from sqd_mpi.adapters.pyscf.vectors import SubspaceVector
from sqd_mpi.arrays import FloatArray
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings


def start_vectors(
    ci0: Any, last: Any, space: RequestedSpace, session: Session, must_fit: bool
) -> list[Reference | FloatArray]:
    """What the start vectors are, as every rank can understand it: references to vectors, or arrays.

    Args:
        ci0: what the caller of `kernel` gave.
        last: vectors of the last solve, for which True and False stand.
        space: of the solve.
        session: whose ranks solve.
        must_fit: whether a vector that does not fit is an error, or left out.

    Raises:
        InputError: a vector does not fit, or is none.
    """
    if callable(ci0) and not isinstance(ci0, np.ndarray | SubspaceVector):
        ci0 = ci0()
    given = _vectors_of(ci0, space)
    if any(isinstance(each, bool | np.bool_) for each in given):
        given, must_fit = _vectors_of(last, space), False
    found: list[Reference | FloatArray] = []
    for each in given:
        try:
            found.append(_one_start(each, space, session))
        except InputError:
            if must_fit:
                raise
    return found


def _vectors_of(ci0: Any, space: RequestedSpace) -> list[Any]:
    """One entry for every vector."""
    if ci0 is None:
        return []
    if isinstance(ci0, list | tuple):
        return [each for each in ci0 if each is not None]
    if isinstance(ci0, np.ndarray) and ci0.ndim > 1 and ci0.size != space.n_determinants:
        if ci0[0].size == space.n_determinants:
            return list(ci0)
    return [ci0]


def _one_start(given: Any, space: RequestedSpace, session: Session) -> Reference | FloatArray:
    if isinstance(given, SubspaceVector):
        if (given.norb, given.nelec) != (space.hamiltonian.norb, space.hamiltonian.nelec):
            raise InputError(
                f"ci0 has {given.norb} orbitals and {given.nelec} electrons; this solve has "
                f"{space.hamiltonian.norb} and {space.hamiltonian.nelec}"
            )
        positions(given.strings, space.strings)  # on all ranks only where the start is used
        if given.lives_in(session):
            return given.reference
        return placed(given.gather(), given.strings, space.strings)
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "fiu" or not np.isfinite(given).all():
        what = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise InputError(f"ci0 is a vector of an earlier solve or an array of finite real numbers; got {what}")
    values = np.asarray(given, np.float64)
    strings = _strings_of(given, space)
    if strings is not None and not same_strings(strings, space.strings):
        return placed(values.reshape(len(strings[0]), len(strings[1])), strings, space.strings)
    shape = len(space.strings[0]), len(space.strings[1])
    if given.size != space.n_determinants:
        raise InputError(f"ci0 is an array {shape}; got {given.shape}")
    return values.reshape(shape)


def _strings_of(given: Any, space: RequestedSpace) -> StringPair | None:
    """The strings of an array, if it says which, or if it has the size of all strings and the space is smaller."""
    norb, nelec = space.hamiltonian.norb, space.hamiltonian.nelec
    strings: StringPair | None = getattr(given, "strings", None)
    if strings is None and getattr(given, "_strs", None) is not None:  # PySCF's selected CI
        strings = as_strings(given._strs[0], norb), as_strings(given._strs[1], norb)
        if not same_strings(strings, (bitstrings.canonical(strings[0])[0], bitstrings.canonical(strings[1])[0])):
            raise InputError("ci0 has strings that are not in ascending order")
    elif strings is None and not space.complete and given.size == comb(norb, nelec[0]) * comb(norb, nelec[1]):
        strings = all_strings(norb, nelec[0]), all_strings(norb, nelec[1])
    return None if strings is None or len(strings[0]) * len(strings[1]) != given.size else strings
