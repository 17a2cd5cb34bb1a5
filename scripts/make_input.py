"""Makes a realistic input file for any molecule, without a quantum computer.

    python scripts/make_input.py "N 0 0 0; N 0 0 1.1" --basis 6-31g --frozen-core -o n2.h5
    mpirun -n 2 python scripts/make_input.py h2o --basis cc-pvdz --max-strings 2000 --carry 1e-3 -o h2o.h5
    python scripts/make_input.py water.xyz --strings ccsd --threshold 1e-3 -o water.h5
    python scripts/make_input.py n2 --counts n2.json --shots 20000 --bit-flip 0.01 --seed 7 -o n2.h5

The bit-strings come from growing (--strings grow, the default: in every round the space is solved and the strings that
matter, with all their single excitations, make the next space) or from the determinants of a CISD or CCSD wave function
above a threshold. --counts also writes samples of the ground state of that space, as a quantum computer would give
them, every bit turned with the probability --bit-flip.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

# Molecules that may be given by name, in angstrom, near their equilibrium.
MOLECULES = {
    "h2": "H 0 0 0; H 0 0 0.74",
    "h2o": "O 0 0 0.1173; H 0 0.7572 -0.4692; H 0 -0.7572 -0.4692",
    "n2": "N 0 0 0; N 0 0 1.098",
    "c2": "C 0 0 0; C 0 0 1.243",
    "o2": "O 0 0 0; O 0 0 1.208",
    "ch2": "C 0 0 0; H 0 0.9863 0.4435; H 0 -0.9863 0.4435",
    "hf": "H 0 0 0; F 0 0 0.917",
    "lih": "Li 0 0 0; H 0 0 1.596",
}
# Weights that symmetry makes equal differ by what solvers leave; that must not decide which strings are cut off.
SAME_WEIGHT_DIGITS = 7
MOST_GATHERED = 50_000_000  # determinants of a vector that is put together to be sampled


@dataclass
class Molecule:
    """The problem, as rank 0 has made it.

    Attributes:
        hamiltonian: of the active space.
        energies: name -> energy of the methods that were run, hartree.
        strings: alpha and beta strings from a wave function, or None.
    """

    hamiltonian: Any
    energies: dict[str, float] = field(default_factory=dict)
    strings: Any = None


class Parser(argparse.ArgumentParser):
    """A parser that reports an error as one line, from one rank."""

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with code 2."""
        from sqd_mpi.app.speaker import speaking

        with speaking(collective=True) as mine:
            if mine:
                print(f"make_input: error: {message}", file=sys.stderr)
        sys.exit(2)


def main(arguments: list[str] | None = None) -> int:
    """Make the file; returns the exit code: 0, 2 for bad input, 1 for anything else."""
    options = parse_options(arguments)
    from sqd_mpi import InputError
    from sqd_mpi.distribution import mpi

    comm = mpi.world()
    try:
        work(comm, options)
    except InputError as error:
        if comm is None or comm.rank == 0:
            print(f"make_input: error: {error.typed}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        mpi.abort(1)  # the other ranks would wait for this one
        return 1
    return 0


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("molecule", help=f"xyz file, atoms such as 'N 0 0 0; N 0 0 1.1' (angstrom), or one of {', '.join(MOLECULES)}")
    add("--basis", default="6-31g", help="basis set (%(default)s)")
    add("--charge", type=int, default=0, help="(%(default)s)")
    add("--spin", type=int, default=0, metavar="2S", help="alpha minus beta electrons (%(default)s)")
    add("--point-group", metavar="G", help="orbitals of this point group (D2h, C2v, ...; auto: the largest)")
    add("--frozen-core", action="store_true", help="leave out the core orbitals of the atoms")
    add("--ncas", type=int, metavar="N", help="active orbitals (all)")
    add("--nelecas", type=int, metavar="N", help="active electrons (all that are not in the core)")
    add("--strings", choices=("grow", "cisd", "ccsd"), default="grow", help="where strings come from (%(default)s)")
    add("--threshold", type=float, default=1e-3, metavar="C", help="cisd, ccsd: least |coefficient| (%(default)s)")
    add("--rounds", type=int, default=4, metavar="N", help="grow: number of rounds (%(default)s)")
    add("--carry", type=float, default=1e-3, metavar="C", help="grow: least |coefficient| of what stays (%(default)s)")
    add("--max-strings", type=int, default=1000, metavar="N", help="most strings of one spin (%(default)s)")
    add("--ccsd-t", action="store_true", help="also run CCSD(T) to compare with")
    add("--counts", type=Path, metavar="FILE", help="also write samples of the ground state, as JSON")
    add("--shots", type=int, default=10_000, metavar="N", help="number of samples (%(default)s)")
    add("--bit-flip", type=float, default=0.0, metavar="P", help="probability that a bit is turned (%(default)s)")
    add("--seed", type=int, default=0, help="of the samples, and of the choice among equals (%(default)s)")
    add("--fcidump", type=Path, metavar="FILE", help="also write the integrals as a FCIDUMP")
    add("-o", "--output", type=Path, default=Path("input.h5"), metavar="FILE", help="input file (%(default)s)")
    options = parser.parse_args(arguments)
    for name in ("rounds", "max_strings", "shots"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} needs a positive number; got {getattr(options, name)}")
    for name, least, most in (("threshold", 0.0, 1.0), ("carry", 0.0, 1.0), ("bit_flip", 0.0, 1.0)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name.replace('_', '-')} needs a number from 0 to 1; got {getattr(options, name)}")
    if (options.ncas is None) != (options.nelecas is None):
        parser.error("an active space needs both --ncas and --nelecas")
    return options


def work(comm: Any, options: argparse.Namespace) -> None:
    """Molecule on rank 0, strings on all ranks, files from rank 0."""
    from sqd_mpi.distribution.ranks import ranks_of
    from sqd_mpi.files import records
    from sqd_mpi.solver import startup

    ranks = ranks_of(comm)
    first = ranks.rank == 0
    startup.start(ranks)

    def begin() -> Molecule:
        for path in (options.output, options.counts, options.fcidump):
            if path is not None:
                records.check_output(path)
        return prepare(options)

    outcome = ranks.from_rank_0(begin)
    hamiltonian, result = outcome.hamiltonian, None
    if first:
        for name, energy in outcome.energies.items():
            print(f"{name:<8} {energy:.8f} hartree")
        columns = f"{'round':>5} {'strings':>15} {'determinants':>13} {'energy':>16}"
        print(f"{columns} {'beside the lowest above':>23}", flush=True)
    if outcome.strings is None:
        strings, result = grow(comm, outcome, options)
    else:
        strings = outcome.strings
        result = solve(comm, hamiltonian, strings)
        report(comm, 1, strings, result, outcome.energies)
    samples = sample(result, options) if options.counts is not None else {}
    if not first:
        return
    records.write_input(options.output, hamiltonian, *strings)
    print(
        f"{options.output}: {hamiltonian.norb} orbitals, {hamiltonian.nelec[0]} + {hamiltonian.nelec[1]} electrons, "
        f"{len(strings[0])} x {len(strings[1])} strings"
    )
    if options.counts is not None:
        write_text(options.counts, json.dumps(samples, indent=0) + "\n")
        print(f"{options.counts}: {options.shots} samples, {len(samples)} different, bit-flip {options.bit_flip}")
    if options.fcidump is not None:
        write_fcidump(options.fcidump, hamiltonian)


# --- the molecule ----------------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> Molecule:
    """Mean field, active space and, where they are wanted, CISD or coupled-cluster amplitudes."""
    from pyscf import ci

    from sqd_mpi import Hamiltonian, InputError

    mean_field = run_mean_field(options)
    n_core = core_orbitals(mean_field, options)
    n_orbitals = mean_field.mo_coeff.shape[1]
    ncas = options.ncas if options.ncas is not None else n_orbitals - n_core
    n_electrons = mean_field.mol.nelectron
    nelecas = options.nelecas if options.nelecas is not None else n_electrons - 2 * n_core
    if (nelecas - options.spin) % 2 or nelecas < options.spin:
        raise InputError(f"--nelecas {nelecas} does not go with --spin {options.spin}")
    nelec = (nelecas + options.spin) // 2, (nelecas - options.spin) // 2
    hamiltonian = Hamiltonian.from_pyscf(mean_field, ncas, nelec)
    n_core = (n_electrons - nelecas) // 2
    frozen = [*range(n_core), *range(n_core + ncas, n_orbitals)] or None
    molecule = Molecule(hamiltonian, {"HF": float(mean_field.e_tot)})
    if options.strings == "cisd":
        solver = ci.CISD(mean_field, frozen=frozen).set(verbose=0).run()
        molecule.energies["CISD"] = float(solver.e_tot)
        molecule.strings = strings_of(hamiltonian, configuration_amplitudes(solver), options)
    if options.strings == "ccsd" or options.ccsd_t:
        solver = coupled_cluster(mean_field, frozen, molecule.energies, options.ccsd_t)
        if options.strings == "ccsd":
            molecule.strings = strings_of(hamiltonian, cluster_amplitudes(solver), options)
    return molecule


def run_mean_field(options: argparse.Namespace) -> Any:
    """A converged RHF or ROHF calculation."""
    from pyscf import gto, lib, scf

    from sqd_mpi import InputError

    lib.num_threads(1)
    text = MOLECULES.get(options.molecule.lower(), options.molecule)
    if text.endswith(".xyz") and not Path(text).is_file():
        raise InputError(f"there is no file {text}")
    symmetry: Any = {None: False, "auto": True}.get(options.point_group, options.point_group)
    try:
        molecule = gto.M(
            atom=text, basis=options.basis, charge=options.charge, spin=options.spin, symmetry=symmetry, verbose=0
        )
    except Exception as error:  # of many types: unknown atoms, basis sets, groups, a spin that does not fit
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"PySCF cannot make the molecule {options.molecule!r}: {first_line}") from None
    mean_field = (scf.ROHF if options.spin else scf.RHF)(molecule).run(conv_tol=1e-11)
    if not mean_field.converged:
        mean_field = mean_field.newton().run()
    if not mean_field.converged:
        raise InputError(f"the mean field of {options.molecule!r} does not converge")
    return mean_field


def core_orbitals(mean_field: Any, options: argparse.Namespace) -> int:
    """Number of orbitals to leave out below the active ones."""
    from pyscf.data.elements import chemcore

    return int(chemcore(mean_field.mol)) if options.frozen_core and options.ncas is None else 0


def coupled_cluster(mean_field: Any, frozen: Any, energies: dict[str, float], triples: bool) -> Any:
    """CCSD; its energy, and with triples that of CCSD(T), go to `energies`."""
    from pyscf import cc

    from sqd_mpi import InputError

    solver = cc.CCSD(mean_field, frozen=frozen).set(verbose=0).run()
    if not solver.converged:
        raise InputError("CCSD does not converge for this molecule; use --strings grow or cisd without --ccsd-t")
    energies["CCSD"] = float(solver.e_tot)
    if triples:
        energies["CCSD(T)"] = float(solver.e_tot + solver.ccsd_t())
    return solver


# --- strings from amplitudes -----------------------------------------------------------------------------------------


def spin_blocks(single: Any, double: Any) -> tuple[Any, ...]:
    """(a, b, aa, ab, bb) coefficients [i, a] and [i, j, a, b], electrons from i, j to a, b."""
    if isinstance(single, tuple):
        return (*single, *double)
    same = double - double.transpose(0, 1, 3, 2)
    return single, single, same, double, same


def configuration_amplitudes(solver: Any) -> tuple[Any, ...]:
    """Coefficients of a CISD wave function of norm 1."""
    _, single, double = solver.cisdvec_to_amplitudes(solver.ci)
    return spin_blocks(single, double)


def cluster_amplitudes(solver: Any) -> tuple[Any, ...]:
    """Coefficients of single and double excitations of exp(T)|HF>, that of |HF> being 1."""
    a, b, aa, ab, bb = spin_blocks(solver.t1, solver.t2)
    product = [np.einsum("ia,jb->ijab", one, other) for one, other in ((a, a), (a, b), (b, b))]
    for k in (0, 2):
        product[k] = product[k] - product[k].transpose(0, 1, 3, 2)
    return a, b, aa + product[0], ab + product[1], bb + product[2]


def strings_of(hamiltonian: Any, amplitudes: tuple[Any, ...], options: argparse.Namespace) -> tuple[Any, Any]:
    """Strings of the determinants with |coefficient| above the threshold, the heaviest where there are too many."""
    a, b, aa, ab, bb = (np.abs(each) for each in amplitudes)
    alpha = string_weights(hamiltonian.nelec[0], a, ab.max(axis=(1, 3), initial=0.0), aa)
    beta = string_weights(hamiltonian.nelec[1], b, ab.max(axis=(0, 2), initial=0.0), bb)
    if hamiltonian.nelec[0] == hamiltonian.nelec[1]:
        alpha = beta = {bits: max(alpha.get(bits, 0.0), beta.get(bits, 0.0)) for bits in {*alpha, *beta}}
    return tuple(heaviest(weights, hamiltonian.norb, options) for weights in (alpha, beta))


def string_weights(n_electrons: int, single: Any, of_mixed: Any, double: Any) -> dict[int, float]:
    """Largest coefficient of a determinant with each string, by the string as an integer."""
    lowest = (1 << n_electrons) - 1
    weights = {lowest: 1.0}
    once = np.maximum(single, of_mixed)
    for i, a in np.ndindex(once.shape):
        weights[lowest ^ 1 << i ^ 1 << (n_electrons + a)] = float(once[i, a])
    for i, j, a, b in np.argwhere(double > 0.0).tolist():
        if i > j and a > b:
            moved = 1 << i ^ 1 << j ^ 1 << (n_electrons + a) ^ 1 << (n_electrons + b)
            weights[lowest ^ moved] = float(double[i, j, a, b])
    return weights


def heaviest(weights: dict[int, float], norb: int, options: argparse.Namespace) -> Any:
    """Strings above the threshold in canonical order, at most --max-strings."""
    from sqd_mpi.problem import bitstrings

    chosen = [bits for bits in weights if weights[bits] > options.threshold]
    chosen.sort(key=lambda bits: (-round(weights[bits], SAME_WEIGHT_DIGITS), bits))
    return bitstrings.canonical(bitstrings.from_integers(chosen[: options.max_strings], norb))[0]


# --- growing ---------------------------------------------------------------------------------------------------------


def grow(comm: Any, molecule: Molecule, options: argparse.Namespace) -> tuple[list[Any], Any]:
    """Strings of the last round and its result. Collective over the communicator."""
    from sqd_mpi.problem import bitstrings
    from sqd_mpi.solver.observables import carry_over

    hamiltonian = molecule.hamiltonian
    carried = [bitstrings.from_integers([(1 << n) - 1], hamiltonian.norb) for n in hamiltonian.nelec]
    largest = [np.ones(1), np.ones(1)]
    strings: list[Any] = []
    for number in range(1, options.rounds + 1):
        before = [len(each) for each in strings]
        spins = range(1 if hamiltonian.nelec[0] == hamiltonian.nelec[1] else 2)
        grown = [with_singles(carried[spin], largest[spin], hamiltonian.norb, options) for spin in spins]
        strings = grown * 2 if len(grown) == 1 else grown
        result = solve(comm, hamiltonian, strings)
        report(comm, number, strings, result, molecule.energies)
        weights = result.roots[0].weights
        sizes = [np.round(each, SAME_WEIGHT_DIGITS) for each in (weights.largest_alpha, weights.largest_beta)]
        carried = [carry_over(each, size, options.carry) for each, size in zip(strings, sizes, strict=True)]
        largest = [np.sort(size[size > options.carry])[::-1] for size in sizes]
        if [len(each) for each in strings] == before and number < options.rounds:
            break  # the sets do not grow any more
    return strings, result


def with_singles(strings: Any, largest: Any, norb: int, options: argparse.Namespace) -> Any:
    """Strings, heaviest first, and their single excitations, at most --max-strings, in canonical order.

    Excitations of heavy strings go first; among equals the seed decides.
    """
    from sqd_mpi.problem import bitstrings
    from sqd_mpi.problem.excitations import find_singles
    from sqd_mpi.problem.outside_strings import external_strings

    kept = strings[: options.max_strings]
    new = external_strings(kept, norb, 1)
    room = options.max_strings - len(kept)
    if len(new) > room:
        parents = find_singles(new, kept, norb)
        weight = np.maximum.reduceat(largest[parents.ket], parents.indptr[:-1])
        tie = np.random.default_rng(options.seed).permutation(len(new))
        new = new[np.lexsort((tie, -weight))[:room]]
    return bitstrings.canonical(np.concatenate([kept, new]))[0]


def solve(comm: Any, hamiltonian: Any, strings: Any) -> Any:
    """The ground state in the product of the strings. Collective over the communicator."""
    from sqd_mpi import SolveOptions, solve_subspace

    return solve_subspace(comm, hamiltonian, *strings, SolveOptions(tol=1e-5))


def report(comm: Any, number: int, strings: Any, result: Any, energies: dict[str, float]) -> None:
    """Print a line of the table."""
    if comm is not None and comm.rank:
        return
    sizes = [len(each) for each in strings]
    energy = result.roots[0].energy
    difference = f"{energy - min(energies.values()):+.6f} {min(energies, key=lambda name: energies[name])}"
    print(
        f"{number:5d} {sizes[0]:>7} x {sizes[1]:<5} {sizes[0] * sizes[1]:13d} {energy:16.8f} {difference:>23}"
        + ("" if result.converged else "  NOT CONVERGED"),
        flush=True,
    )


# --- samples ---------------------------------------------------------------------------------------------------------


def sample(result: Any, options: argparse.Namespace) -> dict[str, int]:
    """Noisy samples of the lowest root: text -> count; beta bits left, alpha bits right, orbital 0 rightmost.

    Collective over the grid: the vector is put together on every rank.
    """
    from sqd_mpi import InputError
    from sqd_mpi.problem import bitstrings

    layout, norb = result.roots[0].layout, len(result.symmetry.labels)
    if layout.alpha.size * layout.beta.size > MOST_GATHERED:
        raise InputError(f"--counts needs a space of at most {MOST_GATHERED} determinants")
    probabilities = result.gather() ** 2
    rng = np.random.default_rng(options.seed)
    flat = rng.choice(probabilities.size, options.shots, p=(probabilities / probabilities.sum()).ravel())
    rows, columns = np.divmod(flat, layout.beta.size)
    occupied = []
    for spin, chosen in ((layout.beta, columns), (layout.alpha, rows)):
        canonical = np.empty_like(spin.strings)
        canonical[spin.canonical] = spin.strings
        occupied.append(bitstrings.unpack(canonical[chosen], norb)[:, ::-1])
    bits = np.concatenate(occupied, axis=1)
    bits ^= rng.random(bits.shape) < options.bit_flip
    texts = ["".join("1" if bit else "0" for bit in row) for row in bits]
    return dict(sorted(Counter(texts).items()))


def write_text(path: Path, text: str) -> None:
    """Write aside and put into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_fcidump(path: Path, hamiltonian: Any) -> None:
    """Integrals with all digits."""
    from pyscf.tools import fcidump

    temporary = path.with_name(f".{path.name}.tmp")
    n_alpha, n_beta = hamiltonian.nelec
    fcidump.from_integrals(
        str(temporary), hamiltonian.h1e, hamiltonian.eri, hamiltonian.norb, n_alpha + n_beta, hamiltonian.ecore,
        ms=n_alpha - n_beta, tol=1e-18, float_format=" % .17g",
    )  # fmt: skip
    temporary.replace(path)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
