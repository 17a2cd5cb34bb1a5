"""The electronic Hamiltonian in a basis of orthonormal real orbitals, from arrays, PySCF objects and FCIDUMP files.

H = ecore + sum_pq h1e[p, q] E_pq + 1/2 sum_pqrs (pq|rs) (E_pq E_rs - delta_qr E_ps), with E_pq = E^alpha_pq + E^beta_pq
and integrals in chemists' notation, in hartree. The only door to PySCF beside the adapter.
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi.arrays import Strings
from sqd_mpi.errors import InputError, InputWarning
from sqd_mpi.problem import bitstrings, permutations
from sqd_mpi.problem.fcidump import read_fcidump
from sqd_mpi.problem.permutations import n_eri, n_pairs

# How far twice the spin that belongs to a given S(S+1) may be from an integer.
_SPIN_TOLERANCE = 1e-4
_BLOCKS = ("alpha alpha", "alpha beta", "beta beta")


@dataclass(frozen=True, eq=False)
class Hamiltonian:
    """Integrals of a Hamiltonian; checked at construction.

    Spin-free: h1e and eri serve both spins. Spin-dependent (UHF orbitals): h1e and eri are those of alpha electrons,
    and h1e_b, eri_bb and eri_ab are given.

    Raises:
        InputError: a shape, a symmetry or an electron number does not fit, or a number is not finite or not real.
    """

    h1e: NDArray[np.float64]
    """One-electron integrals (norb, norb), symmetric, in hartree."""

    eri: NDArray[np.float64]
    """(pq|rs) in PySCF's s8 order, (npair (npair + 1) / 2,) with npair = norb (norb + 1) / 2, in hartree."""

    ecore: float
    """Energy of nuclei and frozen electrons, in hartree."""

    norb: int
    """Number of spatial orbitals."""

    nelec: tuple[int, int]
    """Numbers of electrons (n_alpha, n_beta)."""

    h1e_b: NDArray[np.float64] | None = None
    """One-electron integrals of beta orbitals, or None: those of alpha."""

    eri_bb: NDArray[np.float64] | None = None
    """(pq|rs) of beta orbitals in s8 order, or None: those of alpha."""

    eri_ab: NDArray[np.float64] | None = None
    """(pq|rs) with alpha orbitals p, q and beta orbitals r, s, (npair, npair), or None: `eri`."""

    overlap_ab: NDArray[np.float64] | None = None
    """Overlap <alpha orbital p|beta orbital s> (norb, norb); None: unity if spin-free, else unknown, and <S^2> too."""

    def __post_init__(self) -> None:
        norb, nelec = _checked_norb(self.norb), checked_nelec(self.nelec, self.norb)
        h1e, eri = _real(self.h1e, "one-electron integrals"), _real(self.eri, "two-electron integrals")
        ecore = _real(self.ecore, "core energy")
        if h1e.shape != (norb, norb):
            raise InputError(f"one-electron integrals of {norb} orbitals are ({norb}, {norb}); got {h1e.shape}")
        if eri.shape != (n_eri(norb),):
            raise InputError(f"two-electron integrals of {norb} orbitals are {n_eri(norb)} numbers; got {eri.shape}")
        if ecore.shape != ():
            raise InputError(f"the core energy is one number; got an array {ecore.shape}")
        h1e = _symmetrised(h1e, ((1, 0),), "one-electron integrals are not symmetric")
        self._check_spin_dependent(norb)
        checked = {"h1e": h1e, "eri": eri, "ecore": float(ecore), "norb": norb, "nelec": nelec}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _check_spin_dependent(self, norb: int) -> None:
        """Check what spin-dependent orbitals have beside the fields of spin-free ones."""
        parts = (self.h1e_b, self.eri_bb, self.eri_ab)
        if all(part is None for part in parts):
            if self.overlap_ab is not None:
                raise InputError("an overlap of alpha and beta orbitals needs spin-dependent integrals")
            return
        if any(part is None for part in parts):
            raise InputError("spin-dependent integrals need h1e and eri of both spins and the mixed eri; one lacks")
        npair = n_pairs(norb)
        shapes = {
            "h1e_b": (norb, norb), "eri_bb": (n_eri(norb),), "eri_ab": (npair, npair), "overlap_ab": (norb, norb)
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name) is None:
                continue
            array = _real(getattr(self, name), name)
            if array.shape != shape:
                raise InputError(f"{name} of {norb} orbitals is {shape}; got {array.shape}")
            if name == "h1e_b":
                array = _symmetrised(array, ((1, 0),), "one-electron integrals of beta are not symmetric")
            object.__setattr__(self, name, array)

    @property
    def spin_dependent(self) -> bool:
        """Whether alpha and beta orbitals differ."""
        return self.h1e_b is not None

    def check_pt2(self) -> None:
        """Check that second-order corrections can be made with these integrals.

        Raises:
            InputError: they depend on spin.
        """
        if self.spin_dependent:
            raise InputError("the second-order correction needs integrals that do not depend on spin")

    def check_strings(self, strings_a: Strings, strings_b: Strings) -> None:
        """Check that alpha and beta strings, (n, n_words) each, fit the orbitals and electrons.

        Raises:
            InputError: the first thing that does not fit.
        """
        for strings, n_electrons, spin_name in zip((strings_a, strings_b), self.nelec, ("alpha", "beta"), strict=True):
            bitstrings.check(strings, self.norb, n_electrons, spin_name)

    @classmethod
    def from_arrays(
        cls, h1e: ArrayLike, eri: ArrayLike, ecore: float, nelec: tuple[int, int], overlap_ab: ArrayLike | None = None
    ) -> Hamiltonian:
        """Hamiltonian of given integrals.

        Integrals that differ from their symmetry by noise are averaged: up to 1e-10 of the largest without a word, up
        to 1e-6 with an InputWarning. Imaginary parts are left out by the same rule.

        Args:
            h1e: one-electron integrals (norb, norb), in hartree; for spin-dependent orbitals those of alpha and of
                beta, (2, norb, norb).
            eri: (pq|rs) with all eight symmetries, as (norb, norb, norb, norb), as (npair, npair) over p >= q and
                r >= s, or as the s8 vector; in hartree. For spin-dependent orbitals a tuple (alpha alpha, alpha beta,
                beta beta) as in PySCF, where the second has alpha orbitals p, q and four symmetries.
            ecore: core energy, in hartree.
            nelec: (n_alpha, n_beta).
            overlap_ab: <alpha orbital p|beta orbital s> (norb, norb) of spin-dependent orbitals, for <S^2>.

        Raises:
            InputError: as the class; also for two-electron integrals without the eight symmetries.
        """
        h1e = _real(h1e, "one-electron integrals")
        if h1e.ndim == 3:
            return cls._from_two_spins(h1e, eri, ecore, nelec, overlap_ab)
        if h1e.ndim != 2 or h1e.shape[0] != h1e.shape[1]:
            raise InputError(f"one-electron integrals are a square matrix; got {h1e.shape}")
        norb = _checked_norb(len(h1e))
        packed = _packed_eri(_real(eri, "two-electron integrals"), norb)
        overlap = None if overlap_ab is None else _real(overlap_ab, "overlap_ab")
        return cls(h1e, packed, ecore, norb, nelec, overlap_ab=overlap)

    @classmethod
    def _from_two_spins(
        cls, h1e: NDArray[np.float64], eri: Any, ecore: float, nelec: tuple[int, int], overlap_ab: ArrayLike | None
    ) -> Hamiltonian:
        if len(h1e) != 2 or h1e.shape[1] != h1e.shape[2]:
            raise InputError(f"one-electron integrals of two spins are (2, norb, norb); got {h1e.shape}")
        if not isinstance(eri, tuple | list | np.ndarray) or len(eri) != 3:
            raise InputError("two-electron integrals of two spins are three arrays: alpha alpha, alpha beta, beta beta")
        norb = _checked_norb(h1e.shape[1])
        aa, ab, bb = (_real(each, f"two-electron integrals {name}") for each, name in zip(eri, _BLOCKS, strict=True))
        return cls(
            h1e[0], _packed_eri(aa, norb), ecore, norb, nelec, h1e_b=h1e[1], eri_bb=_packed_eri(bb, norb),
            eri_ab=_paired_eri(ab, norb), overlap_ab=None if overlap_ab is None else _real(overlap_ab, "overlap_ab"),
        )  # fmt: skip

    @classmethod
    def from_pyscf(
        cls, source: Any, ncas: int | None = None, nelecas: int | tuple[int, int] | None = None
    ) -> Hamiltonian:
        """Hamiltonian of a PySCF calculation, in its molecular orbitals.

        Args:
            source: a converged RHF, ROHF or UHF (or Kohn-Sham) object, or a CASCI or CASSCF object. UHF orbitals make a
                spin-dependent Hamiltonian, without their overlap (hence without <S^2>) if electrons are frozen.
            ncas: number of active orbitals of a mean field; by default all. Doubly occupied orbitals below them are
                folded into h1e and ecore.
            nelecas: active electrons, as a number or as (n_alpha, n_beta); needed with ncas.

        Raises:
            InputError: complex orbitals, spin-dependent ones of a CASCI or CASSCF object, a calculation that has not
                run, or an active space that does not fit.
        """
        from pyscf import scf
        from pyscf.mcscf.casci import CASBase

        if isinstance(source, scf.uhf.UHF):
            return cls._from_uhf(source, ncas, nelecas)
        if isinstance(source, CASBase):
            if ncas is not None or nelecas is not None:
                raise InputError("a CASCI or CASSCF object has its own active space; ncas and nelecas must be None")
            _check_pyscf_orbitals(source)
            active_space = source
        else:
            _check_mean_field(source)
            active_space = _active_space(source, ncas, nelecas)
        h1e, ecore = active_space.get_h1eff()
        n_alpha, n_beta = active_space.nelecas
        return cls.from_arrays(h1e, active_space.get_h2eff(), ecore, (n_alpha, n_beta))

    @classmethod
    def _from_uhf(cls, mean_field: Any, ncas: int | None, nelecas: int | tuple[int, int] | None) -> Hamiltonian:
        _check_pyscf_orbitals(mean_field, n_sets=2)
        _warn_if_not_converged(mean_field)
        active_space = _active_space(mean_field, ncas, nelecas)
        h1e, ecore = active_space.get_h1eff()
        overlap = None
        if not any(active_space.ncore):
            alpha, beta = (orbitals[:, : active_space.ncas] for orbitals in mean_field.mo_coeff)
            overlap = alpha.T @ mean_field.get_ovlp() @ beta
        n_alpha, n_beta = active_space.nelecas
        return cls.from_arrays(np.stack(h1e), active_space.get_h2eff(), ecore, (n_alpha, n_beta), overlap)

    @classmethod
    def from_fcidump(
        cls, path: str | os.PathLike[str], spin_orbitals: Literal["auto", "interleaved", "blocked"] = "auto"
    ) -> Hamiltonian:
        """Hamiltonian of a FCIDUMP file (Knowles and Handy, Comput. Phys. Commun. 54, 75 (1989)).

        Header and numbers are read as Fortran reads them; the file may be packed with gzip. Integrals may stand in any
        symmetry-equivalent order, and more than once: then up to 1e-6 of the largest is taken for noise. Those that
        are left out are 0, with an InputWarning where the end of the file may be lost. Orbital energies (i 0 0 0) are
        ignored. All digits are kept.

        IUHF=1 or UHF=.TRUE. in the header announces spin-dependent integrals, as Molpro writes them: two-electron
        integrals alpha alpha, beta beta and alpha beta, one-electron integrals of alpha and of beta, the core energy,
        each part but the last ended by a line whose indices are all zero; or indices of spin orbitals.

        Args:
            path: the file.
            spin_orbitals: order of spin orbitals if the indices are theirs: interleaved (alpha, beta, alpha, ...) or
                blocked (all alpha first); NORB is then their number if no index is larger, else the number of spatial
                orbitals. By default they are known by UHF in the header or by indices beyond NORB, and their order by
                the integrals.

        Raises:
            InputError: the file cannot be read or does not hold a Hamiltonian; the sentence names the file
                and, where there is one, the line.
        """
        return cls(**vars(read_fcidump(path, spin_orbitals)))

    @functools.cached_property
    def _eri_pairs(self) -> NDArray[np.float64]:
        return permutations.unpacked_eri(self.eri, self.norb)

    @functools.cached_property
    def _eri_pairs_bb(self) -> NDArray[np.float64]:
        return self._eri_pairs if self.eri_bb is None else permutations.unpacked_eri(self.eri_bb, self.norb)

    def eri_pairs(self) -> NDArray[np.float64]:
        """(pq|rs) of alpha electrons as a symmetric matrix (npair, npair); the index of a pair p >= q is
        p (p + 1) / 2 + q.

        Made once and kept: all callers get the same array and must not change it.
        """
        return self._eri_pairs

    def same_spin(self, spin: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """h1e (norb, norb) and (pq|rs) (npair, npair) of alpha (0) or beta (1) electrons; the same if spin-free."""
        if spin == 0 or self.h1e_b is None:
            return self.h1e, self._eri_pairs
        return self.h1e_b, self._eri_pairs_bb

    def coupling(self) -> NDArray[np.float64]:
        """(pq|rs) between an alpha electron (p, q) and a beta electron (r, s), (npair, npair)."""
        return self._eri_pairs if self.eri_ab is None else self.eri_ab

    def spin_of(self, spin_square: float) -> float:
        """The spin S with S (S + 1) = spin_square, checked against the numbers of electrons and orbitals.

        Raises:
            InputError: no state of these electrons in these orbitals has that spin, or the overlap of spin-dependent
                orbitals, which S^2 needs, is missing.
        """
        if self.spin_dependent and self.overlap_ab is None:
            raise InputError(
                "--spin-square needs the overlap of alpha and beta orbitals (overlap_ab) for spin-dependent integrals; "
                "there is none"
            )
        n_alpha, n_beta = self.nelec
        least = abs(n_alpha - n_beta)
        most = min(n_alpha + n_beta, 2 * self.norb - n_alpha - n_beta)  # twice the spin, all open shells parallel
        doubled = np.sqrt(4.0 * spin_square + 1.0) - 1.0
        twice = round(float(doubled))
        if abs(doubled - twice) > _SPIN_TOLERANCE or not least <= twice <= most or (twice - least) % 2:
            possible = [f"{value / 2 * (value / 2 + 1):g}" for value in range(least, most + 1, 2)]
            shown = possible if len(possible) < 8 else [*possible[:6], "...", possible[-1]]
            raise InputError(
                f"--spin-square needs S(S+1) of a spin that {n_alpha} alpha and {n_beta} beta electrons in {self.norb} "
                f"orbitals can have, one of {', '.join(shown)}; got {spin_square:g}"
            )
        return twice / 2

    def without_eri(self) -> dict[str, Any]:
        """Every field but `eri`, by name: what is small enough to be copied to every process."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "eri"}

    @classmethod
    def from_parts(cls, rest: dict[str, Any], eri: NDArray[np.float64], eri_pairs: NDArray[np.float64]) -> Hamiltonian:
        """The Hamiltonian of `without_eri()` on given arrays, such as memory that several processes share.

        Args:
            rest: the other fields.
            eri: as the field `eri`; float64 and contiguous arrays are not copied.
            eri_pairs: as `eri_pairs()`.
        """
        made = cls(eri=eri, **rest)
        made.__dict__["_eri_pairs"] = eri_pairs
        return made

    def fingerprint(self) -> str:
        """SHA-256, as 64 hexadecimal digits, of every number of the Hamiltonian; equal if and only if all bits are."""
        digest = hashlib.sha256(f"hamiltonian {self.norb} {self.nelec[0]} {self.nelec[1]} ".encode())
        for numbers in (np.float64(self.ecore), self.h1e, self.eri):
            digest.update(np.ascontiguousarray(numbers, dtype="<f8").tobytes())
        for name in ("h1e_b", "eri_bb", "eri_ab", "overlap_ab"):
            if getattr(self, name) is not None:
                digest.update(name.encode() + np.ascontiguousarray(getattr(self, name), dtype="<f8").tobytes())
        return digest.hexdigest()


def _real(numbers: ArrayLike, name: str) -> NDArray[np.float64]:
    """Numbers as a contiguous float64 array; InputError unless they are real, but for noise, and finite."""
    array = np.asarray(numbers)
    if array.dtype.kind not in "fiuc":
        raise InputError(f"{name} must be real numbers; got {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contain a value that is not finite (NaN or infinity)")
    if array.dtype.kind == "c":
        imaginary, largest = float(abs(array.imag).max(initial=0.0)), float(abs(array).max(initial=0.0))
        if imaginary > permutations.NOISE * largest:
            raise InputError(f"{name} must be real; these are complex, with imaginary parts up to {imaginary:.1e}")
        if imaginary > permutations.UNNOTICED * largest:
            text = f"{name} are complex, with imaginary parts up to {imaginary:.1e}; the real parts are taken"
            warnings.warn(text, InputWarning, stacklevel=4)
        array = array.real
    return np.asarray(array, dtype=np.float64, order="C")


def _symmetrised(
    array: NDArray[np.float64], permuted: Sequence[tuple[int, ...]], complaint: str
) -> NDArray[np.float64]:
    """Mean of an array and its images under permutations of its axes; judges how far they are from each other."""
    largest, difference = float(abs(array).max()), 0.0
    for axes in permuted:
        image = array.transpose(axes)
        difference = max(difference, float(abs(array - image).max()))
        array = 0.5 * (array + image)
    permutations.judge_noise(difference, largest, complaint)
    return array


_PAIRS = (1, 0, 2, 3), (0, 1, 3, 2)


def _packed_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """The s8 vector of two-electron integrals given with 1-, 4- or 8-fold symmetry."""
    npair = n_pairs(norb)
    if eri.shape == (n_eri(norb),):
        return eri
    complaint = "two-electron integrals lack the symmetry of real orbitals"
    if eri.shape == (norb,) * 4:
        eri = _symmetrised(eri, (*_PAIRS, (2, 3, 0, 1)), complaint)
        p, q = np.tril_indices(norb)
        return eri[p, q][:, p, q][np.tril_indices(npair)]
    if eri.shape != (npair, npair):
        raise InputError(
            f"two-electron integrals of {norb} orbitals are ({norb}, {norb}, {norb}, {norb}), ({npair}, {npair}) "
            f"or ({n_eri(norb)},); got {eri.shape}"
        )
    return _symmetrised(eri, ((1, 0),), complaint)[np.tril_indices(npair)]


def _paired_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(npair, npair) of integrals between two kinds of orbitals, given as that or as (norb, norb, norb, norb)."""
    npair = n_pairs(norb)
    if eri.shape == (norb,) * 4:
        eri = _symmetrised(eri, _PAIRS, "two-electron integrals alpha beta lack the symmetry of real orbitals")
        p, q = np.tril_indices(norb)
        eri = np.ascontiguousarray(eri[p, q][:, p, q])
    if eri.shape != (npair, npair):
        raise InputError(
            f"two-electron integrals alpha beta of {norb} orbitals are ({norb}, {norb}, {norb}, {norb}) or "
            f"({npair}, {npair}); got {eri.shape}"
        )
    return eri


def _checked_norb(norb: Any) -> int:
    if not isinstance(norb, (int, np.integer)) or norb < 1:
        raise InputError(f"a Hamiltonian needs at least one orbital; got norb = {norb}")
    return int(norb)


def checked_nelec(nelec: Any, norb: int) -> tuple[int, int]:
    """(n_alpha, n_beta) as plain integers.

    Raises:
        InputError: they are none, or do not fit the orbitals.
    """
    try:
        n_alpha, n_beta = (value.__index__() for value in nelec)
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"nelec is a pair of integers (n_alpha, n_beta); got {nelec!r}") from None
    for number, spin_name in ((n_alpha, "alpha"), (n_beta, "beta")):
        if not 0 <= number <= norb:
            raise InputError(f"{norb} orbitals hold 0 to {norb} {spin_name} electrons; got {number}")
    return n_alpha, n_beta


def _check_mean_field(mean_field: Any) -> None:
    """Raise InputError unless the object is a PySCF mean field with restricted real orbitals."""
    from pyscf import scf

    if not isinstance(mean_field, scf.hf.RHF):
        raise InputError(
            f"a PySCF object must be a mean field (RHF, ROHF or UHF), CASCI or CASSCF; got {type(mean_field).__name__}"
        )
    _check_pyscf_orbitals(mean_field)
    _warn_if_not_converged(mean_field)


def _warn_if_not_converged(mean_field: Any) -> None:
    if not mean_field.converged:
        text = "the mean field of PySCF is not converged; its orbitals are used as they are"
        warnings.warn(text, InputWarning, stacklevel=5)


def _active_space(mean_field: Any, ncas: int | None, nelecas: int | tuple[int, int] | None) -> Any:
    """The CASCI object of an active space of a mean field, by default of all orbitals; InputError if it cannot be."""
    from pyscf import mcscf, scf

    unrestricted = isinstance(mean_field, scf.uhf.UHF)
    if (ncas is None) != (nelecas is None):
        raise InputError("an active space needs both ncas and nelecas")
    n_molecular = mean_field.mo_coeff[0].shape[1] if unrestricted else mean_field.mo_coeff.shape[1]
    if ncas is None:
        ncas, nelecas = n_molecular, mean_field.mol.nelec
    try:
        active_space = (mcscf.UCASCI if unrestricted else mcscf.CASCI)(mean_field, ncas, nelecas)
        fits = all(0 <= n <= n_molecular - ncas for n in np.atleast_1d(active_space.ncore))
    except (AssertionError, RuntimeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"an active space of {nelecas} electrons in {ncas} orbitals does not fit "
            f"{mean_field.mol.nelectron} electrons in {n_molecular} orbitals"
        )
    return active_space


def _check_pyscf_orbitals(source: Any, n_sets: int = 1) -> None:
    """Raise InputError unless a PySCF object holds one set (or two: one for each spin) of real orbitals."""
    if source.mo_coeff is None:
        raise InputError("the PySCF calculation has no orbitals yet; run it first")
    if np.ndim(source.mo_coeff) != 1 + n_sets:
        raise InputError(
            "spin-dependent (UHF) orbitals are not supported in a CASCI or CASSCF object; give the UHF object, ncas "
            "and nelecas"
        )
    if np.iscomplexobj(source.mo_coeff):
        raise InputError("complex orbitals are not supported; use real ones")
