"""What studies share: what they find, their patients and pipelines, the data of tables and figures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import PatchDataset, load_idc, official_roles, parse_name, registered_patients
from histofeat.exceptions import check_name
from histofeat.features import FAMILIES, leave_out_unreadable, scratch_store
from histofeat.metrics import holm
from histofeat.model_selection import PatientKFold
from histofeat.models import HEADS, IDCPipeline
from histofeat.networks import best_encoder

#: The kind of a figure, and its data.
Figure = tuple[str, dict[str, Any]]

_HANDCRAFTED = ("color", "lbp", "haralick")
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in FAMILIES},
    "handcrafted": _HANDCRAFTED,
    "everything": (*_HANDCRAFTED, "cnn"),
    "with_histo": (*_HANDCRAFTED, "histo"),
}
"""Feature sets by name, each with its families: every family alone, and some together."""

QUICK_TREES = 50
_QUICK_PATIENTS, _QUICK_PATCHES = 24, 16


@dataclass(frozen=True)
class Findings:
    """What a study found: numbers, tables and the data of its figures.

    Parameters
    ----------
    results : Mapping
        Everything that the page says, for programs: "results" of ``metrics.json``.
    tables : Mapping of str to DataFrame
        By name; each becomes a CSV file.
    figures : Mapping of str to (str, Mapping)
        By name: the kind of figure ("intervals", "lines", "reliability", "confusion" or "costs") and its data.
    """

    results: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


# --- patients and pipelines ------------------------------------------------------------------------------------------


def find_idc(data: Path | Sequence[Path]) -> list[Path]:
    """Give the folders to load IDC from.

    Parameters
    ----------
    data : pathlib.Path, or sequence of them
        Folders of IDC patches; a folder that holds ``idc`` stands for that one.

    Returns
    -------
    list of pathlib.Path
        As `histofeat.datasets.load_idc` takes them.
    """
    folders = [data] if isinstance(data, Path) else data
    return [folder / "idc" if (folder / "idc").is_dir() else folder for folder in folders]


def load_development_patients(
    folder: Path | Sequence[Path], *, quick: bool = False, random_state: int = 0
) -> PatchDataset:
    """Load the IDC patches of all patients outside the official test set.

    Parameters
    ----------
    folder : pathlib.Path, or sequence of them
        The data set, or a folder that holds it as ``idc``; several folders are read as one data set.
    quick : bool, default=False
        Whether to take some patches of some patients only.
    random_state : int, default=0
        Seed of that choice.

    Returns
    -------
    PatchDataset

    Raises
    ------
    ValueError
        If no patch is outside the official test set.
    """
    return development_patients(load_idc(find_idc(folder)), quick=quick, random_state=random_state)


def development_patients(dataset: PatchDataset, *, quick: bool = False, random_state: int = 0) -> PatchDataset:
    """Leave the official test patients of IDC out of any data that hold them, known by names of files or by ids.

    Parameters, result and errors are those of `load_development_patients`, but for the data set itself.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=30, patches_per_patient=20)
    >>> len(development_patients(cohort)), len(development_patients(cohort, quick=True))
    (600, 384)
    """
    if not dataset.synthetic and registered_patients(dataset.patients, dataset.frame["path"]):
        test = {patient for patient, role in official_roles().items() if role == "test"}
        parts = [parse_name(re.split(r"[\\/]", path)[-1]) for path in dataset.frame["path"]]
        named = [part is not None and part.patient in test for part in parts]
        rows = np.flatnonzero(~(np.isin(dataset.patients.astype(str), list(test)) | named))
        if not rows.size:
            raise ValueError(
                f"{dataset.root}: expected patches outside the official test set, got only patients of that set. "
                "Give the whole data set: studies leave these patients alone."
            )
        dataset = dataset.subset(rows)
    if not quick:
        return dataset
    patients = dataset.patients.astype(str)
    chosen = np.random.default_rng(random_state).permutation(np.unique(patients))[:_QUICK_PATIENTS]
    few = [np.flatnonzero(patients == patient)[:_QUICK_PATCHES] for patient in chosen]
    return dataset.subset(np.sort(np.concatenate(few)))


def begin(options, runtime):
    """Load the patients that a study may look at, make the folds that its options ask for, and settle the runtime."""
    dataset = development_patients(options.open(), quick=options.quick, random_state=options.seed)
    dataset = dataset.with_positive_last()  # studies take code 1 as positive
    return leave_out_unreadable(dataset, PatientKFold(options.folds, random_state=options.seed), runtime)


@contextmanager
def with_store(runtime):
    """Give a runtime that has a feature store: its own, or one that is gone after the block."""
    with scratch_store(runtime.store) as store:
        yield replace(runtime, store=store)


def check_names(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that an option does not know, before the long work begins."""
    for name in names:
        check_name(where, name, known, "known names")


def make_pipelines(
    features: Sequence[str], heads: Sequence[str], *, weights: Path | None = None, network: Any = None, **settings: Any
) -> list[tuple[str, IDCPipeline]]:
    """Make a pipeline for every feature set and head.

    Parameters
    ----------
    features : sequence of str
        Names of `FEATURE_SETS`.
    heads : sequence of str
    weights : pathlib.Path, optional
        Folder of the network's weights.
    network : mapping, optional
        Parameters of the network; by default that of `histofeat.networks.best_encoder`.
    **settings
        ``n_trees``, of the heads that have some; ``random_state``.

    Returns
    -------
    list of (str, IDCPipeline)

    Raises
    ------
    ValueError
        If a name is unknown, or `weights` is no folder.
    """
    check_names("--features", features, FEATURE_SETS)
    check_names("--heads", heads, HEADS)
    if not any("cnn" in FEATURE_SETS[name] for name in features):
        network = {}
    params = network_params(weights, network)
    return [
        (name, make_pipeline(FEATURE_SETS[name], head, params=params, **settings))
        for name in dict.fromkeys(features)
        for head in dict.fromkeys(heads)
    ]


def make_pipeline(families, head, *, params, n_trees=None, random_state=0):
    """Make a pipeline; `params` are of the network, if it has one, and `n_trees` of a head that has trees."""
    return IDCPipeline(
        families,
        head,
        feature_params=params if "cnn" in families else None,
        head_params={"n_estimators": n_trees} if n_trees and head in ("xgboost", "random_forest") else None,
        random_state=random_state,
    )


def network_params(weights: Path | None = None, network: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the parameters of the network family: `network` or the best at hand, with its folder of weights."""
    if weights and not weights.is_dir():
        raise ValueError(f"--weights: expected a folder, got {str(weights)!r}. Correct the path.")
    params = {"cnn__encoder": best_encoder(weights)} if network is None else dict(network)
    if weights:
        params["cnn__weights_dir"] = str(weights.expanduser().resolve())
    return params


def pipelines_of(options, **changes):
    """Make the pipelines that the options of a study name; `changes` are other features, heads or columns."""
    settings = {"features": options.features, "heads": getattr(options, "heads", ["xgboost"]), **changes}
    more = {"n_trees": QUICK_TREES if options.quick else None, "random_state": options.seed}
    if (columns := settings.pop("columns", getattr(options, "columns", None))) is not None:
        return [(columns.name, make_pipeline([columns], head, params=None, **more)) for head in settings["heads"]]
    return make_pipelines(**settings, weights=options.weights, **more)


def describe_dataset(dataset) -> dict[str, Any]:
    """Describe a data set by its audit, its labels, and whether it is synthetic."""
    audit = dataset.audit.to_dict()
    return {**audit, "synthetic": bool(dataset.synthetic), "labels": list(dataset.target_names), "audit": audit}


# --- tables and figures ----------------------------------------------------------------------------------------------


def flat_table(rows, *, short=True) -> pd.DataFrame:
    """Make a table of nested rows: one number a column, an interval becomes two.

    Parameters
    ----------
    rows : sequence of Mapping
        Nested mappings get names joined by underscores; bins and curves are left out.
    short : bool, default=True
        Whether the ends of ``x_ci95`` are called ``x_low`` and ``x_high``, not ``x_ci95_low`` and ``x_ci95_high``.

    Examples
    --------
    >>> flat_table([{"name": "lbp", "auc": {"value": 0.8, "ci95": [0.7, 0.9]}}]).columns.tolist()
    ['name', 'auc_value', 'auc_low', 'auc_high']
    """
    table = pd.DataFrame([dict(_flat(row)) for row in rows])
    return table.rename(columns=lambda name: name.replace("ci95_", "")) if short else table


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Add "p_holm" to a table: its p-values, adjusted for their number; NaN where there is none."""
    compared = table["p"].notna()
    table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"].to_numpy())
    return table


def _flat(row, prefix=""):
    for name, value in row.items():
        if isinstance(value, Mapping):
            if name not in ("curve", "bins"):
                yield from _flat(value, f"{prefix}{name}_".replace("calibration_", ""))
        elif name.endswith("ci95"):
            yield from zip((f"{prefix}{name}_low", f"{prefix}{name}_high"), value, strict=True)
        elif name != "bins":
            yield f"{prefix}{name}", value


def bars(
    title: str, x_label: str, table: pd.DataFrame, value: str, name: str, group: str = "", reference: float | None = 0.0
) -> Figure:
    """Make the data of a figure of values with their intervals, one row of a table each.

    Parameters
    ----------
    title, x_label : str
    table : DataFrame
        With the ends of the interval of a column ``x`` in ``x_low`` and ``x_high``, or else in ``low`` and ``high``.
    value : str
        The column that is drawn.
    name : str
        What a row is called, such as "{name}, {head}", from its columns.
    group : str, optional
        The column that gives the colour.
    reference : float or None, default=0.0
        Where to draw a line.

    Returns
    -------
    kind, data : str, dict
    """
    low, high = (f"{value}_{end}" if f"{value}_{end}" in table else end for end in ("low", "high"))
    rows = [
        {"name": name.format(**row), "value": row[value], "low": row[low], "high": row[high], "group": row.get(group)}
        for row in table.to_dict("records")
    ]
    return "intervals", {"title": title, "x_label": x_label, "reference": reference, "rows": rows}


def lines(
    title: str, table: pd.DataFrame, panel: str, name: str, x: str, y: str, *, ends: Sequence[str] = (), **axes: Any
) -> Figure:
    """Make the data of a figure of lines: a panel for each value of one column, in it a line for each of another.

    Parameters
    ----------
    title : str
    table : DataFrame
        One row a point.
    panel, name, x, y : str
        Columns: of the panel, of the line, and of the place of the point.
    ends : sequence of str
        Columns of the band around a line: "low" and "high", or none.
    **axes
        Of the figure: ``x_label``, ``y_label``, and ``x_log`` where x is logarithmic.

    Returns
    -------
    kind, data : str, dict
    """
    panels = []
    for words, its in table.sort_values(x, kind="stable").groupby(panel, sort=False):
        columns = {"x": x, "y": y, **{end: end for end in ends}}
        drawn = [
            {"name": line} | {axis: points[column].tolist() for axis, column in columns.items()}
            for line, points in its.groupby(name, sort=False)
        ]
        panels.append({"title": words, "lines": drawn})
    return "lines", {"title": title, **axes, "panels": panels}
