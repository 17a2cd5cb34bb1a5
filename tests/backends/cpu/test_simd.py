"""The vector kernels on processors other than this one: without long vectors, and compiled for another architecture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numba
import pytest

from sqd_mpi.backends.cpu import simd
from tests.support.paths import ROOT
from tests.support.waiting import HANG

INT = numba.int64
DTYPES = {"double": numba.float64, "single": numba.float32}


@pytest.mark.slow
def test_kernels_agree_with_their_definition_without_avx512(tmp_path: Path) -> None:
    """The kernel tests once more, compiled for a processor of 2013, in a process and a cache of their own."""
    # The name alone would leave numba the features of this processor.
    features = "+avx2,+fma,+avx,+bmi,+bmi2,+popcnt,+sse4.2,+sse4.1,+ssse3,+sse3,-avx512f"
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)
    }  # fmt: skip
    program = (
        "from sqd_mpi.backends.cpu.simd import MAX_WIDTH; assert MAX_WIDTH == 4, MAX_WIDTH; import pytest, sys; "
        "sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', 'tests/backends/cpu/test_vector_kernels.py', "
        "'-k', 'dense_definition and (divisible or penalty or empty or wide or tiles or ragged)']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9][0-9] passed", done.stdout), done.stdout


def table_row(like, width, stride, first, last, entries, table, matrix, out):  # type: ignore[no-untyped-def]
    """One result of the opposite-spin kernel."""
    simd.table_row(like, width, stride, first, last, entries, table, matrix, out)


def table_row_twin(like, width, stride, first, last, entries, table, matrix, out, second):  # type: ignore[no-untyped-def]
    """Two results of the opposite-spin kernel."""
    simd.table_row_twin(like, width, stride, first, last, entries, table, matrix, out, second)


def value_row(like, width, first, last, column, value, matrix, shift, out):  # type: ignore[no-untyped-def]
    """One result of a same-spin kernel."""
    simd.value_row(like, width, first, last, column, value, matrix, shift, out)


def gather_tile(like, rows, shift, count, out, stride):  # type: ignore[no-untyped-def]
    """Rows into columns of G."""
    simd.gather_tile(like, rows, shift, count, out, stride)


@pytest.mark.parametrize(
    ("function", "n_arguments", "wanted"),
    [(table_row, 8, "fmla"), (table_row_twin, 9, "fmla"), (value_row, 8, "fmla"), (gather_tile, 5, "zip1|trn1|ext")],
)
@pytest.mark.parametrize("precision", DTYPES)
def test_intrinsics_become_vector_instructions_of_aarch64(
    function: Callable[..., None], n_arguments: int, wanted: str, precision: str
) -> None:
    """What the intrinsics emit compiles for 64-bit ARM, into its vector instructions and without library calls."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite knows no aarch64")
    machine = target.create_target_machine(cpu="neoverse-v1", opt=3)
    signature = (DTYPES[precision], *(INT,) * n_arguments)
    compiled = numba.njit(signature, error_model="numpy")(function)
    text = compiled.inspect_llvm(signature)
    text = re.sub(r'target triple = ".*"', 'target triple = "aarch64-unknown-linux-gnu"', text)
    text = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', text)
    assembly = machine.emit_assembly(llvm.parse_assembly(text))
    assert re.search(rf"\b({wanted})\b", assembly)
    assert not re.search(r"\bbl\s+(fma|__)", assembly)
