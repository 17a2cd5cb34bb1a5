"""The electronic Hamiltonian in a basis of orthonormal real orbitals, from arrays, PySCF objects and FCIDUMP files.

H = ecore + sum_pq h1e[p, q] E_pq + 1/2 sum_pqrs (pq|rs) (E_pq E_rs - delta_qr E_ps), with E_pq = E^alpha_pq + E^beta_pq
and integrals in chemists' notation, in hartree. The only door to PySCF beside the adapter.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqd_mpi.options import InputError, available_memory

# Relative to the largest element: how far given arrays may be from the symmetry that is then imposed on them.
_SYMMETRY_TOLERANCE = 1e-10
# In hartree: how far two entries of a FCIDUMP for the same integral may differ.
_DUPLICATE_TOLERANCE = 1e-9
# How far twice the spin that belongs to a given S(S+1) may be from an integer.
_SPIN_TOLERANCE = 1e-4
_BLOCKS = ("alpha alpha", "alpha beta", "beta beta")


@dataclass(frozen=True, eq=False)
class Hamiltonian:
    """Integrals of a Hamiltonian; checked at construction.

    Spin-free: h1e and eri serve both spins. Spin-dependent (UHF orbitals): h1e and eri are those of alpha electrons,
    and h1e_b, eri_bb and eri_ab are given.

    Raises:
        InputError: a shape, a symmetry or an electron number does not fit, or a number is not finite.
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
        norb, nelec = _checked_norb(self.norb), _checked_nelec(self.nelec, self.norb)
        h1e, eri = _real(self.h1e, "one-electron integrals"), _real(self.eri, "two-electron integrals")
        ecore = _real(self.ecore, "core energy")
        if h1e.shape != (norb, norb):
            raise InputError(f"one-electron integrals of {norb} orbitals are ({norb}, {norb}); got {h1e.shape}")
        if eri.shape != (_n_eri(norb),):
            raise InputError(f"two-electron integrals of {norb} orbitals are {_n_eri(norb)} numbers; got {eri.shape}")
        if ecore.shape != ():
            raise InputError(f"the core energy is one number; got an array {ecore.shape}")
        h1e = _symmetrised(h1e, h1e.T, "one-electron integrals are not symmetric")
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
        npair = norb * (norb + 1) // 2
        shapes = {
            "h1e_b": (norb, norb), "eri_bb": (_n_eri(norb),), "eri_ab": (npair, npair), "overlap_ab": (norb, norb)
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name) is None:
                continue
            array = _real(getattr(self, name), name)
            if array.shape != shape:
                raise InputError(f"{name} of {norb} orbitals is {shape}; got {array.shape}")
            if name == "h1e_b":
                array = _symmetrised(array, array.T, "one-electron integrals of beta are not symmetric")
            object.__setattr__(self, name, array)

    @property
    def spin_dependent(self) -> bool:
        """Whether alpha and beta orbitals differ."""
        return self.h1e_b is not None

    @classmethod
    def from_arrays(
        cls, h1e: ArrayLike, eri: ArrayLike, ecore: float, nelec: tuple[int, int], overlap_ab: ArrayLike | None = None
    ) -> Hamiltonian:
        """Hamiltonian of given integrals.

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
    def from_fcidump(cls, path: str | os.PathLike[str]) -> Hamiltonian:
        """Hamiltonian of a FCIDUMP file (Knowles and Handy, Comput. Phys. Commun. 54, 75 (1989)).

        The header may take several lines, be in upper or lower case and end with &END or a slash; exponents may be
        written with D; integrals may stand in any symmetry-equivalent order, and more than once when they agree to
        1e-9. Orbital energies (i 0 0 0) are ignored and a missing core energy is 0. All digits are kept.

        IUHF=1 or UHF=.TRUE. in the header announces spin-dependent integrals, as Molpro writes them: two-electron
        integrals alpha alpha, beta beta and alpha beta, one-electron integrals of alpha and of beta, the core energy,
        each part but the last ended by a line whose indices are all zero.

        Raises:
            InputError: the file cannot be read or does not hold a Hamiltonian; the sentence names the file
                and, where there is one, the line.
        """
        return _FcidumpReader(path).hamiltonian()

    @functools.cached_property
    def _eri_pairs(self) -> NDArray[np.float64]:
        return _unpacked_eri(self.eri, self.norb)

    @functools.cached_property
    def _eri_pairs_bb(self) -> NDArray[np.float64]:
        return self._eri_pairs if self.eri_bb is None else _unpacked_eri(self.eri_bb, self.norb)

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
    def from_parts(
        cls, rest: dict[str, Any], eri: NDArray[np.float64], eri_pairs: NDArray[np.float64]
    ) -> Hamiltonian:
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


def _n_eri(norb: int) -> int:
    """Length of the s8 vector of norb orbitals."""
    npair = norb * (norb + 1) // 2
    return npair * (npair + 1) // 2


def _real(numbers: ArrayLike, name: str) -> NDArray[np.float64]:
    """Numbers as a contiguous float64 array; InputError unless they are real and finite."""
    array = np.asarray(numbers)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must be real numbers; got {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contain a value that is not finite (NaN or infinity)")
    return np.asarray(array, dtype=np.float64, order="C")


def _symmetrised(array: NDArray[np.float64], mirrored: NDArray[np.float64], complaint: str) -> NDArray[np.float64]:
    """Mean of an array and its mirror image; InputError when they differ by more than the tolerance."""
    difference = float(abs(array - mirrored).max())
    if difference > _SYMMETRY_TOLERANCE * float(abs(array).max()):
        raise InputError(f"{complaint}: they differ by up to {difference:.1e}")
    return 0.5 * (array + mirrored)


def _packed_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """The s8 vector of two-electron integrals given with 1-, 4- or 8-fold symmetry."""
    npair = norb * (norb + 1) // 2
    if eri.shape == (_n_eri(norb),):
        return eri
    complaint = "two-electron integrals lack the symmetry of real orbitals"
    if eri.shape == (norb,) * 4:
        eri = _symmetrised(eri, eri.transpose(1, 0, 2, 3), complaint)
        eri = _symmetrised(eri, eri.transpose(0, 1, 3, 2), complaint)
        p, q = np.tril_indices(norb)
        eri = eri[p, q][:, p, q]
    if eri.shape != (npair, npair):
        raise InputError(
            f"two-electron integrals of {norb} orbitals are ({norb}, {norb}, {norb}, {norb}), ({npair}, {npair}) "
            f"or ({_n_eri(norb)},); got {eri.shape}"
        )
    return _symmetrised(eri, eri.T, complaint)[np.tril_indices(npair)]


def _paired_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(npair, npair) of integrals between two kinds of orbitals, given as that or as (norb, norb, norb, norb)."""
    npair = norb * (norb + 1) // 2
    if eri.shape == (norb,) * 4:
        complaint = "two-electron integrals alpha beta lack the symmetry of real orbitals"
        eri = _symmetrised(eri, eri.transpose(1, 0, 2, 3), complaint)
        eri = _symmetrised(eri, eri.transpose(0, 1, 3, 2), complaint)
        p, q = np.tril_indices(norb)
        eri = np.ascontiguousarray(eri[p, q][:, p, q])
    if eri.shape != (npair, npair):
        raise InputError(
            f"two-electron integrals alpha beta of {norb} orbitals are ({norb}, {norb}, {norb}, {norb}) or "
            f"({npair}, {npair}); got {eri.shape}"
        )
    return eri


def _unpacked_eri(eri: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(npair, npair) symmetric matrix of an s8 vector."""
    npair = norb * (norb + 1) // 2
    matrix = np.empty((npair, npair))
    for row in range(npair):
        values = eri[row * (row + 1) // 2 :][: row + 1]
        matrix[row, : row + 1] = values
        matrix[: row + 1, row] = values
    return matrix


def _checked_norb(norb: Any) -> int:
    if not isinstance(norb, (int, np.integer)) or norb < 1:
        raise InputError(f"a Hamiltonian needs at least one orbital; got norb = {norb}")
    return int(norb)


def _checked_nelec(nelec: Any, norb: int) -> tuple[int, int]:
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
            "a PySCF object must be a mean field (RHF, ROHF or UHF), CASCI or CASSCF; "
            f"got {type(mean_field).__name__}"
        )
    _check_pyscf_orbitals(mean_field)
    _warn_if_not_converged(mean_field)


def _warn_if_not_converged(mean_field: Any) -> None:
    if not mean_field.converged:
        warnings.warn("the mean field of PySCF is not converged; its orbitals are used as they are", stacklevel=5)


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


class _FcidumpReader:
    """One FCIDUMP file: the text, and the way from it to arrays, with errors that name file and line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            self._fail("is no ordinary file")
        try:
            self.text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"cannot read the FCIDUMP file {path}: {error.strerror}") from error
        # A namelist: "&FCI name = values, ..." up to "&END" or "/".
        found = re.match(r"\s*[&$]FCI\b(.*?)(?:[&$]END\b|/)", self.text, re.IGNORECASE | re.DOTALL)
        if found is None:
            self._fail("is not a FCIDUMP file: it must start with a header from &FCI to &END or /")
        self.fields = self._fields(found.group(1))
        self.body = self.text[found.end() :]
        self.body_line = 1 + self.text.count("\n", 0, found.end())

    def hamiltonian(self) -> Hamiltonian:
        """The Hamiltonian of the file."""
        norb, nelec = self._numbers()
        values, indices = self._table()
        self._check_table(values, indices, norb)
        self._check_size(indices, norb)
        if self._spin_dependent():
            return self._hamiltonian_of_two_spins(values, indices, norb, nelec)
        p, q, r, s = indices.T - 1
        n_used = (indices > 0).sum(axis=1)
        # the places of the four indices of a line decide its meaning: (p q|r s), h(p, q), orbital energy, core energy
        two, one, core = n_used == 4, (n_used == 2) & (q >= 0) & (r < 0), n_used == 0
        energy = (n_used == 1) & (p >= 0)
        unknown = np.flatnonzero(~(two | one | core | energy))
        if len(unknown):
            self._fail(f"indices {indices[unknown[0]].tolist()} name no integral", unknown[0])
        if not one.any() and not core.any():
            self._fail("has neither one-electron integrals nor a core energy: it seems to be cut off")
        self._check_end(np.unique(p[one & (p == q)]), bool(core.any()), norb)
        h1e, eri, ecore = np.zeros(norb * (norb + 1) // 2), np.zeros(_n_eri(norb)), np.zeros(1)
        self._fill(h1e, _pair(p, q), values, one)
        self._fill(eri, _pair(_pair(p, q), _pair(r, s)), values, two)
        self._fill(ecore, np.zeros(len(values), dtype=np.int64), values, core)
        return Hamiltonian(_full(h1e, norb), eri, float(ecore[0]), norb, nelec)

    def _hamiltonian_of_two_spins(
        self, values: NDArray[np.float64], indices: NDArray[np.int64], norb: int, nelec: tuple[int, int]
    ) -> Hamiltonian:
        """The Hamiltonian of six parts that lines with all indices zero separate."""
        zeros = np.flatnonzero((indices == 0).all(axis=1))
        if len(zeros) != 6 or zeros[-1] != len(values) - 1 or np.any(values[zeros[:5]] != 0.0):
            self._fail(
                "holds spin-dependent (UHF) integrals, which need five lines of zeros behind the parts alpha alpha, "
                "beta beta, alpha beta, h alpha and h beta, and the core energy at the end; "
                f"{len(zeros)} lines have no index"
            )
        part = np.searchsorted(zeros, np.arange(len(values)))
        p, q, r, s = indices.T - 1
        inside = (indices > 0).any(axis=1)
        expected = np.where(part < 3, (indices > 0).all(axis=1), (p >= 0) & (q >= 0) & (r < 0) & (s < 0))
        energy = (p >= 0) & (q < 0) & (r < 0) & (s < 0) & (part >= 3)  # orbital energies are not needed
        unknown = np.flatnonzero(inside & ~expected & ~energy)
        if len(unknown):
            self._fail(f"indices {indices[unknown[0]].tolist()} do not belong into this part", unknown[0])
        npair = norb * (norb + 1) // 2
        eri_aa, eri_bb, eri_ab = np.zeros(_n_eri(norb)), np.zeros(_n_eri(norb)), np.zeros(npair * npair)
        left, right = _pair(p, q), _pair(r, s)
        for k, out in enumerate((eri_aa, eri_bb)):
            self._fill(out, _pair(left, right), values, inside & (part == k))
        self._fill(eri_ab, left * npair + right, values, inside & (part == 2))
        h1e = np.zeros((2, npair))
        for spin in (0, 1):
            self._fill(h1e[spin], left, values, inside & (part == 3 + spin) & ~energy)
        if not h1e.any():
            self._fail("has no one-electron integrals: it seems to be cut off")
        return Hamiltonian(
            _full(h1e[0], norb), eri_aa, float(values[-1]), norb, nelec, h1e_b=_full(h1e[1], norb), eri_bb=eri_bb,
            eri_ab=eri_ab.reshape(npair, npair),
        )  # fmt: skip

    def _spin_dependent(self) -> bool:
        return self.fields.get("UHF", "").strip(".").upper().startswith("T") or self._integer("IUHF", 0) != 0

    def _fields(self, header: str) -> dict[str, str]:
        """Names (upper case) and values of the header."""
        header = re.sub(r"!.*", "", header)
        parts = re.split(r"\b([A-Za-z_]\w*)\s*=", header)
        fields: dict[str, str] = {}
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            value = text.strip(" \t\r\n,")
            if fields.setdefault(name.upper(), value) != value:
                self._fail(f"has a header with two values of {name.upper()}")
        return fields

    def _integer(self, name: str, default: int | None = None) -> int:
        """An integer of the header."""
        text = self.fields.get(name)
        if text is None:
            if default is None:
                self._fail(f"has no {name} in its header")
            return default
        try:
            return int(text)
        except ValueError:
            self._fail(f"has a header with {name} = {_short(text)!r}, which is not an integer")

    def _numbers(self) -> tuple[int, tuple[int, int]]:
        """norb and (n_alpha, n_beta) of the header."""
        norb, n_electrons, ms2 = self._integer("NORB"), self._integer("NELEC"), self._integer("MS2", 0)
        if norb < 1:
            self._fail(f"has NORB = {norb}; at least one orbital is needed")
        if (n_electrons + ms2) % 2:
            self._fail(f"has NELEC = {n_electrons} and MS2 = {ms2}; they must be both even or both odd")
        n_alpha, n_beta = (n_electrons + ms2) // 2, (n_electrons - ms2) // 2
        if not (0 <= n_alpha <= norb and 0 <= n_beta <= norb):
            self._fail(
                f"has NELEC = {n_electrons} and MS2 = {ms2}, that is {n_alpha} alpha and {n_beta} beta electrons, "
                f"which do not fit {norb} orbitals"
            )
        return norb, (n_alpha, n_beta)

    def _table(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values (n,) and indices (n, 4) of all lines below the header."""
        if not self.body.strip():
            self._fail("ends after its header: it seems to be cut off")
        plain = self.body.translate(str.maketrans("Dd,", "Ee "))
        try:
            table = np.loadtxt(io.StringIO(plain), comments=None, ndmin=2)
        except ValueError:
            self._fail_at_bad_line(plain)
        if table.shape[1] != 5:
            self._fail_at_bad_line(plain)
        if not np.isfinite(table).all():
            self._fail("a value is not finite (NaN or infinity)", np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        with np.errstate(invalid="ignore"):  # numbers that no integer holds differ from what they become
            indices = table[:, 1:].astype(np.int64)
        fractional = np.flatnonzero((indices != table[:, 1:]).any(axis=1))
        if len(fractional):
            self._fail("an orbital index is not an integer", fractional[0])
        return table[:, 0].copy(), indices

    def _check_table(self, values: NDArray[np.float64], indices: NDArray[np.int64], norb: int) -> None:
        """Raise InputError for an index out of range."""
        outside = np.flatnonzero(((indices < 0) | (indices > norb)).any(axis=1))
        if len(outside):
            row = outside[0]
            worst = indices[row][(indices[row] < 0) | (indices[row] > norb)][0]
            self._fail(f"orbital {worst} is out of range; NORB = {norb}", row)

    def _check_size(self, indices: NDArray[np.int64], norb: int) -> None:
        """Raise InputError for a header that claims more orbitals than there are, or than memory has room for."""
        which = "most orbitals"
        if norb <= indices.size:  # not an array of a length that only the header claims
            missing = np.setdiff1d(np.arange(1, norb + 1), indices)
            which = f"orbital {missing[0]}" if len(missing) else ""
        if which:
            self._fail(f"has NORB = {norb}, but no integral of {which}: it seems to be cut off, or NORB is wrong")
        needed, available = 5 * 8 * _n_eri(norb), available_memory()
        if needed > available:
            self._fail(
                f"has NORB = {norb}: its two-electron integrals need {needed / 2**30:.3g} GiB to be read; "
                f"{available / 2**30:.3g} GiB are available"
            )

    def _check_end(self, diagonal: NDArray[np.int64], has_core: bool, norb: int) -> None:
        """Judge whether the file was cut off: writers put one-electron integrals and, last, the core energy at its end.

        Args:
            diagonal: orbitals p, from 0, that have h(p, p).
            has_core: whether there is a core energy.
            norb: number of orbitals.
        """
        missing = np.setdiff1d(np.arange(norb), diagonal) + 1
        if not has_core and len(missing):
            self._fail(
                f"has neither a core energy nor the one-electron integral of orbital {missing[0]} with itself: "
                "it seems to be cut off"
            )
        if not has_core:
            warnings.warn(f"{self.path} has no core energy; 0 is taken. Is the file whole?", stacklevel=5)
        elif 0 < len(missing) < norb:
            text = ", ".join(str(orbital) for orbital in missing[:5]) + (", ..." if len(missing) > 5 else "")
            warnings.warn(
                f"{self.path} has no one-electron integral of these orbitals with themselves: {text}; 0 is taken",
                stacklevel=5,
            )

    def _fill(
        self,
        out: NDArray[np.float64],
        positions: NDArray[np.int64],
        values: NDArray[np.float64],
        wanted: NDArray[np.bool_],
    ) -> None:
        """out[positions] = values on the wanted rows; InputError when two rows give one position unlike values."""
        out[positions[wanted]] = values[wanted]
        unlike = np.flatnonzero(abs(out[positions[wanted]] - values[wanted]) > _DUPLICATE_TOLERANCE)
        if len(unlike):
            row = np.flatnonzero(wanted)[unlike[0]]
            self._fail("gives an integral a value that another line contradicts", row)

    def _fail_at_bad_line(self, plain: str) -> NoReturn:
        """Raise InputError for the first line that is not a number and four integers."""
        for row, line in enumerate(line for line in plain.split("\n") if line.strip()):
            words = line.split()
            if len(words) != 5:
                self._fail(f"a value and four orbital indices were expected, {len(words)} words were found", row)
            for word in words:
                try:
                    float(word)
                except ValueError:
                    self._fail(f"{_short(word)!r} is not a number", row)
        self._fail("cannot be read as a table of integrals")

    def _fail(self, complaint: str, row: int | np.integer | None = None) -> NoReturn:
        """Raise InputError about the file, or about the row-th line below the header that is not blank."""
        if row is None:
            raise InputError(f"{self.path} {complaint}")
        filled = [number for number, line in enumerate(self.body.split("\n"), self.body_line) if line.strip()]
        raise InputError(f"{self.path} line {filled[int(row)]}: {complaint}")


def _full(packed: NDArray[np.float64], norb: int) -> NDArray[np.float64]:
    """(norb, norb) symmetric matrix of its packed lower triangle."""
    matrix = np.empty((norb, norb))
    lower = np.tril_indices(norb)
    matrix[lower] = matrix.T[lower] = packed
    return matrix


def _short(text: str) -> str:
    """A text that may be of any length, for a sentence."""
    return text if len(text) <= 60 else text[:57] + "..."


def _pair(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of an unordered pair: p (p + 1) / 2 + q for p >= q."""
    larger, smaller = np.maximum(first, second), np.minimum(first, second)
    return larger * (larger + 1) // 2 + smaller
