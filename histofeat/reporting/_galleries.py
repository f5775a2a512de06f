"""Galleries: images that a model judged right, wrong and most confidently wrong, in a folder of their own."""

from numbers import Integral

import numpy as np
import pandas as pd

from histofeat.exceptions import PatchError
from histofeat.images import read_patch
from histofeat.reporting._pages import html_page, render_markdown
from histofeat.reporting._payload import data_label, model_key, portable_paths, source_of
from histofeat.reporting._strict_json import Redactor, dump, jsonable
from histofeat.reporting._text import file_words

FOLDER = "galleries"
#: Larger images are reduced to this many pixels on the longer side; no file holds an enlarged image.
LONGEST_PX = 280
_SMALL_PX = 120
#: What may be done with the pictures, by whether they are synthetic.
GALLERY_WORDS = {
    False: "This folder holds pictures of patients' tissue, and their ids. It was made on request for people who may "
    "see the data. Do not publish it, commit it or pass it on without permission of those responsible for the data; "
    "delete the folder before you share the report. No other file of the report holds a picture of a patch.",
    True: "These pictures are synthetic: a program drew them, they show no patient, and they may be shown.",
}
#: The kinds of a gallery's groups, and what their headings say.
GALLERY_KINDS = {
    "right": "right, drawn at random",
    "wrong": "wrong, drawn at random",
    "top_losses": "the most confident mistakes (top losses)",
}


def check_gallery(gallery, models, evaluation):
    """Check a request for galleries before anything is written.

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
        If `gallery` is not a whole number of at least 1, or a model is not in the evaluation.
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
    """Return the models whose images are shown.

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
    """Return the images of one model, class by class: which they are, and how they were judged.

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
    Labels are the most probable class, so that label and probability belong together. Right and wrong images are drawn
    with the seed of the evaluation, one patient after another, so that one patient with many patches does not fill the
    gallery. The most confident mistakes give the true class the least probability: their cross-entropy is highest.
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
    """Return rows in random order: first one of each patient, then a second of each, and so on."""
    shuffled = rng.permutation(rows)
    its_patients = pd.Series(patients[shuffled])
    return shuffled[np.argsort(its_patients.groupby(its_patients).cumcount(), kind="stable")]


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


def write_galleries(evaluation, payload, folder, n_images, models=None):
    """Write the galleries of some models, with their images, into the folder ``galleries`` of a report.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it.
    folder : pathlib.Path
        The report's folder.
    n_images : int
        Images of each kind and class.
    models : sequence of str, optional
        As in `chosen_models`.

    Returns
    -------
    dict
        For `metrics.json`: ``models``, ``n_images``, ``n_pictures``, ``n_unreadable``.

    Notes
    -----
    Files: ``gallery.html``, ``gallery.md``, ``<model>.json``, ``images/<row>.png``, ``NOTICE.txt``, and a
    ``.gitignore`` of everything, so that the folder is not committed by accident. An image that cannot be read is
    replaced by words. Files hold pixels alone: nothing of what the original files carry beside them.
    """
    place = folder / FOLDER
    (place / "images").mkdir(parents=True)
    synthetic = payload["dataset"]["synthetic"]
    (place / "NOTICE.txt").write_text(f"{GALLERY_WORDS[synthetic]}\n", encoding="utf-8", newline="\n")
    (place / ".gitignore").write_text("*\n", encoding="utf-8", newline="\n")
    galleries = [gallery_data(evaluation, payload, model, n_images) for model in chosen_models(evaluation, models)]
    lost = _write_images(evaluation, galleries, place)
    for gallery, word in zip(galleries, file_words([gallery["model"] for gallery in galleries]), strict=True):
        dump(jsonable(gallery), place / f"{word}.json")
    title = f"Galleries: {payload['title']}"
    context = {"title": title, "label": data_label(payload["dataset"]), "dataset": payload["dataset"]}
    wording = {"gallery_words": GALLERY_WORDS, "gallery_kinds": GALLERY_KINDS}
    markdown = render_markdown("report-gallery.md.j2", {**context, **wording, "galleries": galleries})
    (place / "gallery.md").write_text(markdown, encoding="utf-8", newline="\n")
    page = html_page(markdown, title, place, embed=False)
    (place / "gallery.html").write_text(page, encoding="utf-8", newline="\n")
    rows = {item["row"] for gallery in galleries for item in _items(gallery)}
    return {
        "models": [gallery["model"] for gallery in galleries],
        "n_images": int(n_images),
        "n_pictures": len(rows) - len(lost),
        "n_unreadable": len(lost),
    }


def _items(gallery):
    return [item for group in gallery["groups"] for item in group["items"]]


def _write_images(evaluation, galleries, place):
    """Write each image once, note its file in every item, or why there is none; return the rows without an image."""
    import cv2

    paths, redact, seen = evaluation.dataset.X, Redactor(), {}
    for item in (item for gallery in galleries for item in _items(gallery)):
        row = item["row"]
        if row not in seen:
            try:
                pixels = read_patch(paths[row])
            except PatchError as error:
                words = redact(str(error).removeprefix(f"{paths[row]}: "))
                seen[row] = {"file": None, "enlarged": False, "words": f"This image could not be read: {words}"}
            else:
                pixels = _smaller(pixels)
                file = f"images/{row:06d}.png"
                _, content = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
                (place / file).write_bytes(content.tobytes())
                seen[row] = {"file": file, "enlarged": max(pixels.shape[:2]) < _SMALL_PX, "words": None}
        item.update(seen[row])
    return [row for row, found in seen.items() if found["file"] is None]


def _smaller(pixels):
    """Reduce an image whose longer side is too long, averaging pixels."""
    import cv2

    height, width = pixels.shape[:2]
    scale = LONGEST_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.ascontiguousarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
