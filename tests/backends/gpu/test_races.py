"""GPU kernels under the thread sanitizer, to which every thread of a launch is one and only barriers order them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.gpu_shim import SHIM
from tests.support.paths import ROOT, TESTS
from tests.support.waiting import HANG

pytestmark = pytest.mark.slow

TRIAL = TESTS / "gpu_shim" / "shim_trial.cu"

ON_PURPOSE = """
import sys
import numpy as np
from pathlib import Path
from sqd_mpi.backends.gpu import sources
from tests.gpu_shim.host_device import HostDevice, HostKernel, load_library
device = HostDevice()
text = (sources.FOLDER / "prelude.h").read_text() + Path(sys.argv[1]).read_text()
def kernel(name):
    return HostKernel(name, load_library("shim_trial", text, device._flags), device.limits, False)
out, order = device.empty(512), device.upload(np.arange(50, dtype=np.int32))
for _ in range(2):
    kernel("sum_blocks")(2, 256, (device.upload(np.ones(300)), np.int64(300), out), 2048)
    kernel("write_numbers")(2, 32, (np.float64(1.0), np.int64(50), order, out))
print(device.download(out)[:2])
for bad in sys.argv[2:]:
    kernel(bad)(2, 32, (out,), 256)
"""

OF_THE_PACKAGE = """
import numpy as np
from sqd_mpi.backends.gpu import share
from tests.gpu_shim.host_device import HostDevice
from tests.backends.gpu import test_density, test_vectors
from tests.support.gpu_blocks import CASES, Problem, check
device = HostDevice()
for name in ("sectors", "odd triangle", "spin-dependent"):
    for form, same_spin in (("direct", "sparse"), ("product", "dense"), ("tiled", "dense")):
        check(Problem(CASES[name], device, form, same_spin))
share._SHARED_BYTES = 480
check(Problem(CASES["no labels"], device, "direct"))
memory = test_vectors.DeviceMemory(device)
test_vectors.test_gram(memory, 20003, 3, 5)
test_vectors.test_residuals(20003, 3, 8, 65536)
test_vectors.test_project_out(memory, 5000, 1, 3, 4)
test_vectors.test_rotate(memory, 5000, 2, 7)
test_vectors.test_elementwise(memory, 5000)
test_vectors.test_unfolding(memory, 1, None)
values = memory.from_host(np.arange(9000.0)[::-1])
assert sorted(memory.smallest(values, 2)[0]) == [8998, 8999]
memory.put(np.arange(300), np.ones(300), values)
test_density.test_sectors_and_transitions(test_density.LABELS, *test_density.SIZES[0])
for size in ((3, 9000), (40, 131)):
    test_density.test_inner_products_cut_into_parts(*size)
print("done")
"""


def run(program: str, *arguments: str) -> tuple[str, list[str]]:
    """Standard output, and the kernels in which there are races."""
    compiler, same_addresses = shutil.which("g++"), shutil.which("setarch")
    if compiler is None:
        pytest.skip("needs g++")
    library = subprocess.run([compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    if not os.path.isabs(library.stdout.strip()):
        pytest.skip("needs the thread sanitizer of g++")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SQD_MPI_GPU": SHIM,
        "SQD_MPI_GPU_HOST_FLAGS": "-fsanitize=thread",
        "LD_PRELOAD": library.stdout.strip(),
        "TSAN_OPTIONS": "exitcode=0 ignore_noninstrumented_modules=1 suppress_equal_addresses=0",
        "NUMBA_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", program, *arguments]
    if same_addresses is not None:  # the sanitizer does not take every layout of memory
        command = [same_addresses, "-R", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HANG, check=False)
    if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this system")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, re.findall(r"SUMMARY: ThreadSanitizer: data race .* in (\w+)", done.stderr)


@pytest.mark.parametrize("name", ["race", "same_element", "early_writing"])
def test_races_are_found(name: str) -> None:
    """Between threads of a block, between blocks, and of a missing second barrier."""
    output, races = run(ON_PURPOSE, str(TRIAL), name)
    assert output == "[0. 1.]\n" and set(races) == {name}


def test_kernels_have_no_races() -> None:
    output, races = run(OF_THE_PACKAGE)
    assert output == "done\n" and races == []
