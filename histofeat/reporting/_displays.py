"""Displays of an evaluation: one drawing on one axes, by scikit-learn's conventions, as the report draws it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from histofeat.evaluation import Evaluation
from histofeat.exceptions import check_name, check_type
from histofeat.images import use_own_folder
from histofeat.reporting import _canvas as canvas, _score_figures as score_figures
from histofeat.reporting._curves import MOST_BANDS, draw_panel, ranking_data, reliability_axes, reliability_line
from histofeat.reporting._payload import chosen_models, data_label, dataset_payload, metrics_payload, model_key
from histofeat.reporting._strict_json import jsonable
from histofeat.reporting._tables import METRIC_WORDS


class Display:
    """Base of all displays: ``data`` is what they draw, ``ax_`` and ``figure_`` where it was drawn last."""

    def __init__(self, data: dict[str, Any]):
        self.data = data

    @classmethod
    def from_evaluation(
        cls, evaluation: Evaluation, *, models: Sequence[str] | None = None, ax: Any = None, **options: Any
    ) -> Self:
        """Draw models of an evaluation.

        Parameters
        ----------
        evaluation : Evaluation
            Its own numbers are drawn: nothing is computed here.
        models : sequence of str, optional
            Such as ``["handcrafted/xgboost"]``; all by default.
        ax : matplotlib axes, optional
            Where to draw; a new figure by default.
        **options
            Those of the class.

        Returns
        -------
        display : Display

        Raises
        ------
        ValueError
            If there is no model, none of these names, or an option does not fit the evaluation.
        """
        where = f"{cls.__name__}.from_evaluation"
        check_type(where, evaluation, Evaluation, "an Evaluation", "Give what evaluate returned.")
        chosen = chosen_models(evaluation, models, f"{where}.models")
        if not chosen:
            raise ValueError(f"{where}: expected an evaluation with models, got none. Evaluate a pipeline.")
        some = evaluation if models is None else replace(evaluation, models=tuple(chosen))
        label = data_label(dataset_payload(evaluation.dataset))
        return cls({"data_label": label, **cls._read(some, **options)}).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw on some axes, or in a new figure; the display itself is returned."""
        if ax is None:
            use_own_folder("MPLCONFIGDIR", "~/.config/matplotlib")
            from matplotlib import pyplot  # a notebook shows its figures by itself

            ax = pyplot.subplots(layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        self._draw(ax)
        # Each figure says whose data it is on.
        words = filter(None, (self.data.get("title"), self.data["data_label"]))
        ax.set_title("\n".join(words), fontsize=9, color=canvas.INK)
        return self


class RocDisplay(Display):
    """ROC curves with bands over patients, where there are at most two models.

    Parameters
    ----------
    positive : str, optional
        Option of `from_evaluation` with more than two classes: the class that is drawn against the rest; by default the
        mean over the classes.

    Examples
    --------
    >>> from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> evaluation = evaluate(cohort, IDCPipeline("color", "logistic"), folds, inner_cv=folds, n_resamples=50)
    >>> RocDisplay.from_evaluation(evaluation).ax_.get_xlabel()
    'false positive rate (1 - specificity)'
    """

    kind: ClassVar[str] = "roc"

    @classmethod
    def _read(cls, evaluation, positive=None):
        data = ranking_data(cls.kind, evaluation, metrics_payload(evaluation), None)
        panels = {panel["positive"]: panel for panel in data.pop("panels")}
        if positive is not None:
            check_name(f"{cls.__name__}.positive", positive, filter(None, panels))
        return {**data, **panels[positive or next(iter(panels))]}

    def _draw(self, axes):
        draw_panel(axes, self.data, self.data, banded=len(self.data["curves"]) <= MOST_BANDS)
        axes.legend(title=self.data["positive"] or "mean over the classes", **canvas.LEGEND)


class PrecisionRecallDisplay(RocDisplay):
    """Precision-recall curves with bands over patients; options as of `RocDisplay`."""

    kind = "pr"


class CalibrationDisplay(Display):
    """Reliability curves with bands over patients, of two classes.

    Parameters
    ----------
    calibrated : bool, default=False
        Option of `from_evaluation`: draw the probabilities after calibration on training patients.
    """

    @classmethod
    def _read(cls, evaluation, calibrated=False):
        if len(evaluation.labels) != 2:
            got = len(evaluation.labels)
            raise ValueError(f"CalibrationDisplay: expected two classes, got {got}. Draw a RocDisplay of each class.")
        lines = []
        for model, found in zip(evaluation.models, evaluation.calibration, strict=True):
            assessed = (calibrated and found.calibrated) or found.raw
            lines.append(reliability_line(model_key(model.name, model.head), jsonable(assessed.to_dict())["curve"]))
        positive = evaluation.positive_last.labels[1]
        return {"title": "calibrated" if calibrated else "", **reliability_axes(positive), "lines": lines}

    def _draw(self, axes):
        canvas.draw_line_panel(axes, self.data, self.data, [line["name"] for line in self.data["lines"]])
        axes.set_ylabel(self.data["y_label"])
        axes.legend(**canvas.LEGEND)


class ConfusionDisplay(Display):
    """Confusion matrix of one model, the one of the highest ROC-AUC of several: counts, and shares of the true class.

    Parameters
    ----------
    tuned : bool, default=False
        Option of `from_evaluation`: labels at the threshold that was chosen on training patients.
    """

    @classmethod
    def _read(cls, evaluation, tuned=False):
        data = score_figures.best_confusion(evaluation, tuned=tuned)
        words = score_figures.THRESHOLD_WORDS[data["threshold"]]
        return {**data, "title": f"{model_key(data['matrices'][0]['name'], data['head'])}: {words}"}

    def _draw(self, axes):
        (matrix,), labels = self.data["matrices"], self.data["labels"]
        score_figures.draw_matrix(axes, matrix, labels, first=True, turned=len(labels) > 3)


class PatientsDisplay(Display):
    """Scores of single patients as ticks, and their mean with its interval over patients, one row a model.

    Parameters
    ----------
    metric : str, default="accuracy"
        Option of `from_evaluation`: one of `histofeat.metrics.METRICS`; patients without it have no tick.
    """

    @classmethod
    def _read(cls, evaluation, metric="accuracy"):
        check_name(f"{cls.__name__}.metric", metric, METRIC_WORDS)
        table, rows = evaluation.by_patient(), []
        for model in evaluation.models:
            key, score = model_key(model.name, model.head), model.scores[metric]
            own = table.loc[table["model"] == key, metric].tolist()
            known = {"value": score.patient_mean, "ci95": score.patient_mean_ci95, "folds": own}
            rows.append({"name": model.name, "head": model.head, **known})
        return jsonable({"figure": "patients", "metric": metric, "rows": rows})

    def _draw(self, axes):
        score_figures.draw_forest_rows(axes, self.data["rows"])
        axes.set_xlabel(f"{METRIC_WORDS[self.data['metric']]}: mean over patients with 95 % interval; ticks: patients")
