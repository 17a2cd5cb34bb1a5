"""The page on a run: what stands in it, for any kind of run, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sqd_mpi.app import cli
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary
from sqd_mpi.options import SolveOptions
from tests.support.traces import fake_trace

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from sqd_mpi.app.report import data, words, write_report  # noqa: E402
from sqd_mpi.app.report.page import page  # noqa: E402
from sqd_mpi.app.report.template import macros  # noqa: E402

NORB = 6
EVIL = "<script>alert('x')</script> & $\\frac{1$ \"q\""


def record(n_roots: int = 1, n_strings: int = 20, n_ranks: int = 2, converged: bool = True, **changes: Any) -> Any:
    """Returns what a result file of an ordinary run holds."""
    random = np.random.default_rng(1)
    steps = 12
    residual = 10.0 ** -np.arange(steps)[:, None] * random.uniform(0.5, 1.0, (steps, n_roots))
    energy = -1.0 + 0.1 * np.arange(n_roots) + residual**2
    weights = random.exponential(size=(2, n_roots, n_strings)) ** 4
    weights /= weights.sum(axis=2, keepdims=True)
    strings = np.sort(random.choice(2**NORB, n_strings, replace=n_strings > 2**NORB)).astype(np.uint64)[:, None]
    summary = {
        "energy": energy[-1].tolist(),
        "converged": [converged or k != n_roots - 1 for k in range(n_roots)],
        "residual_norm": residual[-1].tolist(),
        "spin_square": [2.0 * (k % 2) for k in range(n_roots)],
        "spin_variance": [0.0] * n_roots,
        "spin_pure": [True] * n_roots,
        "sector": [0] * n_roots,
        "spin_flip_parity": [None] * n_roots,
        "occupancies": random.uniform(size=(n_roots, 2, NORB)).tolist(),
        "natural_occupations": np.sort(random.uniform(0, 2, (n_roots, NORB)))[:, ::-1].tolist(),
        "all_converged": converged,
        "dimension": n_strings**2,
        "n_alpha_strings": n_strings,
        "n_beta_strings": n_strings,
        "norb": NORB,
        "nelec": [3, 3],
        "grid": [1, 1, n_ranks, 1],
        "backend": "cpu",
        "n_ranks": n_ranks,
        "n_threads": 3,
        "n_iterations": steps,
        "n_sigma": steps,
        "sigma_seconds": 0.1,
        "solve_seconds": 2.0,
        "wall_seconds": 4000.0,
        "imbalance": 1.25,
        "peak_rss_bytes": 400_000_000,
        "memory": {"vectors": 100_000_000, "buffers": 10, "structure": 1_000_000},
        "messages": {"bytes": 1000, "ket_blocks": 2},
        "symmetry": {"n_labels": 4, "tolerance": 1e-9, "max_dropped": None, "effect_bound": None},
    }
    timings = {"mixed": (0.5, 0.6, 0.7), "alpha": (0.1, 0.1, 0.1), "wait": (0.0, 0.2, 0.3), "sigma": (1.0, 1.1, 1.2)}
    settings = {
        "summary": summary,
        "fingerprint": "0123",
        "strings_a": strings,
        "strings_b": strings,
        "weights_a": weights[0],
        "weights_b": weights[1],
        "history": {
            "energy": energy, "residual_norm": residual, "sector": np.zeros(steps), "parity": np.zeros(steps),
            "seconds": np.arange(steps, dtype=float),
        },
        "timings": timings,
        "options": {**SolveOptions(tol=1e-5).to_dict(), "threads": 3},
        "versions": {"sqd_mpi": "0.1.0", "mpi_library": "MPICH 5.0.2"},
        "run": {"input": "input.h5", "command": "run input.h5", "started": "2026-01-01", "host": "node1",
                "processor": "Some CPU", "system": "Linux", "n_nodes": 1},
    }  # fmt: skip
    settings |= changes
    return records.Record(**{**settings, "summary": Summary(**settings["summary"])})


def loop_record(n_iterations: int = 5, n_batches: int = 4, failed: bool = True, **changes: Any) -> Any:
    """Returns what the result of a loop holds."""
    random = np.random.default_rng(2)
    energies = -1.0 + 10.0 ** -np.arange(n_iterations)[:, None] * random.uniform(0.1, 1.0, (n_iterations, n_batches))
    if failed:
        energies[min(1, n_iterations - 1), 0] = np.nan
    best = np.nanargmin(energies, axis=1)
    of_best = np.nanmin(energies, axis=1)[:, None]
    plain = record()
    kept = ("energy", "converged", "residual_norm", "spin_square", "sector", "occupancies", "dimension",
            "n_alpha_strings", "n_beta_strings", "norb", "nelec", "n_ranks", "n_threads", "peak_rss_bytes")  # fmt: skip
    summary = {
        **{name: plain.summary.stored()[name] for name in kept},
        "all_converged": False,
        "loop_converged": False,
        "loop_iterations": n_iterations,
        "failed_batches": ["iteration 2, batch 0: memory: <out>"] if failed else None,
        "samples": {"different": 900, "right_electrons": 300, "right_share": 0.625},
    }
    history = {
        "energy": of_best, "residual_norm": np.full((n_iterations, 1), 1e-7), "best_batch": best,
        "n_samples": np.linspace(300, 800, n_iterations).round(), "seconds": np.arange(n_iterations) + 1.0,
        "batch_energy": energies, "batch_n_alpha_strings": random.integers(50, 90, energies.shape).astype(float),
        "batch_n_beta_strings": random.integers(50, 90, energies.shape).astype(float),
        "sector": np.zeros(n_iterations), "parity": np.zeros(n_iterations),
    }  # fmt: skip
    return record(summary=summary, history=history, timings={}, **changes)


def write(path: Path, content: Any) -> Path:
    """Writes a result file."""
    with records.AtomicFile(path, records.RESULT) as file:
        records.write_record(file, content)
    return path


def write_trace(path: Path, n_ranks: int, **changes: Any) -> Path:
    """Writes a trace of a made-up run."""
    made = fake_trace(n_ranks)
    events = [
        {"ph": "X", "pid": int(rank), "tid": int(thread), "name": made.names[name], "args": {}, "ts": 1e6 * start,
         "dur": 1e6 * seconds}
        for name, rank, thread, start, seconds in zip(
            made.name, made.rank, made.thread, made.start, made.seconds, strict=True
        )
    ]  # fmt: skip
    about = {"creator": "sqd_mpi 0.1.0", "fingerprint": "0123", "input": "input.h5", "grid": [1, 1, n_ranks, 1],
             "n_ranks": n_ranks, "n_threads": 1, "hosts": [f"node{k // 8}" for k in range(n_ranks)], "n_dropped": 0,
             **changes}  # fmt: skip
    path.write_text(json.dumps({"traceEvents": events, "otherData": about}))
    return path


class Reader(HTMLParser):
    """Collects texts and tags, and checks that what is opened is closed in order."""

    def __init__(self, text: str) -> None:
        """Reads the page."""
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(name)
        self.ids += [value or "" for key, value in attributes if key == "id"]
        self.links += [value or "" for key, value in attributes if key in ("src", "href", "xlink:href", "action")]
        assert not [key for key, _ in attributes if key.startswith("on")]
        if name not in ("meta", "br", "hr"):
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes a tag that has no content."""
        self.handle_starttag(name, attributes)
        if name not in ("meta", "br", "hr"):
            self.open.pop()

    def handle_endtag(self, name: str) -> None:
        """Closes the tag that was opened last."""
        assert self.open.pop() == name

    def handle_data(self, text: str) -> None:
        """Notes a text."""
        if not self.open or self.open[-1] != "style":
            self.words.append(text)


def text_of(path: Path) -> str:
    """Returns what a reader sees, after checking that the page is whole and loads nothing."""
    content = path.read_text(encoding="utf-8")
    reader = Reader(content)
    assert not reader.tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in reader.links)
    assert not re.search(r"url\((?!#)|@import", content)
    assert len(set(reader.ids)) == len(reader.ids)
    return " ".join(" ".join(reader.words).split())


@pytest.mark.parametrize("n_roots", [1, 10, 12])
def test_page_of_a_result(tmp_path, n_roots):
    """All parts are there for any number of roots; every root stands in the table."""
    write(tmp_path / "result.h5", record(n_roots))
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5")))
    for title in ("✓ Converged", "States", "Convergence", "Occupations", "Weights of strings", "Problem", "Time",
                  "Memory", "Options", "Environment"):  # fmt: skip
        assert title in seen
    for text in ("-1.0000000000", "singlet", "1 h 7 min", "MPICH 5.0.2", "Some CPU", "400 MB", "run input.h5", "1.250"):
        assert text in seen
    assert f"root {n_roots - 1}" in seen and f"root {n_roots} " not in seen
    assert "NOT CONVERGED" not in seen
    assert ("further roots" in seen) == (n_roots > 10)
    assert "● 1e-05" in seen  # a tolerance that differs from the default


def test_page_of_a_result_for_which_one_root_more_was_followed(tmp_path):
    """As where all roots lie in one sector: whether another lies below is seen in iterations for one more."""
    plain = record(3)
    wider = {name: np.column_stack([plain.history[name], np.full(12, np.nan)]) for name in ("energy", "residual_norm")}
    wider["energy"][6:, 3], wider["residual_norm"][6:, 3] = -0.625, 0.03125
    write(tmp_path / "result.h5", record(3, history={**plain.history, **wider}))
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5")))
    assert "✓ Converged" in seen and seen.count("-0.6250000000") == 6 and seen.count("3.12e-02") == 6


@pytest.mark.parametrize("n_roots", [1, 4])
def test_not_converged_comes_first(tmp_path, n_roots):
    """Before anything but the title, in seen, with the root."""
    write(tmp_path / "result.h5", record(n_roots, converged=False, warnings=["beware"]))
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5")))
    verdict = f"✗ NOT CONVERGED 1 of {n_roots} roots did not reach the tolerance (root {n_roots - 1})."
    assert 0 < seen.index(verdict) < seen.index("! 1 warning beware") < seen.index("States")


@pytest.mark.parametrize("failed", [True, False])
def test_page_of_a_loop(tmp_path, failed):
    """Energies of iterations and batches, samples, dimensions and failures."""
    write(tmp_path / "result.h5", loop_record(failed=failed))
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5")))
    for text in ("NOT CONVERGED The loop ended", "Energies of the iterations", "Samples and dimensions", "best batch",
                 "different samples given 900", "300, 62.5 % of all shots", "600", "alpha strings"):  # fmt: skip
        assert text in seen
    assert ("Failed batches" in seen) == failed
    assert ("iteration 2, batch 0: memory: <out>" in seen) == failed


class Watched(Summary):
    """A summary that notes which of its fields are looked at."""

    def __getattribute__(self, name: str) -> Any:
        """Returns an attribute."""
        SEEN.add(name)
        return super().__getattribute__(name)


SEEN: set[str] = set()


def test_every_field_is_shown_or_named_as_left_out(tmp_path):
    """Pages of a solve and of a loop look at all fields but those that have a reason."""
    SEEN.clear()
    for content in (record(2), loop_record()):
        sources = data.read(write(tmp_path / "result.h5", content), None)
        watched = Watched(**sources.run.summary.stored())
        page(data.Sources(dataclasses.replace(sources.run, summary=watched), None))
    assert SEEN & set(Summary.model_fields) == set(Summary.model_fields) - set(data.NOT_SHOWN)
    assert all(data.NOT_SHOWN.values())


@pytest.mark.parametrize("n_ranks", [1, 4, 1000])
def test_page_with_a_trace(tmp_path, n_ranks):
    """A trace alone; a thousand ranks make no thousand lines."""
    write_trace(tmp_path / "trace.json", n_ranks)
    written = write_report(tmp_path / "report.html", None, str(tmp_path / "trace.json"))
    seen = text_of(written)
    assert f"ranks {n_ranks}" in seen and "Phases and balance of the ranks" in seen
    assert ("Work of" in seen) == (n_ranks > 1)
    assert written.stat().st_size < 400_000
    assert ("105 more" in seen) == (n_ranks == 1000)  # hosts
    assert len(re.findall(r"\brank \d", seen)) <= 70


@pytest.mark.parametrize("name", [None, "0f"])
def test_result_and_trace_on_one_page(tmp_path, name):
    """Both of one run; older ones have no name."""
    plain = record()
    write(tmp_path / "result.h5", record(run={**plain.run, "id": name}) if name else plain)
    write_trace(tmp_path / "trace.json", 2, **({"run": name} if name else {}), backend="cpu", n_threads=3)
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5"), str(tmp_path / "trace.json")))
    assert "States" in seen and "balance of the ranks" in seen


@pytest.mark.parametrize(
    ("mine", "changes"),
    [
        ("0f", {"run": "1e"}),  # the same input on the same grid, another time
        ("0f", {}),
        (None, {"run": "0f"}),
        ("0f", {"run": "0f", "fingerprint": "4567"}),
        (None, {"fingerprint": "4567"}),
        (None, {"grid": [2, 1, 1, 1]}),
        (None, {"n_threads": 4}),
        (None, {"n_sigma": 13}),
        (None, {"backend": "gpu"}),
    ],
)
def test_a_trace_of_another_run_is_refused(tmp_path, mine, changes):
    """Also where only the name of the run tells."""
    plain = record()
    write(tmp_path / "result.h5", record(run={**plain.run, "id": mine}) if mine else plain)
    write_trace(tmp_path / "trace.json", 2, **{"n_threads": 3, **changes})
    with pytest.raises(InputError, match="result.h5 and .*trace.json are of different runs"):
        write_report(tmp_path / "report.html", str(tmp_path / "result.h5"), str(tmp_path / "trace.json"))
    assert not (tmp_path / "report.html").exists()


def test_states_on_narrow_screens(tmp_path):
    """Every cell of the table of states has its name beside it, which narrow screens show instead of the heading."""
    write(tmp_path / "result.h5", record(2))
    content = write_report(tmp_path / "report.html", str(tmp_path / "result.h5")).read_text()
    head, body = re.search(r'<table class="cards">.*?<thead>(.*?)</thead>(.*?)</table>', content, re.DOTALL).groups()
    names = re.findall(r"<th [^>]*>(.*?)</th>", head)[1:]
    assert "energy (hartree)" in names and "spin" in names
    assert re.findall(r'<td [^>]*data-name="(.*?)"', body) == 2 * names
    assert "content: attr(data-name)" in content


def test_curves_have_the_names_of_the_roots(tmp_path):
    """Root 1 of the result is the first state of its sector; what else was solved is another state."""
    plain = record(2)
    n = 12
    nothing = np.full(n, np.nan)
    energy = np.stack([plain.history["energy"][:, 0], nothing], axis=1)
    residual = np.stack([plain.history["residual_norm"][:, 0], nothing], axis=1)
    sectors = np.repeat([0, 5, 6], n // 3)
    content = record(
        2, summary={**plain.summary.stored(), "sector": [0, 5], "spin_flip_parity": [1, -1]},
        history={"energy": energy, "residual_norm": residual, "sector": sectors, "parity": np.where(sectors, -1, 1)},
    )  # fmt: skip
    write(tmp_path / "result.h5", content)
    seen = text_of(write_report(tmp_path / "report.html", str(tmp_path / "result.h5")))
    part = seen[seen.index("Convergence") : seen.index("Occupations")]
    for text in ("root 0", "root 1", "other states", "sector and spin-flip parity", "Other states lie above"):
        assert text in part
    assert "iteration sector parity energy 0" in part and " 5 -1 " in part


@pytest.mark.parametrize("n_strings", [1, 1_000_000])
def test_any_number_of_strings(tmp_path, n_strings):
    """One string, and so many that not every one can be a point."""
    write(tmp_path / "result.h5", record(1, n_strings))
    written = write_report(tmp_path / "report.html", str(tmp_path / "result.h5"))
    assert "Weights of strings" in text_of(written)
    assert written.stat().st_size < 400_000


def test_left_out():
    """Weight beyond the n heaviest."""
    from sqd_mpi.app.figures.orbitals import left_out

    numbers, left = left_out(np.array([0.125, 0.5, 0.25, 0.125]))
    assert numbers.tolist() == [1, 2, 3, 4]
    assert left.tolist() == [0.5, 0.25, 0.125, 0.0]
    numbers, left = left_out(np.full(10**6, 1e-6))
    assert len(numbers) <= 200 and np.allclose(left, 1 - 1e-6 * numbers)


def test_everything_from_files_is_escaped(tmp_path):
    """Names, options, warnings and reasons may hold anything."""
    plain = loop_record()
    summary = {**plain.summary.stored(), "failed_batches": [EVIL], "backend": EVIL}
    content = loop_record()
    content = records.Record(**{
        **{name: getattr(content, name) for name in content.__dataclass_fields__},
        "summary": Summary(**summary), "warnings": [EVIL, "\x1b[31m"], "options": {"tol": 1e-6, EVIL: EVIL},
        "versions": {EVIL: EVIL}, "run": {"input": EVIL, "command": EVIL}, "history": record().history,
        "timings": {EVIL: (1.0, 2.0, 3.0)},
    })  # fmt: skip
    path = write(tmp_path / "a$b$<i>\udcff.h5", content)
    written = write_report(tmp_path / "report.html", str(path))
    seen = text_of(written)
    assert seen.count("<script>alert('x')</script>") >= 8
    assert "\x1b" not in seen and "\ufffd[31m" in seen and "a$b$<i>" in seen


def test_missing_parts(tmp_path):
    """A file that holds the energy alone still makes a page."""
    path = write(tmp_path / "result.h5", record())
    with h5py.File(path, "r+") as file:
        for name in ("history", "timings", "options", "versions", "run", "weights", "warnings"):
            file.pop(name, None)
        group = file["summary"]
        for name in [*group, *group.attrs]:
            if name != "energy":
                (group if name in group else group.attrs).__delitem__(name)
    seen = text_of(write_report(tmp_path / "report.html", str(path)))
    assert "States" in seen and "-1.0000000000" in seen and "? Unknown" in seen
    assert not [title for title in ("Occupations", "Convergence", "Memory", "Options") if title in seen]


def spoil(path: Path, name: str, value: Any) -> None:
    """Replaces an item or attribute of a result; None removes it."""
    with h5py.File(path, "r+") as file:
        group, _, last = name.rpartition("/")
        owner = file[group or "/"]
        owner.attrs.pop(last, None)
        owner.pop(last, None)
        if isinstance(value, np.ndarray):
            owner[last] = value
        elif value is not None:
            owner.attrs[last] = value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("summary", None, "has no group /summary"),
        ("summary/energy", None, "energy: field required"),
        ("summary/energy", "low", "energy"),
        ("summary/energy", np.zeros((2, 2)), "energy"),
        ("summary/converged", np.zeros(3, bool), "converged has 3 roots, energy 2"),
        ("summary/occupancies", np.zeros((2, 3, 4)), "occupations of unlike numbers"),
        ("summary/norb", "many", "norb"),
        ("history/energy", np.zeros((5, 2)), "parts of /history have unlike shapes"),
        ("history/energy", np.zeros((12, 7)), "/history has another number of roots"),
        ("history/energy", np.zeros(12), "/history has another number of roots"),
        ("timings/mixed", np.zeros(2), "timings.mixed"),
        ("weights/alpha", np.zeros((2, 7)), "/weights/alpha does not fit /strings/alpha"),
        ("weights/alpha", np.zeros(3), "/weights/alpha does not fit /strings/alpha"),
        ("fingerprint", None, "no attribute fingerprint"),
    ],
)
def test_results_that_hold_something_else(tmp_path, capsys, name, value, words):
    """One sentence, exit code 2, no page."""
    path = write(tmp_path / "result.h5", record(2))
    spoil(path, name, value)
    assert cli.main(["report", str(path), "-o", str(tmp_path / "report.html")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and words in printed.err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.h5"], "missing.h5 does not exist"),
        (["text.txt"], "text.txt is not an HDF5 file"),
        (["result.h5", "--trace", "other.json"], "result.h5 and other.json are of different runs"),
        (["--trace", "result.h5"], "result.h5 is not a trace that sqd_mpi wrote"),
        (["result.h5", "-o", "folder.html"], "cannot write folder.html: it is a directory"),
        (["result.h5", "-o", "missing/report.html"], "the directory missing does not exist"),
        (["page.html", "-o", "page.html"], "it would replace the input file page.html"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    """Exit code 2, one sentence, nothing written."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "result.h5", record())
    write_trace(tmp_path / "other.json", 2, fingerprint="4567")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "folder.html").mkdir()
    write(tmp_path / "page.html", record())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert cli.main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and words in printed.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_the_page_says_what_to_install(tmp_path, library):
    """Without one of its libraries nothing is written."""
    path = write(tmp_path / "result.h5", record())
    program = f"import sys; sys.modules[{library!r}] = None; from sqd_mpi.app import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", program, "report", str(path), "-o", str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'sqd_mpi[report]'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_the_same_files_make_the_same_page(tmp_path):
    """Names inside drawings are not random."""
    path = str(write(tmp_path / "result.h5", record(2)))
    assert page(data.read(path, None)) == page(data.read(path, None))


def test_html_is_escaped_once():
    """Text is escaped, markup is not."""
    assert macros.code("a<b & 'c'") == "<code>a&lt;b &amp; &#39;c&#39;</code>"
    assert macros.fold("<", macros.code("<"), None) == ("<details><summary>&lt;</summary><code>&lt;</code></details>\n")
    assert "<td>&lt;i&gt;</td>" in macros.table(["x", "y"], [("a", "<i>")], numeric=False)
    assert 'aria-label="&#34;"' in macros.table(["x", "y"], [("a", "b")], caption='"')
    assert macros.section("Title", None) == "" and 'id="a-title"' in macros.section("A title", "text")


def test_colours_of_drawings_come_from_the_page(tmp_path):
    """No black or white is left in a drawing, so that it can be read on a dark page."""
    from sqd_mpi.app.figures.canvas import THEME

    path = str(write(tmp_path / "result.h5", record(3)))
    text = page(data.read(path, None))
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not [color for color in THEME if color in drawings]
    assert all(f"--{name}:" in text for name in set(THEME.values()))


def test_files_without_a_right_result_raise(tmp_path):
    """The function raises what the verb prints."""
    with pytest.raises(InputError, match="does not exist"):
        write_report(tmp_path / "report.html", str(tmp_path / "missing.h5"))


@pytest.mark.parametrize(
    "changes",
    [{"grid": "wide"}, {"grid": 5}, {"n_threads": "many"}, {"hosts": 7}, {"hosts": [1, None]}, {"input": ["<b>"]},
     {"n_dropped": EVIL}],
)  # fmt: skip
def test_traces_that_say_odd_things(tmp_path, changes):
    """What a trace says of its run is shown as text or left out."""
    write_trace(tmp_path / "trace.json", 2, **changes)
    seen = text_of(write_report(tmp_path / "report.html", None, str(tmp_path / "trace.json")))
    assert "balance of the ranks" in seen


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-1e-9, ".4f", "0.0000"), (-1e-9, ".1e", "-1.0e-09"), (-0.0, ".1e", "0.0e+00"), (-1, "+d", "-1"), (0, "d", "0")],
)
def test_numbers_in_words(value, form, text):
    """Nothing has no sign."""
    assert words.number(value, form) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 s"), (2e-5, "20 µs"), (1.25, "1.25 s"), (125.0, "2 min 5 s"), (4000.0, "1 h 7 min")],
)
def test_times_in_words(value, text):
    """Times for people."""
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("spin_square", "pure", "text"),
    [(0.0, True, "singlet"), (0.75, None, "doublet"), (2.0, True, "triplet"), (2.0, False, "mixed spin"),
     (1.1, None, "mixed spin"), (None, None, "–"), (20.0, True, "2S+1 = 9")],
)  # fmt: skip
def test_spins_in_words(spin_square, pure, text):
    """The name of a multiplet, where the state is one."""
    assert words.spin(spin_square, pure) == text


def test_pictures_of_a_loop(tmp_path, capsys):
    """A folder gets those of the loop; JSON names them."""
    path = str(write(tmp_path / "result.h5", loop_record()))
    assert cli.main(["report", path, "-o", str(tmp_path / "pictures"), "--json"]) == 0
    names = [Path(name).name for name in json.loads(capsys.readouterr().out)["files"]]
    assert names == [f"{name}.{kind}" for name in ("convergence", "loop_energies", "loop_spaces")
                     for kind in ("png", "svg")]  # fmt: skip
    assert cli.main(["report", path, "-o", str(tmp_path / "report.html"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
