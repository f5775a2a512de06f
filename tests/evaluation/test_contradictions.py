"""What is given and contradicts the data is refused by name, at training, evaluation, saving and prediction."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, evaluate, make_cohort
from histofeat.evaluation import AuditPolicy, Search, train_model
from histofeat.metrics import ComparisonPlan, compare_models
from histofeat.model_selection import PatchKFold, PatientKFold, fold_rows
from histofeat.models import SavedModel, make_head, predict_images, save_model


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A small cohort, folds of it, a fitted pipeline and an evaluation of two models."""
    cohort = make_cohort(n_patients=8, patches_per_patient=4, root=tmp_path_factory.mktemp("cohort") / "c")

    class Given:
        data, X, y, patients = cohort, cohort.X, cohort.y, cohort.patients
        folds = tuple(PatientKFold(2).split(X, y, patients))
        words = np.array(["benign", "malignant"])[y]
        fitted = IDCPipeline("color", "logistic").fit(X, y, groups=patients)
        in_words = IDCPipeline("color", "logistic").fit(X, words, groups=patients)
        evaluation = None

        def evaluate(self, pipelines=None, cv=None, **settings):
            pipelines = IDCPipeline("color", "logistic") if pipelines is None else pipelines
            settings = {"inner_cv": PatientKFold(2), "n_resamples": 5, **settings}
            return evaluate(self.data, pipelines, PatientKFold(2) if cv is None else cv, **settings)

    made = Given()
    made.evaluation = made.evaluate({name: IDCPipeline(name, "logistic") for name in ("color", "gray")})
    return made


def pipe(**settings):
    return IDCPipeline("color", "logistic", **settings)


def with_rows(folds, *, train=(), test=()):
    """The first fold with more rows on its sides."""
    return [(np.append(folds[0][0], train).astype(int), np.append(folds[0][1], test).astype(int))]


def swapped(values, **rows):
    changed = np.array(values, dtype=object)
    for row, value in rows.items():
        changed[int(row[1:])] = value
    return changed


PAIR = ("color/logistic", "gray/logistic")
FIT = {
    "fewer labels": (lambda g: pipe().fit(g.X, g.y[1:]), r"y: expected one label per image \(32\), got 31"),
    "fewer patients": (lambda g: pipe().fit(g.X, g.y, g.patients[1:]), "groups: expected one patient per image"),
    "a gap in patients": (lambda g: pipe().fit(g.X, g.y, swapped(g.patients, r3="")), "groups: .* got '' at row 3"),
    "a gap in labels": (lambda g: pipe().fit(g.X, swapped(g.y, r2=None)), "y: expected a label for each image, got 1"),
    "a class spelt twice": (
        lambda g: pipe().fit(g.X, swapped(g.words, r0=f" {g.words[0].upper()}")),
        "y: expected different class names, got .* only in capitals and blanks",
    ),
    "labels in another order": (
        lambda g: pipe().fit(pd.DataFrame({"path": g.X}), pd.Series(g.y, index=range(len(g.y))[::-1])),
        r"y: expected the order of X, got its index in another order. Use y.loc\[X.index\]",
    ),
    "patients in another order": (
        lambda g: pipe().fit(pd.DataFrame({"path": g.X}), g.y, pd.Series(g.patients, index=range(len(g.y))[::-1])),
        "groups: expected the order of X",
    ),
    "a file with two labels": (
        lambda g: pipe().fit(swapped(g.X, r0=g.X[np.argmax(g.y)]), swapped(g.y, r0=0).astype(int)),
        "y: expected one for .*png, got 0 and 1",
    ),
    "a file of two patients": (
        lambda g: pipe().fit(np.append(g.X, g.X[0]), np.append(g.y, g.y[0]), np.append(g.patients, "other")),
        "groups: expected one for .*png, got '900001' and 'other'",
    ),
    "a weight of no class": (
        lambda g: pipe(class_weight={0: 1.0, 7: 2.0}).fit(g.X, g.y),
        r"IDCPipeline.class_weight: expected labels of y, \[0, 1\], got 7",
    ),
    "a weight by text": (lambda g: pipe(class_weight={"0": 1.0}).fit(g.X, g.y), "expected labels of y, .* got '0'"),
    "a negative weight": (
        lambda g: pipe(class_weight={0: -1.0}).fit(g.X, g.y),
        r"IDCPipeline.class_weight\[0\]: expected a number above 0, got -1.0",
    ),
    "another word for balanced": (
        lambda g: pipe(class_weight="balance").fit(g.X, g.y),
        "IDCPipeline.class_weight: expected 'balanced', a mapping or None, got 'balance'",
    ),
    "a head with fewer patients": (
        lambda g: make_head("logistic").fit(np.eye(4), [0, 1, 0, 1], groups=["a", "b"]),
        "groups: expected one patient id for each of 4 patches",
    ),
    "a head with a weight of no class": (
        lambda g: make_head("logistic", class_weight={5: 1.0}).fit(np.eye(4), [0, 1, 0, 1]),
        r"class_weight: expected labels of y, \[0, 1\], got 5",
    ),
    "features in another order": (
        lambda g: (
            (frame := pd.DataFrame(np.eye(4), columns=list("abcd"))) is None
            or make_head("logistic").fit(frame, [0, 1, 0, 1]).predict(frame[list("dcba")])
        ),
        "feature names should match",
    ),
    "fewer features": (
        lambda g: make_head("logistic").fit(np.eye(4), [0, 1, 0, 1]).predict(np.eye(3)),
        "X has 3 features, but FeatureHead is expecting 4",
    ),
    "training with no pipeline": (lambda g: train_model(g.data, {}), "train_model.pipeline: expected an IDCPipe"),
    "training on one fold": (
        lambda g: train_model(g.data, pipe(), folds=1),
        "train_model.folds: expected a whole number of at least 2, got 1. Use 5, or None",
    ),
    "classes named twice": (
        lambda g: replace(g.data, target_names=("Benign", "benign "), audit=None),
        "PatchDataset.target_names: expected different class names, got",
    ),
}
SPLITS = {
    "no fold": (lambda g: g.evaluate(cv=[]), "evaluate.cv: expected at least one pair"),
    "an empty side": (lambda g: g.evaluate(cv=[(g.folds[0][0], [])]), "evaluate.cv, test side of fold 1: .* not empty"),
    "a row too many": (
        lambda g: g.evaluate(cv=with_rows(g.folds, test=[32])),
        "test side of fold 1: expected row numbers from 0 to 31, got 0 to 32",
    ),
    "a short mask": (
        lambda g: g.evaluate(cv=[(np.ones(31, bool), [0])]),
        "expected row numbers or a mask over 32 rows",
    ),
    "a row on both sides": (
        lambda g: g.evaluate(cv=with_rows(g.folds, train=[g.folds[0][1][0]])),
        "evaluate.cv: expected training and test rows to differ",
    ),
    "a training row twice": (
        lambda g: g.evaluate(cv=with_rows(g.folds, train=[g.folds[0][0][0]])),
        "evaluate.cv, training side of fold 1: expected each row once, got row .* again",
    ),
    "a test row twice": (
        lambda g: g.evaluate(cv=with_rows(g.folds, test=[g.folds[0][1][0]])),
        "evaluate.cv, test side of fold 1: expected each row once",
    ),
    "a patient on both sides": (
        lambda g: g.evaluate(cv=[(np.arange(1, 32), [0])]),
        "evaluate.cv, fold 1: split: expected no patient on both sides",
    ),
    "folds without patients": (lambda g: g.evaluate(cv=PatchKFold(2)), "evaluate.cv.*: expected"),
    "inner rows twice": (
        lambda g: g.evaluate(inner_cv=type("Twice", (), {"split": lambda *_, **__: [([0, 1, 0], [2, 3])]})()),
        "inner_cv, in the training patients of fold 1: split, training side of fold 1: expected each row once",
    ),
    "groups of other rows": (
        lambda g: PatientKFold(2).split(g.X, g.y, g.patients[1:]),
        "groups: expected one patient id for each of 32 patches",
    ),
    "labels of other rows": (lambda g: PatientKFold(2).split(g.X, g.y[1:], g.patients), "for each of 32 patches"),
    "rows of another table": (lambda g: fold_rows(g.folds, g.y[:8], g.patients[:8], "cv"), "row numbers from 0 to 7"),
}
EVALUATION = {
    "a weight by a name": (
        lambda g: g.evaluate(pipe(class_weight={"tumour": 2.0})),
        r"pipeline 'pipeline': class_weight: expected labels of y, \[0, 1\], got 'tumour'",
    ),
    "a threshold that nobody knows": (lambda g: g.evaluate(threshold="yuden"), "Did you mean 'youden'"),
    "a plan of other models": (
        lambda g: g.evaluate(plan=ComparisonPlan((("svm/svm", "color/logistic"),), ("roc_auc",))),
        "evaluate.plan: expected the models of the plan among the pipelines, got 'svm/svm'",
    ),
    "a search of another head": (lambda g: g.evaluate(search={"svm": {"C": [1.0]}}), "of a head that is evaluated"),
    "a search of one value twice": (
        lambda g: Search({"logistic": {"C": [1.0, 1.0]}}),
        r"Search.params\['logistic'\]\['C'\]: expected a list of different values",
    ),
    "a finding that is none": (lambda g: g.evaluate(audit=AuditPolicy(accept_findings=("HF99",))), "got 'HF99'"),
    "a plan in both directions": (
        lambda g: ComparisonPlan((PAIR, PAIR[::-1]), ("roc_auc",)),
        "plan.pairs: expected pairs of two models each, in one direction",
    ),
    "a model beside itself": (
        lambda g: compare_models(g.evaluation, pairs=[(PAIR[0], PAIR[0])]),
        "compare_models.pairs: expected pairs of two models each, in one direction",
    ),
    "a reference and pairs": (
        lambda g: compare_models(g.evaluation, reference=PAIR[0], pairs=[PAIR]),
        "compare_models: expected a reference or pairs, got both",
    ),
    "other names of classes": (
        lambda g: compare_models({
            "a": g.evaluation,
            "b": replace(g.evaluation, dataset=g.data.with_classes({"no tumour": "benign", "tumour": "malignant"})),
        }),
        "compare_models.evaluation: expected the same class names in 'a' and 'b', got",
    ),
}  # fmt: skip
MODELS = {
    "names in another order": (
        lambda g: SavedModel(g.in_words, {"class_names": ["malignant", "benign"]}),
        r"about\['class_names'\]: expected 2 different names, in the order of pipeline.classes_",
    ),
    "a name misspelt": (
        lambda g: SavedModel(g.in_words, {"class_names": ["benign", "malignent"]}),
        "2 different names",
    ),
    "names that are one": (
        lambda g: SavedModel(g.fitted, {"class_names": ["a", "A "]}),
        "expected different class nam",
    ),
    "counts of other classes": (
        lambda g: SavedModel(g.fitted, {"class_names": ["a", "b"], "class_counts": {"c": 3}}),
        r"about\['class_counts'\]: expected a count by the name of each class, or None, got {'c': 3}",
    ),
    "other families": (
        lambda g: SavedModel(g.fitted, {"features": ["lbp"]}),
        r"about\['features'\]: expected the families of the pipeline, \['color'\], or None, got \['lbp'\]",
    ),
    "no patients": (
        lambda g: SavedModel(g.fitted, {"n_patients": 0}),
        r"about\['n_patients'\]: expected a whole number",
    ),
    "a rule that is none": (
        lambda g: SavedModel(g.fitted, {"patients": {"expression": "("}}),
        r"about\['patients'\]: expected PatientRule.to_dict\(\), or None",
    ),
    "an image of two patients": (
        lambda g: predict_images(SavedModel(g.fitted), [g.X[0], g.X[0]], patients=["a", "b"]),
        "patients: expected one for .*png, got 'a' and 'b'",
    ),
    "fewer patients than images": (
        lambda g: predict_images(SavedModel(g.fitted), g.X[:3], patients=["a", "b"]),
        "patients: expected one patient id for each of 3 patches",
    ),
    "no model": (
        lambda g: predict_images(g.fitted, g.X[:1]),
        "predict_images.model: expected a SavedModel, got IDCPipe",
    ),
}
CASES = {**FIT, **SPLITS, **EVALUATION, **MODELS}


@pytest.mark.parametrize("case", CASES)
def test_what_contradicts_the_data_is_refused_by_name(case, given):
    attempt, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        attempt(given)


def test_what_fits_is_taken(given, tmp_path):
    frame = pd.DataFrame({"path": given.X}, index=range(100, 100 + len(given.y)))
    as_series = [pd.Series(values, index=frame.index) for values in (given.y, given.patients)]
    assert (pipe().fit(frame, *as_series).predict(given.X) == given.fitted.predict(given.X)).all()
    about = {"class_names": ["benign", "malignant"], "class_counts": {"benign": 1}, "features": ["color"]}
    for pipeline in (given.in_words, given.fitted):
        assert save_model(pipeline, tmp_path / "m.histofeat", about=about, overwrite=True).is_file()
    assert predict_images(SavedModel(given.fitted), [given.X[0]] * 2, patients=["a", "a"]).patients == ("a", "a")
    given.evaluate(pipe(class_weight={1: 2.0}), cv=given.folds)
