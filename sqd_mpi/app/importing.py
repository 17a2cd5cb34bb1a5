"""Input and problem files from files of other programs: what `import` does."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sqd_mpi.errors import InputError, input_warnings_to
from sqd_mpi.files import records
from sqd_mpi.log import show, tell
from sqd_mpi.problem import bitstrings, sampling
from sqd_mpi.problem.hamiltonian import Hamiltonian


def from_fcidump(parsed: argparse.Namespace) -> int:
    """Write an input file; returns the exit code.

    Raises:
        InputError: a file does not fit.
    """
    records.check_output(parsed.output, parsed.fcidump, parsed.alpha, parsed.beta)
    with input_warnings_to(_warn):
        hamiltonian = Hamiltonian.from_fcidump(parsed.fcidump, parsed.spin_orbitals)
    n_alpha, n_beta = hamiltonian.nelec
    if parsed.beta is None and n_alpha != n_beta:
        raise InputError(f"without --beta MS2 must be 0; {parsed.fcidump} has MS2 = {n_alpha - n_beta}")
    sets: list[Any] = []
    for path, n_electrons, spin_name in ((parsed.alpha, n_alpha, "alpha"), (parsed.beta, n_beta, "beta")):
        if path is None:
            sets.append(sets[0])
            continue
        strings = bitstrings.read_text_file(path, hamiltonian.norb)
        try:
            bitstrings.check(strings, hamiltonian.norb, n_electrons, spin_name)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        unique, n_duplicates = bitstrings.canonical(strings)
        if n_duplicates:
            _warn(f"{path}: {n_duplicates} duplicate {spin_name} strings merged")
        sets.append(unique)
    records.write_input(parsed.output, hamiltonian, sets[0], sets[1])
    _say_what_was_made(parsed, hamiltonian, f"{len(sets[0])} x {len(sets[1])} strings")
    return 0


def from_counts(parsed: argparse.Namespace) -> int:
    """Write a problem file; returns the exit code."""
    records.check_output(parsed.output, parsed.hamiltonian, parsed.counts)
    with input_warnings_to(_warn):
        hamiltonian = Hamiltonian.from_fcidump(parsed.hamiltonian, parsed.spin_orbitals)
    samples = sampling.read_samples(parsed.counts, hamiltonian.norb)
    records.write_problem(parsed.output, hamiltonian, samples)
    _say_what_was_made(parsed, hamiltonian, f"{len(samples)} different samples")
    return 0


def _warn(text: str) -> None:
    """Print a warning."""
    tell(text, "sqd_mpi: warning:", "yellow")


def _say_what_was_made(parsed: argparse.Namespace, hamiltonian: Any, content: str) -> None:
    """Print a line on a new file, or its summary."""
    if parsed.json:
        show(json.dumps(records.read_summary(parsed.output), allow_nan=False) + "\n")
    elif not parsed.quiet:
        n_alpha, n_beta = hamiltonian.nelec
        unlike = ", spin-dependent integrals" if hamiltonian.spin_dependent else ""
        electrons = f"{n_alpha} alpha and {n_beta} beta electrons"
        show(f"{parsed.output}: {hamiltonian.norb} orbitals, {electrons}, {content}{unlike}\n")
