"""Curves with bands: against loops over repeated patches, and against the intervals of the scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from histofeat.metrics import bootstrap_scores, class_scores, curve_bands, patient_weights, scores
from histofeat.metrics._one_vs_rest import GRID_POINTS
from histofeat.metrics._ranking import curves_on_grid
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._curves import band_panels_data, draw_ranking, draw_ranking_bands, ranking_data

RESAMPLES = 60


def predictions(n_classes, n=240, n_patients=12, digits=2, seed=0):
    """Labels, probabilities with many ties, and patients who differ."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n_patients, n)
    y = rng.integers(0, n_classes, n)
    raw = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[y] + rng.normal(size=(n_patients, 1))[patients]
    raw[:, 0] += rng.normal(size=n_patients)[patients]
    proba = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    # Rounded down, so that what is left for the first class is not negative.
    proba[:, 1:] = np.floor(proba[:, 1:] * 10**digits) / 10**digits
    proba[:, 0] = 1 - proba[:, 1:].sum(axis=1)
    return y, proba.clip(0, 1), patients.astype(str)


def read_off(positive, score, grid):
    """Both curves at every point of the grid, threshold by threshold, from scikit-learn's points."""
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    rates = []
    for x in grid:
        at = np.flatnonzero(fpr <= x + 1e-9)[-1]
        here = np.isclose(fpr[at], x, atol=1e-9)
        rates.append(tpr[at] if here else np.interp(x, fpr[at : at + 2], tpr[at : at + 2]))
    precision, recall, _ = precision_recall_curve(positive, score)
    steps = []
    for x in grid:
        reached = np.flatnonzero((recall[:-1] >= x - 1e-9) & (recall[:-1] > 0))
        steps.append(precision[reached[-1]])
    return np.array(rates), np.array(steps)


def test_curves_of_a_weighting_are_those_of_repeated_patches():
    y, proba, patients = predictions(2)
    ids, codes = np.unique(patients.astype(int), return_inverse=True)
    weights = patient_weights(patients, 25, 3)
    grid = np.linspace(0, 1, GRID_POINTS)
    roc, pr = curves_on_grid(y == 1, proba[:, 1], codes, weights, grid)
    for number, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(y)), weight[codes])
        expected = read_off(y[rows] == 1, proba[rows, 1], grid)
        np.testing.assert_allclose(roc[number], expected[0], atol=1e-9)
        np.testing.assert_allclose(pr[number], expected[1], atol=1e-9)
    assert len(ids) == weights.shape[1]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("several", [False, True])
def test_bands_and_intervals_come_of_the_same_resamples(n_classes, several):
    y, proba, patients = predictions(n_classes, n=900, n_patients=30)
    fold = (np.unique(patients, return_inverse=True)[1] % 3) * several
    options = {"n_resamples": RESAMPLES, "random_state": 5, "fold": fold}
    bands, found = curve_bands(y, proba, patients, **options), bootstrap_scores(y, proba, patients, **options)
    for kind, metric in (("roc", "roc_auc"), ("pr", "average_precision")):
        # The curves of the resamples, integrated one by one, have these areas too, up to the steps of the grid.
        curves = bands.resampled[kind].mean(axis=1) if n_classes > 2 else bands.resampled[kind][:, 1]
        areas = np.trapezoid(curves, bands.grid, axis=1)
        atol = 0.02 if several else 0.012  # the fewer patches in a fold, the larger the steps
        np.testing.assert_allclose(areas, found.samples[metric], atol=atol)
        assert np.trapezoid(bands.curve(kind), bands.grid) == pytest.approx(found.estimates[metric], abs=atol)
        low, high = bands.band(kind)
        assert (low <= high).all()
        assert (low < high).any()
    assert bands.n_used == found.n_used("roc_auc")


def test_resamples_without_a_class_are_dropped_and_one_patient_has_no_band():
    y, proba = np.array([0, 0, 1, 1]), np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])
    bands = curve_bands(y, proba, list("abcd"), n_resamples=40)
    weights = patient_weights(list("abcd"), 40)
    assert bands.n_used == ((weights[:, :2] > 0).any(axis=1) & (weights[:, 2:] > 0).any(axis=1)).sum() < 40
    assert np.isfinite(bands.band("roc")).all()
    for patients in (["a"] * 4, list("aabc")):  # a single patient with a class says nothing of others
        alone = curve_bands(y, proba, patients, n_resamples=40)
        assert np.isnan(alone.band("roc")).all()
        assert np.isfinite(alone.curve("roc")).all()
    empty = curve_bands(y, proba, list("aabb"), n_resamples=0)
    assert np.isnan(empty.band("pr")).all()
    absent = curve_bands(np.zeros(4, dtype=int), proba, list("aabb"), n_resamples=10)
    assert np.isnan(absent.curve("roc")).all()


def test_threads_do_not_change_a_band():
    y, proba, patients = predictions(3)
    one, two = (curve_bands(y, proba, patients, n_resamples=130, n_jobs=n_jobs) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.resampled["roc"], two.resampled["roc"])
    np.testing.assert_array_equal(one.resampled["pr"], two.resampled["pr"])


# --- the figures -----------------------------------------------------------------------------------------------------


def evaluation(n_classes, names=("color", "lbp")):
    """What a report knows of an evaluation, and its payload."""
    labels = tuple(f"class {code}" for code in range(n_classes))
    models, results = [], []
    y, known, patients = predictions(n_classes)
    for number, name in enumerate(names):
        proba = 0.6 * known + 0.4 * predictions(n_classes, seed=number)[1]
        found, resamples = scores(y, proba), bootstrap_scores(y, proba, patients, n_resamples=RESAMPLES)
        models.append(SimpleNamespace(name=name, head="svm", proba=proba))
        intervals = {m: {"value": found[m], "ci95": list(resamples.interval(m))} for m in found}
        results.append({"name": name, "head": "svm", "labels": list(labels), **intervals})
    dataset = SimpleNamespace(y=y, patients=patients, target_names=labels)
    protocol = {"n_resamples": RESAMPLES, "random_state": 0}
    tested = np.ones(len(y), dtype=bool)
    payload = {"dataset": {"name": "d", "synthetic": True}, "results": results}
    return Known(dataset=dataset, models=models, protocol=protocol, tested=tested, labels=labels), payload


class Known(SimpleNamespace):
    """What `Evaluation` gives the figures."""

    @property
    def bands(self):
        y, patients = self.dataset.y, self.dataset.patients
        return [curve_bands(y, model.proba, patients, **self.protocol) for model in self.models]

    @property
    def classes(self):
        y, patients = self.dataset.y, self.dataset.patients
        return [class_scores(y, model.proba, patients=patients, **self.protocol) for model in self.models]


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_data_of_two_classes_are_one_panel_with_the_interval_of_the_score(kind):
    found, payload = evaluation(2)
    data = ranking_data(kind, found, payload, "svm")
    (panel,) = data["panels"]
    metric = {"roc": "roc_auc", "pr": "average_precision"}[kind]
    assert panel["positive"] == "class 1"
    assert panel["share"] == pytest.approx((found.dataset.y == 1).mean())
    assert [curve["model"] for curve in panel["curves"]] == ["color/svm", "lbp/svm"]
    for curve, result in zip(panel["curves"], payload["results"], strict=True):
        assert curve["ci95"] == result[metric]["ci95"]
        assert len(curve["low"]) == len(curve["high"]) == len(data["grid"]) == GRID_POINTS
        x, y = (curve[name] for name in (("fpr", "tpr") if kind == "roc" else ("recall", "precision")))
        area = np.trapezoid(y, x) if kind == "roc" else (np.diff(x) * np.array(y)[1:]).sum()
        assert area == pytest.approx(curve[metric], abs=1e-3)


def test_more_classes_have_their_mean_first_and_a_panel_each():
    found, payload = evaluation(3)
    data = ranking_data("roc", found, payload, "svm")
    assert [panel["positive"] for panel in data["panels"]] == [None, "class 0", "class 1", "class 2"]
    first = data["panels"][0]["curves"][0]
    assert first["roc_auc"] == payload["results"][0]["roc_auc"]["value"]
    assert np.trapezoid(first["tpr"], first["fpr"]) == pytest.approx(first["roc_auc"], abs=0.01)
    each = [panel["curves"][0] for panel in data["panels"][1:]]
    assert np.mean([curve["roc_auc"] for curve in each]) == pytest.approx(first["roc_auc"])
    assert all(curve["ci95"][0] < curve["roc_auc"] < curve["ci95"][1] for curve in each)
    assert [curve["ci95"] for curve in each] == found.classes[0].ci95["roc_auc"].tolist()


def test_a_class_that_nobody_has_leaves_its_panel_empty(tmp_path):
    found, payload = evaluation(3)
    found.dataset.y = np.where(found.dataset.y == 2, 0, found.dataset.y)
    data = ranking_data("pr", found, payload, "svm")
    assert [len(panel["curves"]) for panel in data["panels"]] == [0, 2, 2, 0]
    save_figure(draw_ranking, data, tmp_path / "x.svg")


def test_bands_are_drawn_for_a_few_and_in_panels_of_their_own_for_many():
    found, payload = evaluation(2)
    data = ranking_data("roc", found, payload, "svm")
    assert len(draw_ranking(data).axes[0].collections) == 2
    found, payload = evaluation(2, names=("a", "b", "c", "a name of more than twenty-eight letters"))
    data = ranking_data("roc", found, payload, "svm")
    overview = draw_ranking(data)
    assert not overview.axes[0].collections
    texts = [text.get_text().replace("\n", " ") for text in overview.axes[1].get_legend().get_texts()]
    assert texts[3].startswith("a name of more than twenty-eight letters 0.")
    panels = band_panels_data(data)
    assert panels["figure"] == "roc_bands"
    axes = draw_ranking_bands(panels).axes
    assert [ax.get_visible() for ax in axes] == [True] * 4 + [False] * 2
    # Chance, three others in grey, and the model itself with its band.
    assert [(len(ax.lines), len(ax.collections)) for ax in axes[:4]] == [(5, 1)] * 4


def test_without_resamples_there_is_no_band_and_no_interval():
    found, payload = evaluation(2)
    found.protocol["n_resamples"] = 0
    payload["results"] = [
        {**result, "roc_auc": {**result["roc_auc"], "ci95": [None, None]}} for result in payload["results"]
    ]
    data = ranking_data("roc", found, payload, "svm")
    assert [curve["low"] for curve in data["panels"][0]["curves"]] == [None, None]
    assert not draw_ranking(data).axes[0].collections
    assert "[" not in draw_ranking(data).axes[1].get_legend().get_texts()[0].get_text()
