"""Who asks for a solve: PySCF tells its solver neither the molecule nor what the vector is wanted for.

The frames of the callers know both. Where they are not found, nothing is refused before a solve that could be
refused; what needs an array then says so when it meets the vector.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Procedures that make a solve and then take its vectors for arrays over all strings.
_NEED_ARRAYS = {"pyscf.mcscf.newton_casscf": "newton()", "pyscf.mrpt.nevpt2": "NEVPT2"}
_ACTIVE_SPACE = {"pyscf.mcscf.casci": "casci", "pyscf.mcscf.ucasci": "casci"}


def active_space() -> Any:
    """The CASCI or CASSCF object that asks for the solve in progress, or None."""
    for frame in _frames():
        name = _ACTIVE_SPACE.get(frame.f_globals.get("__name__", ""))
        if name is not None and frame.f_code.co_name == "kernel":
            return frame.f_locals.get(name)
    return None


def needs_arrays() -> str | None:
    """Name of a procedure among the callers that takes vectors for arrays, or None."""
    for frame in _frames():
        what = _NEED_ARRAYS.get(frame.f_globals.get("__name__", ""))
        if what is not None:
            return what
    return None


def needs_natural_orbitals() -> bool:
    """Whether vectors are or will be wanted in natural orbitals, in which a part of all strings is another space."""
    for frame in _frames():
        if frame.f_code.co_name == "cas_natorb" and frame.f_globals.get("__name__") == "pyscf.mcscf.casci":
            return True
    mc = active_space()
    return bool(getattr(mc, "natorb", False) and getattr(mc, "canonicalization", False))


def guesses_irreps() -> bool:
    """Whether the caller of the caller is PySCF's guess of the irrep of an active space."""
    frame = sys._getframe(2)
    return frame.f_code.co_name == "label_symmetry_" and frame.f_globals.get("__name__") == "pyscf.mcscf.casci_symm"


def is_full_ci_code() -> bool:
    """Whether the caller of the caller is PySCF's code for vectors over all strings."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("pyscf.fci.")


def is_called_by(kind: type) -> bool:
    """Whether a method of an object of that class is among the callers."""
    return any(isinstance(frame.f_locals.get("self"), kind) for frame in _frames())


def _frames() -> Iterator[FrameType]:
    frame = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]
