"""Score the predictions of any system in a table, for any classes; on the published hold-outs of BreakHis too."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import (
    PatchDataset,
    check_rows,
    find_patients,
    in_order,
    known_positive,
    labelled,
    match_rows,
    own_names,
    patch_size_of,
    probability_columns,
    read_breakhis_folds,
    read_table,
    regular_size,
)
from histofeat.evaluation._folds import look_at
from histofeat.evaluation._given_predictions import GIVEN, check_cuts, given_probabilities, merged_classes, score_model
from histofeat.evaluation._results import Evaluation, ModelResult
from histofeat.evaluation.audit._encoders import find_known_patients
from histofeat.exceptions import DAMAGED, DatasetError, GroupLeakageError, and_more, check_name, counted, first_line
from histofeat.features import Runtime, leave_out_unreadable
from histofeat.images import scale_ratio
from histofeat.metrics import recognition_rates
from histofeat.model_selection import canonical_patients, look_alikes
from histofeat.models import FAR, SavedModel, predict_images

#: How much two ratios of height to width differ that are not the same shape; a share of unlike images to speak of.
_SHAPE, _MANY = 0.05, 0.05
#: Metrics of probabilities, and the note of predictions without any.
UNDEFINED = ("roc_auc", "average_precision", "brier", "log_loss")
HARD_LABELS = (
    "Hard labels only: ROC-AUC, average precision, Brier score and log loss are undefined without probabilities."
)


def evaluate_predictions(
    predictions: str | os.PathLike[str] | pd.DataFrame,
    truth: str | os.PathLike[str] | pd.DataFrame | PatchDataset = "truth",
    *,
    patients: Any = None,
    models: Sequence[str] = (),
    classes: Any = None,
    positive: str | None = None,
    n_resamples: int = 2000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> Evaluation:
    """Score the predictions of any system, for any classes, as `evaluate` scores those of its own.

    Parameters
    ----------
    predictions : path or DataFrame
        A row for each patch: ``path``; ``p_<class>`` for each class, or ``score`` for the positive one of two, or only
        ``label``; where known, ``patient``, ``truth``, ``fold``, ``model`` and ``threshold``. Beside probabilities
        ``label`` is the class at the threshold. The file ``predictions.parquet`` of a report is read too.
    truth : str, path, DataFrame or PatchDataset, default="truth"
        A column of `predictions`; or a table with ``path`` and ``label``, or a data set: which patches are scored.
    patients : optional
        How to find the patient of a patch, see `find_patients`; by default the column ``patient`` of either.
    models : sequence of str, optional
        Which models of the column ``model``; by default all.
    classes, positive : optional
        Classes to take, merge (of predictions too) or rename, and the positive one of two: `PatchDataset.with_classes`.
    n_resamples, random_state : int
        Resamples of the patients, and their seed.
    runtime : Runtime, optional
        Threads, and the ledger of looks at registered test patients.

    Returns
    -------
    evaluation : Evaluation
        A model for each; folds of the column ``fold``. Nothing is chosen or calibrated. Of hard labels only, ROC-AUC,
        average precision, Brier score and log loss are undefined (NaN), which is among the notes of the model.

    Raises
    ------
    ValueError
        If a column or a patch is missing, a patch is there twice, or a value is no probability; if a model is unknown;
        if two tables differ in class or patient of a patch, or the column ``threshold`` is of the other class of two.

    Examples
    --------
    >>> table = pd.DataFrame({"path": list("abcd"), "patient": [1, 1, 2, 2], "truth": ["Tumor", "normal"] * 2})
    >>> found = evaluate_predictions(table.assign(score=[0.9, 0.2, 0.8, 0.3]), n_resamples=20)
    >>> found.dataset.positive, found.models[0].scores["roc_auc"].value
    ('Tumor', 1.0)
    """
    table = read_long(predictions, [truth] if isinstance(truth, str) else [])
    if isinstance(truth, str) and truth not in table:  # a column such as diagnosis is called label here
        name = own_names(pd.DataFrame(columns=[truth]), "truth").columns[0]
        truth = name if name in table else truth
    for name in models:
        check_name("models", name, list(table["model"].unique()), "a model of the predictions")
    tables = {name: rows for name, rows in table.groupby("model", sort=False) if not models or name in models}
    first = next(iter(tables.values())).reset_index(drop=True)
    dataset = truth if isinstance(truth, PatchDataset) else true_labels(first, truth, patients, classes, positive)
    dataset.positive_last(dataset.y)
    fold = np.zeros(len(dataset), dtype=np.int64)
    if "fold" in first:
        fold = pd.factorize(first["fold"].to_numpy()[match_rows(first, dataset.frame, "predictions")], sort=True)[0]
    splits = tuple((np.flatnonzero(fold != at), np.flatnonzero(fold == at)) for at in range(fold.max() + 1))
    runtime, sizes = Runtime.of(runtime), {"n_resamples": int(n_resamples), "random_state": int(random_state)}
    look = look_at(dataset, splits, runtime)
    more = {**sizes, "n_jobs": runtime.n_jobs}
    own = [truth] if isinstance(truth, str) else []  # no prediction
    tables = {name: merged_classes(rows.drop(columns=own, errors="ignore"), classes) for name, rows in tables.items()}
    scored = tuple(_given_model(dataset, splits, name, rows, **more) for name, rows in tables.items())
    rows = [{"pipeline": model.name, "roc_auc": model.scores["roc_auc"].value} for model in scored]
    protocol = {"cv": "predictions that were given", "n_splits": len(splits), "inner_cv": "none", **sizes}
    protocol |= {"patient_level": True, "registered": look and look.record(rows)}
    return Evaluation(dataset, splits, fold, scored, (), protocol, {}, False, n_jobs=runtime.n_jobs)


def evaluate_model(
    model: SavedModel,
    dataset: PatchDataset,
    *,
    known_patients: str = "refuse",
    policy: str = "auto",
    positive: str | None = None,
    runtime: Runtime | None = None,
    **resampling: int,
) -> Evaluation:
    """Validate a saved model on the patients of other data.

    Parameters
    ----------
    model : SavedModel
    dataset : PatchDataset
        With the classes of the model, in any order.
    known_patients : {"refuse", "leave_out", "by_pixels"}, default="refuse"
        What to do with patients that the model or its encoder was trained on, known by their id or by the pixels of one
        image: refuse, or leave out. "by_pixels" refuses too, but ignores ids, which mean nothing in the data of others.
    policy : str, default="auto"
        For images of another size, see `histofeat.models.predict_images`.
    positive : str, optional
        The positive class of two; by default that of the model, unless another one was chosen for `dataset`.
    runtime : Runtime, optional
        Threads, progress, the ledger of looks at registered test patients, and what is done about unreadable images.
    **resampling
        ``n_resamples`` and ``random_state`` of `evaluate_predictions`.

    Returns
    -------
    evaluation : Evaluation
        One model; its tuned labels are those of the model's threshold, see `SavedModel.decision`.

    Raises
    ------
    GroupLeakageError
        If the model was trained on a patient, and they are to be refused.
    ValueError
        If the classes differ, no patient is left, or the threshold of the model is for another positive class.

    Warns
    -----
    UserWarning
        If scale, size or shape of the images are not those of the training, patients are left out, ids of patients are
        nearly those of the training, or images are unlike the training images.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.evaluation import train_model
    >>> cohort = make_cohort(n_patients=12, patches_per_patient=8)
    >>> seen = np.isin(cohort.patients, sorted(set(cohort.patients))[:6])
    >>> model = train_model(cohort.subset(seen), IDCPipeline("color", "logistic"), folds=None)
    >>> found = evaluate_model(model, cohort.subset(~seen), n_resamples=20)
    >>> len(set(found.dataset.patients)), found.models[0].scores["roc_auc"].value > 0.5
    (6, True)
    """
    check_name("known_patients", known_patients, ("refuse", "leave_out", "by_pixels"))
    if {*model.class_names} != {*dataset.target_names}:
        raise ValueError(
            f"evaluate_model: expected the classes {', '.join(model.class_names)}, got "
            f"{', '.join(dataset.target_names)}. Rename them, as in classes='{model.class_names[0]}=...' (--classes)."
        )
    dataset = dataset.with_classes(None, _positive_of(model, dataset, positive))
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    by_id = (known_patients != "by_pixels" and model.pipeline.patients_) or ()
    ids = sum((one.patients for one in find_known_patients(dataset, model.pipeline, runtime=runtime)), tuple(by_id))
    dataset = dataset.subset(_unknown(dataset, np.isin(dataset.patients, ids), known_patients))
    settings = {"policy": policy, "patients": dataset.patients, "on_error": "raise", "runtime": runtime}
    found = predict_images(model, dataset.X, mpp=dataset.frame.get("mpp", dataset.mpp), **settings)
    kept = _unknown(dataset, np.array(found.known) == "image", known_patients)
    for words in _unlike_training(model, dataset, found, by_id, policy):
        warnings.warn(f"{dataset.name}: {words}", stacklevel=2)
    table = found.to_frame().assign(model="model")[kept]
    return evaluate_predictions(table, dataset.subset(kept), runtime=runtime, **resampling)


def _positive_of(model, dataset, positive) -> str | None:
    """The positive class that was chosen for the data, else that of the model."""
    names, own, rule = dataset.target_names, model.positive, model.decision.get("rule")
    chosen = positive or (dataset.positive if dataset.positive != known_positive(names, None) else None)
    chosen = chosen and known_positive(names, chosen)
    if chosen and rule and chosen != own:
        raise ValueError(
            f"positive: expected {own!r}, the class that the threshold of the model is for ({rule}), got {chosen!r}. "
            f"Leave it out, or train a model with positive={chosen!r}."
        )
    return chosen or own or dataset.positive


def _unknown(dataset, known, how) -> np.ndarray:
    """Rows of patients of whom no row is known; refuse others unless they are to be left out."""
    left = sorted(set(dataset.patients[known]))
    if (left and how != "leave_out") or len(left) == dataset.audit.n_patients:
        remedy = "Leave them out by known_patients='leave_out', or name other data."
        remedy = "Name other data: none would be left." if len(left) == dataset.audit.n_patients else remedy
        raise GroupLeakageError(
            f"evaluate_model: expected patients that the model has not seen, got {len(left):,} of "
            f"{dataset.audit.n_patients:,} that it was trained on, such as {left[0]!r}. {remedy}"
        )
    if left:
        words = counted(len(left), "patient of the training is", "patients of the training are")
        warnings.warn(f"{dataset.name}: {words} left out.", stacklevel=3)
    return ~np.isin(dataset.patients, left)


def _unlike_training(model, dataset, found, by_id, policy):
    """Sentences on images of another scale, size, shape or look than in training, and on similar patients."""
    here, there = {*dataset.patients}, {*by_id}
    for names in [names for names in look_alikes([*there, *here]) if here & {*names} and there & {*names}][:1]:
        close = f"{' and '.join(map(repr, names))}. Where they are one patient, write one id."
        yield f"expected new patients, got ids that differ from the training only in case, zeros or dashes: {close}"
    if others := sorted({mpp for mpp in found.mpp.tolist() if scale_ratio(mpp, model.mpp) != 1}):
        got = f"{', '.join(f'{mpp:g}' for mpp in others)}: {'scaled to a patch' if policy == 'resize' else 'rescaled'}"
        yield f"expected images of {model.mpp:g} micrometres per pixel, as in the training, got {got}."
    size, usual = patch_size_of(dataset), model.patch_size
    if usual and size and size != usual and not others:
        other = abs(size[0] * usual[1] / (size[1] * usual[0]) - 1) > _SHAPE
        more = ", of another shape: they were squeezed or cut" if other else ""
        sizes = ["{} x {} px".format(*some) for some in (usual, size)]
        yield f"expected images of {sizes[0]}, as in the training, got {sizes[1]}{more}."
    far = np.mean(found.unlike >= FAR)
    if far > _MANY:
        yield f"{far:.0%} of the images are farther from the training images than {FAR:.0%} of those are."


def _given_model(dataset, splits, name, table, **resampling):
    """Score one model; of hard labels the metrics of probabilities are undefined."""
    names, tests, codes = dataset.target_names, [test for _, test in splits], None
    table = table.reset_index(drop=True)
    table = table.iloc[match_rows(table, dataset.frame, f"predictions, {name}")].reset_index(drop=True)
    hard = not {"score", *probability_columns(names), *names} & set(table)
    if hard or "label" in table:
        labels = canonical_patients(table.get("label", pd.Series("", table.index)))
        expected = f"predictions, {name}: expected label or p_<class> of a known class for"
        check_rows(~np.isin(labels, names), dataset.X, expected, "Add it, or correct the name of the class.")
        codes = np.array([names.index(label) for label in labels])
    tested = np.ones(len(dataset), dtype=bool)
    proba = np.eye(len(names))[codes] if hard else given_probabilities(dataset, tested, f"predictions, {name}", table)
    found = score_model(dataset, tests, proba, codes, test_train_ratio=np.nan, **resampling)
    for metric in UNDEFINED if hard else ():
        found["scores"][metric] = replace(found["scores"][metric], value=np.nan, ci95=(np.nan, np.nan))
    cuts = table.get("threshold", pd.Series(0.5, table.index)).astype(float)
    if "threshold" in table and "label" in table and not hard and len(names) == 2:
        check_cuts(dataset, cuts.to_numpy(), codes, proba, name)
    found["thresholds"] = tuple(float(cuts[test[0]]) for test in tests) if len(names) == 2 else ()
    values = {f"{each:.4g}" for each in found["thresholds"]} or {"none"}
    cut = values.pop() if len(values) == 1 else "that of the fold"
    if "threshold" not in table and (found["predicted"] != found["predicted_tuned"]).any():
        cut = "unknown"
    shown = {"fit_s": 0.0, "predict_s": 0.0, "notes": (HARD_LABELS if hard else GIVEN.format(cut),)}
    return ModelResult(name, ("predictions",), "predictions", 0, **shown, **found)


def score_breakhis(
    predictions: str | os.PathLike[str] | pd.DataFrame,
    dataset: PatchDataset,
    folder: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Score predictions on the five published hold-outs of BreakHis.

    Parameters
    ----------
    predictions : path or DataFrame
        As for `evaluate_predictions`, with a column ``fold`` from 1 to 5: the hold-out whose model scored the image.
    dataset : PatchDataset
        From `load_breakhis`, at one magnification or all, with ``duplicates="published"``.
    folder : path, optional
        Where ``dsfold1.txt`` to ``dsfold5.txt`` are, see `read_breakhis_folds`.
    **settings
        ``models``, ``n_resamples``, ``random_state`` and ``runtime`` of `evaluate_predictions`.

    Returns
    -------
    table : DataFrame
        A row for each model and hold-out: "model", "fold", "patients", "images", "patient_rate" (mean over patients of
        the share of their images called right) and "image_rate", as published, and "roc_auc", "f1" and
        "balanced_accuracy" of the images.

    Raises
    ------
    ValueError
        If there is no column ``fold``; else as `evaluate_predictions` and `read_breakhis_folds`.
    """
    table, rows = read_long(predictions), []
    if "fold" not in table:
        raise ValueError(
            "predictions: expected a column fold, the hold-out from 1 to 5 of the model, got none. Add it: each of the "
            "five test sets has a model of its own."
        )
    folds = read_breakhis_folds(dataset, folder, ("siblings", "two labels"))
    for number, (_, test) in enumerate(folds.splits, start=1):
        part = table[table["fold"] == number].drop(columns="fold")
        found = evaluate_predictions(part, dataset.subset(test), **settings)
        for model in found.models:
            rates = recognition_rates(found.dataset.y, model.predicted_tuned, found.dataset.patients, n_resamples=0)
            row = {"model": model.name, "fold": number, "patients": len(rates.patients), "images": len(test)}
            shown = {name: model.scores[name].value for name in ("roc_auc", "f1", "balanced_accuracy")}
            rows.append({**row, "patient_rate": rates.patient_rate, "image_rate": rates.image_rate, **shown})
    return pd.DataFrame(rows)


def read_long(predictions: str | os.PathLike[str] | pd.DataFrame, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read predictions of any models, one row a patch and model, with the column ``model``; `texts` of CSV as text.

    Examples
    --------
    >>> long = {"path": ["a", "a"], "label": ["no", "no"], "class": ["no", "yes"], "score": [0.75, 0.25]}
    >>> read_long(pd.DataFrame(long)).to_dict("records")
    [{'path': 'a', 'truth': 'no', 'p_no': 0.75, 'p_yes': 0.25, 'model': 'predictions'}]
    """
    table, where = predictions, "predictions"
    if not isinstance(table, pd.DataFrame):
        file = Path(predictions).expanduser()
        where = file = file / "predictions.parquet" if file.is_dir() else file
        reader = {".json": partial(pd.read_json, dtype=False), ".parquet": pd.read_parquet}.get(file.suffix.lower())
        try:
            table = reader(file) if reader and regular_size(file) else read_table(file, texts=texts)
        except (*DAMAGED, DatasetError) as error:
            got = (
                f"{file}: expected predictions (CSV, Parquet or JSON), got: {first_line(error.__cause__ or error):.160}"
            )
            raise ValueError(f"{got}. Correct the path, or write them again.") from error
    if table.empty:
        raise ValueError(f"{where}: expected predictions, a row for each patch, got none. Write them again.")
    if {"class", "score", "label"} <= set(table):  # a row for each class, of a report: the label is the true one
        keys = [name for name in table if name not in ("class", "score")]
        table = table.astype(dict.fromkeys(table.select_dtypes("category"), str))
        names = table["class"].unique().tolist()
        columns = dict(zip(names, probability_columns(names), strict=True))
        wide = table.pivot(index=keys, columns="class", values="score").rename(columns=columns)[list(columns.values())]
        table = wide.rename_axis(columns=None).reset_index().rename(columns={"label": "truth"})
    table = own_names(table, where)
    return table if "model" in table else table.assign(model="predictions")


def true_labels(table: pd.DataFrame, truth: Any, patients: Any, classes: Any, positive: str | None) -> PatchDataset:
    """Give the patches of predictions with their true labels and patients, from a column or another table."""
    own = isinstance(truth, str) and truth in table
    if own:
        known = table.assign(label=table[truth])
    elif isinstance(truth, str) and truth == "truth":
        here = [str(name) for name in table if name != "model"]
        raise ValueError(
            "truth: expected a column of the predictions, or a table such as truth='labels.csv' with path and label, "
            f"got none. Name one; the columns are {', '.join(here[:9])}{and_more(len(here) - 8)}."
        )
    else:
        known = own_names(truth, "truth") if isinstance(truth, pd.DataFrame) else read_table(Path(truth).expanduser())
    if patients is not None:
        known["patient"] = find_patients(patients, known["path"])
    elif "patient" not in known and "patient" in table and "path" in known:
        known["patient"] = table["patient"].to_numpy()[match_rows(table, known, "truth")]
    absent = [name for name in ("path", "label", "patient") if name not in known]
    if absent:
        raise ValueError(
            f"truth: expected the columns path, label and patient, got none named {absent[0]}. Add it; for patients "
            'patients="tcga" or an expression such as r"^([0-9]+)_" will do.'
        )
    known = known.assign(**{name: canonical_patients(known[name]) for name in ("label", "patient")})
    if not own and "truth" in table:
        there = canonical_patients(table["truth"])[match_rows(table, known, "truth")]
        expected = "truth: expected the labels of the column truth of the predictions, got others for"
        wrong, remedy = (there != known["label"]) & (there != ""), "Correct them, or leave out this column."
        check_rows(wrong, known["path"], expected, remedy)
    check_rows(known["label"] == "", known["path"], "truth: expected a label for each patch, got none for", "Add it.")
    if classes is None:
        here = known["label"].unique().tolist()
        others = {str(name) for name in table if str(name).startswith("p_")} - set(probability_columns(here))
        classes = in_order([*here, *(name[2:] for name in others)])
    known = known.reindex(columns=["path", "label", "patient", "x", "y"])
    return labelled(known, classes, "predictions", None).with_classes(None, positive)
