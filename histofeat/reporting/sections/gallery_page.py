"""Galleries as a folder of their own inside a report: pictures of patches, only on request, under a notice."""

import numpy as np

from histofeat.exceptions import PatchError
from histofeat.images import read_patch
from histofeat.reporting.blocks import Gallery, Heading, Link, Notice, Text, Tile, to_html, to_markdown
from histofeat.reporting.files.payload import data_label
from histofeat.reporting.files.privacy import Redactor
from histofeat.reporting.files.strict_json import dump, jsonable
from histofeat.reporting.sections.galleries import GALLERY_KINDS, chosen_models, gallery_data

__all__ = ["FOLDER", "gallery_blocks", "write_galleries"]

FOLDER = "galleries"
#: Larger images are made smaller, to this many pixels on the longer side; none is enlarged in its file.
LONGEST_PX = 280
_SMALL_PX = 120
_PATIENTS = (
    "This folder holds pictures of tissue of patients, and their ids. It was made on request and is for those who may "
    "see the data. Do not publish it, commit it or send it on without leave of those who answer for the data; delete "
    "the folder before the report is given away. No other file of the report holds a picture of a patch."
)
_SYNTHETIC = "These pictures are synthetic: they were drawn by a program, no patient is in them, and they may be shown."


def write_galleries(evaluation, payload, folder, n_images, models=None, word_of=str):
    """Write the galleries of some models, with their images, into ``galleries`` in a folder.

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
        As in `histofeat.reporting.sections.galleries.chosen_models`.
    word_of : callable
        Gives a file-safe word for each of a list of names.

    Returns
    -------
    dict
        What `gallery_blocks` and `metrics.json` need: ``models``, ``n_images``, ``n_pictures``, ``n_unreadable``.

    Notes
    -----
    Files: ``gallery.html``, ``gallery.md``, ``<model>.json``, ``images/<row>.png``, ``NOTICE.txt``, and a
    ``.gitignore`` of everything, so that the folder is not committed by accident. An image that cannot be read is
    replaced by words. Files hold pixels alone: nothing of what the original files carry beside them.
    """
    place = folder / FOLDER
    (place / "images").mkdir(parents=True)
    synthetic = payload["dataset"]["synthetic"]
    (place / "NOTICE.txt").write_text(f"{_SYNTHETIC if synthetic else _PATIENTS}\n", encoding="utf-8", newline="\n")
    (place / ".gitignore").write_text("*\n", encoding="utf-8", newline="\n")
    galleries = [gallery_data(evaluation, payload, model, n_images) for model in chosen_models(evaluation, models)]
    lost = _write_images(evaluation, galleries, place)
    for gallery, word in zip(galleries, word_of([gallery["model"] for gallery in galleries]), strict=True):
        dump(jsonable(gallery), place / f"{word}.json")
    blocks = _page(payload, galleries)
    (place / "gallery.md").write_text(to_markdown(blocks), encoding="utf-8", newline="\n")
    page = to_html(blocks, f"Galleries: {payload['title']}", place, beside=True)
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
    """Write each image once, and say in every item which file it is, or why there is none; gives the rows lost."""
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
    """Make an image with a long side fit, by the mean of the pixels that fall together."""
    import cv2

    height, width = pixels.shape[:2]
    scale = LONGEST_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.ascontiguousarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _page(payload, galleries):
    blocks = [
        Heading(f"Galleries: {payload['title']}", 1),
        Text(f"{data_label(payload['dataset'])}."),
        _notice(payload),
    ]
    blocks.append(
        Text(
            "Labels are the most probable class; p is the probability of the class beside it. Right and wrong ones are "
            "drawn at random, from patient after patient in turn. The most confident mistakes give the true class "
            "the least probability: they are the worst, not the usual ones. Scores are out of fold: no image was "
            "trained on by the model that judged it.",
            muted=True,
        )
    )
    for gallery in galleries:
        blocks.append(Heading(f"{gallery['name']}, head {gallery['head']}"))
        blocks += [_group(group) for group in gallery["groups"]]
    return blocks


def _notice(payload):
    if payload["dataset"]["synthetic"]:
        return Notice("info", "Synthetic pictures", (_SYNTHETIC,))
    return Notice("danger", "Patient images: not to be published without leave", (_PATIENTS,))


def _group(group):
    """One class and kind; where there is nothing to show, the words that say so."""
    found, tested, shown = group["n_found"], group["n_tested"], len(group["items"])
    kind = "wrong" if group["kind"] == "top_losses" else group["kind"]
    caption = f"True {group['label']}: {GALLERY_KINDS[group['kind']]}. {shown} of {found:,} {kind}, {tested:,} tested."
    return Gallery(caption, tuple(_tile(item) for item in group["items"]))


def _tile(item):
    lines = (
        f"true: {item['true']}, p = {item['probability_of_true']:.3f}",
        f"predicted: {item['predicted']}, p = {item['probability']:.3f}",
        f"patient {item['patient']}",
    )
    return Tile(item["file"], lines, item["words"], item["enlarged"])


def gallery_blocks(payload):
    """The section of the report that says where its galleries are.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`; "galleries" as `write_galleries` gives it.

    Returns
    -------
    list of blocks
        Empty where none were asked for.
    """
    found = payload.get("galleries")
    if not found:
        return []
    lost = f" {found['n_unreadable']:,} could not be read." if found["n_unreadable"] else ""
    words = (
        f"{found['n_pictures']:,} images of {', '.join(found['models'])}: right, wrong and most confidently wrong, up "
        f"to {found['n_images']} of each class.{lost} They lie in a folder of their own and in no other file of this "
        "report."
    )
    return [Heading("Galleries"), _notice(payload), Text(words), Link("Open the galleries", f"{FOLDER}/gallery.html")]
