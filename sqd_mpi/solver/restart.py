"""Vectors of an earlier run: opened once, checked, and taken for known roots where that run knew them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums, inspection, records
from sqd_mpi.files.distributed import StoredVectors
from sqd_mpi.solver.davidson import Eigenpairs, Step
from sqd_mpi.solver.fitting import Frame
from sqd_mpi.solver.history import History
from sqd_mpi.solver.sector_search import SectorSearch
from sqd_mpi.solver.sectors import ANY_SPIN, Aim, Known, Sector, SectorTask

_NOTHING = -1e300  # hartree; no states lie below
_NORMALISED = 1e-9  # by how much the squared norm of an eigenvector from a checkpoint may differ from 1


class Restart:
    """What there is to start from, and what was taken of it."""

    def __init__(self, frame: Frame, stored: Any) -> None:
        """Take the vectors, if there are any."""
        self.stored = stored
        """Vectors, with `nroots` and `fill(grid, layout, root, out)` like `StoredVectors`; or None."""
        self.used = False
        """Whether any of them had part in a sector that was solved."""
        self.n_restored: dict[Sector, int] = {}
        """Roots of every sector that a checkpoint has brought."""
        self.guarded: Sector | None = None
        """Sector for which the checkpoint has a vector that began as a random one, or None."""
        self.stirred: set[Sector] = set()
        """Sectors for whose lowest roots the checkpoint has vectors in which random ones have had a part."""
        self._frame = frame

    @classmethod
    def open(cls, frame: Frame, given: Any) -> Restart:
        """Open what the call gives or its option `start` names. Collective over the grid.

        Args:
            frame: where the solve takes place.
            given: vectors in memory; or a `files.records.VectorReader` of a file that was verified; or None.

        Raises:
            InputError: the file is damaged or cannot be read; the same on all ranks.
        """
        if given is not None and not isinstance(given, records.VectorReader):
            return cls(frame, given)
        source = given or frame.call.options.start
        if source is None:
            return cls(frame, None)
        if isinstance(source, Path):
            _verify(frame, source)
        stored, trouble = None, None
        try:
            stored = StoredVectors(source, frame.space.alpha, frame.space.beta)
        except InputError as error:
            trouble = str(error)
        frame.call.ranks.agree_on_error(trouble)

        # Strings of one spin that the file does not have leave nothing of its vectors.
        assert stored is not None
        unknown = [spin for spin, n in zip(("alpha", "beta"), stored.n_known, strict=True) if n == 0]
        if unknown:
            frame.call.log.warning(
                f"{stored.reader.path} has none of the {' and '.join(unknown)} strings of this space; its vectors are "
                "not used"
            )
            return cls(frame, None)
        return cls(frame, stored)

    @property
    def unused_file(self) -> Path | None:
        """The file whose vectors had no part in any sector."""
        unused = isinstance(self.stored, StoredVectors) and not self.used and not self.n_restored
        return self.stored.reader.path if unused else None

    def state(self, task: SectorTask, search: SectorSearch) -> dict[str, Any]:
        """What a later run needs, beside vectors and history, to go on from here."""
        sectors_known = search.state()
        return {
            "settings": _settings(self._frame),
            "guarded": task.sector if task.aim is Aim.GUARD else None,
            "sectors": {
                "label": [sector.label for sector in sectors_known],
                "parity": [sector.parity for sector in sectors_known],
                "twice_spin": [sector.twice_spin for sector in sectors_known],
                "n_found": [known.n_found for known in sectors_known.values()],
                "hard": [int(known.hard) for known in sectors_known.values()],
                "how": [known.how for known in sectors_known.values()],
                "stirred": [int(known.stirred) for known in sectors_known.values()],
                "complete_below": [max(known.complete_below, _NOTHING) for known in sectors_known.values()],
            },
        }

    def known(self, history: History, sectors: list[Sector]) -> Iterator[tuple[Sector, Eigenpairs | None, Known]]:
        """Go on where a run of the same problem was stopped, and yields the sectors that it had begun or decided.

        Collective over the grid: all ranks exhaust it.

        Args:
            history: goes on counting from there.
            sectors: those of this solve.

        Yields:
            sector, its roots if it had any, and what else was known of it. Sectors whose roots are not all there with
            the accuracy that is wanted now are left out.
        """
        frame = self._frame
        if not frame.call.options.resume or not isinstance(self.stored, StoredVectors):
            return
        reader = self.stored.reader
        if not reader.is_checkpoint:  # there was none, and a result was given as start
            return
        state = reader.state()
        known = state.get("solver", {})
        same = reader.fingerprint == records.fingerprint(frame.space.hamiltonian, *frame.space.canonical_strings)
        if not same or known.get("settings") != _settings(frame):
            return

        history.restore(int(state["iteration"]), known)
        guarded = known["guarded"]
        self.guarded = None if guarded is None else Sector(*(int(number) for number in guarded))
        columns = known["sectors"]
        # Older files lack some.
        columns.setdefault("twice_spin", [ANY_SPIN] * len(columns["label"]))
        columns.setdefault("stirred", [0] * len(columns["label"]))
        columns.setdefault("complete_below", [_NOTHING] * len(columns["label"]))
        names = "label", "parity", "twice_spin", "n_found", "hard", "how", "stirred", "complete_below"
        for label, parity, twice_spin, n_found, hard, how, stirred, complete_below in zip(
            *(columns[name] for name in names), strict=True
        ):
            sector = Sector(label, parity, twice_spin)
            if sector not in sectors:
                continue
            if stirred:
                self.stirred.add(sector)
            whole, pairs = self._roots(sector, n_found, state)
            if whole:
                yield sector, pairs, Known(n_found, bool(hard), str(how), bool(stirred), float(complete_below))

    def _roots(self, sector: Sector, n_found: int, state: dict[str, Any]) -> tuple[bool, Eigenpairs | None]:
        """Whether the known roots of a sector are all there with the accuracy that is wanted now; and the roots."""
        reader, frame = self.stored.reader, self._frame
        tol = frame.call.options.tol
        spins = state["solver"].get("twice_spins", [ANY_SPIN] * self.stored.nroots)
        stored = map(Sector, reader.sectors, reader.parities, spins)  # directions follow the roots
        numbers = [k for k, other in enumerate(stored) if other == sector][:n_found]
        energies, norms = (np.array(state[name], float)[numbers] for name in ("energies", "residual_norms"))
        if len(numbers) < n_found or np.any(norms > tol):
            return False, None
        if not numbers:
            return True, None

        # Eigenvectors that lost a part on their way are none any more.
        vectors = self._vectors(sector, numbers)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        frame.grid.sum_over_all(squares)
        if np.any(abs(squares - 1.0) > _NORMALISED):
            return False, None
        self.n_restored[sector] = n_found
        return True, Eigenpairs(energies, vectors, norms, norms <= tol, 0, 0, 0, False)

    def _vectors(self, sector: Sector, numbers: list[int]) -> NDArray[np.float64]:
        layout = self._frame.layout(sector)
        vectors = np.empty((len(numbers), layout.slice_size(*self._frame.grid.coordinates)))
        for vector, number in zip(vectors, numbers, strict=True):
            self.stored.fill(self._frame.grid, layout, number, vector)
        return vectors

    def compare(self, numbers: list[int], step: Step) -> None:
        """Say what residuals stored vectors have here beside those that their file gives them.

        Args:
            numbers: of the vectors that the iterations began with.
            step: the first.
        """
        if not numbers or not isinstance(self.stored, StoredVectors):
            return
        energies, told = self.stored.reader.energies(), self.stored.reader.residual_norms()
        norms = [told[number] for number in sorted(numbers, key=energies.__getitem__)][: len(step.residual_norms)]
        here, there = (", ".join(f"{x:.1e}" for x in each) for each in (step.residual_norms[: len(norms)], norms))
        self._frame.call.log.info(f"start vectors: residual {here}; where they were written {there}")


def _verify(frame: Frame, path: Path) -> None:
    """Collective over the grid.

    Raises:
        InputError: the file is damaged; the same on all ranks.
    """
    trouble = None
    if not checksums.verify(frame.call.ranks, path, needed=False) and frame.grid.rank == 0:
        try:
            inspection.look(path)
        except InputError as error:
            trouble = str(error)
    frame.call.ranks.agree_on_error(trouble)


def _settings(frame: Frame) -> str:
    """What decisions on sectors depend on beside Hamiltonian and strings."""
    names = "nroots", "spin_square", "spin_penalty", "symmetry", "model_space"
    return ", ".join(f"{name} {getattr(frame.call.options, name)}" for name in names)
