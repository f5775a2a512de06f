"""Build the content of `metrics.json` and `splits.json`: plain values in a fixed order, from which a page is made."""

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np

import histofeat
from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, ModelResult
from histofeat.exceptions import check_name
from histofeat.model_selection import encode_patients, patients_per_fold
from histofeat.reporting._strict_json import jsonable

#: Version of `metrics.json` and `splits.json`: raised when a key is renamed, removed or changes its meaning.
SCHEMA = 2
_PACKAGES = (
    *("histofeat", "numpy", "pandas", "pyarrow", "scikit-learn", "scikit-image", "scipy", "opencv-python-headless"),
    *("numba", "xgboost", "xgboost-cpu", "keras", "tensorflow", "openvino", "joblib", "matplotlib"),
)


def model_key(name, head):
    """Return the one-word name of a model in files: features and head.

    Examples
    --------
    >>> model_key("handcrafted", "xgboost")
    'handcrafted/xgboost'
    """
    return f"{name}/{head}"


def chosen_models(evaluation: Evaluation, models: Sequence[str] | None, where: str) -> list[ModelResult]:
    """Return the models of these names, in the order of the evaluation; all of them for None.

    Raises
    ------
    ValueError
        If there is none of a name; `where` is the argument.
    """
    keys = [model_key(model.name, model.head) for model in evaluation.models]
    for name in models or ():
        check_name(where, name, keys, "names of models of this evaluation")
    return [model for key, model in zip(keys, evaluation.models, strict=True) if models is None or key in models]


def metrics_payload(
    evaluation: Evaluation,
    *,
    title: str | None = None,
    command: str | None = None,
    environment: Mapping[str, Any] | None = None,
    redact: Callable[[Any], Any] = lambda value: value,
) -> dict[str, Any]:
    """Return the content of `metrics.json` without the list of files.

    Parameters
    ----------
    evaluation : Evaluation
    title, command : str, optional
        Heading of the report; the command line that made it.
    environment : Mapping, optional
        As `describe_environment` returns it.
    redact : callable
        Removes paths of the machine from plain values.

    Returns
    -------
    dict
    """
    evaluation = evaluation.positive_last
    payload = {
        **made_by(title or default_title(evaluation.dataset), command),
        "dataset": {**dataset_payload(evaluation.dataset), "conversions": dict(evaluation.conversions)},
        "protocol": {**evaluation.protocol, "patient_overlap": evaluation.patient_overlap},
        "environment": dict(environment or {}),
        "seconds": dict(evaluation.seconds),
        "computed": dict(evaluation.computed),
        "audit": None if evaluation.audit is None else evaluation.audit.to_dict(),
        "caution": evaluation.caution,
        "not_run": list(evaluation.not_run),
        "folds": [
            {"fold": number, **fold_summary(evaluation.dataset, train, test)}
            for number, (train, test) in enumerate(evaluation.splits, start=1)
        ],
        "results": [result_payload(model, evaluation.dataset.target_names) for model in evaluation.models],
    }
    return redact(jsonable(payload))


def made_by(title, command):
    """Return what stands first in every `metrics.json`: schema and code that wrote it, heading, time and command."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    known = {"schema": SCHEMA, "histofeat": histofeat.__version__, "title": title}
    return {**known, "created": created, "command": command}


def default_title(dataset):
    """Return the default heading of a report."""
    kind = "synthetic cohort" if dataset.synthetic else dataset.name
    return f"Patch classification by patient: {kind}"


def data_label(dataset):
    """Return the name of the data set as captions give it, and whether the copy is complete.

    Parameters
    ----------
    dataset : Mapping
        The ``dataset`` part of `metrics_payload`.

    Returns
    -------
    str

    Examples
    --------
    >>> data_label({"name": "demo", "synthetic": True})
    'SYNTHETIC cohort'
    >>> audit = {"complete": False, "full_set": {"n_patches": 277524}}
    >>> data_label({"name": "IDC", "synthetic": False, "n_patches": 9, "audit": audit})
    'IDC, incomplete copy: 9 of 277,524 patches'
    """
    if dataset["synthetic"]:
        return "SYNTHETIC cohort"
    audit = dataset["audit"]
    if audit["complete"] is False:
        full = audit["full_set"]["n_patches"]
        kind = "incomplete copy" if dataset["n_patches"] < full else "not the published set"
        return f"{dataset['name']}, {kind}: {dataset['n_patches']:,} of {full:,} patches"
    return str(dataset["name"])


def source_of(payload):
    """Return the data set that a figure shows: part of the data of every figure."""
    return {
        "dataset": payload["dataset"]["name"],
        "synthetic": payload["dataset"]["synthetic"],
        "data_label": data_label(payload["dataset"]),
    }


def dataset_payload(dataset: PatchDataset) -> dict[str, Any]:
    """Return the data set in numbers, with the audit of its files."""
    labels = np.asarray(dataset.y)
    patients = np.asarray(dataset.patients)
    return {
        "name": dataset.name,
        "synthetic": bool(dataset.synthetic),
        "folder": dataset.root.resolve().name if dataset.root else None,
        "n_patches": len(dataset),
        "n_patients": len(np.unique(patients)),
        "labels": list(dataset.target_names),
        "positive": dataset.positive,
        "class_counts": _class_counts(labels, dataset.target_names),
        "patients_with_class": {
            name: len(np.unique(patients[labels == code])) for code, name in enumerate(dataset.target_names)
        },
        "audit": dataset.audit.to_dict(),
        "audit_summary": [line.removeprefix("- ") for line in dataset.audit.summary().splitlines()],
    }


def result_payload(model, labels):
    """Return one entry of ``results``: the model, every score at 0.5, then at the tuned threshold."""
    return {
        **{part: getattr(model, part) for part in ("name", "features", "families", "head", "n_features")},
        "labels": list(labels),
        "notes": list(model.notes),
        "choices": [dict(choice) for choice in model.choices],
        **model.scores,
        "confusion_matrix": model.confusion,
        "fold_confusion_matrices": list(model.fold_confusions),
        "tuned": {"thresholds": list(model.thresholds), **model.tuned, "confusion_matrix": model.confusion_tuned},
        "fit_s": model.fit_s,
        "predict_s": model.predict_s,
    }


def fold_summary(dataset, train, test):
    """Return the sizes of one fold: patients and patches on both sides, classes on the test side."""
    patients, labels = np.asarray(dataset.patients), np.asarray(dataset.y)
    carried = patients_per_fold([(train, test)], labels, patients)[0]
    carriers = dict(zip(np.unique(labels).tolist(), carried, strict=True))
    return {
        "train_patients": len(np.unique(patients[train])),
        "train_patches": len(train),
        "test_patients": len(np.unique(patients[test])),
        "test_patches": len(test),
        "test_class_counts": _class_counts(labels[test], dataset.target_names),
        "test_class_patients": {name: int(carriers.get(code, 0)) for code, name in enumerate(dataset.target_names)},
    }


def splits_payload(evaluation):
    """Return the content of `splits.json`: the patients on each side of each fold.

    Notes
    -----
    Patients rebuild the split, so paths are listed only where they do not: a split by patch, or one that uses a
    part of a patient's patches.
    """
    dataset, paths = evaluation.dataset, cache(partial(portable_paths, evaluation.dataset))
    known = (*encode_patients(dataset.patients, len(dataset), "dataset.patients"), paths)
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "synthetic": bool(dataset.synthetic),
        "n_patches": len(dataset),
        "cv": str(evaluation.protocol.get("cv", "")),
        "random_state": evaluation.protocol.get("random_state"),
        "patient_overlap": evaluation.patient_overlap,
        "folds": [
            {"fold": number, "train": _side(dataset, train, *known), "test": _side(dataset, test, *known)}
            for number, (train, test) in enumerate(evaluation.splits, start=1)
        ],
        "never_tested": _side(dataset, np.flatnonzero(evaluation.fold < 0), *known),
    }


def _side(dataset, rows, ids, codes, paths):
    chosen = np.unique(codes[rows])
    side = {
        "patients": sorted(ids[code] for code in chosen),
        "n_patches": len(rows),
        "class_counts": _class_counts(np.asarray(dataset.y)[rows], dataset.target_names),
    }
    if np.bincount(codes)[chosen].sum() != len(rows):
        side["paths"] = [paths()[row] for row in rows]
    return side


def _class_counts(labels, target_names):
    counts = np.bincount(labels, minlength=len(target_names))
    return {name: int(count) for name, count in zip(target_names, counts, strict=True)}


def portable_paths(dataset):
    """Return the paths of all patches, relative to the data root or else to the folder that holds them all.

    Returns
    -------
    list of str
        With forward slashes.
    """
    paths = [str(path) for path in dataset.relative_paths]
    absolute = [path for path in map(Path, paths) if path.is_absolute()]
    if not absolute:
        return paths
    common = os.path.commonpath([path.parent for path in absolute])
    return [Path(path).relative_to(common).as_posix() if Path(path).is_absolute() else path for path in paths]


def describe_environment(device: str = "CPU") -> dict[str, Any]:
    """Return facts about the interpreter and the machine that a reader needs to reproduce a number.

    Parameters
    ----------
    device : str
        What the networks ran on, in words; only the caller knows.

    Returns
    -------
    dict
        Keys ``python``, ``platform``, ``cpu``, ``cores``, ``device``, ``packages`` (name -> version, installed ones).
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": joblib.cpu_count(),  # a container often may use fewer than the machine has
        "device": device,
        "packages": _versions(),
    }


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    named = re.search(r"^model name\s*:(.*\S)", text, re.MULTILINE)
    return named.group(1).strip() if named else platform.processor() or platform.machine()


def _versions():
    versions = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
