"""Which images a gallery shows: right ones, wrong ones, and the most confident mistakes, class by class."""

from numbers import Integral

import numpy as np

from histofeat.reporting.figures.curves import source_of
from histofeat.reporting.files.payload import model_key, portable_paths

__all__ = ["GALLERY_KINDS", "check_gallery", "chosen_models", "gallery_data"]

#: The kinds of a gallery's groups, and what their headings say.
GALLERY_KINDS = {
    "right": "right, drawn at random",
    "wrong": "wrong, drawn at random",
    "top_losses": "the most confident mistakes (top losses)",
}


def check_gallery(gallery, models, evaluation):
    """Refuse a request for galleries that cannot be met, before anything is written.

    Parameters
    ----------
    gallery : int or None
        Images of each kind and class.
    models : sequence of str or None
        Names as "features/head".
    evaluation : Evaluation

    Raises
    ------
    ValueError
        If `gallery` is no whole number of at least 1, or a model is not among those of the evaluation.
    """
    if gallery is None:
        return
    if not isinstance(gallery, Integral) or isinstance(gallery, bool) or gallery < 1:
        raise ValueError(
            f"write_report.gallery: expected the number of images of each kind, at least 1, got {gallery!r}. "
            "Use 8, or None for no pictures of patches."
        )
    known = [model_key(model.name, model.head) for model in evaluation.models]
    unknown = [name for name in models or () if name not in known]
    if unknown:
        raise ValueError(
            f"write_report.gallery_models: expected names of models of this evaluation, got {unknown[0]!r}"
            f"{f' (and {len(unknown) - 1} more)' if len(unknown) > 1 else ''}. Use some of {', '.join(known)}."
        )


def chosen_models(evaluation, models=None):
    """The models whose images are shown.

    Parameters
    ----------
    evaluation : Evaluation
    models : sequence of str, optional
        Names as "features/head"; by default the model of the highest pooled ROC-AUC and every network on pixels.

    Returns
    -------
    list of ModelResult
        In the order of the evaluation.
    """
    if models is not None:
        return [model for model in evaluation.models if model_key(model.name, model.head) in set(models)]
    areas = [np.nan_to_num(model.scores["roc_auc"].pooled, nan=-1.0) for model in evaluation.models]
    best = int(np.argmax(areas)) if areas else -1
    return [model for number, model in enumerate(evaluation.models) if number == best or "pixels" in model.features]


def gallery_data(evaluation, payload, model, n_images):
    """The images of one model, class by class: which they are, and what was said of them.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it.
    model : ModelResult
    n_images : int
        Images of each kind and class at most.

    Returns
    -------
    dict
        ``groups``: for every class that has tested patches and every kind of `GALLERY_KINDS`, ``label``, ``kind``,
        ``n_found`` (how many there are), ``n_tested`` (patches of the class) and ``items``, each with ``row``,
        ``path``, ``patient``, ``true``, ``predicted``, ``probability`` (of the predicted class) and
        ``probability_of_true``.

    Notes
    -----
    Labels are the most probable class, so that label and probability belong together. Right and wrong ones are drawn
    with the seed of the evaluation, from patient after patient in turn: one patient with many patches does not fill
    the gallery. Most confident is a mistake with the least probability of the true class, where the cross-entropy is
    highest.
    """
    rows = np.flatnonzero(evaluation.tested)
    truth = np.asarray(evaluation.dataset.y)
    patients = np.asarray(evaluation.dataset.patients).astype(str)
    rng = np.random.default_rng(evaluation.protocol["random_state"])
    paths = portable_paths(evaluation.dataset)
    right = model.predicted == truth
    groups = []
    for code, label in enumerate(evaluation.labels):
        its = rows[truth[rows] == code]
        if not its.size:
            continue
        wrong = its[~right[its]]
        found = {
            "right": _in_turn(its[right[its]], patients, rng),
            "wrong": _in_turn(wrong, patients, rng),
            "top_losses": wrong[np.argsort(model.proba[wrong, code], kind="stable")],
        }
        for kind, chosen in found.items():
            items = [_item(evaluation, model, paths, int(row)) for row in chosen[:n_images]]
            sizes = {"n_found": len(chosen), "n_tested": len(its)}
            groups.append({"label": label, "kind": kind, **sizes, "items": items})
    return {
        "figure": "gallery",
        "model": model_key(model.name, model.head),
        "name": model.name,
        "head": model.head,
        **source_of(payload),
        "n_images": int(n_images),
        "groups": groups,
    }


def _in_turn(rows, patients, rng):
    """Rows in random order, but first one of each patient, then a second of each, and so on."""
    shuffled = rng.permutation(rows)
    order = np.argsort(patients[shuffled], kind="stable")
    ids = patients[shuffled][order]
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])) if len(ids) else np.array([], dtype=int)
    turn = np.empty(len(rows), dtype=np.int64)
    turn[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(ids))))
    return shuffled[np.argsort(turn, kind="stable")]


def _item(evaluation, model, paths, row):
    predicted, true = int(model.predicted[row]), int(evaluation.dataset.y[row])
    return {
        "row": row,
        "path": paths[row],
        "patient": str(evaluation.dataset.patients[row]),
        "true": evaluation.labels[true],
        "predicted": evaluation.labels[predicted],
        "probability": float(model.proba[row, predicted]),
        "probability_of_true": float(model.proba[row, true]),
    }
