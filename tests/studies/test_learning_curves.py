"""Learning curves: which rows are drawn, against a loop by hand, what is refused, and the study."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat import GroupLeakageError, PatientKFold, make_cohort
from histofeat.features import Runtime
from histofeat.metrics import patient_weights
from histofeat.model_selection import encode_patients
from histofeat.models import make_head
from histofeat.studies import learning_curve


class Remembering(LogisticRegression):
    """A head that keeps what it was fitted on."""

    seen: list = []  # noqa: RUF012

    def fit(self, X, y):
        self.seen.append(X[:, 0].astype(int).tolist())
        return super().fit(X, y)


@pytest.fixture(scope="module")
def data():
    """Features whose first column is the row, labels, and patients of unequal size."""
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{k:02d}" for k in range(24)], rng.integers(6, 14, 24))
    y = np.tile([0, 1], len(patients))[: len(patients)]
    features = np.column_stack([np.arange(len(y)), 0.5 * y + rng.normal(size=len(y)), rng.normal(size=len(y))])
    return features, y, patients


def point_of(curve, sampling, n_patients):
    return next(p for p in curve.itertuples() if (p.sampling, p.n_patients) == (sampling, n_patients))


def test_whole_patients_are_drawn_one_set_in_the_next(data):
    features, y, patients = data
    Remembering.seen = []
    settings = {"n_patients": (3, 8), "n_draws": 2, "n_resamples": 0}
    learning_curve(features, y, patients, Remembering(), PatientKFold(2), **settings)
    _, codes = encode_patients(patients, len(y))
    sizes = np.bincount(codes)
    folds = [set(train) for train, _ in PatientKFold(2).split(features, y, patients)]
    whole, spread = [], []
    for rows in map(set, Remembering.seen):
        assert sum(rows <= fold for fold in folds) == 1
        drawn, counts = np.unique(codes[list(rows)], return_counts=True)
        (whole if (counts == sizes[drawn]).all() else spread).append(rows)
    assert sorted({len(np.unique(codes[list(rows)])) for rows in whole}) == [
        3,
        8,
        *sorted({len(np.unique(codes[list(fold)])) for fold in folds}),
    ]
    assert len(whole) == 2 * (2 * 2 + 1)
    small, large = ([r for r in whole if len(np.unique(codes[list(r)])) == size] for size in (3, 8))
    assert all(any(rows <= other for other in large) for rows in small)
    assert len(spread) == 2 * 2 * 2
    assert sorted(map(len, spread)) == sorted(map(len, small + large))
    assert min(len(np.unique(codes[list(rows)])) for rows in spread) > 8


def test_the_last_point_is_plain_cross_validation(data):
    features, y, patients = data
    X = features[:, 1:]
    curve = learning_curve(X, y, patients, LogisticRegression(), PatientKFold(3), n_patients=(4,), n_resamples=80)
    proba, fold = np.empty(len(y)), np.empty(len(y), dtype=int)
    for number, (train, test) in enumerate(PatientKFold(3).split(X, y, patients)):
        proba[test] = LogisticRegression().fit(X[train], y[train]).predict_proba(X[test])[:, 1]
        fold[test] = number
    last = point_of(curve, "patients", 16)
    assert last.all_patients
    assert (last.n_draws, last.n_patches) == (1, pytest.approx(len(y) * 2 / 3))
    assert np.isnan(last.spread)
    assert last.value == pytest.approx(auc_within_folds(y, proba, fold), abs=1e-4)
    _, codes = encode_patients(patients, len(y))
    values = []
    for weights in patient_weights(patients, 80, 0):
        rows = np.repeat(np.arange(len(y)), weights[codes])
        values.append(auc_within_folds(y[rows], proba[rows], fold[rows]))
    assert (last.low, last.high) == pytest.approx(t_by_hand(last.value, values, 24, 23), abs=1e-3)


def test_a_point_is_the_mean_over_draws_and_differences_are_paired(data):
    features, y, patients = data
    X, head, cv = features[:, 1:], LogisticRegression(), PatientKFold(3)
    settings = {"n_patients": (4,), "n_resamples": 50}
    curves = [learning_curve(X, y, patients, head, cv, n_draws=n, **settings) for n in (1, 2, 3)]
    means = {s: [point_of(curve, s, 4).value for curve in curves] for s in ("patients", "patches")}
    gain = point_of(curves[2], "patches - patients", 4)
    assert gain.value == pytest.approx(means["patches"][2] - means["patients"][2])
    assert gain.low <= gain.value <= gain.high
    widths = [point_of(curves[2], s, 4) for s in ("patients", "patches")]
    assert gain.high - gain.low < sum(point.high - point.low for point in widths)


def test_the_spread_is_that_of_single_fits(data):
    """Every fit again by hand, scored on the test patches of its fold; no two folds share training patients."""
    features, y, patients = data
    quarter = np.unique(patients, return_inverse=True)[1] % 4
    cv = [(np.flatnonzero(quarter == train), np.flatnonzero(quarter == train + 2)) for train in (0, 1)]
    Remembering.seen = []
    curve = learning_curve(features, y, patients, Remembering(), cv, n_patients=(4,), n_draws=3, n_resamples=0)
    X, variances = features.astype(np.float32), {"patients": [], "patches": []}
    for train, test in cv:
        scored = {"patients": [], "patches": []}
        for rows in Remembering.seen:
            if set(rows) < set(train):
                score = LogisticRegression().fit(X[rows], y[rows]).predict_proba(X[test])[:, 1]
                whole = len(rows) == np.isin(patients, patients[rows]).sum()
                scored["patients" if whole else "patches"].append(roc_auc_score(y[test], score))
        for sampling, found in scored.items():
            assert len(found) == 3
            variances[sampling].append(np.var(found, ddof=1))
    for sampling, found in variances.items():
        assert point_of(curve, sampling, 4).spread == pytest.approx(np.sqrt(np.mean(found)))


def test_the_spread_is_what_another_training_set_does():
    """Ten patients of a known population: how much the score of a fit varies over populations of training patients."""
    rng = np.random.default_rng(0)

    def draw(n_patients):
        patients, y = np.repeat(np.arange(n_patients), 12), np.tile([0, 1], 6 * n_patients)
        shift = rng.normal(size=(n_patients, 8))[patients]
        return 0.35 * y[:, None] + 0.5 * shift + rng.normal(size=(len(y), 8)), y, patients

    fits = [LogisticRegression().fit(*draw(10)[:2]) for _ in range(60)]
    variances = []
    for X, y, _ in (draw(20) for _ in range(20)):  # as many patients as a fold tests
        variances.append(np.var([roc_auc_score(y, fit.decision_function(X)) for fit in fits], ddof=1))
    truth = np.sqrt(np.mean(variances))
    found = []
    for seed in range(4):
        settings = {"n_patients": (10,), "n_draws": 6, "n_resamples": 0, "random_state": seed}
        curve = learning_curve(*draw(100), LogisticRegression(), PatientKFold(5), **settings)
        found.append(point_of(curve, "patients", 10).spread)
    assert np.mean(found) == pytest.approx(truth, rel=0.15)


def test_folds_without_a_class_have_no_spread(data):
    """One patient tested at a time, each of one class: there is no score in any fold."""
    features, y, patients = data
    y = np.unique(patients, return_inverse=True)[1] % 2
    settings = {"n_patients": (8,), "n_draws": 2, "n_resamples": 20}
    cv = [(np.flatnonzero(patients != patient), np.flatnonzero(patients == patient)) for patient in set(patients)]
    curve = learning_curve(features[:, 1:], y, patients, LogisticRegression(), cv, **settings)
    assert curve[["value", "low", "high", "spread"]].isna().all(axis=None)


def test_threads_and_our_own_heads(data):
    features, y, patients = data
    told = []
    settings = {"n_patients": (6,), "n_draws": 2, "n_resamples": 30}
    curve = learning_curve(features[:, 1:], y, patients, make_head("svm"), PatientKFold(2), **settings)
    again = learning_curve(
        features[:, 1:], y, patients, make_head("svm"), PatientKFold(2),
        runtime=Runtime(n_jobs=2, progress=lambda *at: told.append(at)),
        **settings,
    )  # fmt: skip
    pd.testing.assert_frame_equal(curve, again)
    assert told[-1] == ("fit", 10, 10)
    other = learning_curve(features[:, 1:], y, patients, make_head("svm"), PatientKFold(2), random_state=1, **settings)
    assert point_of(other, "patients", 6).value != point_of(curve, "patients", 6).value


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metric": "auc"}, ValueError, r"learning_curve\.metric: expected one of roc_auc, .* got 'auc'"),
        ({"n_draws": 0}, ValueError, r"learning_curve\.n_draws: .* got 0"),
        ({"n_patients": (0,)}, ValueError, r"learning_curve\.n_patients: expected a whole number from 1 to 11, got 0"),
        ({"n_patients": (12,)}, ValueError, "got 12. The smallest fold trains on 12 patients"),
        ({"n_patients": (8, 3)}, ValueError, r"expected ascending sizes, got \(8, 3\)"),
        ({"patients": None}, GroupLeakageError, "got None"),
    ],
)
def test_what_cannot_be_drawn_is_refused(data, change, error, message):
    features, y, patients = data
    settings = {"features": features, "y": y, "patients": patients, "head": LogisticRegression()} | change
    with pytest.raises(error, match=message):
        learning_curve(**settings, cv=PatientKFold(2))


def test_a_draw_without_a_class_is_refused(data):
    features, _, patients = data
    one = (patients == "p03").astype(int) | (patients == "p11")
    with pytest.raises(ValueError, match=r"every class among the training patches, got \d+ patches of 2 patients"):
        learning_curve(features, one, patients, LogisticRegression(), PatientKFold(2), n_patients=(2,))


def test_folds_that_share_patients_are_refused(data):
    features, y, patients = data

    class Leaking:
        def split(self, X, y, groups):
            half = np.arange(len(y)) % 2 == 0
            return [(np.flatnonzero(half), np.flatnonzero(~half))]

    with pytest.raises(GroupLeakageError, match="no patient on both sides"):
        learning_curve(features, y, patients, LogisticRegression(), Leaking(), n_patients=(3,))


# --- the study -----------------------------------------------------------------------------------------------------


@pytest.fixture
def study(loaded_script):
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["learning-curves", *words])


@pytest.mark.slow
def test_the_study_writes_numbers_table_and_figure(study, tmp_path, capsys):
    make_cohort(30, 8, root=tmp_path / "idc")
    output = tmp_path / "out"
    options = ["--quick", "--features", "color", "--resamples", "40", "--folds", "3", "--n-jobs", "1"]
    assert study([*options, "--data", str(tmp_path), "--output", str(output)]) == 0, capsys.readouterr().err
    table = pd.read_csv(output / "learning_curves.csv")
    assert table["n_patients"].tolist() == [6, 12, 16, 6, 12, 6, 12]
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert len(metrics["results"]["rows"]) == 7
    page = (output / "report.md").read_text(encoding="utf-8")
    assert "with all 16." in page
    figure = json.loads((output / "figures/curves.json").read_text(encoding="utf-8"))
    assert [line["x"] for line in figure["panels"][0]["lines"]] == [[6, 12, 16]] * 2
