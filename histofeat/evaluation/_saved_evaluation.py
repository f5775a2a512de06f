"""Keep evaluations and finished fits on disk without pickle: records as JSON, arrays beside it, in one archive.

An archive holds ``record.json`` and arrays as ``0.npy``, ``1.npy`` and so on, none of them compressed, each with the
checksum of the archive. A value of JSON stands for itself; everything else is a mapping with one key, its kind.
"""

import json
import math
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import joblib
import numpy as np
import pandas as pd

import histofeat
from histofeat.datasets import (
    BreakHisAudit,
    DatasetAudit,
    FullSet,
    LeftOut as FilesLeftOut,
    PatchDataset,
    PatientRule,
    read_array,
    read_members,
    regular_size,
    write_whole,
)
from histofeat.evaluation._results import Evaluation, LeftOut, ModelResult, NotRun
from histofeat.evaluation.audit._encoders import walk
from histofeat.evaluation.audit._findings import AuditReport, Finding
from histofeat.exceptions import DAMAGED
from histofeat.metrics import Bootstrap, Score
from histofeat.model_selection import encode_patients
from histofeat.models import ImagePredictions

#: Version of the format. Raise it when an older histofeat could misread a newer file.
_VERSION = 1
_RECORD = "record.json"
#: The only classes that a file can name. Names are part of the format, wherever a class moves to.
_CLASSES = {kind.__name__: kind for kind in (Evaluation, ModelResult, NotRun, LeftOut, AuditReport, Finding, Score)}
_CLASSES |= {kind.__name__: kind for kind in (Bootstrap, PatchDataset, PatientRule, DatasetAudit, BreakHisAudit)}
_CLASSES |= {"FullSet": FullSet, "FilesLeftOut": FilesLeftOut, "ImagePredictions": ImagePredictions}
_NAMES = {kind: name for name, kind in _CLASSES.items()}
#: Packages that fits stand on: as they are imported, and as they are installed.
_IMPORTED = {"histofeat", "numpy", "scipy", "sklearn", "xgboost", "keras", "tensorflow", "torch"}
_INSTALLED = ("numpy", "scipy", "scikit-learn", "xgboost", "xgboost-cpu", "keras", "tensorflow", "torch")


def save_evaluation(evaluation: Evaluation, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write an evaluation as one file, from which `write_report` can be called later, on another machine too.

    Parameters
    ----------
    evaluation : Evaluation
        As `evaluate` returns it.
    path : path
        The file, by custom ``*.evaluation``; its folder is made. It names every image and patient.
    overwrite : bool, default=False
        Whether to replace a file that exists.

    Returns
    -------
    path : Path

    Raises
    ------
    FileExistsError
        If the file exists, without `overwrite`.
    OSError
        If it cannot be written; nothing half-written is left.

    Notes
    -----
    Intervals are kept as resamples. What an `Evaluation` computes on first use (``calibration``, ``comparison``,
    ``details`` and others) is computed again from the probabilities and seeds, to the same numbers.

    Examples
    --------
    >>> import tempfile
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.evaluation import evaluate
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 50}
    >>> evaluation = evaluate(cohort, IDCPipeline(features="color", head="logistic"), **folds)
    >>> path = save_evaluation(evaluation, Path(tempfile.mkdtemp()) / "mine.evaluation")
    >>> load_evaluation(path).models[0].thresholds == evaluation.models[0].thresholds
    True
    """
    _write(Path(path), "evaluation", evaluation, overwrite=overwrite, other=str)
    return Path(path)


def load_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Read an evaluation that `save_evaluation` wrote; no code in the file is run.

    Parameters
    ----------
    path : path

    Returns
    -------
    evaluation : Evaluation
        Equal in everything that a report shows. Its images stay where they were.

    Raises
    ------
    ValueError
        If there is no such file, it is no evaluation, is damaged, or was written by a histofeat with other fields.
    """
    return _read(Path(path), "evaluation")


def _write(path: Path, kind: str, value: Any, *, overwrite: bool, other: Callable | None = None) -> None:
    arrays: list[np.ndarray] = []
    record = {"format": f"histofeat {kind}", "format_version": _VERSION, "histofeat": histofeat.__version__}
    text = json.dumps({**record, "value": _pack(value, arrays, other)}, allow_nan=False)
    with write_whole(path, overwrite=overwrite, parents=True) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(_RECORD, text)
        for number, array in enumerate(arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read(path: Path, kind: str) -> Any:
    try:
        # Without compression no file takes more memory than it is long.
        members = read_members(path, regular_size(path))
        record = json.loads(members[_RECORD])
        found = record["format"], record["format_version"]
        if found != (f"histofeat {kind}", _VERSION):
            raise ValueError(f"{found[0]!r:.40} in format {found[1]!r:.20} of {record.get('histofeat')!r:.20}")
        return _unpack(record["value"], lambda number: read_array(members[f"{int(number)}.npy"]))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected the file of a saved {kind}, got no such file. Correct the path.") from error
    except DAMAGED as error:
        raise ValueError(
            f"{path}: expected a whole {kind} of format {_VERSION}, got: {error!s:.200}. Copy the file again, use the "
            "histofeat that wrote it, or evaluate again."
        ) from error


def _pack(value: Any, arrays: list, other: Callable | None) -> Any:
    """Give a value as JSON; arrays of numbers are appended to `arrays`. `other` turns what has no form into JSON."""

    def pack(items):
        return [_pack(item, arrays, other) for item in items]

    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if value is pd.NA or isinstance(value, float):
        return {"number": str(value)}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple | np.ndarray):
        return {next(kind.__name__ for kind in (list, tuple, np.ndarray) if isinstance(value, kind)): pack(value)}
    if isinstance(value, Mapping):
        return {"dict": [pack(pair) for pair in value.items()]}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(value, pd.DataFrame):
        # Text has a type of its own in each version of pandas.
        kinds = {name: "object" if kind == "str" else str(kind) for name, kind in value.dtypes.items()}
        return {"frame": [pack((name, kinds[name], value[name].astype(object).tolist())) for name in value]}
    if type(value) in _NAMES:
        large = ("columns", "images") if isinstance(value, PatchDataset) else ()  # as large as the data
        kept = [field for field in fields(value) if field.name not in large]
        return {_NAMES[type(value)]: {field.name: pack([getattr(value, field.name)])[0] for field in kept}}
    if other is None:
        raise TypeError(f"{type(value).__name__} has no form on disk")
    return other(value)


def _unpack(value: Any, array: Callable[[int], np.ndarray]) -> Any:
    """Give back what `_pack` was given; `array` reads one by its number."""

    def unpack(items):
        return [_unpack(item, array) for item in items]

    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind in _CLASSES:
        unknown = set(inner) - {field.name for field in fields(_CLASSES[kind])}
        if unknown:
            raise ValueError(f"a field {min(unknown)!r} of {kind} that is not known here")
        return _CLASSES[kind](**dict(zip(inner, unpack(inner.values()), strict=True)))
    makers = {
        "array": array,
        "number": lambda text: pd.NA if text == "<NA>" else float(text),
        "list": unpack,
        "tuple": lambda items: tuple(unpack(items)),
        "ndarray": lambda items: np.array(unpack(items), dtype=object),
        "dict": lambda pairs: dict(map(unpack, pairs)),
        "path": Path,
        "frame": lambda columns: pd.DataFrame({n: pd.Series(v, dtype=d) for n, d, v in map(unpack, columns)}),
    }
    return makers[kind](inner)


def result_file(run: Any, fold: int, part: Any, *known: Any) -> Path | None:
    """Give the file of a result of one fold, named by a hash of all that the result depends on.

    Parameters
    ----------
    run : Run
        ``run.runtime.fits`` is the folder; rows of the fold, labels and patients are part of the name.
    fold : int
    part : estimator
        What is fitted; its parameters are part of the name.
    *known : object
        What else the result depends on, such as hashes of features.

    Returns
    -------
    file : Path or None
        None without a folder, where `part` has no lasting form, such as a lambda, and where code of others is in it:
        what that imports and reads may change unseen.
    """
    if not run.runtime.fits or _is_foreign(part):
        return None
    try:
        inner = list(run.inner[fold].split(run.splits[fold][0]))
        ids, codes = encode_patients(run.patients, len(run.y), "dataset.patients")
        rows = run.splits[fold], inner, run.y, np.array(ids), codes, len(run.dataset.target_names)
        key = joblib.hash((part, known, rows, _library()))
    except (AttributeError, TypeError, pickle.PicklingError):
        return None
    return run.runtime.fits / f"{key}.fit"


def take_up(file: Path | None, work: Callable[[], Any]) -> Any:
    """Give what is kept in a file; where there is nothing whole of this name, do the work and keep what it gives.

    Parameters
    ----------
    file : Path or None
        Its name has to say everything that the result depends on; None keeps nothing. A damaged file, one of another
        name or of another version counts as none. Its folder is made.
    work : callable
        Gives numbers, text, arrays, records of an evaluation, and lists, tuples and mappings of these; anything else
        is not kept.

    Returns
    -------
    result : object
        The same to the last bit, whether it was kept or not.

    Warns
    -----
    UserWarning
        If the disk is full or read-only; the run goes on.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "of-three.kept"
    >>> take_up(file, lambda: 1 / 3) == take_up(file, lambda: "not called")
    True
    """
    if file is None:
        return work()
    with suppress(ValueError, TypeError):
        name, result = _read(file, "result")
        if name == file.name:
            return result
    result = work()
    try:
        with suppress(TypeError):  # such as a parameter that was chosen from objects
            _write(file, "result", (file.name, result), overwrite=True)
    except OSError as error:
        words = f"expected a folder that can be written, got: {os.strerror(error.errno) if error.errno else error}."
        more = "What is done is not kept there, and the run goes on."
        warnings.warn(f"{file.parent}: {words} {more}", stacklevel=2)
    return result


@cache
def _library() -> str:
    """Hash the code of this package, with the versions of those that numbers depend on."""
    known = [file.read_bytes() for file in sorted(Path(histofeat.__file__).parent.rglob("*.py"))]
    for name in _INSTALLED:
        with suppress(metadata.PackageNotFoundError):
            known.append(f"{name} {metadata.version(name)}")
    return joblib.hash(known)


def _is_foreign(part: Any) -> bool:
    """Whether an estimator holds code that is in no known package."""
    named = [each for _, inner in walk(part, "") for each in (inner, *type(inner).__mro__)]
    modules = {name for each in named if isinstance(name := getattr(each, "__module__", None), str)}
    return not {name.partition(".")[0] for name in modules} <= _IMPORTED | sys.stdlib_module_names - {"__main__"}
