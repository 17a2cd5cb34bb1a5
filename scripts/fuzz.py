"""Feeds damaged and odd files to every reader: each must be refused in one sentence or be read as it stands.

    python scripts/fuzz.py [--inputs 20000] [--readers fcidump strings ...] [--seed 1] [--seconds 600] [--json FILE]

Input number k of a reader depends on the seed and k alone, so that a finding can be repeated: --first k --inputs 1.
A finding is an exception other than InputError, a sentence with a line break, a crash, more than the time or memory
limit, or something that was read and is not what stands there. Readers run in child processes, which are started again
after a crash. Exit code 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 30.0  # one input
LIMIT_BYTES = 2 * 2**30  # beyond what the process had at its start
TOKENS = (
    b"1e999|-1|99999999999999999999|nan|inf|&END|/|\0|0 0 0 0|NORB=1000000|=|NELEC=-3|UHF=.TRUE.|1.5|\xff\xfe|\n\n|,|"
    b"(1.0,2.0)|0x10|D+05|1_0|MS2=1|2*|'|!|\x1f\x8b|\xef\xbb\xbf|IUHF=T|-100|\""
).split(b"|")

FCIDUMP = """&FCI NORB=3,NELEC=3,MS2=1,
 ORBSYM=1,1,1,
 ISYM=1,
&END
 0.75  1 1 1 1
 0.125 2 1 2 1
 0.5   2 2 1 1
 0.25D-01  3 3 2 1
 0.25  2 2 2 2
 0.375 3 3 3 3
-1.5   1 1 0 0
 0.0625 2 1 0 0
-0.5   2 2 0 0
-0.25  3 3 0 0
-0.9   1 0 0 0
 0.7   0 0 0 0
"""


def mutated(rng: random.Random, content: bytes) -> bytes:
    """A few random changes of bytes."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 32])):
        kind, place = rng.randrange(7), rng.randrange(len(result) + 1)
        stop = min(len(result), place + rng.choice([1, 4, 8, 64, 1000]))
        if kind == 0 and place < len(result):
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(result):
            result[place] = rng.randrange(256)
        elif kind == 2:
            result[place:place] = rng.choice(TOKENS)
        elif kind == 3:
            del result[place:stop]
        elif kind == 4:
            result[place:place] = result[place:stop]
        elif kind == 5:
            result[place:stop] = bytes(stop - place)
        elif rng.random() < 0.3:
            del result[place:]
    return bytes(result)


def lines_shuffled(rng: random.Random, content: bytes) -> bytes:
    """Lines and words of a text in another order, or doubled, or lost."""
    lines = content.split(b"\n")
    for _ in range(rng.randrange(1, 5)):
        k = rng.randrange(len(lines))
        words = lines[k].split(b" ")
        choice = rng.randrange(5)
        if choice == 0:
            lines[k], lines[0] = lines[0], lines[k]
        elif choice == 1:
            lines.insert(k, rng.choice(lines))
        elif choice == 2 and len(lines) > 1:
            del lines[k]
        elif choice == 3:
            words[rng.randrange(len(words))] = rng.choice([*TOKENS, b"1", b"2", b"3", b"4", b"0"])
            lines[k] = b" ".join(words)
        else:
            lines[k] = lines[k][: rng.randrange(len(lines[k]) + 1)]
    return b"\n".join(lines)


def odd_value(rng: random.Random) -> Any:
    """A value that an attribute, a dataset or an option might have."""
    import numpy as np

    return rng.choice(
        [
            lambda: rng.choice([0, 1, -1, 2, 3, 5, 64, 10**6, 2**31, 2**62, -(2**63)]),
            lambda: rng.choice([0.0, -1.0, 0.5, 1e300, float("nan"), float("inf")]),
            lambda: rng.choice(
                ["", "auto", "1,1,1,1", "5min", "\0", "x" * 1000, "é", "1e5", "-1", "reference", "8GiB"]
            ),
            lambda: np.random.default_rng(rng.randrange(99)).normal(size=rng.choice([0, 1, 2, 6, 10, 55])),
            lambda: np.zeros(rng.choice([(0, 0), (4, 4), (4, 1), (1, 4), (2, 2, 2), (3, 0, 2)])),
            lambda: np.array(rng.choice([[2, 2], [1, 3], [-1, 2], [9, 9], [2], [2, 2, 2]])),
            lambda: np.random.default_rng(rng.randrange(99)).integers(0, 2**64, size=(3, 1), dtype=np.uint64),
            lambda: np.array([[3], [5], [3]], np.uint64),
            lambda: rng.choice([True, False]),
            lambda: np.float32(0.1),
            lambda: np.array(["text", "more"], dtype="S4"),
            lambda: np.zeros(2, np.complex128),
            lambda: np.zeros(2, [("a", "i4"), ("b", "f8")]),
        ]
    )()


def remade(rng: random.Random, path: Path) -> None:
    """Other attributes, datasets and links in an HDF5 file."""
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.choice([1, 1, 2, 4])):
            name = rng.choice(names)
            if name not in file:
                continue
            choice = rng.randrange(9)
            item = file[name]
            if choice == 0 and len(item.attrs):
                item.attrs[rng.choice(list(item.attrs))] = odd_value(rng)
            elif choice == 1 and len(item.attrs):
                del item.attrs[rng.choice(list(item.attrs))]
            elif choice == 2:
                del file[name]
                file[name] = odd_value(rng)
            elif choice == 3:
                del file[name]
            elif choice == 4:
                del file[name]
                file[name] = rng.choice(
                    [h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/nowhere"), h5py.SoftLink("/"), file]
                )
            elif choice == 5:
                del file[name]
                shape = rng.choice([(10**9,), (10**6, 10**6), (10**5, 1), (2**40,)])
                file.create_dataset(name, shape=shape, dtype="f8", chunks=tuple(min(n, 1000) for n in shape))
            elif choice == 6:
                del file[name]
                layout = h5py.VirtualLayout((4,), "f8")
                layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
                file.create_virtual_dataset(name, layout)
            elif choice == 7 and isinstance(item, h5py.Dataset) and item.size and item.dtype.kind in "fiu":
                flat = item[()].reshape(-1)
                flat[rng.randrange(len(flat))] = rng.choice([0, 1, 7, 200])
                item[...] = flat.reshape(item.shape)
            elif choice == 8:
                file["/"].attrs[rng.choice(["format", "version", "fingerprint"])] = odd_value(rng)
        if rng.random() < 0.1:
            file["extra"] = np.zeros(3)


class Reader:
    """One reader: makes input k and judges what became of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fuzzed"
        self.good: list[bytes] = []
        self.prepare(folder)

    def prepare(self, folder: Path) -> None:
        """Make the good files."""

    def make(self, rng: random.Random) -> None:
        """Write one input."""
        content = rng.choice(self.good)
        self.path.write_bytes((mutated if rng.random() < 0.6 else lines_shuffled)(rng, content))

    def read(self) -> str:
        """Read it; returns what happened, raises InputError or AssertionError."""
        raise NotImplementedError


class Fcidump(Reader):
    """Integrals as text; an accepted file is compared with a naive reader."""

    def prepare(self, folder: Path) -> None:
        texts = [FCIDUMP, FCIDUMP.replace("&END", "/"), FCIDUMP.replace("\n", "\r\n"), "\ufeff" + FCIDUMP]
        texts.append(FCIDUMP.replace("NORB=3", "TITLE='a/b', ! x / y\n NORB=1*3").replace(" 2 2 2 2", " 4*2 ! x"))
        self.good = [text.encode() for text in texts]

    def read(self) -> str:
        import numpy as np

        from sqd_mpi.problem import fortran_text
        from sqd_mpi.problem.hamiltonian import Hamiltonian

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = Hamiltonian.from_fcidump(self.path)
        assert np.isfinite(found.h1e).all() and np.isfinite(found.eri).all()
        outcome = "read with a warning" if caught else "read"
        if found.spin_dependent:
            return f"{outcome}, spin orbitals"
        text = self.path.read_bytes().decode("utf-8-sig", errors="replace").replace("\r", "\n")
        header = fortran_text.find_namelist(text, "FCI")
        assert header is not None
        pairs, row = found.eri_pairs(), []
        for line in text[header.end :].partition("\n")[2].split("\n"):
            row += [constant for word in line.replace(",", " ").split() for constant in repeated(word)]
            if len(row) < 5:
                continue
            value = float(re.sub(r"(?<=[\d.])(?=[+-]\d)", "e", re.sub("[dDqQ]", "e", row[0])))
            p, q, r, s = (int(float(word)) for word in row[1:5])
            row = []
            if r:
                i, j = max(p, q) * (max(p, q) - 1) // 2 + min(p, q), max(r, s) * (max(r, s) - 1) // 2 + min(r, s)
                assert abs(pairs[i - 1, j - 1] - value) < 1e-5, line
            elif q:
                assert abs(found.h1e[p - 1, q - 1] - value) < 1e-5, line
            elif not p:
                assert abs(found.ecore - value) < 1e-5, line
        assert not row
        return outcome


def repeated(word: str) -> list[str]:
    """The constants of r*c, or the word."""
    count, star, constant = word.partition("*")
    return int(count) * [constant] if star and count.isdecimal() and len(count) < 4 else [word]


class Strings(Reader):
    """Bit-strings as text."""

    def prepare(self, folder: Path) -> None:
        rng = random.Random(0)
        for norb in (3, 64, 65):
            rows = ["".join(rng.sample("1" * (norb // 2) + "0" * (norb - norb // 2), norb)) for _ in range(20)]
            self.good.append("\n".join(rows).encode())

    def read(self) -> str:
        from sqd_mpi.problem import bitstrings

        strings = bitstrings.read_text_file(self.path)
        lines = [line.strip() for line in self.path.read_text("utf-8-sig", errors="replace").split("\n")]
        lines = [line for line in lines if line and line[0] != "#"]
        assert bitstrings.to_integers(strings) == [int(line, 2) for line in lines]
        assert len({len(line) for line in lines}) == 1
        bitstrings.check(strings, len(lines[0]), lines[0].count("1"), "alpha")
        assert all(line.count("1") == lines[0].count("1") for line in lines)
        return "read"


class Counts(Reader):
    """Counts of sampled bit-strings as JSON, and matrices of bits as .npy."""

    def prepare(self, folder: Path) -> None:
        import io

        import numpy as np

        rng = random.Random(0)
        keys = {"".join(rng.sample("11110000", 8)): rng.randrange(1, 50) for _ in range(20)}
        matrix = io.BytesIO()
        np.save(matrix, np.random.default_rng(0).integers(0, 2, (30, 8)).astype(bool))
        octets = io.BytesIO()
        np.save(octets, np.random.default_rng(0).integers(0, 256, (30, 1), dtype=np.uint8))
        hexadecimal = {hex(int(key, 2)): value for key, value in keys.items()}
        self.texts = [json.dumps(keys, indent=0).encode(), json.dumps(hexadecimal, indent=0).encode()]
        self.arrays = [matrix.getvalue(), octets.getvalue()]

    def make(self, rng: random.Random) -> None:
        packed = rng.random() < 0.4
        self.path = self.path.with_suffix(".npy" if packed else ".json")
        self.good = self.arrays if packed else self.texts
        super().make(rng)

    def read(self) -> str:
        import numpy as np

        from sqd_mpi.problem import sampling

        samples = sampling.read_samples(self.path, 4)
        assert samples.norb == 4 and len(samples.alpha) > 0
        assert np.isfinite(samples.probabilities).all() and abs(samples.probabilities.sum() - 1.0) < 1e-9
        assert max(samples.alpha.max(), samples.beta.max()) < 16
        if self.path.suffix == ".json":
            content = self.path.read_text("utf-8-sig", errors="replace")
            texts = {key.replace(" ", ""): value for key, value in json.loads(content).items()}
            assert len(samples.alpha) <= len(texts)
        return "read"


class Hdf5(Reader):
    """HDF5 files: flipped bytes and odd contents."""

    def make(self, rng: random.Random) -> None:
        content = rng.choice(self.good)
        if rng.random() < 0.5:
            self.path.write_bytes(mutated(rng, content))
            return
        self.path.write_bytes(content)
        try:
            remade(rng, self.path)
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, MemoryError):  # HDF5 is choosy
            self.path.write_bytes(mutated(rng, content))


def problem() -> tuple[Any, Any]:
    """A small Hamiltonian and its strings."""
    import numpy as np

    from sqd_mpi.problem import bitstrings
    from sqd_mpi.problem.hamiltonian import Hamiltonian

    rng = np.random.default_rng(0)
    h1e = np.diag([-1.0, -0.5, 0.5, 1.0]) + 0.01
    strings = bitstrings.from_integers([3, 5, 6, 9, 10, 12], 4)
    return Hamiltonian(h1e, 0.1 * rng.normal(size=55), 0.7, 4, (2, 2)), strings


class InputFile(Hdf5):
    """Input files; what is read unchanged must be the problem, what was changed must be called so."""

    def prepare(self, folder: Path) -> None:
        from sqd_mpi.files import records

        hamiltonian, strings = problem()
        self.fingerprint = records.fingerprint(hamiltonian, strings, strings)
        records.write_input(folder / "good.h5", hamiltonian, strings, strings, {"tol": 1e-4, "grid": "1,1,2,1"})
        self.good = [(folder / "good.h5").read_bytes()]

    def read(self) -> str:
        from sqd_mpi.files import records
        from sqd_mpi.problem import bitstrings

        found = records.read_input(self.path)
        for strings, count, spin in zip((found.strings_a, found.strings_b), found.hamiltonian.nelec, "ab", strict=True):
            bitstrings.check(strings, found.hamiltonian.norb, count, spin)
        same = records.fingerprint(found.hamiltonian, found.strings_a, found.strings_b) == self.fingerprint
        records.read_summary(self.path)
        assert same or found.changed or not self.path.read_bytes().startswith(b"sqd_mpi checksum")
        return "read, the same" if same else "read, known as changed"


class ResultFile(Hdf5):
    """Result files with vectors, as `info`, `report` and --start read them."""

    options: dict[str, Any] = {"save_vector": True}
    name = "result.h5"

    def prepare(self, folder: Path) -> None:
        from sqd_mpi.app import run
        from sqd_mpi.files import records

        hamiltonian, strings = problem()
        records.write_input(folder / "good.h5", hamiltonian, strings, strings, {"threads": 1, "model_space": 2})
        run.run_file(None, str(folder / "good.h5"), str(folder / "result.h5"), self.options)
        self.good = [(folder / self.name).read_bytes()]
        self.vectors = self.contents(folder / self.name)

    def contents(self, path: Path) -> list[bytes]:
        """All vectors."""
        from sqd_mpi.files import records

        with records.VectorReader(path) as reader:
            shapes = [(r, x, *reader.piece_shape(r, x)) for r in range(reader.nroots) for x in range(reader.n_labels)]
            return [reader.read_block(r, x, 0, rows, 0, columns).tobytes() for r, x, rows, columns in shapes]

    def read(self) -> str:
        from sqd_mpi.distribution.ranks import Ranks
        from sqd_mpi.errors import InputError
        from sqd_mpi.files import checksums, records

        outcome = "info refused"
        try:
            json.dumps(records.read_summary(self.path), allow_nan=False)
            records.read_run(self.path)
            outcome = "info read"
        except InputError:
            pass
        try:
            with_sum = checksums.verify(Ranks(), self.path, needed=False)
            if not with_sum:
                from sqd_mpi.files import inspection

                inspection.look(self.path)
            found = self.contents(self.path)
        except InputError:
            return f"{outcome}, vectors refused"
        assert not with_sum or found == self.vectors
        return f"{outcome}, vectors {'the same' if found == self.vectors else 'read without checksum'}"


class Checkpoint(ResultFile):
    """Checkpoints: nothing but the very same bytes may be read."""

    options = {"max_iterations": 2, "checkpoint_every": 1}
    name = "result.h5.checkpoint"

    def read(self) -> str:
        from sqd_mpi.distribution.ranks import Ranks
        from sqd_mpi.files import checksums, records

        checksums.verify(Ranks(), self.path)
        assert self.contents(self.path) == self.vectors
        with records.VectorReader(self.path) as reader:
            reader.state()
        return "read, the same"


class TraceFile(Reader):
    """Time-lines in JSON."""

    def prepare(self, folder: Path) -> None:
        from sqd_mpi.app import run
        from sqd_mpi.files import records

        hamiltonian, strings = problem()
        records.write_input(folder / "good.h5", hamiltonian, strings, strings, {"threads": 1, "model_space": 2})
        for name in ("trace.json", "trace.json.gz"):
            options = {"trace": str(folder / name)}
            run.run_file(None, str(folder / "good.h5"), str(folder / "result.h5"), options)
            self.good.append((folder / name).read_bytes())

    def make(self, rng: random.Random) -> None:
        packed = rng.random() < 0.3
        self.path = self.path.with_suffix(".gz" if packed else ".json")
        content = self.good[packed]
        head = content[:2000] if not packed else content
        start = mutated(rng, head) if rng.random() < 0.7 or packed else lines_shuffled(rng, head)
        self.path.write_bytes(start + content[len(head) :])

    def read(self) -> str:
        from sqd_mpi.app import trace

        found = trace.read(self.path)
        trace.innermost_seconds(found)
        return "read"


class Options(Reader):
    """Options from an input file or the command line."""

    def make(self, rng: random.Random) -> None:
        from sqd_mpi.options import SolveOptions

        names = [*SolveOptions.model_fields, "nonsense"]
        self.values = {rng.choice(names): odd_value(rng) for _ in range(rng.randrange(1, 4))}

    def read(self) -> str:
        from sqd_mpi.options import SolveOptions

        options = SolveOptions(**self.values)
        again = SolveOptions(**options.to_dict())
        assert again.to_dict() == options.to_dict()
        assert options.nroots >= 1 and options.tol > 0 and options.max_iterations >= 1
        return "read"


READERS: dict[str, Callable[[Path], Reader]] = {
    "fcidump": Fcidump, "strings": Strings, "input": InputFile, "result": ResultFile, "checkpoint": Checkpoint,
    "trace": TraceFile, "options": Options, "counts": Counts,
}  # fmt: skip


def work(name: str, seed: int, first: int, last: int) -> None:
    """The child: one line for every input."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from sqd_mpi.errors import InputError
    from sqd_mpi.files import inspection

    warnings.simplefilter("ignore")
    inspection._CHILD_SECONDS = 0.5  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](Path(folder))
        if name in ("result", "checkpoint", "trace"):  # they have run a solve, whose compiler takes memory
            import gc

            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES,) * 2)
        for k in range(first, last):
            reader.make(random.Random(f"{seed} {name} {k}"))
            print(f"{k} begins", flush=True)
            try:
                outcome = reader.read()
            except InputError as error:
                outcome = "refused" if "\n" not in str(error) and str(error) else f"FINDING odd sentence {error!r}"
            except BaseException as error:
                outcome = f"FINDING {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(f"{k} {outcome}", flush=True)


def fuzz(name: str, seed: int, first: int, last: int, deadline: float) -> tuple[int, Counter[str], list[str]]:
    """Number of inputs tried, how often each outcome came, and the findings."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    k = first
    while k < last and time.monotonic() < deadline:
        command = [sys.executable, __file__, "--worker", name, str(seed), str(k), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            buffer, began = b"", False
            while time.monotonic() < deadline:
                if not select.select([child.stdout], [], [], LIMIT_SECONDS if began else 300.0)[0]:
                    findings.append(f"{name} {k}: no end in {LIMIT_SECONDS} s")
                    k += 1
                    break
                chunk = os.read(child.stdout.fileno(), 65536)
                if not chunk:
                    if k < last:
                        findings.append(f"{name} {k}: the process ended with {child.wait()}")
                        k += 1
                    break
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    number, _, outcome = line.decode(errors="replace").partition(" ")
                    began = outcome == "begins"
                    if began:
                        continue
                    k = int(number) + 1
                    outcomes[outcome if not outcome.startswith("FINDING") else "finding"] += 1
                    if outcome.startswith("FINDING"):
                        findings.append(f"{name} {number}: {outcome[8:]}")
            child.kill()
        if len(findings) > 50:
            break
    return k - first, outcomes, findings


def main() -> int:
    """Fuzz all readers and print the counts."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        work(sys.argv[2], *(int(word) for word in sys.argv[3:6]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="of every reader (20000)")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each reader at most (3600)")
    parser.add_argument("--json", type=Path, help="write counts and findings to this file")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"seed": arguments.seed, "readers": {}}
    total = n_findings = 0
    print(f"seed {arguments.seed}", flush=True)
    for name in arguments.readers:
        began = time.monotonic()
        last = arguments.first + arguments.inputs
        tried, outcomes, findings = fuzz(name, arguments.seed, arguments.first, last, began + arguments.seconds)
        total, n_findings = total + tried, n_findings + len(findings)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        print(f"{name}: {tried} inputs in {time.monotonic() - began:.0f} s: {counts}", flush=True)
        for finding in findings:
            print(f"  {finding}", flush=True)
        report["readers"][name] = {"inputs": tried, "outcomes": dict(outcomes), "findings": findings}
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1))
    print(f"{total} inputs, {n_findings} findings")
    return int(n_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
