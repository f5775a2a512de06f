"""Pseudonyms: an evaluation without ids of patients, slides and files, and the key that leads back to them."""

import re
import secrets
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets import csv_text, write_whole
from histofeat.evaluation import Evaluation
from histofeat.reporting._folder import check_output, key_file
from histofeat.reporting._payload import portable_paths
from histofeat.reporting._strict_json import PathLike

#: What an evaluation computes with resamples of the patients, whose order must not depend on their names.
_COMPUTED = ("calibration", "classes", "bands", "planned", "comparison", "details", "table_probe")
_TOKEN = re.compile(r"[^\s'\"`,;:=()\[\]{}<>|]+")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
#: How the audit of a split names patients and slides.
_NAMED = re.compile(r"\b(?:patients?|slides) ([^\s,:()]+(?: and [^\s,:()]+)*)|^([^:]+)(?=: )")
#: A name that is no word and no number: a digit and a letter or dash, several words, a folder, the end of a file name.
_TELLING = re.compile(r"\d.*[^\W\d]|[^\W\d].*\d|\d[-_]|[-_]\d|\w\s+\w|[\\/]|\w\.[a-zA-Z]\w*$", re.DOTALL)


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
    Names such as "8863_x1.png" or "TCGA-A1" are replaced wherever they occur, also as the last part of a path. Names
    that are plain words or numbers, such as "the" or "1", are replaced only in quotes: everywhere else they are not
    names. Fields that hold a name and nothing else are replaced by `pseudonymous`.

    Examples
    --------
    >>> names = Pseudonyms({"8863/0/a1.png": "image 00001", "P-7": "patient 001", "1": "patient 002"})
    >>> names("fold 1: 'P-7' and '1', /data/8863/0/a1.png.")
    "fold 1: 'patient 001' and 'patient 002', image 00001."
    """

    def __init__(self, exact, words=()):
        self.exact, self._words = dict(exact), {*words}
        parts = {re.split(r"[\\/]", name)[-1]: to for name, to in self.exact.items()}
        known = {name: to for name, to in {**parts, **self.exact}.items() if name not in self._words}
        self._telling = {name: to for name, to in known.items() if _TELLING.search(name)}
        self._odd = {}  # by their endings, so that few are looked for in a text
        for name in sorted(self._telling, key=len, reverse=True):
            if not _TOKEN.fullmatch(name):
                self._odd.setdefault(Path(name).suffix, []).append(name)

    def __call__(self, value):
        """Return `value` with pseudonyms; other types than text, mappings and sequences stay as they are."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {key: self(item) for key, item in value.items()}
        return [self(item) for item in value] if isinstance(value, list | tuple) else value

    def after(self, redact):
        """Return a function that redacts first, and then replaces names."""
        return lambda value: self(redact(value))

    def one(self, name):
        """Return the pseudonym of a value that is a name, or a text with pseudonyms."""
        return self.exact.get(str(name), self(name))

    def path(self, value):
        """Return an option of a run, such as a path, without names among its folders."""
        if isinstance(value, list):
            return [self.path(each) for each in value]
        is_path = isinstance(value, str) and re.search(r"[\\/]", value)
        return "".join(map(self.one, re.split(r"([\\/])", value))) if is_path else value

    def finding(self, finding):
        """Return a finding of the audit of a split with pseudonyms."""

        def offender(text):
            text = text.partition(": ")[2] if finding.code == "HF010" else text  # begins with what the ids share
            return self(_NAMED.sub(self._listed, text))

        return replace(finding, detail=self(finding.detail), offenders=tuple(map(offender, finding.offenders)))

    def _text(self, text):
        for name in (name for ending, names in self._odd.items() if ending in text for name in names):
            text = text.replace(name, self._telling[name])
        text = _QUOTED.sub(self._quoted, text)
        return _TOKEN.sub(self._token, text)

    def _listed(self, found):
        names = (found.group(1) or found.group(2)).split(" and ")
        known = all(name in self.exact for name in names)
        return " and ".join(map(self.one, names)) if known else found.group()

    def _quoted(self, found):
        name = found.group(1) or found.group(2)
        known = name in self.exact and name not in self._words
        return found.group().replace(name, self.exact[name]) if known else found.group()

    def _token(self, found):
        name = found.group().rstrip(".!?")
        to = self._telling.get(name) or self._telling.get(re.split(r"[\\/]", name)[-1])
        return found.group() if to is None else to + found.group()[len(name) :]


def _numbered(kind, names, digits, *, shuffled=True):
    # Drawn by the system: with a seed, or in the order of the ids, numbers would tell who has which.
    names = list(dict.fromkeys(names))
    names = secrets.SystemRandom().sample(names, len(names)) if shuffled else names
    digits = max(digits, len(str(len(names))))
    return {name: f"{kind} {number:0{digits}d}" for number, name in enumerate(names, start=1)}


def pseudonymous(evaluation: Evaluation) -> tuple[Evaluation, Pseudonyms]:
    """Return an evaluation with pseudonyms, rows in their order, and what replaces names elsewhere.

    Parameters
    ----------
    evaluation : Evaluation
        Its positive class is the last.

    Returns
    -------
    evaluation : Evaluation
        The same numbers: what is computed over patients is taken along. The paths of its images are those of
        ``dataset.X``, which is not shown.
    names : Pseudonyms
    """
    dataset, audit = evaluation.dataset, evaluation.dataset.audit
    frame, paths = dataset.frame, portable_paths(dataset)
    patients = _numbered("patient", frame["patient"], 3)
    order = np.lexsort((secrets.SystemRandom().sample(range(len(frame)), len(frame)), frame["patient"].map(patients)))
    images = _numbered("image", [paths[row] for row in order], 5, shuffled=False)
    others = [path for path, _ in audit.failures] + [name for group in audit.left_out for name in group.examples]
    slides = _numbered("slide", frame["slide"].dropna().astype(str), 3) if "slide" in frame else {}
    exact = _numbered("file", others, 3) | images | slides | patients
    names = Pseudonyms(exact | dict(zip(frame["path"], map(exact.get, paths), strict=True)), dataset.target_names)
    columns = {"path": map(images.get, paths), "patient": frame["patient"].map(patients)}
    columns |= {"slide": frame["slide"].astype(str).map(slides)} if slides else {}
    frame = frame.assign(**{name: list(column) for name, column in columns.items()}).iloc[order].reset_index(drop=True)
    own = {"columns": None, "images": None if dataset.lacks_images else dataset.X[order]}
    new = replace(dataset, frame=frame, name=names.one(dataset.name), root=None, audit=_audit(audit, names), **own)
    return _with_rows(evaluation, new, order, names), names


def _audit(audit, names):
    """Return the audit of a data set with pseudonyms."""
    without = {name: tuple(map(names.one, ids)) for name, ids in audit.patients_without.items()}
    known = {"patients_without": without, "notes": tuple(map(names, audit.notes)), "name": names.one(audit.name)}
    known["failures"] = tuple((names.one(path), names(reason)) for path, reason in audit.failures)
    known["left_out"] = tuple(replace(g, examples=tuple(map(names.one, g.examples))) for g in audit.left_out)
    for field in {"mixed_patients", "two_labels"} & {*vars(audit)}:
        known[field] = {names.one(id): tuple(map(names.one, of)) for id, of in getattr(audit, field).items()}
    return replace(audit, **known)


def _with_rows(evaluation, dataset, order, names):
    """Return an evaluation of another data set, whose rows are those of its own in another order."""
    rank, arrays = np.argsort(order), ("proba", "calibrated", "predicted", "predicted_tuned")
    models = [
        replace(model, notes=tuple(map(names, model.notes)), families=tuple(map(names, model.families)))
        for model in evaluation.models
    ]
    models = [replace(model, **{name: getattr(model, name)[order] for name in arrays}) for model in models]
    left, audit = evaluation.left_out, evaluation.audit
    found = replace(
        evaluation,
        dataset=dataset,
        splits=tuple(tuple(np.sort(rank[rows]) for rows in pair) for pair in evaluation.splits),
        fold=evaluation.fold[order],
        models=tuple(models),
        not_run=tuple(replace(gone, reason=names(gone.reason)) for gone in evaluation.not_run),
        protocol=names(evaluation.protocol),
        left_out=left and replace(left, patients=tuple(map(names.one, left.patients))),
        audit=audit and replace(audit, findings=tuple(map(names.finding, audit.findings))),
    )
    if evaluation.models:
        known = {name: getattr(evaluation, name) for name in _COMPUTED}
        hardest = [each["hardest"] for each in known["details"]]
        hardest = [table.assign(patient=table["patient"].map(names.one)) for table in hardest]
        known["details"] = tuple({**d, "hardest": table} for d, table in zip(known["details"], hardest, strict=True))
        vars(found).update(known)
    return found


@contextmanager
def key_beside(output, names, *, overwrite=False):
    """Write the key of a report when the block, which writes the report, ends without an error; nothing for None."""
    if names is None:
        yield
        return
    check_output(output, overwrite=overwrite, pseudonyms=True)
    table = pd.DataFrame({"name": names.exact.keys(), "pseudonym": names.exact.values()})
    text = csv_text(table.drop_duplicates("pseudonym").sort_values("pseudonym"))
    with write_whole(key_file(output), overwrite=overwrite, parents=True) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
        yield


def read_key(output: PathLike) -> Pseudonyms:
    """Return the pseudonyms of a report, from the key beside its folder."""
    table = pd.read_csv(key_file(output), dtype=str, keep_default_na=False)
    return Pseudonyms(dict(zip(table["name"], table["pseudonym"], strict=True)))
