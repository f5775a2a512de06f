"""The chart of the speed benchmarks: a number for every bar, plain ticks, one colour."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "speed" / "chart.py"


@pytest.fixture(scope="module")
def chart():
    spec = importlib.util.spec_from_file_location("speed_chart", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(ratio, **fields):
    row = {"name": "families/some", "unit": "s", "ours": 1.0, "peer": ratio, "ratio": ratio, "ratio_of": "peer / ours"}
    return {**row, **fields}


RATE = {"unit": "patches/s", "ours": 4213.0, "peer": 980.0, "ratio_of": "ours / peer"}


def drawn(chart, rows):
    """Axes as `draw` makes them, laid out."""
    figure = Figure(figsize=(8, 1.4 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    chart.draw_bars(axes, rows)
    figure.draw_without_rendering()
    return axes


ROWS = [
    [row(ratio) for ratio in (3.69, 2.49, 4.1, 3.99, 4.0)],
    [row(ratio) for ratio in (0.93, 0.5, 0.99, 0.96)],
    [row(middle * near) for middle in (1.8, 10, 20) for near in np.linspace(0.7, 1.1, 9)],
    [row(119.0), row(2.2), row(4.3, **RATE)],
    [row(4.3, **RATE)],
    [row(1.0)],
]


@pytest.mark.parametrize("rows", ROWS)
def test_every_bar_has_its_number_beside_its_name(chart, rows):
    axes = drawn(chart, rows)
    assert [label.get_text().split()[1] for label in axes.get_yticklabels()] == [f"{row['ratio']:.3g}" for row in rows]
    assert [bar.get_width() for bar in axes.containers[0]] == [row["ratio"] for row in rows]
    assert len({bar.get_facecolor() for bar in axes.containers[0]}) == 1
    assert axes.figure.bbox.x0 <= min(label.get_window_extent().x0 for label in axes.get_yticklabels())


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (ROWS[0], ["1", "2", "5"]),
        (ROWS[1], ["0.5", "1"]),
        ([row(1500.0), row(2.0)], ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1,000", "2,000"]),
    ],
)
def test_ticks_are_plain_numbers(chart, rows, labels):
    axes = drawn(chart, rows)
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_ratios_that_are_not_times_faster_are_left_out(chart, tmp_path):
    machine = {"cpu": "some", "cores": 2}
    slower = row(2.4, ratio_of="ours / peer", name="decode/all four")
    rates = row(0.25, **{**RATE, "ratio_of": "peer / ours"}, name="histo/upside down")
    rows = [slower, rates, row(4.3, **RATE, name="histo/one view"), row(20.0, name="families/lbp")]
    chart.draw({"rows": rows, "machine": machine, "quick": False}, tmp_path / "some.svg")
    text = (tmp_path / "some.svg").read_text(encoding="utf-8")
    assert [word in text for word in ("histo/one view", "families/lbp", "decode/all four", "upside")] == [
        *(True, True, False, False)
    ]
    chart.draw({"rows": rows[:2], "machine": machine, "quick": False}, tmp_path / "none.svg")
    assert "compared nothing" in (tmp_path / "none.svg").read_text(encoding="utf-8")
