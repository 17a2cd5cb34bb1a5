"""Kills a run at random moments and resumes it on other numbers of ranks: is the energy the same?

    python scripts/kill_and_resume.py [INPUT] [--kills 20] [--ranks 4] [--resume-on 4 2 3 6] [--seed 1]

Each round starts INPUT on --ranks ranks with a checkpoint after every iteration, kills one rank or all of them
(SIGKILL) at a random moment of the run, and goes on with --resume to the end. Without INPUT a problem of 250 x 250
strings is made.

Exit code 1 if an energy is off by more than 1e-10 hartree, a job hangs or anything is left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

TOLERANCE = 1e-10  # hartree
END_SECONDS = 60.0  # within which a job must end after a kill
RUN_SECONDS = 600.0


def make_input(path: Path) -> None:
    """A problem that takes some seconds: all strings of 4 electrons near the lowest of 14 orbitals."""
    from itertools import combinations

    from sqd_mpi.files import records
    from sqd_mpi.problem import bitstrings
    from sqd_mpi.problem.hamiltonian import Hamiltonian

    norb, n_electrons, n_strings = 12, 4, 250
    rng = np.random.default_rng(0)
    n_pairs = norb * (norb + 1) // 2
    h1e = 0.02 * rng.normal(size=(norb, norb))
    h1e = h1e + h1e.T + np.diag(np.linspace(-2.0, 2.0, norb))
    eri = 0.03 * rng.normal(size=n_pairs * (n_pairs + 1) // 2)
    chosen = sorted(combinations(range(norb), n_electrons), key=lambda orbitals: (sum(orbitals), orbitals))
    strings = bitstrings.from_integers([sum(1 << k for k in orbitals) for orbitals in chosen[:n_strings]], norb)
    records.write_input(path, Hamiltonian(h1e, eri, 0.0, norb, (n_electrons,) * 2), strings, strings)


def start(source: Path, output: Path, n_ranks: int, *more: str) -> subprocess.Popen[str]:
    """A run on some ranks."""
    python = Path(sys.executable)
    command = [str(python.parent / "mpiexec"), "-n", str(n_ranks), str(python), "-m", "sqd_mpi", "run", str(source)]
    command += ["-o", str(output), "--threads", "1", "--tol", "1e-7", *more]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def ranks_of(job: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Python processes of a job."""
    try:
        found = psutil.Process(job.pid).children(recursive=True)
        return [process for process in found if "sqd_mpi" in " ".join(process.cmdline()) and "-m" in process.cmdline()]
    except psutil.Error:
        return []


def kill(job: subprocess.Popen[str], rng: random.Random) -> str:
    """Kill one rank or all; returns which."""
    ranks = [process for process in ranks_of(job) if "mpiexec" not in process.name() and "hydra" not in process.name()]
    victims = ranks if rng.random() < 0.5 else ranks[rng.randrange(max(len(ranks), 1)) :][:1]
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    return "all" if len(victims) > 1 else "one"


def finish(job: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Exit code and messages of a job; 124 if it had to be ended."""
    try:
        _, errors = job.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for process in ranks_of(job):
            process.kill()
        job.kill()
        return 124, "it hangs"
    return job.returncode, errors


def energy(output: Path) -> float:
    """Lowest energy of a result."""
    from sqd_mpi.files import records

    return float(records.read_summary(output)["energy"][0])


def one_round(source: Path, folder: Path, n_ranks: int, n_resume: int, delay: float, rng: random.Random) -> Any:
    """Kill, resume; returns what was seen."""
    output = folder / "result.h5"
    job = start(source, output, n_ranks, "--checkpoint-every", "1")
    time.sleep(delay)
    which = kill(job, rng)
    began = time.monotonic()
    code, _ = finish(job, END_SECONDS)
    ended = time.monotonic() - began
    finished = output.exists()
    code_again, messages = finish(start(source, output, n_resume, "--resume"), RUN_SECONDS)
    resumed = re.search(r"resuming from .*\(iteration (\d+)\)", messages)
    left = sorted(path.name for path in folder.iterdir() if path.name not in ("result.h5", source.name))
    return which, code, ended, finished, resumed[1] if resumed else "-", code_again, left, messages


def main() -> int:
    """All rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--resume-on", type=int, nargs="+", default=[4, 2, 3, 6])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.input.resolve() if arguments.input else folder / "input.h5"
        if arguments.input is None:
            make_input(source)
        for _ in range(2):  # the first may have compiled
            began = time.monotonic()
            code, messages = finish(start(source, folder / "whole.h5", arguments.ranks), RUN_SECONDS)
            seconds = time.monotonic() - began
            if code != 0:
                print(messages, file=sys.stderr)
                return 1
        expected = energy(folder / "whole.h5")
        print(f"seed {arguments.seed}; uninterrupted on {arguments.ranks} ranks: {expected:.12f} in {seconds:.1f} s")
        print("kill  after  of   ended in  resumed at  on ranks  difference", flush=True)
        for k in range(arguments.kills):
            mine = folder / f"round-{k}"
            mine.mkdir()
            n_resume = arguments.resume_on[k % len(arguments.resume_on)]
            delay = rng.uniform(0.1, 1.0) * seconds
            which, code, ended, finished, at, code_again, left, messages = one_round(
                source, mine, arguments.ranks, n_resume, delay, rng
            )
            difference = abs(energy(mine / "result.h5") - expected) if code_again == 0 else float("inf")
            bad = code == 124 or difference > TOLERANCE or bool(left)
            wrong += bad
            at = "finished" if finished else at
            print(
                f"{k + 1:4d} {delay:5.1f}s  {which:3s} {ended:7.1f}s {at:>11s} {n_resume:9d} "
                f"{difference:11.1e}" + (f"  WRONG: exit codes {code}, {code_again}, left {left}" if bad else ""),
                flush=True,
            )
            if bad:
                print(messages, file=sys.stderr)
    print(f"{arguments.kills} kills, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
