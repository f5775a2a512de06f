"""Pseudonyms: an evaluation without ids of patients, slides and files, and the key that leads back to them."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pandas as pd

from histofeat.datasets import csv_text
from histofeat.evaluation import Evaluation
from histofeat.exceptions import refuse_first
from histofeat.reporting._folder import key_file
from histofeat.reporting._payload import portable_paths
from histofeat.reporting._strict_json import PathLike

#: What an evaluation computes with resamples of the patients, whose order must not depend on their names.
_COMPUTED = ("calibration", "classes", "bands", "planned", "comparison", "details", "table_probe")
_QUOTED = re.compile(r"(?<=')[^']+(?=')|(?<=\")[^\"]+(?=\")")
_TOKEN = re.compile(r"[^\s'\"`,;:=()\[\]{}<>|]+")
#: A name that is no word and no number: a digit and a letter or dash, a folder, or the end of a file name.
_TELLING = re.compile(r"\d.*[^\W\d]|[^\W\d].*\d|\d[-_]|[-_]\d|[\\/]|\w\.[a-zA-Z]\w*$", re.DOTALL)


class Pseudonyms:
    """Callable that replaces names in text, and in plain values made of text.

    Parameters
    ----------
    exact : mapping of str to str
        Pseudonyms by ids of patients, names of slides, and paths of files.
    words : collection of str
        Names that mean something else too, such as those of classes.

    Notes
    -----
    Names such as "8863_x1.png", "TCGA-A1" or "Mary Smith" are replaced wherever they occur, also as the last part of a
    path. Names that are plain words or numbers, such as "the" or "1", are replaced only in quotes: everywhere else they
    are not names. Fields that hold a name and nothing else are replaced by `pseudonymous`.

    Examples
    --------
    >>> names = Pseudonyms({"8863/0/a1.png": "image 00001", "P-7": "patient 001", "1": "patient 002"})
    >>> names("fold 1: 'P-7' and '1', /data/8863/0/a1.png.")
    "fold 1: 'patient 001' and 'patient 002', image 00001."
    """

    def __init__(self, exact, words=()):
        self.exact = dict(exact)
        self._names = {name: to for name, to in exact.items() if name not in words}
        parts = {re.split(r"[\\/]", name)[-1]: to for name, to in self._names.items()}
        self._telling = {name: to for name, to in {**parts, **self._names}.items() if _TELLING.search(name)}
        people = [name for name, to in self._names.items() if " " in name and not to.startswith("image")]
        self._several = sorted(people, key=len, reverse=True)

    def __call__(self, value):
        """Return `value` with pseudonyms; other types than text, mappings and sequences stay as they are."""
        if isinstance(value, Mapping):
            return {key: self(item) for key, item in value.items()}
        if not isinstance(value, str):
            return [self(item) for item in value] if isinstance(value, list | tuple) else value
        for name in self._several:
            value = value.replace(name, self.exact[name])
        value = _QUOTED.sub(lambda found: self._names.get(found.group(), found.group()), value)
        return _TOKEN.sub(self._token, value)

    def after(self, redact):
        """Return a function that redacts a value, and then replaces names in it."""
        return lambda value: self(redact(value))

    def one(self, name):
        """Return the pseudonym of a value that is a name, or a text with pseudonyms."""
        return self.exact.get(str(name), self(name))

    def _token(self, found):
        name = found.group().rstrip(".!?")
        to = self._telling.get(name) or self._telling.get(re.split(r"[\\/]", name)[-1])
        return found.group() if to is None else to + found.group()[len(name) :]

    def to_csv(self):
        """Return the key: a line for each name, with its pseudonym."""
        table = pd.DataFrame({"name": self.exact.keys(), "pseudonym": self.exact.values()})
        return csv_text(table.drop_duplicates("pseudonym").sort_values("pseudonym"))


def read_key(output: PathLike) -> Pseudonyms:
    """Return the pseudonyms of a report, from the key beside its folder."""
    table = pd.read_csv(key_file(output), dtype=str, keep_default_na=False)
    return Pseudonyms(dict(zip(table["name"], table["pseudonym"], strict=True)))


def pseudonymous(evaluation: Evaluation) -> tuple[Evaluation, Pseudonyms]:
    """Return an evaluation with pseudonyms, rows in their order, and what replaces names elsewhere.

    Parameters
    ----------
    evaluation : Evaluation
        Its positive class is the last.

    Returns
    -------
    evaluation : Evaluation
        The same numbers: what is computed over patients is taken along. The audit of the split counts what it found,
        and names nothing. The paths of the images are those of ``dataset.X``, which is not shown.
    names : Pseudonyms

    Raises
    ------
    ValueError
        If the name of a model holds that of a patient or file.
    """
    dataset, audit = evaluation.dataset, evaluation.dataset.audit
    frame, paths = dataset.frame, portable_paths(dataset)
    patients = _numbered("patient", frame["patient"], 3)
    order = np.lexsort((secrets.SystemRandom().sample(range(len(frame)), len(frame)), frame["patient"].map(patients)))
    images = _numbered("image", [paths[row] for row in order], 5, shuffled=False)
    slides = _numbered("slide", frame["slide"].dropna().astype(str), 3) if "slide" in frame else {}
    others = [path for path, _ in audit.failures] + [name for group in audit.left_out for name in group.examples]
    whole = dict(zip(frame["path"], map(images.get, paths), strict=True))
    names = Pseudonyms(_numbered("file", others, 3) | images | slides | patients | whole, dataset.target_names)
    told = [model.name for model in evaluation.models if names(model.name) != model.name]
    refuse_first(told, "pseudonyms: expected models whose names hold none of a patient or file, got", "Rename them.")
    frame = frame.assign(path=[images[path] for path in paths], patient=frame["patient"].map(patients))
    frame = frame.assign(slide=frame["slide"].astype(str).map(slides)) if slides else frame
    known = {"frame": frame.iloc[order].reset_index(drop=True), "columns": None, "root": None}
    name = names.one(dataset.name)  # "P-7_data" is no name of a patient, and holds one
    held = any(re.search(rf"(?<![^\W_]){re.escape(known)}(?![^\W_])", name) for known in (*patients, *slides))
    known |= {"images": None if dataset.lacks_images else dataset.X[order], "name": "data" if held else name}
    audit = _audit(replace(audit, name=known["name"]), names)
    return _with_rows(evaluation, replace(dataset, audit=audit, **known), order, names), names


def _numbered(kind, names, digits, *, shuffled=True):
    # Drawn by the system: with a seed, or in the order of the ids, numbers would tell who has which.
    names = list(dict.fromkeys(names))
    names = secrets.SystemRandom().sample(names, len(names)) if shuffled else names
    digits = max(digits, len(str(len(names))))
    return {name: f"{kind} {number:0{digits}d}" for number, name in enumerate(names, start=1)}


def _audit(audit, names):
    """Return the audit of a data set with pseudonyms."""
    known = {"notes": tuple(map(names, audit.notes))}
    known["patients_without"] = {name: tuple(map(names.one, ids)) for name, ids in audit.patients_without.items()}
    reasons = [(path, reason.replace(PurePath(path).name, "the file")) for path, reason in audit.failures]
    known["failures"] = tuple((names.one(path), names(reason)) for path, reason in reasons)
    known["left_out"] = tuple(replace(g, examples=tuple(map(names.one, g.examples))) for g in audit.left_out)
    for field in {"mixed_patients", "two_labels"} & {*vars(audit)}:  # of BreakHis
        known[field] = {names.one(id): tuple(map(names.one, of)) for id, of in getattr(audit, field).items()}
    return replace(audit, **known)


def _with_rows(evaluation, dataset, order, names):
    """Return an evaluation of another data set, whose rows are those of its own in another order."""
    rank, left, audit, models = np.argsort(order), evaluation.left_out, evaluation.audit, []
    for model in evaluation.models:
        words = {name: tuple(map(names, getattr(model, name))) for name in ("notes", "families")}
        arrays = ("proba", "calibrated", "predicted", "predicted_tuned")
        models.append(replace(model, **words, **{name: getattr(model, name)[order] for name in arrays}))
    found = replace(
        evaluation,
        dataset=dataset,
        splits=tuple(tuple(np.sort(rank[rows]) for rows in pair) for pair in evaluation.splits),
        fold=evaluation.fold[order],
        models=tuple(models),
        not_run=tuple(replace(gone, reason=names(gone.reason)) for gone in evaluation.not_run),
        protocol=names(evaluation.protocol),
        left_out=left and replace(left, patients=tuple(map(names.one, left.patients))),
        audit=audit and replace(audit, findings=tuple(replace(each, offenders=()) for each in audit.findings)),
    )
    if models:
        vars(found).update({name: getattr(evaluation, name) for name in _COMPUTED})
        tables = [each["hardest"].assign(patient=each["hardest"]["patient"].map(names.one)) for each in found.details]
        details = tuple({**each, "hardest": table} for each, table in zip(found.details, tables, strict=True))
        vars(found)["details"] = details
    return found
