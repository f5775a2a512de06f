"""The parts of a report on their own: strict JSON, redaction, curves, tables, Markdown."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofeat.reporting import (
    Redactor,
    _canvas as canvas,
    _score_figures as figures,
    _tables as tables,
    dump,
    jsonable,
)
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._curves import thin_curve
from histofeat.reporting._folder import score_rows
from histofeat.reporting._strict_json import load, own_folders
from histofeat.reporting._text import escape_markdown, file_words


@dataclass
class Pair:
    first: object
    second: object


def test_jsonable_knows_what_results_hold():
    given = {
        "nan": math.nan,
        "inf": np.float32("inf"),
        "missing": pd.NA,
        1: np.int64(3),
        "bool": np.bool_(True),
        "array": np.array([[1.0, math.nan]]),
        "record": Pair(Path("/a/b.png"), (1, {"z", "a"})),
        "frame": pd.DataFrame({"n": [1, 2]}),
        "series": pd.Series({"a": 1.5}),
        "other": complex(1, 2),
    }
    assert jsonable(given) == {
        "nan": None,
        "inf": None,
        "missing": None,
        "1": 3,
        "bool": True,
        "array": [[1.0, None]],
        "record": {"first": "b.png", "second": [1, ["a", "z"]]},
        "frame": [{"n": 1}, {"n": 2}],
        "series": {"a": 1.5},
        "other": "(1+2j)",
    }


def test_dump_keeps_text_and_puts_numbers_on_one_line(tmp_path):
    content = {"text": "[\n 1,\n 2 ]", "matrix": [[1, 2], [3, 4]], "ü": [0.5, None, True]}
    path = dump(content, tmp_path / "x.json")
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert "[1, 2]" in path.read_text(encoding="utf-8")
    assert load(path) == content
    (tmp_path / "list.json").write_text("[1]")
    assert load(tmp_path / "list.json") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("got /home/me/x.png.", "got x.png."),
        ("PosixPath('/home/me/w')", "PosixPath('w')"),
        ("in /a/b or /c/d, got", "in b or d, got"),
        ("at:/a/b", "at:b"),
        ("file:///home/me/x.html", "x.html"),
        (r"C:\Users\me\x.png", "x.png"),
        ("see https://doi.org/10.1/x", "see https://doi.org/10.1/x"),
        ("1/2, 50 patches/s, and/or, <b>x</b>", "1/2, 50 patches/s, and/or, <b>x</b>"),
        ("relative/a/b.png and ../c and ~/d/e", "relative/a/b.png and ../c and ~/d/e"),
    ],
)
def test_absolute_paths_are_cut(text, expected):
    assert Redactor()(text) == expected


def test_known_folders_may_have_spaces(tmp_path):
    root = tmp_path / "my data" / "idc"
    redact = Redactor({root: "idc", tmp_path: "~"})
    assert redact([f"{root}/1/0/a.png", {"k": f"{tmp_path}/x y/z"}, 3]) == ["idc/1/0/a.png", {"k": "~/x y/z"}, 3]
    assert redact(f"{tmp_path}-other") == f"{tmp_path.name}-other"


def test_the_folders_to_hide_need_not_exist(monkeypatch):
    """A user without a name has no home, and a working folder can be removed."""
    assert own_folders() == {Path.cwd(): ".", Path.home(): "~"}

    def missing():
        raise RuntimeError("Could not determine home directory.")

    def removed():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("pathlib.Path.home", missing)
    assert list(own_folders().values()) == ["."]
    monkeypatch.setattr("pathlib.Path.cwd", removed)
    assert own_folders() == {}


def test_thin_curve_keeps_the_area():
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(20_000)), np.sort(rng.random(20_000))
    thin_x, thin_y = thin_curve(x, y)
    assert len(thin_x) <= 400
    assert (thin_x[0], thin_y[-1]) == (x[0], y[-1])
    assert np.trapezoid(thin_y, thin_x) == pytest.approx(np.trapezoid(y, x), abs=1e-3)


def result(name, head="xgboost", value=0.8, labels=("no", "yes")):
    score = {
        "mean": value, "std": 0.01, "value": value, "ci95": [None, None] if value is None else [0.7, 0.9],
        "folds": [value, value], "folds_ci95": [[0.6, 0.9]] * 2, "n_resamples": 10, "dropped": 0.0,
        "pooled": value, "method_ci95": [None, None] if value is None else [0.65, 0.95],
    }  # fmt: skip
    metrics = dict.fromkeys(tables.METRIC_WORDS, score)
    matrix = [[3, 1], [0, 0]]
    tuned = {"thresholds": [0.4, 0.5], "f1": score, "confusion_matrix": matrix}
    return {
        "name": name, "features": [name], "families": [], "head": head, "n_features": 1234, "labels": list(labels),
        "notes": [], **metrics, "confusion_matrix": matrix, "tuned": tuned, "fit_s": 1.0, "predict_s": 0.0123,
    }  # fmt: skip


def payload(*results):
    fold = {
        "train_patients": 2, "train_patches": 4, "test_patients": 1, "test_patches": 2,
        "test_class_counts": {"no": 1, "yes": 1},
        "test_class_patients": {"no": 1, "yes": 1},
    }  # fmt: skip
    return {
        "dataset": {
            "name": "IDC", "synthetic": False, "n_patches": 6, "labels": ["no", "yes"], "audit": {"complete": None},
        },
        "seconds": {"extraction": 12.3, "extraction:lbp": 0.02, "fit": 2.0, "odd": 1.0},
        "folds": [{"fold": 1, **fold}, {"fold": 2, **fold}],
        "results": list(results),
    }  # fmt: skip


def test_headline_marks_the_best_and_ties_that_read_the_same():
    table = tables.headline_table(payload(result("a", value=0.81231), result("b", value=0.8124), result("c")))
    columns = {name: i for i, name in enumerate(table.columns)}
    auc = columns["ROC-AUC"]
    assert [row[auc] for row in table.rows] == ["0.812", "0.812", "0.800"]
    assert {(0, auc), (1, auc), (2, columns["Brier"])} <= table.best
    assert (2, auc) not in table.best
    assert table.rows[0][2] == "1,234"
    assert table.columns[auc + 1 : auc + 3] == ("interval of these fits", "interval of the method")
    assert table.rows[0][auc + 1 : auc + 3] == ("0.700 – 0.900", "0.650 – 0.950")


def test_headline_with_one_model_or_undefined_scores_marks_nothing():
    assert not tables.headline_table(payload(result("a"))).best
    undefined = tables.headline_table(payload(result("a", value=None), result("b", value=None)))
    assert not undefined.best
    assert undefined.rows[0][3:5] == ("–", "–")


def test_seconds_table_separates_extraction_from_fitting():
    table = tables.seconds_table(payload(result("a")))
    assert [row[1].split(":")[0] for row in table.rows[:4]] == [
        "extraction",
        "extraction, of which lbp (summed over threads)",
        "fitting",
        "odd",
    ]
    assert [row[2] for row in table.rows] == ["12.3", "0.020", "2.0", "1.0", "1.0", "0.012"]


def test_score_rows_of_undefined_metric_are_empty():
    rows = list(score_rows(payload(result("a", value=None))))
    assert {row["value"] for row in rows} == {row["pooled"] for row in rows} == {None}
    assert [row["threshold"] for row in rows if row["metric"] == "f1"] == ["0.5", "tuned"]


def test_models_are_on_the_front_when_no_cheaper_one_is_as_good():
    rows = [("slow", 0.9, 0.5), ("as good", 0.8, 0.2), ("worse", 0.7, 0.1), ("cheap", 0.8, 0.1)]
    rows.append(("dear", 0.7, 0.3))
    results = [result(name, value=value) | {"seconds_per_patch": seconds} for name, value, seconds in rows]
    data = figures.costs_data(payload(*results))
    assert [(point["name"], point["x"], point["on_front"]) for point in data["points"]] == [
        ("worse/xgboost", 100, False), ("cheap/xgboost", 100, True), ("as good/xgboost", 200, False),
        ("dear/xgboost", 300, False), ("slow/xgboost", 500, True),
    ]  # fmt: skip
    assert figures.costs_data(payload(*results, result("x") | {"seconds_per_patch": None})) is None


def test_confusion_rates_of_an_absent_class_are_zero():
    data = figures.confusion_data(payload(result("a"), result("b", head="svm")), "xgboost")
    assert [matrix["name"] for matrix in data["matrices"]] == ["a"]
    assert data["matrices"][0]["rates"] == [[0.75, 0.25], [0.0, 0.0]]


def test_forest_of_undefined_scores_is_drawn(tmp_path):
    data = figures.forest_data(payload(result("a" * 60, value=None)))
    save_figure(figures.draw_forest, data, tmp_path / "forest.svg")
    assert (tmp_path / "forest.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    save_figure(figures.draw_forest, figures.forest_data(payload(result("a"))), tmp_path / "f.svg")
    assert dict(matplotlib.rcParams) == before
    for module in (canvas, figures):
        assert "pyplot" not in Path(module.__file__).read_text(encoding="utf-8").replace("no pyplot", "")


def test_markdown_text_cannot_break_out():
    assert escape_markdown("a\n\n# b | c_d _e_ [x](y)") == r"a \# b \| c_d \_e\_ \[x\](y)"


def test_file_words_are_safe_and_different():
    assert file_words(["XGBoost", "x g", "x/g", "//"]) == ["xgboost", "x-g", "x-g-3", "head"]
    assert file_words(["x-3", "x", "x "]) == ["x-3", "x", "x-4"]
