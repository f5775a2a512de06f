"""Training of networks: loss and accuracy per epoch and fold as numbers, figure and table."""

import math

from histofeat.reporting._canvas import frame, handle, legend_below, line_of, new_figure, panels, put_title, short
from histofeat.reporting._payload import data_label, source_of
from histofeat.reporting._strict_json import jsonable
from histofeat.reporting._tables import Table
from histofeat.reporting._text import UNDEFINED, number

CAPTION = (
    "One colour per fold: solid lines for training patches, dashed lines for validation patients, a dot at the kept "
    "epoch. Validation patients are held out of the training side of the fold, and the epoch is chosen on them: their "
    "scores are not results"
)
#: Histories by name, in the order of the panels: the two large ones, then the small ones.
_LARGE = (("loss", "val_loss", "loss"), ("accuracy", "val_accuracy", "accuracy"))
_SMALL = (("learning_rate", None, "learning rate"), (None, "val_roc_auc", "validation ROC-AUC"))
_AT_KEPT = ("loss", "val_loss", "val_roc_auc")
_PER_EPOCH = ("loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc", "learning_rate", "seconds")


def training_payload(model):
    """Return what `metrics.json` says about the training of one model.

    Parameters
    ----------
    model : ModelResult

    Returns
    -------
    list of dict
        One per fold: ``epochs``, ``kept_epoch`` (from 1; None if the history does not say) and the histories that
        exist, lists of one value per epoch. Empty for heads without epochs.
    """
    return [_fold(history) for history in getattr(model, "histories", ())]


def _fold(history):
    found = {name: jsonable(history[name]) for name in _PER_EPOCH if name in history}
    kept = [bool(value) for value in history.get("kept", ())]
    return {
        "epochs": max(map(len, found.values()), default=0),
        "kept_epoch": kept.index(True) + 1 if True in kept else None,
        **found,
    }


def training_data(payload, result):
    """Return the histories of one network, fold by fold, for `draw_training`.

    Parameters
    ----------
    payload : dict
        As `metrics_payload` returns it.
    result : dict
        One of its results, with ``training`` as `training_payload` gives it.

    Returns
    -------
    dict or None
        None if no network was trained in epochs.
    """
    folds = [{"fold": at, **fold} for at, fold in enumerate(result.get("training") or (), start=1)]
    if not any(fold["epochs"] for fold in folds):
        return None
    return {
        "figure": "training",
        "name": result["name"],
        "head": result["head"],
        **source_of(payload),
        "validation_is_no_result": True,
        "folds": folds,
    }


def draw_training(data):
    """Draw loss and accuracy in large panels, learning rate and validation ROC-AUC in small ones, one colour per fold.

    Parameters
    ----------
    data : dict
        As `training_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    folds = [fold for fold in data["folds"] if fold["epochs"]]
    small = [panel for panel in _SMALL if any(_has(fold, name) for fold in folds for name in panel[:2])]
    figure = new_figure(8.6, 5.6 if small else 3.9)
    grid = panels(figure, 2 + len(small), 2, height_ratios=[2.6, 1.3] if small else [1])
    for axes, (train, validation, words) in zip(grid, (*_LARGE, *small), strict=True):
        for fold in folds:
            _draw_fold(axes, fold, train, validation, line_of(fold["fold"] - 1)[0])
        _epochs_axis(axes, words, max(fold["epochs"] for fold in folds))
    _legend(figure, folds)
    title = f"Training of {short(data['name'], 30)}, {short(data['head'], 30)}: {data['data_label']}"
    put_title(figure, title)
    return figure


def _has(fold, name):
    return name is not None and any(value is not None for value in fold.get(name, ()))


def _draw_fold(axes, fold, train, validation, color):
    for name, dashes in ((train, "-"), (validation, (0, (4, 2)))):
        if not _has(fold, name):
            continue
        values = [math.nan if value is None else value for value in fold[name]]
        # A single epoch is a point and no line.
        axes.plot(range(1, len(values) + 1), values, color=color, linestyle=dashes, linewidth=1.3,
                  marker="." if len(values) == 1 else "")  # fmt: skip
        kept = fold["kept_epoch"]
        if kept and name != "learning_rate" and name == (validation if _has(fold, validation) else train):
            axes.plot([kept], [values[kept - 1]], marker="o", markersize=6, color=color, markeredgecolor="white")


def _epochs_axis(axes, words, epochs):
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(words)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.7, epochs + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    frame(axes)


def _legend(figure, folds):
    entries = [(handle(color=line_of(f["fold"] - 1)[0], linewidth=2), f"fold {f['fold']}") for f in folds]
    entries.append((handle(color="#444444"), "training patches"))
    if any(_has(fold, name) for fold in folds for name in ("val_loss", "val_accuracy", "val_roc_auc")):
        entries.append((handle(color="#444444", linestyle=(0, (4, 2))), "validation patients (not results)"))
    if any(fold["kept_epoch"] for fold in folds):
        dot = handle(color="#444444", marker="o", linestyle="", markersize=6, markeredgecolor="white")
        entries.append((dot, "kept epoch"))
    legend_below(figure, entries)


def training_table(payload):
    """Return one row per network and fold: number of epochs, the kept epoch, and its scores.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`, with "training" in every result.

    Returns
    -------
    Table or None
        None if no network was trained in epochs.
    """
    rows = []
    for result in payload["results"]:
        for fold in (training_data(payload, result) or {"folds": ()})["folds"]:
            kept = fold["kept_epoch"]
            counts = (str(fold["fold"]), str(fold["epochs"]), str(kept or UNDEFINED))
            scores = (fold[name][kept - 1] if kept and fold.get(name) else None for name in _AT_KEPT)
            seconds = [value for value in fold.get("seconds", ()) if value is not None]
            total = number(sum(seconds) if seconds else None, 1)
            rows.append((f"{result['name']}, {result['head']}", *counts, *map(number, scores), total))
    if not rows:
        return None
    caption = f"{data_label(payload['dataset'])}. Scores at the kept epoch; validation scores are not results."
    columns = ("Network", "Fold", "Epochs", "Kept", "Loss", "Validation loss", "Validation ROC-AUC", "Seconds")
    return Table(caption, columns, tuple(rows))
