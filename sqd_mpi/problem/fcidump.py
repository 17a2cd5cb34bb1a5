"""FCIDUMP files: integrals as text (P. J. Knowles and N. C. Handy, Comput. Phys. Commun. 54, 75 (1989)).

Headers and numbers are read as Fortran reads them. Integrals of unlike alpha and beta orbitals come in Molpro's six
parts, or with indices of spin orbitals.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.arrays import FloatArray, IntArray
from sqd_mpi.errors import InputError, InputWarning
from sqd_mpi.problem import fortran_text, permutations
from sqd_mpi.problem.fcidump_table import Table, read_table
from sqd_mpi.problem.permutations import full, n_eri, n_pairs, pair_index
from sqd_mpi.problem.text_files import read_text, shortened
from sqd_mpi.resources import available_memory

SpinOrbitals = Literal["auto", "interleaved", "blocked"]
SPIN_ORBITALS: tuple[SpinOrbitals, ...] = ("auto", "interleaved", "blocked")

# What other programs put into headers that changes the meaning of the integrals.
_UNSUPPORTED = {
    "TREL": "relativistic integrals",
    "ICMPLX": "complex integrals",
    "SYMLZ": "integrals of complex orbitals (eigenfunctions of the angular momentum about an axis)",
    "ST": "similarity-transformed integrals, which are not symmetric,",
    "III": "three-electron integrals",
}
# Arrays of the length of the two-electron integrals that are needed until they are packed: for one kind of orbitals,
# for two.
_ARRAYS, _ARRAYS_OF_TWO = 5, 10


@dataclass(frozen=True, eq=False)
class Integrals:
    """What a FCIDUMP holds, under the names of `Hamiltonian`."""

    h1e: FloatArray
    """(norb, norb) one-electron integrals (of alpha orbitals), hartree."""
    eri: FloatArray
    """(pq|rs) (of alpha orbitals) in s8 order."""
    ecore: float
    """Core energy, hartree."""
    norb: int
    """Number of spatial orbitals."""
    nelec: tuple[int, int]
    """(n_alpha, n_beta)."""
    h1e_b: FloatArray | None = None
    """The same of beta orbitals, if they differ."""
    eri_bb: FloatArray | None = None
    """(pq|rs) of beta orbitals in s8 order."""
    eri_ab: FloatArray | None = None
    """(npair, npair), alpha orbitals p, q and beta orbitals r, s."""


@dataclass(frozen=True, eq=False)
class _Kinds:
    """Which rows of a table are what, (n,) of bool each."""

    two: NDArray[np.bool_]
    one: NDArray[np.bool_]
    core: NDArray[np.bool_]


def read_fcidump(path: str | os.PathLike[str], spin_orbitals: SpinOrbitals = "auto") -> Integrals:
    """The integrals of a file; arguments and errors as of `Hamiltonian.from_fcidump`.

    Raises:
        InputError: see there.
    """
    if spin_orbitals not in SPIN_ORBITALS:
        raise InputError(f"spin orbitals are {', '.join(SPIN_ORBITALS)}; got {spin_orbitals!r}")
    return _Reader(path, spin_orbitals).integrals()


class _Reader:
    """One file: the text, and the way from it to arrays, with errors that name file and line."""

    def __init__(self, path: str | os.PathLike[str], spin_orbitals: SpinOrbitals) -> None:
        self.path, self.spin_orbitals = path, spin_orbitals
        text = read_text(path, f"cannot read the FCIDUMP file {path}")
        header = fortran_text.find_namelist(text, "FCI")
        if header is None:
            self._fail("is not a FCIDUMP file: it must start with a header from &FCI to &END or /")
        self.header = header
        self.table = self._table(text)
        self.norb = self._integer("NORB")
        if self.norb < 1:
            self._fail(f"has NORB = {self.norb}; at least one orbital is needed")

    def _table(self, text: str) -> Table:
        """What stands below the line in which the header ends; Fortran ignores the rest of that line."""
        rest, _, body = text[self.header.end :].partition("\n")
        line = 1 + text.count("\n", 0, self.header.end)
        word = (rest.replace(",", " ").split() or [""])[0]
        if fortran_text.real(word) is not None or word.startswith("("):
            raise InputError(
                f"{self.path} line {line}: integrals must begin in the line below the header's end; here is {word!r}, "
                "which Fortran ignores"
            )
        if not body.strip():
            self._fail("ends after its header: it seems to be cut off")
        return read_table(self.path, body, line + 1)

    def integrals(self) -> Integrals:
        """The integrals, in whichever form they are."""
        self._check_header()
        convention = self._convention()
        if convention == "six parts":
            return self._of_six_parts()
        if convention == "spatial":
            return self._of_spatial_orbitals()
        return self._of_spin_orbitals(convention)

    # --- header

    def _check_header(self) -> None:
        """Raise InputError for a header whose meaning would be lost."""
        for name, what in _UNSUPPORTED.items():
            for text in self.header.constants(name):
                if fortran_text.integer(text) or fortran_text.logical(text):
                    self._fail(f"has a header with {name} = {shortened(text)}: {what} are not supported")
        grid = [fortran_text.integer(text) or 0 for text in self.header.constants("NPROP")]
        if any(number > 1 for number in grid):
            self._fail(f"has a header with NPROP = {grid}: integrals of several k points are not supported")
        elsewhere = [each.name for each in self.header.assignments if each.name.startswith("NPY")]
        if elsewhere:
            self._fail(f"has a header with {elsewhere[0]}: integrals in other files are not supported")

    def _scalar(self, name: str) -> str | None:
        """The text of a scalar of the header, or None."""
        texts = self.header.scalars(name)
        if len(texts) > 1:
            self._fail(f"has a header with two values of {name}")
        return texts[0] if texts else None

    def _integer(self, name: str, default: int | None = None) -> int:
        """An integer of the header."""
        text = self._scalar(name)
        if text is None:
            if default is None:
                self._fail(f"has no {name} in its header")
            return default
        number = fortran_text.integer(text)
        if number is None:
            self._fail(f"has a header with {name} = {shortened(text)!r}, which is not an integer")
        return number

    def _flag(self, name: str) -> bool:
        """A logical or an integer of the header."""
        text = self._scalar(name)
        if text is None:
            return False
        number, truth = fortran_text.integer(text), fortran_text.logical(text)
        if number is None and truth is None:
            self._fail(f"has a header with {name} = {shortened(text)!r}, which is neither an integer nor true or false")
        return bool(number) or bool(truth)

    def _electrons(self, norb: int) -> tuple[int, int]:
        """(n_alpha, n_beta) of the header."""
        n_electrons, ms2 = self._integer("NELEC"), self._integer("MS2", 0)
        if (n_electrons + ms2) % 2:
            self._fail(f"has NELEC = {n_electrons} and MS2 = {ms2}; they must be both even or both odd")
        n_alpha, n_beta = (n_electrons + ms2) // 2, (n_electrons - ms2) // 2
        if not (0 <= n_alpha <= norb and 0 <= n_beta <= norb):
            self._fail(
                f"has NELEC = {n_electrons} and MS2 = {ms2}, that is {n_alpha} alpha and {n_beta} beta electrons, "
                f"which do not fit {norb} orbitals"
            )
        return n_alpha, n_beta

    # --- conventions

    def _convention(self) -> Literal["spatial", "six parts", "interleaved", "blocked"]:
        """How the file numbers orbitals; `norb` becomes the number of spatial ones.

        With spin orbitals NORB is the number of spatial orbitals (sbd, qiskit-nature), or that of spin orbitals where
        UHF or IUHF of the header says so (HANDE, NECI, Psi4, TREXIO) or where no index is larger.
        """
        flagged = self._flag("UHF") or self._flag("IUHF")
        n_separators = int((self.table.indices == 0).all(axis=1).sum())
        highest = int(self.table.indices.max())
        self._check_range(2 * self.norb)
        if self.spin_orbitals == "auto" and highest <= self.norb:
            if not flagged:
                self._warn_of_spin_orbitals()
                return "spatial"
            if n_separators > 1 or self.norb % 2:
                return "six parts"
        if highest <= self.norb:
            if self.norb % 2:
                self._fail(f"has NORB = {self.norb} and no index beyond it; spin orbitals are an even number")
            self.norb //= 2
            return self._layout(usual="interleaved")
        return self._layout(usual=None)

    def _layout(self, usual: Literal["interleaved", "blocked"] | None) -> Literal["interleaved", "blocked"]:
        """The order of spin orbitals: the one that was asked for, or the one in which no integral mixes spins.

        Args:
            usual: what is taken where the integrals do not tell.
        """
        if self.spin_orbitals != "auto":
            return self.spin_orbitals
        possible: list[Literal["interleaved", "blocked"]] = [
            layout for layout in ("interleaved", "blocked") if self._fits(layout, self.norb)
        ]
        if not possible and usual is not None:
            self._fail_as_spin_dependent()
        if not possible:
            self._check_range(self.norb)
        if len(possible) == 1 or self.norb == 1:
            return possible[0]
        if usual is not None:
            return usual
        self._fail(
            f"has NORB = {self.norb} and indices beyond it, those of spin orbitals, but not which of them are alpha: "
            "the option spin-orbitals must say interleaved (alpha, beta, alpha, ...) or blocked (all alpha first)"
        )

    def _spin(self, layout: Literal["interleaved", "blocked"], norb: int) -> tuple[IntArray, IntArray]:
        """Spin (0 alpha, 1 beta) and spatial orbital, from 1 (0: none), of every index of the table."""
        indices = self.table.indices
        if layout == "interleaved":
            return (indices + 1) % 2, (indices + 1) // 2
        return (indices > norb).astype(np.int64), np.where(indices > norb, indices - norb, indices)

    def _mixed(self, layout: Literal["interleaved", "blocked"], norb: int) -> NDArray[np.bool_]:
        """Whether each row has an alpha and a beta orbital for the same electron: then its integral is zero."""
        spin, _ = self._spin(layout, norb)
        indices = self.table.indices
        first = (indices[:, :2] > 0).all(axis=1) & (spin[:, 0] != spin[:, 1])
        second = (indices[:, 2:] > 0).all(axis=1) & (spin[:, 2] != spin[:, 3])
        return first | second

    def _fits(self, layout: Literal["interleaved", "blocked"], norb: int) -> bool:
        """Whether indices may be those of spin orbitals in this order."""
        return not (self._mixed(layout, norb) & (self.table.values != 0.0)).any()

    def _warn_of_spin_orbitals(self) -> None:
        """Warn if indices may be those of spin orbitals although nothing says so.

        Then the two orbitals of each pair repel each other, but no integral has one of each kind for an electron, not
        even those of exchange, which vanish for no molecule.
        """
        indices, half = self.table.indices, self.norb // 2
        if self.norb % 2 or self.norb < 2:
            return
        for layout in ("interleaved", "blocked"):
            if not self._fits(layout, half):
                continue
            spin, orbital = self._spin(layout, half)
            density = (indices > 0).all(axis=1) & (indices[:, 0] == indices[:, 1]) & (indices[:, 2] == indices[:, 3])
            both = density & (orbital[:, 0] == orbital[:, 2]) & (spin[:, 0] != spin[:, 2]) & (self.table.values != 0.0)
            if len(np.unique(orbital[both, 0])) == half:
                self._warn(
                    f"looks as if its indices were those of {layout} spin orbitals; they are taken for {self.norb} "
                    f"spatial ones, unless the option spin-orbitals says {layout}"
                )
                return

    # --- integrals

    def _of_spatial_orbitals(self) -> Integrals:
        """The same orbitals for both spins."""
        norb, table = self.norb, self.table
        nelec, kinds = self._electrons(norb), self._kinds()
        self._check_memory(norb, _ARRAYS)
        p, q, r, s = table.indices.T - 1
        h1e = self._filled(n_pairs(norb), pair_index(p, q), kinds.one)
        eri = self._filled(n_eri(norb), pair_index(pair_index(p, q), pair_index(r, s)), kinds.two)
        ecore = self._core(kinds.core)
        self._warn_of_what_is_missing(kinds, norb)
        return Integrals(full(h1e, norb), eri, ecore, norb, nelec)

    def _of_six_parts(self) -> Integrals:
        """Six parts that lines with all indices zero separate, as Molpro writes them."""
        norb, table = self.norb, self.table
        nelec = self._electrons(norb)
        self._check_range(norb)
        zeros = np.flatnonzero((table.indices == 0).all(axis=1))
        after = int(table.indices.shape[0]) - 1 - zeros[4] if len(zeros) > 4 else -1
        if len(zeros) not in (5, 6) or after != len(zeros) - 5 or np.any(table.values[zeros[:5]] != 0.0):
            self._fail_as_spin_dependent()
        self._check_memory(norb, _ARRAYS_OF_TWO)
        part = np.searchsorted(zeros, np.arange(len(table.values)))
        kinds = self._kinds(part < 3, part >= 3)
        p, q, r, s = table.indices.T - 1
        left, right = pair_index(p, q), pair_index(r, s)
        h1e, eri, *of_beta = self._of_parts(part, kinds, left, right, left * n_pairs(norb) + right)
        kinds = _Kinds(kinds.two, kinds.one, kinds.core & (part == 5))
        ecore = self._core(kinds.core)
        self._warn_of_what_is_missing(kinds, norb, whole=True)
        return Integrals(h1e, eri, ecore, norb, nelec, *of_beta)

    def _of_spin_orbitals(self, layout: Literal["interleaved", "blocked"]) -> Integrals:
        """Indices of spin orbitals."""
        norb, table = self.norb, self.table
        nelec = self._electrons(norb)
        mixed = self._mixed(layout, norb)
        wrong = np.flatnonzero(mixed & (table.values != 0.0))
        if len(wrong):
            table.fail(wrong[0], f"indices {table.indices[wrong[0]].tolist()} of {layout} spin orbitals mix the spins")
        found = self._kinds()
        kinds = _Kinds(found.two & ~mixed, found.one & ~mixed, found.core)
        self._check_memory(norb, _ARRAYS_OF_TWO)
        spin, orbital = self._spin(layout, norb)
        p, q, r, s = orbital.T - 1
        left, right, npair = pair_index(p, q), pair_index(r, s), n_pairs(norb)
        first, second = spin[:, 0], spin[:, 2]
        of_ab = np.where(first == 0, left * npair + right, right * npair + left)
        part = np.where(kinds.one, 3 + first, np.where(first == second, first, 2))
        h1e, eri, *of_beta = self._of_parts(part, kinds, left, right, of_ab)
        ecore = self._core(kinds.core)
        self._warn_of_what_is_missing(kinds, 2 * norb)
        return Integrals(h1e, eri, ecore, norb, nelec, *of_beta)

    def _of_parts(
        self, part: IntArray, kinds: _Kinds, left: IntArray, right: IntArray, of_ab: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """h and (pq|rs) of alpha, the same of beta, and (pq|rs) between them, of rows that stand in Molpro's parts.

        Args:
            part: (n,) 0 to 2 for two-electron integrals alpha alpha, beta beta and alpha beta, 3 and 4 for h.
            kinds: what the rows are.
            left: (n,) pair p, q.
            right: (n,) pair r, s.
            of_ab: (n,) flat position among the integrals alpha beta.
        """
        norb, npair = self.norb, n_pairs(self.norb)
        eri_aa, eri_bb = (self._filled(n_eri(norb), pair_index(left, right), kinds.two & (part == k)) for k in (0, 1))
        eri_ab = self._filled(npair * npair, of_ab, kinds.two & (part == 2)).reshape(npair, npair)
        h_a, h_b = (full(self._filled(npair, left, kinds.one & (part == k)), norb) for k in (3, 4))
        return h_a, eri_aa, h_b, eri_bb, eri_ab

    def _kinds(
        self, may_be_two: NDArray[np.bool_] | Literal[True] = True, may_be_one: NDArray[np.bool_] | Literal[True] = True
    ) -> _Kinds:
        """What every row is: (p q|r s), h(p, q), the core energy, or an orbital energy, which is not needed.

        Args:
            may_be_two: (n,) which rows may be two-electron integrals.
            may_be_one: (n,) which rows may be the others.

        Raises:
            InputError: a row is none of them.
        """
        p, q, r, s = self.table.indices.T
        n_used = (self.table.indices > 0).sum(axis=1)
        two, one = (n_used == 4) & may_be_two, (n_used == 2) & (q > 0) & (p > 0) & may_be_one
        core, energy = n_used == 0, (n_used == 1) & (p > 0) & may_be_one
        unknown = np.flatnonzero(~(two | one | core | energy))
        if len(unknown):
            indices = self.table.indices[unknown[0]].tolist()
            if may_be_two is True:
                self.table.fail(unknown[0], f"indices {indices} name no integral")
            self.table.fail(unknown[0], f"indices {indices} do not belong into this part")
        return _Kinds(two, one, core)

    def _core(self, core: NDArray[np.bool_]) -> float:
        """The core energy."""
        if core.any():
            return float(self._filled(1, np.zeros(len(core), dtype=np.int64), core, largest=1.0)[0])
        for text in self.header.constants("CORE"):
            if fortran_text.real(text):
                self._fail(f"has CORE = {shortened(text)} in its header; a core energy needs a line with four zeros")
        return 0.0

    def _filled(
        self, size: int, positions: IntArray, wanted: NDArray[np.bool_], largest: float | None = None
    ) -> FloatArray:
        """(size,) values of the wanted rows at their positions; the last, or the mean if they differ by noise.

        Raises:
            InputError: two rows give one position unlike values.
        """
        places, values = positions[wanted], self.table.values[wanted]
        out = np.zeros(size)
        out[places] = values
        differences = abs(out[places] - values)
        scale = float(abs(values).max(initial=0.0)) if largest is None else largest
        if not (differences > permutations.UNNOTICED * scale).any():
            return out
        unlike = np.flatnonzero(differences > permutations.NOISE * scale)
        if len(unlike):
            self.table.fail(
                np.flatnonzero(wanted)[unlike[0]], "gives an integral a value that another line contradicts"
            )
        low, high = out.copy(), out
        np.minimum.at(low, places, values)
        np.maximum.at(high, places, values)
        permutations.judge_noise(
            float((high - low).max()), scale, f"{self.path}: lines that give the same integral disagree"
        )
        return 0.5 * (low + high)

    # --- what is missing

    def _check_range(self, highest: int) -> None:
        """Raise InputError for an index out of range."""
        indices = self.table.indices
        outside = np.flatnonzero(((indices < 0) | (indices > highest)).any(axis=1))
        if len(outside):
            row = outside[0]
            worst = indices[row][(indices[row] < 0) | (indices[row] > highest)][0]
            self.table.fail(row, f"orbital {worst} is out of range; NORB = {self.norb}")

    def _check_memory(self, norb: int, n_arrays: int) -> None:
        """Raise InputError for more integrals than memory has room for, whether or not the file has them."""
        needed, available = n_arrays * 8 * n_eri(norb), available_memory()
        if needed > available:
            self._fail(
                f"has NORB = {norb}: its two-electron integrals need {needed / 2**30:.3g} GiB to be read; "
                f"{available / 2**30:.3g} GiB are available"
            )

    def _warn_of_what_is_missing(self, kinds: _Kinds, n_indices: int, whole: bool = False) -> None:
        """Warn of zeros that may be left out by the writer, or lost with the end of the file.

        Args:
            kinds: what the rows are.
            n_indices: number of orbitals that have an index.
            whole: whether something else says that the one-electron integrals are complete.
        """
        table = self.table
        p, q = table.indices[:, 0], table.indices[:, 1]
        absent = _text_of(np.setdiff1d(np.arange(1, n_indices + 1), table.indices))
        without = _text_of(np.setdiff1d(np.arange(1, n_indices + 1), p[kinds.one & (p == q)]))
        none = not (kinds.one & (p == q)).any()
        if absent:
            norb = self._integer("NORB")
            self._warn(f"has NORB = {norb}, but no integral of orbital {absent}; 0 is taken. Is the file whole?")
        elif without and not none and not whole:
            self._warn(f"has no one-electron integral of these orbitals with themselves: {without}; 0 is taken")
        if not kinds.core.any():
            what = "core energy" if kinds.one.any() else "core energy and no one-electron integrals"
            self._warn(f"has no {what}; 0 is taken. Is the file whole?")
        elif table.ends_in_line and not kinds.core[-1]:
            self._warn("ends within its last line, which is not the core energy. Is the file whole?")

    def _fail_as_spin_dependent(self) -> NoReturn:
        """Raise InputError for a file that is in neither form that its header calls for."""
        n_separators = int((self.table.indices == 0).all(axis=1).sum())
        self._fail(
            "holds spin-dependent (UHF) integrals by its header, which need indices of spin orbitals, or five lines of "
            "zeros behind the parts alpha alpha, beta beta, alpha beta, h alpha and h beta, and the core energy at the "
            f"end; {n_separators} lines have no index"
        )

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.path} {text}", InputWarning, stacklevel=7)

    def _fail(self, complaint: str) -> NoReturn:
        raise InputError(f"{self.path} {complaint}")


def _text_of(orbitals: NDArray[np.int64]) -> str:
    """Some of the orbitals, or nothing."""
    return ", ".join(str(orbital) for orbital in orbitals[:5]) + (", ..." if len(orbitals) > 5 else "")
