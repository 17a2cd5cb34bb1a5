"""The kernels on a device against the same sums on the CPU, once for every device, driver and version of the sources.

A compiler or a device that behaves unlike those on which the kernels were tested must not give wrong energies.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from sqd_mpi.arrays import FloatArray
from sqd_mpi.backends.cpu import block as cpu
from sqd_mpi.backends.gpu import sources
from sqd_mpi.backends.gpu.block import GpuBlock
from sqd_mpi.backends.gpu.device import Device
from sqd_mpi.backends.gpu.share import GpuShare
from sqd_mpi.backends.gpu.vectors import DeviceVectors
from sqd_mpi.distribution import mirror
from sqd_mpi.distribution import vectors as host_vectors
from sqd_mpi.distribution.layout import Layout
from sqd_mpi.errors import InputError
from sqd_mpi.problem import bitstrings
from sqd_mpi.problem.hamiltonian import Hamiltonian
from sqd_mpi.problem.interaction import Interaction
from sqd_mpi.problem.spin_strings import SpinStrings
from sqd_mpi.problem.symmetry import trivial_labels

MOST = 1e-10  # largest deviation, relative to the largest element
_NORB, _N_ELECTRONS = 12, 3  # 220 strings: several tiles of ket columns and chunks of orbital pairs
_PLACE = (0, 0, 0, 0)
_FORMS = (("direct", "sparse"), ("product", "dense"), ("tiled", "dense"))


def check_once(device: Device) -> None:
    """Compare the sums of a small problem, unless the cache says that this was done.

    Raises:
        InputError: they differ; says which and by how much.
    """
    texts = [sources.source(path.stem) for path in sorted(sources.FOLDER.glob("*.cu"))]
    sources.cached(".checked", (*texts, device.kind, device.name, device.software), lambda path: _check(device, path))


def deviations(device: Device) -> Iterator[tuple[str, float]]:
    """What was compared, and by how much it deviates from the CPU, relative to the largest element."""
    yield "vectors", _of_vectors(device)
    for parity in (0, 1):
        layout, hamiltonian = _problem(parity)
        share = GpuShare(device, layout, _PLACE, hamiltonian, trivial_labels(_NORB))
        for form in _FORMS:
            block = GpuBlock(layout, _PLACE, share, *form)
            yield f"sigma ({', '.join(form)}{', spin flip' if parity else ''})", _of_block(block, hamiltonian)


def _check(device: Device, path: Path) -> None:
    for what, deviation in deviations(device):
        if not deviation <= MOST:  # NaN included
            raise InputError(
                f"the backend gpu is not to be trusted on {device.name}: {what} deviates from the CPU by "
                f"{deviation:.1e} of the largest element; use --backend cpu, and please report it with what `info` says"
            )
    path.write_text("equal to the CPU\n", encoding="utf-8")


def _problem(parity: int) -> tuple[Layout, Hamiltonian]:
    """Random integrals and all strings; the same for both spins with parity."""
    rng = np.random.default_rng(11)
    n_pairs = _NORB * (_NORB + 1) // 2
    one = rng.normal(size=(_NORB, _NORB))
    two = rng.normal(size=(n_pairs, n_pairs))
    n_beta = _N_ELECTRONS if parity else _N_ELECTRONS - 1
    packed = (two + two.T)[np.tril_indices(n_pairs)]
    hamiltonian = Hamiltonian(one + one.T, packed, 0.0, _NORB, (_N_ELECTRONS, n_beta))
    alpha, beta = (_strings(n) for n in (_N_ELECTRONS, n_beta))
    return Layout.create(alpha, alpha if parity else beta, 0, (1, 1, 1, 1), parity), hamiltonian


def _strings(n_electrons: int) -> SpinStrings:
    integers = [sum(1 << orbital for orbital in chosen) for chosen in combinations(range(_NORB), n_electrons)]
    strings = bitstrings.canonical(bitstrings.from_integers(integers, _NORB))[0]
    return SpinStrings.from_canonical(strings, np.zeros(_NORB, np.int64), 1)


def _of_block(block: GpuBlock, hamiltonian: Hamiltonian) -> float:
    """The Hamiltonian with a spin penalty on one vector, and its diagonal."""
    layout, device = block.layout, block.device
    parts = layout, _PLACE, hamiltonian
    reference = cpu.create_block(*parts, cpu.create_share(*parts, trivial_labels(_NORB)))
    interaction = Interaction.energy(hamiltonian).plus(Interaction.spin_square(hamiltonian), 0.3)
    tasks = reference.tasks(interaction)
    ket = _ket(layout)
    expected, there = np.zeros(layout.sub_block_size(0, 0, 0)), device.upload(np.zeros(layout.sub_block_size(0, 0, 0)))
    kept = device.upload(ket)
    reference.prepare(tasks)
    block.prepare(tasks)
    for task in tasks:
        reference.apply(task, ket, expected, interaction)
        block.apply(task, kept, there, interaction)
    diagonal = np.zeros(layout.slice_size(*_PLACE))
    reference.diagonal(interaction, diagonal)
    diagonal_there = device.empty(diagonal.shape)
    block.diagonal(interaction, diagonal_there)
    found = device.download(there), device.download(diagonal_there)
    return max(_deviation(one, other) for one, other in zip(found, (expected, diagonal), strict=True))


def _ket(layout: Layout) -> FloatArray:
    """A random vector, as symmetric as vectors of the layout are."""
    whole = np.random.default_rng(5).normal(size=layout.block_size(0, 0))
    if layout.parity:
        unfolding = mirror.Unfolding(layout, 0, 0)
        stored = whole[: unfolding.own.size].copy()
        unfolding.unfold(stored, stored, whole)
    return whole


def _of_vectors(device: Device) -> float:
    """Inner products and combinations of a few vectors of an odd length."""
    rng = np.random.default_rng(3)
    vectors, factors = rng.normal(size=(5, 10_007)), rng.normal(size=(3, 5))
    on_device, there = DeviceVectors(device), device.upload(vectors)
    worst = _deviation(on_device.gram(there, there), host_vectors.gram(vectors, vectors))
    on_device.rotate(there, factors)
    return max(worst, _deviation(device.download(there)[:3], factors @ vectors))


def _deviation(found: FloatArray, expected: FloatArray) -> float:
    """Largest deviation, relative to the largest element; NaN if anything is NaN."""
    return float(np.max(np.abs(found - expected)) / max(float(np.max(np.abs(expected))), 1e-300))
