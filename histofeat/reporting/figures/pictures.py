"""Every figure of a report: drawn, written with its numbers beside it, and named for the page."""

import re

from histofeat.reporting.blocks import Picture
from histofeat.reporting.figures import confusion_and_forest as figures, curves
from histofeat.reporting.figures.canvas import save_figure
from histofeat.reporting.figures.charts import draw_lines
from histofeat.reporting.figures.comparison_figure import comparison_figure_data, draw_comparison
from histofeat.reporting.figures.ranking_curves import band_panels_data, ranking_data
from histofeat.reporting.figures.ranking_figures import MOST_BANDS, draw_ranking, draw_ranking_bands
from histofeat.reporting.files.payload import data_label, model_key
from histofeat.reporting.files.strict_json import dump
from histofeat.reporting.sections.calibration import reliability_data
from histofeat.reporting.sections.training import CAPTION, draw_training, training_data

__all__ = ["draw_pictures", "file_words"]

_KINDS = (
    *("comparison", "forest", "roc", "roc_bands", "pr", "pr_bands"),
    *("reliability", "confusion", "confusion_tuned", "training"),
)
_CURVES = {"roc": "ROC curves", "pr": "Precision-recall curves"}


class _Album:
    """The pictures of one report by kind, and the folder that they are written into."""

    def __init__(self, payload, folder):
        self.payload, self.folder = payload, folder
        self.label = data_label(payload["dataset"])
        self.pictures = {kind: [] for kind in _KINDS}

    def add(self, kind, name, draw, data, words):
        """Draw one figure, write its numbers beside it."""
        file = f"figures/{name}.svg"
        save_figure(draw, data, self.folder / file)
        dump(data, self.folder / f"figures/{name}.json")
        self.pictures[kind].append(Picture(file, f"{words}. {self.label}.", f"{self.label}. {words}."))


def draw_pictures(evaluation, payload, folder):
    """Draw every figure of a report.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it, with "calibration" and "training" in every result.
    folder : pathlib.Path
        Holds an empty folder ``figures``.

    Returns
    -------
    dict of str to list of Picture
        By kind, in the order of the heads.
    """
    album = _Album(payload, folder)
    models = payload["results"]
    words = f"{len(models)} model{'s' * (len(models) > 1)}, the highest ROC-AUC first, with 95 % intervals"
    album.add("comparison", "comparison", draw_comparison, comparison_figure_data(payload), words)
    album.add("forest", "forest_roc_auc", figures.draw_forest, curves.forest_data(payload),
              "Pooled ROC-AUC of every model with its 95 % interval, and its folds")  # fmt: skip
    heads = list(dict.fromkeys(result["head"] for result in models))
    for head, word in zip(heads, file_words(heads), strict=True):
        for kind in _CURVES:
            _add_curves(album, kind, ranking_data(kind, evaluation, payload, head), word)
        reliability = reliability_data(payload, head)
        if reliability is not None:
            album.add("reliability", f"reliability_{word}", draw_lines, reliability, f"Reliability curves, head {head}")
        _add_confusions(album, head, word)
    _add_training(album)
    return album.pictures


def _add_curves(album, kind, data, word):
    head = data["head"]
    several = max(len(panel["curves"]) for panel in data["panels"]) > MOST_BANDS
    bands = f"bands: 95 % of {data['n_resamples']:,} resamples of the patients, at each point by itself"
    resampled = any(curve["low"] for panel in data["panels"] for curve in panel["curves"])
    words = f"{_CURVES[kind]}, head {head}"
    album.add(kind, f"{kind}_{word}", draw_ranking, data, words if several or not resampled else f"{words}; {bands}")
    if several and resampled:
        one = f"{words}, one model a panel and the others in grey; {bands}"
        album.add(f"{kind}_bands", f"{kind}_bands_{word}", draw_ranking_bands, band_panels_data(data), one)


def _add_confusions(album, head, word):
    half = curves.confusion_data(album.payload, head)
    words = "most probable class" if half["threshold"] == "argmax" else "labels at 0.5"
    matrices = f"Confusion matrices, head {head}"
    album.add("confusion", f"confusion_{word}", figures.draw_confusion, half, f"{matrices}, {words}")
    if len(half["labels"]) == 2:
        tuned = curves.confusion_data(album.payload, head, tuned=True)
        words = "labels at the tuned threshold"
        album.add("confusion_tuned", f"confusion_{word}_tuned", figures.draw_confusion, tuned, f"{matrices}, {words}")


def _add_training(album):
    trained = [(result, training_data(album.payload, result)) for result in album.payload["results"]]
    trained = [(result, data) for result, data in trained if data]
    words = file_words([model_key(result["name"], result["head"]) for result, _ in trained])
    for (result, data), word in zip(trained, words, strict=True):
        caption = f"Training of {result['name']}, {result['head']}. {CAPTION}"
        album.add("training", f"training_{word}", draw_training, data, caption)


def file_words(names):
    """File-safe words for `names`, each a different one.

    Examples
    --------
    >>> file_words(["XGBoost", "x g", "x/g"])
    ['xgboost', 'x-g', 'x-g-3']
    """
    words = []
    for name in names:
        plain = word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "head"
        number = len(words) + 1
        while word in words:
            word, number = f"{plain}-{number}", number + 1
        words.append(word)
    return words
