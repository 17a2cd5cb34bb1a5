"""All fields of a result's summary: what runs write, `info` prints, reports show, and the docs' table is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Number = int | float | None
_OfRoots = list[float | None] | None


class Summary(BaseModel):
    """What a result says of its run and its roots; a field that is None or not set is unknown or does not apply.

    Lists over roots have the length nroots. Energies are in hartree, times in seconds, memory in bytes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    energy: Annotated[list[float | None], Field(min_length=1)]
    """<H> of every root, with the core energy; hartree."""
    penalised_energy: _OfRoots = None
    """Eigenvalue of the operator with the penalty on other spins, for every root; hartree; null without
    `--spin-square`."""
    converged: list[bool] | None = None
    """Whether the residual norm of the root reached `--tol`, and with `--spin-square` its spin is not another."""
    residual_norm: _OfRoots = None
    """2-norm of the residual of every root, of a normalised vector and of the operator with the penalty; hartree."""
    spin_square: _OfRoots = None
    """<S^2> of every root; null for spin-dependent integrals without overlap."""
    spin_variance: _OfRoots = None
    """<(P S^2 P)^2> - <S^2>^2 of every root, P the projection on the subspace: 0 where the root has one spin."""
    spin_pure: list[bool | None] | None = None
    """Whether the root has one spin: <S^2> within 1e-4 of an S(S+1), and |P S^2 v - <S^2> v| below 0.01."""
    sector: list[int | None] | None = None
    """Symmetry sector of every root."""
    spin_flip_parity: list[int | None] | None = None
    """+1 for C = +C^T and even spin, -1 for odd, for every root; null where this symmetry is not used."""
    occupancies: list[list[list[float | None]]] | None = None
    """Mean occupation of every orbital, nroots x 2 (alpha, beta) x norb."""
    natural_occupations: list[list[float | None]] | None = None
    """Eigenvalues of the spin-summed one-particle density matrix, descending, nroots x norb; null without `--rdm`."""
    orbital_entropies: list[list[float | None]] | None = None
    """Von Neumann entropy of each orbital, natural logarithm, nroots x norb; null without `--rdm 2`."""
    energy_pt2: _OfRoots = None
    """Second-order correction of every root, to be added to `energy`; hartree; null without `--pt2`."""
    variance: _OfRoots = None
    """<H^2> - <H>^2 of every root; hartree^2; null without `--pt2`."""
    pt2_gap: _OfRoots = None
    """Smallest |H_DD - E| of a determinant outside that the root couples to; hartree; near zero the correction means
    nothing; null without `--pt2`."""
    all_converged: bool | None = None
    """Whether all roots, and with `sqd` the loop too, are converged; decides exit code 3."""
    proven: bool | None = None
    """Whether no symmetry sector may hold a lower state; decides exit code 3."""
    sectors: dict[str, list[Any]] | None = None
    """One entry per sector and parity in every list: `sector`, `spin_flip_parity`, `twice_spin` (2 S where one
    spin alone was sought), `energy` (the lowest known there, hartree), `n_found`, `how` it was decided, `proven`."""
    dimension: int | None = None
    """Number of determinants, `n_alpha_strings` x `n_beta_strings`."""
    sector_dimension: int | None = None
    """Independent coefficients of the lowest root: one of each mirrored pair where it has a parity."""
    n_alpha_strings: int | None = None
    """Number of alpha strings."""
    n_beta_strings: int | None = None
    """Number of beta strings."""
    norb: int | None = None
    """Number of spatial orbitals."""
    nelec: list[int] | None = None
    """Numbers of electrons, [n_alpha, n_beta]."""
    grid: list[int] | None = None
    """Process grid, [a, b, t, r]."""
    backend: str | None = None
    """Kernels that applied the Hamiltonian: cpu, gpu or reference."""
    device: str | None = None
    """Name of the GPU of rank 0, or null."""
    n_ranks: int | None = None
    """Number of ranks."""
    n_threads: int | None = None
    """Threads of a rank."""
    n_iterations: int | None = None
    """Iterations of the eigensolver in all sectors, those before a restart included."""
    n_sigma: int | None = None
    """Number of applications of the Hamiltonian in all sectors, those before a restart included."""
    n_sigma_single: int | None = None
    """How many of them were made in single precision, without those before a restart."""
    sigma_seconds: float | None = None
    """Mean time of one application of the Hamiltonian, on the slowest rank; seconds."""
    solve_seconds: float | None = None
    """From the start of the solve to the end of its iterations, those before a restart included; seconds."""
    wall_seconds: float | None = None
    """From the start of the program to the result on disk; seconds."""
    cpu_seconds: float | None = None
    """Processor time of all threads of a rank in the tasks of all sigmas, mean over the ranks; seconds."""
    imbalance: float | None = None
    """The largest processor time of a rank over that mean."""
    messages: dict[str, _Number] | None = None
    """Received in one sigma, each the maximum over the ranks: `bytes`, `ket_blocks`."""
    peak_rss_bytes: int | None = None
    """Peak memory of a process, maximum over the ranks; bytes."""
    symmetry: dict[str, _Number] | None = None
    """Labels of the orbitals: their number `n_labels`; integrals up to `tolerance` count as zero; `max_dropped` is the
    largest that the labels forbid, `effect_bound` bounds the change of any energy by that; hartree."""
    spin_target: dict[str, bool | _Number] | None = None
    """What `--spin-square` adds to the operator: `spin`, `penalty` (hartree), `linear`; null without it."""
    version: str | None = None
    """Version of sqd_mpi that wrote the result."""
    memory: dict[str, int | None] | None = None
    """Bytes of `vectors` (basis, images, diagonal), `buffers` and `structure`, each the maximum over the ranks; of
    `run` only."""
    loop_converged: bool | None = None
    """Whether energy and occupancies of the loop stopped to change; of `sqd` only."""
    loop_iterations: int | None = None
    """Iterations of the loop; of `sqd` only."""
    failed_batches: list[str] | None = None
    """Iteration, batch and reason of every batch that failed, or null; of `sqd` only."""
    samples: dict[str, _Number] | None = None
    """Samples: `different`, `right_electrons` (how many of them need no recovery), `right_share` (their probability);
    of `sqd` only."""

    @property
    def n_roots(self) -> int:
        """Number of roots."""
        return len(self.energy)

    def stored(self) -> dict[str, Any]:
        """The fields that were set, as a file holds them."""
        return self.model_dump(exclude_unset=True)


ONLY_WHERE_STORED = ("memory", "loop_converged", "loop_iterations", "failed_batches", "samples")
"""Fields that `info` leaves out for a file that lacks them; the others are null then."""


def as_printed(stored: dict[str, Any]) -> dict[str, Any]:
    """What `info` prints of a summary: its fields in order, and what other versions may have added, last."""
    known = {name: stored.get(name) for name in Summary.model_fields if name in stored or name not in ONLY_WHERE_STORED}
    return known | stored
