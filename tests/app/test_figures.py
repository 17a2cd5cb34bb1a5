"""Pictures: the numbers in them, what their parts show, and the verb that writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqd_mpi.app import cli, figures
from sqd_mpi.app.figures import COMPUTE, LOOKS
from sqd_mpi.errors import InputError
from sqd_mpi.files import records
from sqd_mpi.files.summary import Summary
from tests.support.traces import fake_trace

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.image import imread  # noqa: E402

FINGERPRINT = "0123"


def luminance(color: str) -> float:
    """Returns how light a colour is, from 0 to 1."""
    return float(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)))


def texts(figure: Any) -> str:
    """Returns all that is written in a figure."""
    axes = figure.axes
    found = [figure.get_suptitle(), *(text.get_text() for each in figure.legends for text in each.get_texts())]
    for each in axes:
        found += [each.get_title(loc="left"), each.get_xlabel(), each.get_ylabel()]
        found += [text.get_text() for text in each.texts]
        found += [label.get_text() for label in each.get_yticklabels()]
    return "\n".join(found)


def test_looks_differ_without_colour():
    """Two groups that both may fill a row differ in lightness or in their pattern."""
    for k, one in enumerate(LOOKS):
        for other in LOOKS[k + 1 :]:
            assert one.hatch != other.hatch or abs(luminance(one.color) - luminance(other.color)) > 0.06, (one, other)


def test_every_phase_of_sigma_has_a_group():
    """What is not named falls into the last one."""
    names = ["mixed", "alpha", "beta", "wait", "collect", "scatter", "reduce", "vectors", "structure", "model space"]
    groups = figures.phase_groups([*names, "observables", "sigma"])
    assert len(set(groups.tolist())) == len(names) + 1
    assert groups[-2:].tolist() == [len(LOOKS) - 1] * 2
    assert groups[:3].tolist() == list(COMPUTE)


@pytest.mark.parametrize(
    ("seconds", "expected"), [([1.0, 1.0], 1.0), ([1.0, 3.0], 1.5), ([0.0, 0.0], 1.0), ([2.0], 1.0)]
)
def test_imbalance(seconds, expected):
    """Maximum over mean; no work is balanced."""
    assert figures.imbalance(np.array(seconds)) == expected


@pytest.mark.parametrize("n_ranks", [1, 4, 70])
def test_phase_shares(tmp_path, n_ranks):
    """The parts of each bar add up to 100 %; imbalance and seconds are those of the kernels."""
    figure = figures.phase_shares(fake_trace(n_ranks))
    (axes,) = figure.axes
    n_bars = n_ranks if n_ranks <= 64 else 3
    widths = np.array([[bar.get_width() for bar in group] for group in axes.containers])
    assert widths.shape == (len(LOOKS), n_bars) and np.allclose(widths.sum(axis=0), 100.0)
    compute = 4 * (0.010 + 0.001 * np.arange(n_ranks))
    words = texts(figure)
    assert f"max/mean over the ranks {compute.max() / compute.mean():.3f}" in words
    assert f"{compute.max():.3g} s" in words
    total = 0.1 + 4 * (0.002 + compute.max() / 4 + 0.005)
    mixed = widths[0, 0] if n_ranks <= 64 else widths[0, 2]  # of the rank with the least work
    assert mixed == pytest.approx(100 * 4 * 0.006 / total)
    assert ("most work: rank 69" in words) == (n_ranks > 64)
    png, svg = figures.save(figure, tmp_path, "phases")
    assert imread(png).shape[1] == 1500 and svg.read_text().startswith("<?xml")
    assert png.stat().st_size < 300_000 and svg.stat().st_size < 1_000_000


def history(n_roots: int = 2) -> dict[str, Any]:
    """Returns the history of five iterations in one sector and one in another."""
    energies = [[-1.0 + 0.1**k, None][:n_roots] for k in range(5)] + [[-0.5, -0.25][:n_roots]]
    residuals = [[0.1**k, None][:n_roots] for k in range(5)] + [[0.1, 0.2][:n_roots]]
    return {"energy": energies, "residual_norm": residuals, "sector": [3] * 5 + [1], "parity": [1] * 5 + [-1]}


@pytest.mark.parametrize("n_roots", [1, 2])
def test_convergence(n_roots):
    """Residuals with the tolerance, sectors by name, a legend for several roots."""
    figure = figures.convergence(history(n_roots), 1e-4, "heading")
    upper, lower = figure.axes
    words = texts(figure)
    for word in ("heading", "tolerance 0.0001", "sector and spin-flip parity", "3+", "1\u2212", "iteration", "norm"):
        assert word in words
    assert ("root 1" in words) == (n_roots > 1)
    assert upper.lines[0].get_ydata().tolist() == pytest.approx([0.1**k for k in range(5)])
    assert np.nanmin(lower.lines[0].get_ydata()) > 0
    assert upper.get_yscale() == lower.get_yscale() == "log"


def test_one_sector_is_named_in_full():
    """There is room."""
    plain = history()
    one = {name: values[:5] for name, values in plain.items()}
    assert "sector 3, parity +1" in texts(figures.convergence(one, None, ""))
    one["parity"] = [0] * 5
    assert "sector 3\n" in texts(figures.convergence(one, None, "")) + "\n"


def test_roots_of_sector():
    """The states of a sector are those roots of the result that belong to it, in their order; the rest are others."""
    states = [(0, 1), (3, -1), (0, 1), (0, -1)]
    assert figures.roots_of_sector((0, 1), 3, states) == [0, 2, None]
    assert figures.roots_of_sector((0, 1), 1, states) == [0]
    assert figures.roots_of_sector((3, -1), 2, states) == [1, None]
    assert figures.roots_of_sector((3, 1), 2, states) == [None, None]
    assert figures.roots_of_sector((3, 1), 2, None) == [0, 1]
    assert figures.states_of([0, 3], [1, None]) == [(0, 1), (3, 0)]
    assert figures.states_of([0, 3], None) == [(0, 0), (3, 0)]
    assert figures.states_of(None, [1]) is None and figures.states_of([0, None], None) is None


def history_of(lengths: list[int], n_roots: int) -> dict[str, Any]:
    """Returns a history of sectors that took so many iterations."""
    steps = np.concatenate([np.arange(length) for length in lengths])
    sectors = np.repeat(np.arange(len(lengths)), lengths)
    residual = np.repeat(10.0 ** -steps[:, None], n_roots, axis=1)
    return {
        "energy": (-1.0 + residual**2).tolist(), "residual_norm": residual.tolist(), "sector": sectors.tolist(),
        "parity": np.where(sectors % 2, -1, 1).tolist(),
    }  # fmt: skip


@pytest.mark.parametrize("width", [figures.canvas.NARROW, figures.canvas.WIDTH])
@pytest.mark.parametrize("n_roots", [1, 12])
@pytest.mark.parametrize("lengths", [[5], [12, 5, 5, 1], [12, *[5] * 15], [1] * 40, [1, 30, 1]])
def test_names_in_the_convergence_do_not_collide(width, n_roots, lengths):
    """Whatever number of sectors: some go without a name then, the longest have theirs."""
    states = [(k % len(lengths), -1 if k % len(lengths) % 2 else 1) for k in range(n_roots)]
    figure = figures.convergence(history_of(lengths, n_roots), 1e-6, "heading", width, states)
    figure.draw_without_rendering()
    upper = figure.axes[0]
    named = [text for text in upper.texts if not text.get_text().startswith("tolerance")]
    shown = [*named, upper._left_title, *(text for legend in figure.legends for text in legend.get_texts())]
    boxes = [text.get_window_extent() for text in shown if text.get_text()]
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    if len(lengths) > 1:
        assert any(text.get_text().startswith(str(int(np.argmax(lengths)))) for text in named)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert (f"root {min(n_roots, 10) - 1}" in labels) == (n_roots * len(lengths) > 1)
    assert ("other states" in labels) == (len(lengths) > 1)


def test_convergence_of_what_was_exact_at_once():
    """A logarithmic axis cannot show zeros; the picture is drawn all the same."""
    exact = {"energy": [[-1.0]], "residual_norm": [[0.0]], "sector": [0], "parity": [0]}
    figure = figures.convergence(exact, 1e-6, "heading")
    figure.canvas.draw()
    assert "sector 0" in texts(figure)


def test_mean_shares():
    """Without a trace the phases of the iterations come from the timings; what holds other phases is left out."""
    timings = {"mixed": (0.5, 0.6, 0.7), "wait": (0.1, 0.2, 0.3), "sigma": (1, 1, 1), "warm-up": (9, 9, 9)}
    figure = figures.mean_shares(timings, "heading")
    widths = [group[0].get_width() for group in figure.axes[0].containers]
    assert widths[0] == pytest.approx(75.0) and sum(widths) == pytest.approx(100.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a directory with a result, a trace of the same run, and one of another."""
    summary = {"grid": [1, 1, 2, 1], "n_ranks": 2, "n_threads": 3}
    timings = {"mixed": (0.5, 0.6, 0.7), "wait": (0.1, 0.2, 0.3)}
    some = np.zeros((1, 1))
    with records.AtomicFile(tmp_path / "result.h5", records.RESULT) as file:
        record = records.Record(
            Summary(energy=[-1.0], **summary), FINGERPRINT, np.ones((1, 1), np.uint64), np.ones((1, 1), np.uint64),
            some, some, timings=timings,
            history={name: np.array(values, float) for name, values in history().items()}, options={"tol": 1e-4},
        )  # fmt: skip
        records.write_record(file, record)
    event = {"ph": "X", "pid": 0, "tid": 0, "name": "sigma", "args": {}, "ts": 0.0, "dur": 1e6}
    for name, fingerprint in (("run.json", FINGERPRINT), ("other.json", "4567")):
        about = {"creator": "sqd_mpi 0.1.0", "fingerprint": fingerprint, "input": "input.h5", **summary}
        (tmp_path / name).write_text(json.dumps({"traceEvents": [event], "otherData": about}))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["result.h5"], ["convergence", "phases"]),
        (["--trace", "run.json"], ["phases"]),
        (["result.h5", "--trace", "run.json"], ["convergence", "phases"]),
    ],
)
def test_report(folder, monkeypatch, capsys, arguments, names):
    """PNG and SVG for what was given, in a folder that is made, each named on standard output."""
    monkeypatch.chdir(folder)
    assert cli.main(["report", *arguments, "-o", "pictures"]) == 0
    expected = [f"pictures/{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert capsys.readouterr().out.split() == expected
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == sorted(Path(path).name for path in expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["result.h5", "--trace", "other.json"], "result.h5 and other.json are of different runs"),
        (["run.json"], "run.json is not an HDF5 file"),
        (["--trace", "result.h5"], "result.h5 is not a trace that sqd_mpi wrote"),
        (["result.h5", "-o", "missing/pictures"], "cannot write into missing/pictures: No such file"),
        (["result.h5", "-o", "run.json"], "cannot write into run.json: File exists"),
    ],
)
def test_report_refuses(folder, monkeypatch, capsys, arguments, words):
    """Exit code 2, one sentence, nothing written."""
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert cli.main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and words in printed.err
    assert sorted(folder.iterdir()) == before


def test_report_says_what_to_install(folder, monkeypatch, capsys):
    """Without matplotlib nothing is written."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["report", "result.h5"]) == 2
    assert "pictures need matplotlib; install it with: pip install 'sqd_mpi[report]'" in capsys.readouterr().err
    assert not (folder / "report").exists()


def test_read_run_refuses_other_files(folder):
    """A trace is no result."""
    with pytest.raises(InputError, match="not an HDF5 file"):
        records.read_run(folder / "run.json")
