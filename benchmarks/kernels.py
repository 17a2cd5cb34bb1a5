"""Kernels against this machine: the rate of each part of sigma beside DGEMM and copy rates of the same run.

    python benchmarks/kernels.py [--data DIR] [--inputs h2o-1em4 n2-1em5 n2-1em5/5] [--threads 2] [--repeats 5]

Counted are useful multiply-adds: alpha singles times the entries of the beta matrix that each meets (opposite spin),
and entries of the same-spin matrices times the columns or rows that they act on. Padding lanes are not counted.
Bytes are those of C and sigma that must move at least, from whatever cache they lie in. Modes:
no symmetry at all, the ground-state sector, and the sector with spin-flip symmetry (half of the rows are wanted).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np

INPUTS = {"h2o-1em3": "h2o-1em3-alpha.txt", "h2o-1em4": "h2o-1em4-alpha.txt", "h2o-1em6": "h2o-1em6-alpha.txt",
          "h2o-1em7": "h2o-1em7-alpha.txt", "h2o-1em8": "h2o-1em8-alpha.txt",
          "n2-1em3": "1em3-alpha.txt", "n2-1em4": "1em4-alpha.txt", "n2-1em5": "1em5-alpha.txt"}  # fmt: skip
SOURCE = "the data directory of the sbd project (r-ccs-cms/sbd on GitHub)"


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one that is not counted."""
    function()
    samples = []
    for _ in range(repeats):
        began = perf_counter()
        function()
        samples.append(perf_counter() - began)
    return statistics.median(samples)


def machine_rates(threads: int, repeats: int) -> tuple[float, float]:
    """Multiply-adds per second of DGEMM and bytes per second of a copy (read and write), on the given threads."""
    import threadpoolctl

    n = 1536
    a, b, c = (np.ones((n, n)) for _ in range(3))
    with threadpoolctl.threadpool_limits(limits=threads, user_api="blas"):
        gemm = n**3 / median_seconds(lambda: np.matmul(a, b, out=c), repeats)
    from sqd_mpi.distribution import vectors

    sleep(0.5)  # threads of BLAS go on spinning for a while
    x, y, zero = np.ones(20_000_000), np.ones(20_000_000), np.zeros(20_000_000)
    seconds = median_seconds(lambda: vectors.scale_and_add(zero, x, 1.0, y), repeats)
    return gemm, 4 * x.nbytes / seconds


def useful(block: Any, task: Any) -> float:
    """Multiply-adds of a task that are needed."""
    share = block.share
    if task.kind == "alpha":
        return float(np.dot(np.diff(share.alpha_hamiltonian(task.da, share.rows_of(task)).indptr), block._bra.stop))
    layout = block.layout
    bra_label = np.repeat(np.arange(layout.n_labels), np.diff(block._bra.label_start))
    if task.kind == "beta":
        doubles, _ = share.beta_hamiltonian(task.db)
        _, start = layout.beta_rows(block.ib)
        per_label = doubles.indptr[start[1:]] - doubles.indptr[start[:-1]]
        per_label = per_label + 2 * share.beta[task.db].matrix_entries[:: layout.n_labels]
        wanted = block._bra.stop / np.maximum(block._bra.length, 1)
        return float(np.dot(wanted, per_label[bra_label ^ layout.sector]))
    groups, beta = share.alpha(task.da, share.rows_of(task)).undirected, share.beta[task.db]
    groups = groups.of_sector(layout.sector, layout.n_labels)
    columns = np.diff(beta.matrix_row)
    terms = beta.matrix_entries + beta.matrix_diagonal * columns
    per_single = np.repeat(terms[groups.matrix], np.diff(groups.start)).astype(float)
    wanted = block._bra.stop / np.maximum(block._bra.length, 1)
    return float(np.dot(per_single, wanted[groups.pair_bra]))


def streamed(block: Any, task: Any) -> float:
    """Bytes of C and sigma that a task moves at least, and of the sparse matrix where it is read once.

    Opposite spin: every single reads its ket row and reads and writes its bra row. Same spin: C is read, sigma read and
    written.
    """
    share, layout = block.share, block.layout
    if task.kind != "mixed":
        return 24.0 * float(block._bra.stop.sum())
    groups, beta = share.alpha(task.da, share.rows_of(task)).undirected, share.beta[task.db]
    groups = groups.of_sector(layout.sector, layout.n_labels)
    per_single = np.repeat(8.0 * beta.matrix_n_ket[groups.matrix], np.diff(groups.start))
    return float(per_single.sum() + 16.0 * block._bra.stop[groups.pair_bra].sum())


def measure(hamiltonian: Any, strings: Any, mode: str, repeats: int) -> dict[str, dict[str, float]]:
    """Useful multiply-adds and seconds of every kind of task in one mode."""
    from sqd_mpi.backends.cpu import block as cpu
    from sqd_mpi.distribution import layout as layouts
    from sqd_mpi.problem import spin_strings, symmetry
    from sqd_mpi.problem.interaction import Interaction

    labels = symmetry.trivial_labels(hamiltonian.norb) if mode == "off" else symmetry.find_labels(hamiltonian)
    alpha = spin_strings.SpinStrings.from_canonical(strings, labels.labels, labels.n_labels)
    layout = layouts.Layout.create(alpha, alpha, 0, (1, 1, 1, 1), 1 if mode == "flip" else 0)
    place = (0, 0, 0, 0)
    share = cpu.create_share(layout, place, hamiltonian, labels)
    block = cpu.create_block(layout, place, hamiltonian, share)
    interaction = Interaction.energy(hamiltonian)
    tasks = block.tasks(interaction)
    block.prepare(tasks)
    ket = np.random.default_rng(0).normal(size=layout.block_size(0, 0))
    sigma = np.zeros(layout.sub_block_size(0, 0, 0))
    result = {}
    for task in tasks:
        seconds = median_seconds(lambda task=task: block.apply(task, ket, sigma, interaction), repeats)  # type: ignore[misc]
        result[task.kind] = {"fma": useful(block, task), "bytes": streamed(block, task), "seconds": seconds}
    return result


def load(name: str, data: Path) -> tuple[Any, Any]:
    """Hamiltonian and strings of a published input; /5 takes every fifth string, :5514 the first 5,514 of the file."""
    from sqd_mpi.problem import bitstrings
    from sqd_mpi.problem.hamiltonian import Hamiltonian

    base, _, step = name.partition("/")
    base, _, first = base.partition(":")
    folder = data / base.split("-")[0]
    hamiltonian = Hamiltonian.from_fcidump(folder / "fcidump.txt")
    listed = bitstrings.read_text_file(folder / INPUTS[base], hamiltonian.norb)
    strings, _ = bitstrings.canonical(listed[: int(first)] if first else listed)
    return hamiltonian, np.ascontiguousarray(strings[:: int(step or 1)])


def main() -> int:
    """Measure all inputs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SQD_MPI_DATA", "data")))
    parser.add_argument("--inputs", nargs="+", default=["h2o-1em4", "n2-1em5", "h2o-1em6:5514", "n2-1em5/5"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    unknown = [name for name in options.inputs if name.partition("/")[0].partition(":")[0] not in INPUTS]
    if unknown:
        parser.error(f"unknown input {unknown[0]}; the inputs are {', '.join(INPUTS)}")
    if not options.data.is_dir():
        print(f"skipped: --data DIR or SQD_MPI_DATA must name {SOURCE}")
        return 0
    from sqd_mpi import _jit

    _jit.set_threads(options.threads)
    gemm, copy = machine_rates(options.threads, options.repeats)
    print(f"{options.threads} threads: DGEMM {gemm / 1e9:.1f} GFMA/s, streams {copy / 1e9:.1f} GB/s")
    print(
        f"{'input':<13} {'mode':<5} {'part':<6} {'GFMA':>8} {'ms':>9} {'GFMA/s':>7} {'of DGEMM':>9} {'GB/s':>6} "
        f"{'of copy':>8}"
    )
    rows = []
    for name in options.inputs:
        hamiltonian, strings = load(name, options.data)
        for mode in ("off", "auto", "flip"):
            for kind, found in measure(hamiltonian, strings, mode, options.repeats).items():
                rate, bandwidth = found["fma"] / found["seconds"], found["bytes"] / found["seconds"]
                rows.append({"input": name, "mode": mode, "part": kind, **found, "share_of_dgemm": rate / gemm})
                print(
                    f"{name:<13} {mode:<5} {kind:<6} {found['fma'] / 1e9:8.3f} {1e3 * found['seconds']:9.2f} "
                    f"{rate / 1e9:7.1f} {rate / gemm:9.0%} {bandwidth / 1e9:6.1f} {bandwidth / copy:8.0%}",
                    flush=True,
                )
    if options.output:
        options.output.write_text(json.dumps({"dgemm": gemm, "streams": copy, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
