"""Charts of studies: what is drawn, read back from the figure."""

from xml.etree import ElementTree

import pytest

from histofeat.reporting import draw_intervals, draw_lines
from histofeat.reporting._canvas import draw_costs, save_figure

LINE = {"name": "color", "x": [0, 1, 2], "y": [0.9, 0.8, 0.7], "low": [0.8, 0.7, 0.6], "high": [1.0, 0.9, 0.8]}
BARE = {"name": "lbp", "x": [0, 1], "y": [0.6, 0.5]}


def lines(**more):
    panels = [{"title": "blur", "lines": [LINE, BARE]}, {"title": "JPEG", "lines": [BARE], "x_label": "quality"}]
    return {"title": "Robustness", "x_label": "severity", "y_label": "ROC-AUC", "panels": panels, **more}


def test_a_line_a_name_and_a_band_where_there_is_one():
    first, second, *_ = draw_lines(lines()).axes
    assert [line.get_label() for line in first.lines] == ["color", "lbp"]
    assert first.lines[0].get_ydata().tolist() == [0.9, 0.8, 0.7]
    assert len(first.collections) == 1
    assert (first.get_xlabel(), second.get_xlabel()) == ("severity", "quality")
    assert (first.get_ylabel(), second.get_ylabel()) == ("ROC-AUC", "")


def test_diagonal_logarithm_and_limits_are_drawn_where_asked_for():
    axes = draw_lines(lines(diagonal=True, x_log=True, y_limits=[0, 1])).axes[0]
    assert len(axes.lines) == 3
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == (0, 1)


def test_a_logarithmic_axis_has_its_values_as_plain_numbers():
    line = {"name": "color", "x": [10, 20, 152], "y": [0.8, 0.85, 0.9]}
    axes = draw_lines(lines(panels=[{"title": "t", "lines": [line]}], x_log=True)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "152"]
    assert not len(axes.get_xticks(minor=True))


def test_four_panels_take_two_rows_and_hide_the_places_that_are_left():
    panels = [{"title": str(n), "lines": [BARE]} for n in range(4)]
    axes = draw_lines(lines(panels=panels)).axes
    assert [ax.get_visible() for ax in axes] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("reference", [None, 0.0])
def test_values_with_intervals_by_group(reference):
    rows = [
        {"name": "a", "value": 0.1, "low": 0.0, "high": 0.2, "group": "xgboost"},
        {"name": "b", "value": 0.3, "low": None, "high": None, "group": "svm"},
    ]
    figure = draw_intervals({"title": "t", "x_label": "x", "rows": rows, "reference": reference})
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    # One bar and two points; the reference.
    assert len(axes.lines) == 3 + (reference is not None)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["xgboost", "svm"]


def test_the_same_data_give_the_same_file(tmp_path):
    for name in ("one.svg", "two.svg"):
        save_figure(draw_lines, lines(), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("name", ["Größe", "良性", "سرطان", "कैंसर", "e\u0301", "🧬"])
def test_words_of_a_figure_are_text(tmp_path, name):
    rows = [{"name": f"{name} <&>", "value": 0.1, "low": 0.0, "high": 0.2}]
    save_figure(draw_intervals, {"title": "t", "x_label": "x", "rows": rows}, tmp_path / "x.svg")
    drawn = ElementTree.parse(tmp_path / "x.svg")
    words = [element.text for element in drawn.iter() if element.tag.endswith("}text")]
    assert f"{name} <&>" in words


def test_the_figure_numbers_sets_by_their_time_and_joins_those_on_the_front():
    points = [
        {"name": "dear", "x": 900.0, "y": 0.9, "low": None, "high": None, "on_front": True},
        {"name": "cheap", "x": 50.0, "y": 0.8, "low": 0.7, "high": 0.9, "on_front": True},
        {"name": "beaten", "x": 60.0, "y": 0.7, "low": 0.6, "high": 0.8, "on_front": False},
    ]
    figure = draw_costs({"title": "t", "x_label": "x", "y_label": "y", "points": points})
    (axes,) = figure.axes
    figure.draw_without_rendering()
    ticks = axes.xaxis.get_major_ticks() + axes.xaxis.get_minor_ticks()
    assert {"50", "100", "1000"} <= {tick.label1.get_text() for tick in ticks}
    assert not [tick for tick in ticks if "$" in tick.label1.get_text()]
    front = next(line for line in axes.get_lines() if line.get_drawstyle() == "steps-post")
    assert front.get_xdata().tolist() == [50.0, 900.0]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][1:] == ["1  cheap", "2  beaten", "3  dear"]
