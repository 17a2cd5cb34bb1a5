"""Compilers for GPU code that need no GPU: NVRTC from its wheel, through ctypes, and clang for AMD devices.

    python -m tests.support.gpu_compilers

prints registers and spills of every kernel on every architecture.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

FOLDER = ROOT / "sqd_mpi" / "backends" / "gpu"
SOURCES = sorted(FOLDER.glob("*.cu"))
STUB = Path(__file__).with_name("hip_stub.h")
NVIDIA = "sm_80", "sm_90", "sm_100"
AMD = "gfx90a", "gfx942", "gfx950"
_LEAST_CLANG = 17
_SECONDS = 60


class Missing(Exception):
    """A compiler that is not here, or does not know an architecture."""


@dataclass(frozen=True)
class Kernel:
    """What a compiler says about one kernel.

    Attributes:
        name, architecture: which.
        registers: of a thread (vector registers on AMD, accumulation registers included).
        spilled_bytes: of a thread, of registers that did not suffice; all private memory on AMD.
        shared_bytes: of a block, as far as the source fixes it.
    """

    name: str
    architecture: str
    registers: int
    spilled_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """One source for one architecture: whether it compiled, all that the compiler said, and its kernels."""

    succeeded: bool
    messages: str
    kernels: tuple[Kernel, ...]


def source_text(path: Path) -> str:
    """What a device compiles: a kernel file behind the prelude of all of them."""
    return (FOLDER / "prelude.h").read_text() + path.read_text()


def compile_for(architecture: str, source: str, options: tuple[str, ...] = ()) -> Compiled:
    """Compile a source with all warnings as errors.

    Args:
        architecture: one of `NVIDIA` or `AMD`.
        source: text of a .cu file.
        options: -D options and the like.

    Raises:
        Missing: the compiler for it is not here.
    """
    if architecture.startswith("gfx"):
        return _with_clang(architecture, source, options)
    return _with_nvrtc(architecture, source, options)


@cache
def _nvrtc() -> ctypes.CDLL:
    """The NVRTC of the newest wheel that is installed."""
    try:
        package = importlib.util.find_spec("nvidia")
    except ImportError:
        package = None
    for folder in package.submodule_search_locations or () if package else ():
        found = [path for path in Path(folder).glob("*/lib/libnvrtc.so.*") if "alt" not in path.name]
        if found:
            library = ctypes.CDLL(str(max(found, key=lambda path: int(path.suffix[1:]))))
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            return library
    raise Missing("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def _with_nvrtc(architecture: str, source: str, options: tuple[str, ...]) -> Compiled:
    library = _nvrtc()
    program = ctypes.c_void_p()

    def call(name: str, *arguments: object) -> int:
        return int(getattr(library, name)(*arguments))

    if call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None):
        raise RuntimeError("NVRTC takes no programs")
    given = [f"-arch={architecture}", "-std=c++17", "--ptxas-options=-v", "-Werror=all-warnings", *options]
    texts = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    try:
        code = call("nvrtcCompileProgram", program, len(given), texts)
        size = ctypes.c_size_t()
        call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        call("nvrtcGetProgramLog", program, log)
        call("nvrtcGetCUBINSize", program, ctypes.byref(size))
    finally:
        call("nvrtcDestroyProgram", ctypes.byref(program))
    messages = log.value.decode()
    if code and "invalid value for --gpu-architecture" in messages:
        raise Missing(f"this NVRTC does not know {architecture}")
    error = "" if code == 0 else f"{library.nvrtcGetErrorString(code).decode()}\n"
    succeeded = code == 0 and (size.value > 0 or "__global__" not in source)
    return Compiled(succeeded, error + messages, _nvidia_kernels(messages, architecture))


def _nvidia_kernels(log: str, architecture: str) -> tuple[Kernel, ...]:
    pieces = re.split(r"Compiling entry function '(\w+)'", log)
    kernels = []
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        number = {
            what: int(match[1]) if (match := re.search(pattern, text)) else 0
            for what, pattern in (
                ("registers", r"Used (\d+) registers"), ("spilled", r"(\d+) bytes spill stores"),
                ("shared", r"(\d+) bytes smem"),
            )
        }  # fmt: skip
        kernels.append(Kernel(name, architecture, number["registers"], number["spilled"], number["shared"]))
    return tuple(kernels)


@cache
def _clang() -> str:
    """The newest clang that is new enough."""
    for name in (*(f"clang-{version}" for version in range(29, _LEAST_CLANG - 1, -1)), "clang"):
        if path := shutil.which(name):
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
            version = re.search(r"clang version (\d+)", done.stdout)
            if version and int(version[1]) >= _LEAST_CLANG:
                return path
    raise Missing(f"clang {_LEAST_CLANG} or newer is not installed")


def _with_clang(architecture: str, source: str, options: tuple[str, ...]) -> Compiled:
    command = [
        _clang(), "-x", "hip", "--cuda-device-only", f"--offload-arch={architecture}", "-nogpuinc", "-nogpulib",
        "-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-Rpass-analysis=kernel-resource-usage",
        "-include", str(STUB), *options, "-S", "-o", "/dev/null", "-",
    ]  # fmt: skip
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if f"invalid target ID '{architecture}'" in done.stderr:
        raise Missing(f"{Path(command[0]).name} does not know {architecture}")
    return Compiled(done.returncode == 0, done.stderr, _amd_kernels(done.stderr, architecture))


def _amd_kernels(log: str, architecture: str) -> tuple[Kernel, ...]:
    pieces = re.split(r"Function Name: (\w+)", log)
    kernels = []
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        vector, accumulation, private, shared = (
            int(re.search(pattern, text)[1])  # type: ignore[index]
            for pattern in (r" VGPRs: (\d+)", r"AGPRs: (\d+)", r"ScratchSize \S+ (\d+)", r"LDS Size \S+ (\d+)")
        )
        kernels.append(Kernel(name, architecture, vector + accumulation, private, shared))
    return tuple(kernels)


def main() -> int:
    """Print a table of all kernels."""
    print(f"{'source':24}{'kernel':32}{'device':8}{'registers':>10}{'spilled':>9}{'shared':>8}")
    for path in SOURCES:
        for architecture in NVIDIA + AMD:
            try:
                compiled = compile_for(architecture, source_text(path))
            except Missing as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            if not compiled.succeeded:
                print(compiled.messages, file=sys.stderr)
                return 1
            for kernel in compiled.kernels:
                numbers = f"{kernel.registers:10}{kernel.spilled_bytes:9}{kernel.shared_bytes:8}"
                print(f"{path.name:24}{kernel.name:32}{architecture:8}{numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
