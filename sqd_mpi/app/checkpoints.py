"""The two newest checkpoints of a result: written by all ranks, verified before one is taken up again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from sqd_mpi.distribution.ranks import Ranks
from sqd_mpi.errors import InputError
from sqd_mpi.files import checksums, records
from sqd_mpi.log import Log


def checkpoint_path(output_path: str | Path) -> Path:
    """Where the newest checkpoint of a result file lies."""
    return Path(f"{output_path}.checkpoint")


class Checkpoints:
    """Writes and finds the checkpoints of one result file.

    There are two generations: `<result>.checkpoint` and, from the second one on, `<result>.checkpoint.previous`.

    Args:
        ranks: those of the run.
        output: the result file.
        problem: Hamiltonian and strings in canonical order.
        fingerprint: of Hamiltonian and strings.
        log: where warnings go.
    """

    def __init__(self, ranks: Ranks, output: Path, problem: Any, fingerprint: str, log: Log):
        self.ranks = ranks
        self.newest = checkpoint_path(output)
        self.previous = Path(f"{self.newest}.previous")
        self.problem = problem
        self.fingerprint = fingerprint
        self.log = log
        self.written = False
        """Whether a checkpoint of this run exists."""
        self.found: records.VectorReader | None = None
        """The checkpoint of an earlier run that this one goes on from."""
        self.last_written = perf_counter()
        """When the last checkpoint was written, or could not be; at first the start."""

    def write(self, progress: Any) -> str | None:
        """Write the state of a solve; the newest generation so far becomes the previous one.

        Collective over the grid.

        Args:
            progress: a `solve.Progress`.

        Returns:
            None, or on all ranks one sentence on why there is no new checkpoint; the former ones are whole then.
        """
        from sqd_mpi.files import distributed  # with numba, which must not come before the number of threads is settled

        # The vectors of the sector in work, then of finished ones; directions come last.
        step = progress.step
        found = step.vectors()
        vectors = [(progress.layout, vector) for vector in found[: len(step.energies)]]
        directions = [(progress.layout, vector) for vector in found[len(step.energies) :]]
        energies, residuals = list(step.energies), list(step.residual_norms)
        for layout, kept, kept_energies, kept_norms in progress.finished:
            vectors += [(layout, vector) for vector in kept]
            energies += list(kept_energies)
            residuals += list(kept_norms)

        def fill(file: Any) -> None:
            records.write_checkpoint_state(
                file, fingerprint=self.fingerprint, hamiltonian=self.problem.hamiltonian.fingerprint(),
                strings_a=self.problem.strings_a, strings_b=self.problem.strings_b, iteration=progress.iteration,
                energies=energies, residual_norms=residuals, state=progress.state(),
            )  # fmt: skip

        # Written aside, so that the former ones are whole until it is.
        try:
            distributed.write_file(
                progress.grid, self.newest, records.CHECKPOINT, fill, [*vectors, *directions], self._keep_newest,
                len(directions),
            )  # fmt: skip
            self.written = True
        except OSError as error:
            return str(error)
        finally:
            self.last_written = perf_counter()
        return None

    def _keep_newest(self) -> None:
        """Make the newest generation the previous one; a new one is complete and takes its name next."""
        if self.newest.exists():
            os.replace(self.newest, self.previous)

    def find(self) -> None:
        """Find and open the newest whole checkpoint that --resume can go on from; `found` is None if there is none.

        Collective over the ranks.

        Raises:
            InputError: all generations are damaged, or the whole one belongs to another Hamiltonian.
        """
        there = self.ranks.broadcast([path for path in (self.newest, self.previous) if path.exists()])
        complaints = []
        for path in there:
            # A damaged one is passed over.
            try:
                checksums.verify(self.ranks, path)
            except InputError as error:
                complaints.append(str(error))
                continue
            reader = self._open(path)

            # Which it is.
            told = self.ranks.from_rank_0(partial(self._told, reader))
            if complaints:
                self.log.warning(f"{complaints[0]}; going on from the checkpoint before it")
            elif path == self.previous:
                self.log.warning(f"{self.newest} is missing; going on from the checkpoint before it")
            self.log.info(f"resuming from {path} {told}")
            self.found = reader
            return

        # There is none.
        if complaints:
            raise InputError(f"--resume needs a whole checkpoint; {'; '.join(complaints)}")
        self.log.warning(f"--resume: there is no checkpoint {self.newest}; starting from the beginning")

    def _open(self, path: Path) -> records.VectorReader:
        """A reader on every rank; InputError on all if one of them has none. Collective over the ranks."""
        reader, trouble = None, None
        try:
            reader = records.VectorReader(path)
        except InputError as error:
            trouble = str(error)
        self.ranks.agree_on_error(trouble)
        assert reader is not None
        return reader

    def _told(self, reader: records.VectorReader) -> str:
        """What is to be said about a whole checkpoint; InputError if it is of another Hamiltonian."""
        if reader.hamiltonian != self.problem.hamiltonian.fingerprint():
            raise InputError(
                f"--resume needs a checkpoint of this input; {reader.path} was written for another Hamiltonian"
            )
        told = f"(iteration {reader.state()['iteration']})"
        if reader.fingerprint != self.fingerprint:
            from sqd_mpi.problem import bitstrings

            known = [
                f"{int((bitstrings.find(old, new) >= 0).sum())} of {len(new)} {spin}"
                for old, new, spin in (
                    (reader.strings_a, self.problem.strings_a, "alpha"),
                    (reader.strings_b, self.problem.strings_b, "beta"),
                )
            ]
            told += f", written for other strings: it has {' and '.join(known)} strings"
        return told

    def remove(self) -> None:
        """Remove all generations: the result is there."""
        if self.ranks.rank == 0:
            for path in (self.newest, self.previous):
                path.unlink(missing_ok=True)
