"""The tables of an evaluation: scores, predictions, patients, mistakes, its short form, and two runs as one."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from html import escape
from itertools import product
from typing import Any, Self

import numpy as np
import pandas as pd

from histofeat.datasets import printable, probability_columns
from histofeat.evaluation._details import score_patients
from histofeat.evaluation._given_predictions import GIVEN, given_probabilities, score_model, tested_share
from histofeat.exceptions import and_more, check_type, check_whole, counted
from histofeat.metrics import METRIC_RECORDS

#: The scores of the short forms.
_SHOWN = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "sensitivity", "specificity", "brier")
#: What stands for the features and the head of predictions that were given.
_GIVEN_HEAD = "predictions"
#: Settings that all models of a paired table have in common.
_SHARED = ("n_resamples", "random_state", "threshold", "inner_cv", "n_repeats", "search")


class ResultTables:
    """What an `Evaluation` has to show, as tables of pandas: it draws nothing and changes nothing."""

    def to_frame(self) -> pd.DataFrame:
        """Scores of all models, one row each.

        Returns
        -------
        frame : DataFrame
            Columns "name", "head" and "n_features"; each metric, such as "f1", with "f1_low" and "f1_high", the ends of
            its 95 % interval over patients; with two classes also "f1_tuned" and its like, at the threshold chosen on
            training patients; "fit_s" and "predict_s".
        """
        rows = []
        for model in self.models:
            row = {"name": printable(model.name), "head": printable(model.head), "n_features": model.n_features}
            for scores, ending in ((model.scores, ""), (model.tuned if model.thresholds else {}, "_tuned")):
                for metric, score in scores.items():
                    values = dict(zip(("", "_low", "_high"), (score.value, *score.ci95), strict=True))
                    row |= {f"{metric}{ending}{end}": value for end, value in values.items()}
            rows.append({**row, "fit_s": model.fit_s, "predict_s": model.predict_s})
        return pd.DataFrame(rows)

    def predictions(self) -> pd.DataFrame:
        """Every out-of-fold prediction, one row for each model and tested patch.

        Returns
        -------
        frame : DataFrame
            Columns "model" ("name/head"), "path", "patient", "x" and "y" (where known), "truth", "fold" (from 1),
            "p_<class>" for each class, "label" and, with two classes, "threshold". The label is positive from the
            threshold of the fold, chosen on its training patients (0.5 of given predictions); with more than two
            classes it is the most probable class. Models follow each other, patches in the order of the data set.
            Bytes of a name that are no UTF-8 are escapes.
        """
        return pd.concat([table for _, table in self.prediction_blocks(len(self.dataset))], ignore_index=True)

    def prediction_blocks(self, n_rows: int = 1 << 20) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
        """Yield `predictions` of one model and at most `n_rows` patches, with their rows in the data set.

        Without a model it is one table without rows.
        """
        tested, names = np.flatnonzero(self.tested), np.array(self._names, dtype=object)
        places = [axis for axis in ("x", "y") if self.dataset.frame[axis].iloc[tested].notna().any()]
        starts = range(0, max(1, len(tested)), n_rows)
        for model, start in product(self.models or [None], starts):
            rows = tested[start : start + n_rows] if model else tested[:0]
            frame = self.dataset.frame.iloc[rows].reset_index(drop=True)
            table = frame[["path", "patient"]].map(printable).join(frame[places])
            table.insert(0, "model", _key(model) if model else "")
            table = table.assign(truth=names[frame["label"]], fold=self.fold[rows] + 1)
            if model:
                table[probability_columns(self.labels)] = model.proba[rows]
                table["label"] = names[model.predicted_tuned[rows]]
                if len(names) == 2:
                    table["threshold"] = np.array(model.thresholds)[self.fold[rows]]
            yield rows, table

    def by_patient(self) -> pd.DataFrame:
        """Scores of each model on each patient alone, the hardest patients first.

        Returns
        -------
        frame : DataFrame
            "model"; with two classes "prevalence", the share of the patient's patches that are positive; and what
            `histofeat.evaluation.score_patients` gives, labels as in ``scores``: "patches", "accuracy" and others; NaN
            where undefined, such as ROC-AUC and sensitivity of a patient without a positive patch.
        """
        none = pd.DataFrame({"model": [], "patient": []})
        return pd.concat(self.positive_last._patient_tables or [none], ignore_index=True)

    @cached_property
    def _patient_tables(self):
        """The part of `by_patient` of each model, of an evaluation whose positive class is the last."""
        (y, patients, _), rows, tables = self._known, self.tested, []
        for model in self.models:
            table = score_patients(y, model.proba[rows], patients, predicted=model.predicted[rows])
            table.insert(0, "model", _key(model))
            if len(self.labels) == 2:
                table.insert(3, "prevalence", table["patient"].map(pd.Series(y == 1).groupby(patients).mean()))
            tables.append(table)
        return tables

    @property
    def seconds_per_patch(self) -> tuple[float, ...]:
        """Seconds that each model takes for a patch, its families and its head, on one thread of this run.

        NaN where that was not measured: all features came from the store, or are not of histofeat.
        """
        n_tested = max(int(self.tested.sum()), 1)
        measured = {
            name: self.seconds.get(f"extraction:{name}", math.nan) / n for name, n in self.computed.items() if n
        }
        costs = [[measured.get(name, math.nan) for name in model.features if name != "pixels"] for model in self.models]
        return tuple(sum(cost) + model.predict_s / n_tested for cost, model in zip(costs, self.models, strict=True))

    def top_losses(self, n: int = 10) -> pd.DataFrame:
        """List the patches that each model got wrong most confidently.

        Parameters
        ----------
        n : int, default=10
            Patches of each model at most.

        Returns
        -------
        frame : DataFrame
            As `predictions` without thresholds, "label" the most probable class, with "loss", -ln of the probability of
            the true class; the largest first. A patch that was called right is never in it.

        Raises
        ------
        ValueError
            If `n` is not a whole number of at least 1.
        """
        check_whole("Evaluation.top_losses.n", n, 1, "Use 10.")
        (y, _, _), rows, names = self._known, np.flatnonzero(self.tested), np.array(self._names, dtype=object)
        called = np.array([model.predicted[rows] for model in self.models], dtype=np.int64).reshape(-1, len(y))
        of_truth = np.array([model.proba[rows, y] for model in self.models]).ravel().clip(np.finfo(float).eps)
        frame = self.predictions().drop(columns="threshold", errors="ignore")
        frame = frame.assign(label=names[called.ravel()], loss=-np.log(of_truth))[(called != y).ravel()]
        frame = frame.sort_values("loss", ascending=False, kind="stable").groupby("model", sort=False).head(n)
        return frame.reset_index(drop=True)

    def merge(self, other: Self) -> Self:
        """Put the models of another run on the same patches and folds beside those of this one.

        Parameters
        ----------
        other : Evaluation
            Its models have other names; it had the same seeds, resamples and rules.

        Returns
        -------
        evaluation : Evaluation
            All models. Differences are computed again over all of them, on the same resamples; seconds and counts are
            added up.

        Raises
        ------
        ValueError
            If the runs differ in patches, labels, patients, folds or settings, or share the name of a model.
        """
        check_type("Evaluation.merge.other", other, type(self), "an Evaluation", "Give what evaluate returned.")
        noted = {name: self.protocol.get(name) or other.protocol.get(name) for name in ("plan", "registered")}
        ours, theirs = ({**noted, **_common(run)} for run in (self, other))
        known = [_key(model) for model in (*self.models, *other.models)]
        wrong = [f"the same {what}, got others" for what in {**ours, **theirs} if ours.get(what) != theirs.get(what)]
        wrong += [f"other names, got {name!r} in both" for at, name in enumerate(known) if name in known[:at]]
        if wrong:
            raise ValueError(
                f"Evaluation.merge: expected {wrong[0]}{and_more(len(wrong))}. Evaluate again on the same data set, "
                "with the same cv, seeds and settings, and under names of their own."
            )
        gone = dict.fromkeys(gone for gone in (*self.not_run, *other.not_run) if _key(gone) not in known)
        return replace(
            self,
            models=(*self.models, *other.models),
            not_run=tuple(gone),
            protocol={**other.protocol, **self.protocol, **noted},
            seconds=_added(self.seconds, other.seconds),
            conversions=dict(Counter(self.conversions) | Counter(other.conversions)),
            computed=_added(self.computed, other.computed),
            audit=_joined(self.audit, other.audit),
            left_out=self.left_out or other.left_out,
        )

    def add_predictions(self, name: str, proba: Any) -> Self:
        """Put the predictions of another system, such as a network of your own, beside the models of this evaluation.

        Parameters
        ----------
        name : str
            What the system is called; as a model it is "name/predictions".
        proba : array of shape (n, k) or (n,), DataFrame or path
            Out-of-fold probabilities, a row for each patch of the data set, a column for each class in the order of
            `labels`, or that of the second of two alone. Or a table (in a file: CSV, TSV, Parquet) with ``path``, or
            ``patient``, ``x`` and ``y``, and a column for each class, "p_<class>" or its name; with two classes
            "score" for that of the second. Rows that were never tested are not needed.

        Returns
        -------
        evaluation : Evaluation
            With this model, paired with all others: the same patches, folds and resamples of the patients.

        Raises
        ------
        ValueError
            If a row is missing, surplus or there twice, a class has no column, or a value is no probability; the
            message names the first. If the name is taken.

        Notes
        -----
        Nothing is chosen or calibrated: the threshold is 0.5. Whether the system knows tested patients cannot be seen.
        """
        if (name, _GIVEN_HEAD) in [(model.name, model.head) for model in self.models]:
            raise ValueError(f"Evaluation.add_predictions: expected another name, got {name!r} again. Rename one.")
        tests, resampling = [test for _, test in self.splits], self._known[2]
        ratio = math.nan if self.patient_overlap else tested_share(self.dataset.patients, self.splits)
        proba = given_probabilities(self.dataset, self.tested, f"add_predictions, {name}", proba)
        scored = score_model(self.dataset, tests, proba, None, test_train_ratio=ratio, n_jobs=self.n_jobs, **resampling)
        shown = {
            "name": name,
            "head": _GIVEN_HEAD,
            "features": (_GIVEN_HEAD,),
            "n_features": 0,
            "notes": (GIVEN.format(0.5),),
        }
        none = {"families": (), "choices": (), "histories": (), "fit_s": 0.0, "predict_s": 0.0, "calibrated": None}
        thresholds = (0.5,) * len(tests) if len(self.labels) == 2 else ()
        added = replace(self.models[0], thresholds=thresholds, **shown, **none, **scored)
        return replace(self, models=(*self.models, added))

    def __repr__(self) -> str:
        tables = (table.iloc[:, :3].to_string(index=False, max_colwidth=50) for table in self._shown())
        return "\n".join([f"Evaluation({self._about()})", *tables])

    def _repr_html_(self) -> str:
        """Tables for a notebook: scores with 95 % intervals, and what did not run."""
        with pd.option_context("display.max_colwidth", None):
            tables = [table.to_html(index=False, border=0) for table in self._shown()]
        return "\n".join([f"<p>{escape(self._about())}; [95 % interval over patients]</p>", *tables])

    def _shown(self):
        scores = [
            {"Model": _key(model), "Features": model.n_features}
            | {METRIC_RECORDS[name].label: _cell(model.scores[name]) for name in _SHOWN if name in model.scores}
            for model in self.models
        ]
        gone = [{"Model": _key(gone), "Not run": printable(gone.reason)} for gone in self.not_run]
        return [pd.DataFrame(rows) for rows in (scores, gone) if rows]

    @property
    def _names(self):
        return [printable(name) for name in self.labels]

    def _about(self):
        n, n_patients = int(self.tested.sum()), len(set(self.dataset.patients[self.tested]))
        words = f"{counted(n, 'patch')} of {counted(n_patients, 'patient')}"
        name = f"{self.dataset.name!r}{', synthetic' * bool(self.dataset.synthetic)}"
        positive = f"; positive class: {self.dataset.positive}" if self.dataset.positive else ""
        return printable(f"{name}: {words} in {counted(len(self.splits), 'fold')}{positive}")


def _key(model):
    return printable(f"{model.name}/{model.head}")


def _common(run):
    """Return what runs have in common whose models stand in one paired table."""
    dataset, settings = run.dataset, {name: run.protocol.get(name) for name in _SHARED}
    columns = [column.tolist() for column in (dataset.relative_paths, dataset.y, dataset.patients)]
    folds = [rows.tolist() for pair in run.splits for rows in pair]
    plan = {name: value for name, value in run.protocol.items() if name == "plan" and value}
    return {"patches, labels and patients": (run.labels, dataset.positive, columns), "folds": folds, **settings, **plan}


def _cell(score):
    value, ends = f"{score.value:.3f}", "[{:.3f}, {:.3f}]".format(*score.ci95)
    return value if "nan" in ends else f"{value} {ends}"


def _added(ours, theirs):
    return {name: ours.get(name, 0) + theirs.get(name, 0) for name in {**ours, **theirs}}


def _joined(audit, other):
    """Return the audit of two runs on the same folds: of each code the issue, where one of them has it."""
    if audit is None or other is None:
        return audit or other
    worst = {found.code: found for report in (other, audit) for found in report.findings}
    worst |= {found.code: found for report in (other, audit) for found in report.findings if found.status == "issue"}
    accepted = tuple(dict.fromkeys((*audit.accepted, *other.accepted)))
    return replace(audit, findings=tuple(worst.values()), accepted=accepted)
