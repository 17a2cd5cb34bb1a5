"""Fixtures for the tests of the backends."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.gpu_shim import SHIM
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def sanitized_environment() -> dict[str, str]:
    """Environment of a process whose GPU kernels are compiled with the address and undefined-behaviour sanitizers."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    libraries = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(os.path.isabs(path) for path in libraries):
        pytest.skip("needs the sanitizer libraries of g++")
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SQD_MPI_GPU": SHIM,
        "SQD_MPI_GPU_HOST_FLAGS": "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
