"""The GPU kernels compile without a warning for the devices they are meant for, on machines that have none of them."""

from __future__ import annotations

import pytest

from tests.support import gpu_compilers
from tests.support.gpu_compilers import AMD, NVIDIA, SOURCES, Compiled, Missing

# One of each maker always, their siblings where there is time.
ALWAYS = "sm_90", "gfx90a"
ARCHITECTURES = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in NVIDIA + AMD]

ADD = """
extern "C" __global__ void __launch_bounds__(256) add(long long n, const double* one, double* two) {
  __shared__ double part[256];
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = i < n ? one[i] : 0.0;
  __syncthreads();
  if (i < n) two[i] += fma(2.0, part[threadIdx.x ^ 1], 1.0);
}
"""


def compiled(architecture: str, source: str) -> Compiled:
    try:
        return gpu_compilers.compile_for(architecture, source)
    except Missing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_kernels_compile_without_a_warning(path, architecture, record_property):
    result = compiled(architecture, gpu_compilers.source_text(path))
    assert result.succeeded, result.messages
    assert "warning" not in result.messages, result.messages
    assert result.kernels or "__global__" not in path.read_text()
    for kernel in result.kernels:
        record_property(kernel.name, f"{kernel.registers} registers, {kernel.spilled_bytes} bytes spilled")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_compiler_says_is_read(architecture):
    result = compiled(architecture, ADD)
    assert result.succeeded, result.messages
    (kernel,) = result.kernels
    assert (kernel.name, kernel.architecture, kernel.shared_bytes) == ("add", architecture, 2048)
    assert 4 < kernel.registers < 64 and kernel.spilled_bytes == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("three", ADD.replace("two[i] +=", "three[i] +=")),
        ("superfluous", ADD.replace("if (i < n) two", "int superfluous; if (i < n) two")),
    ],
    ids=["error", "warning"],
)
def test_bad_code_is_refused(name, source, architecture):
    result = compiled(architecture, source)
    assert not result.succeeded and name in result.messages
