"""Anything that a result holds -> JSON that every parser reads: no NaN, no Infinity, no numpy, no machine paths."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

__all__ = ["dump", "jsonable", "load"]


def jsonable(value):
    """Plain Python values with the content of `value`.

    Parameters
    ----------
    value : object
        Dataclasses and mappings become dicts (their order is kept), sequences and arrays lists, data frames lists
        of records, paths their last component, NaN and infinities None. Anything else becomes its ``str``.

    Returns
    -------
    dict, list, str, int, float, bool or None

    Examples
    --------
    >>> jsonable({"auc": float("nan"), "ci95": (0.5, 1)})
    {'auc': None, 'ci95': [0.5, 1]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or isinstance(value, str | bool | int):
        return None if value is pd.NA else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, pd.DataFrame):
        return [jsonable(record) for record in value.to_dict(orient="records")]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, pd.Series):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value)


def dump(payload, path):
    """Write `payload` to the file `path`, in UTF-8, indented, key order kept.

    Parameters
    ----------
    payload : object
        Passed through `jsonable`.
    path : path-like
        The file; an existing one is replaced.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = Path(path)
    text = json.dumps(jsonable(payload), indent=1, allow_nan=False, ensure_ascii=False)
    # A list of numbers on one line: a matrix reads as one. Strings never hold a raw line break, so none is touched.
    text = re.sub(r'\[\n[^\[\]{}"]*\]', lambda numbers: f"[{' '.join(numbers.group()[1:-1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def load(path):
    """Return what the JSON file `path` holds; an empty dict where that is no JSON object."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
