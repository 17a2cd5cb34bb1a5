"""Density matrices of a device beside those of the CPU."""

from __future__ import annotations

import itertools

import numpy as np

from sqd_mpi.backends.cpu.density import Accumulators
from sqd_mpi.backends.gpu.density import GpuDensityBlock
from tests.gpu_shim.host_device import HostDevice


def on_device(device=None, scratch=2**20):
    """Something that makes blocks on a host shim."""
    device = device or HostDevice()
    return lambda *arguments: GpuDensityBlock(device, *arguments, scratch_bytes=scratch)


def sums(make_block, layouts, labels, order=2, symmetric=False, seed=0) -> Accumulators:
    """The sums over all places of a grid for random vectors, which are the same for every backend."""
    a, b, t, r = layouts[0].grid
    rng = np.random.default_rng(seed)
    places = list(itertools.product(range(a), range(b)))
    bra, ket = ({place: rng.normal(size=layout.block_size(*place)) for place in places} for layout in layouts)
    out = Accumulators.zeros(len(labels), order, symmetric)
    for ia, ib, it, ir in itertools.product(range(a), range(b), range(t), range(r)):
        block = make_block(*layouts, (ia, ib, it, ir), len(labels), labels, out)
        for da, db in block.shifts(True):
            other = (ia + da) % a, (ib + db) % b
            block.add(da, db, ket[ia, ib] if symmetric else bra[ia, ib], ket[other], True)
        block.finish()
    return out


def close(found: Accumulators, expected: Accumulators) -> None:
    scale = max(1.0, float(np.abs(expected.flat).max()))
    for name in ("one", "same", "opposite"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * scale, err_msg=name)
