"""Load embeddings, one row a patch, from tables, arrays, HDF5 and AnnData; match rows to patches."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets._audit import DatasetAudit, LeftOut
from histofeat.datasets._base import PatchDataset, check_rows, match_rows
from histofeat.datasets._csv_rows import candidates
from histofeat.datasets._patients import COST_OF_NO_PATIENTS, EACH_IMAGE, PATIENTS_UNKNOWN, find_patients
from histofeat.datasets._positive_class import class_mapping, in_order, mapped_positive
from histofeat.datasets._shards import holds_shards, open_shards
from histofeat.datasets._writing import check_hdf5, regular_size
from histofeat.exceptions import DAMAGED, DatasetError, counted, first_line, needs
from histofeat.model_selection import canonical_patients

#: Endings that are read, and what to do with tensors, which are not.
_ENDINGS = (".h5", ".hdf5", ".h5ad", ".npz", ".parquet", ".csv", ".tsv")
_CONVERT = "Tensors of PyTorch (.pt) are converted first, by torch.load and numpy.savez: a row for each path."
#: Columns of text, and how else eva calls them; with the numbers behind them, what is no feature.
_TEXTS = ("path", "label", "patient", "slide", "part", "truth")
_OF_EVA = {"origin": "path", "slide_id": "slide", "wsi_id": "slide", "multi_id": "slide", "split": "part"}
_KEYS = (*_TEXTS, "x", "y", "label_code", "fold", "height", "width")
_PLACES = ("coords", "coordinates", "spatial")
_MATRICES = ("features", "feats", "embeddings", "x")
#: Names of numbers that are facts of a patch: as features, most of them tell the label.
_FACT = re.compile(
    r"(?i)(.*[\W_])?(y_?true|y_?pred|true|truth|targets?|labels?|outcome|diagnosis|ids?|idx|index|fold|split)([\W_].*)?"
    r"|(.*[\W_])?(patient|case|slide|tile|patch)s?([\W_]?(id|no|nr|number|index))?"
)


def load_embeddings(
    path: str | os.PathLike[str],
    *,
    patients: Any = None,
    labels: Any = None,
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    name: str | None = None,
) -> PatchDataset:
    r"""Read embeddings of patches as a data set with columns instead of images.

    Parameters
    ----------
    path : path or URL
        A table (Parquet, CSV, TSV) with one row a patch: a column for each feature, or one of lists; and what it knows
        of ``path``, ``label``, ``patient``, ``slide``, ``x``, ``y`` and ``part``. Or arrays (NPZ, HDF5, ``.h5ad`` of
        AnnData): one matrix, coordinates, and one value a row for the same names. Or a folder or a pattern
        (``uni/*.h5``) of such files, each of one slide, as TRIDENT (``features``, ``coords``) and STAMP (``feats``,
        ``coords``) write it; or of shards, see `histofeat.features.open_features`; or a table with eva's names
        (``origin``, ``target``, ``split``). HDF5 and URLs, such as ``s3://bucket/uni/*.h5``, need the extra
        "embeddings". Tensors of PyTorch (``.pt``), also those that eva's ``manifest.csv`` names, are converted first,
        by ``torch.load`` and ``numpy.savez``: a row for each path.
    patients : str, path or mapping, optional
        By default the column ``patient``. Else a rule for the keys of the rows, or for the slides where there are no
        paths: a regular expression, "folder", "tcga", "image", a CSV or a mapping, see `find_patients`.
    labels : path, DataFrame, mapping or PatchDataset, optional
        By default the column ``label``. Else a table, in a file or not, with a column ``label`` and one of ``path``,
        ``slide`` and ``patient``; a mapping of path to label; or a data set of the same patches, whose rows, labels and
        patients are taken over: the file may hold more.
    classes : sequence of str, mapping of str to str, or str, optional
        Labels in the order of their codes; label to class name; or a text such as ``"normal,tumour=idc+ilc"``. Rows
        with another label are left out.
    positive : str, optional
        The positive class of two; by default the name that tells, see `choose_positive`.
    name : str, optional
        Name of the data set, or of the columns of `labels`, if that is one; by default that of the file.

    Returns
    -------
    PatchDataset
        With ``columns`` (n, d); its ``X`` are keys: paths where there are some, else slide and place.

    Raises
    ------
    DatasetError
        When a file cannot be read or has no matrix; when files or arrays disagree; when a patch is there twice, lacks a
        label or a patient, or a value is not finite. The message names the first.
    MissingExtraError
        When the package that reads the file is not installed.

    Notes
    -----
    STAMP's coordinates are in micrometres; here they are rounded to whole ones.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> table = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["benign", "tumour"], "patient": [7, 9]})
    >>> file = Path(mkdtemp()) / "mine.csv"
    >>> table.assign(f0=[0.5, 1.5], f1=[2.0, 3.0]).to_csv(file, index=False)
    >>> embeddings = load_embeddings(file)
    >>> embeddings, embeddings.columns.shape
    (PatchDataset('mine', 2 patches of 2 patients: 1 benign, 1 tumour), (2, 2))
    """
    if holds_shards(Path(path)):
        opened = open_shards(Path(path))
        if patients is None and labels is None:
            return replace(opened, name=name or opened.name).with_classes(classes, positive)
        columns, table = opened.columns, opened.frame.assign(label=np.array(opened.target_names)[opened.y])
    else:
        columns, table = _joined(_files(os.fspath(path)))
    name, named = name or Path(os.fspath(path)).stem, "path" if "path" in table else "slide"
    others = ", ".join(column for column in table if column not in _KEYS) or "none"
    note = f"Embeddings: {name}, {counted(columns.shape[1], 'column')}, {columns.columns[0]} to {columns.columns[-1]}; "
    note += f"columns that are no features: {others}"
    if named == "slide":
        place = "_x" + table["x"].astype(str) + "_y" + table["y"].astype(str)
        number = "_" + table.groupby("slide").cumcount().astype(str)
        table["path"] = table["slide"] + place.where(table["x"].notna(), number)
    if patients is not None:
        table["patient"] = find_patients(patients, table[named])
    if isinstance(labels, PatchDataset):
        rows = match_rows(table, labels.frame, str(path))
        note += f"; rows of other patches: {len(table) - len(rows):,}."
        audit = replace(labels.audit, notes=(*labels.audit.notes, note))
        columns = columns.take(rows).reset_index(drop=True).rename_axis(columns=name)
        return replace(labels, columns=columns, images=None, audit=audit)
    if "patient" not in table:
        raise DatasetError(
            f"load_embeddings.patients: expected a rule, since {path} has no column patient, got None. "
            f'{COST_OF_NO_PATIENTS} Give patients="tcga", an expression such as r"^([0-9]+)_", or a CSV.'
        )
    table["label"] = _labels(table, labels, f"load_embeddings.labels, {path}")
    notes = (PATIENTS_UNKNOWN,) if isinstance(patients, str) and patients == EACH_IMAGE else ()
    return labelled(table, classes, name, columns, (*notes, f"{note}.")).with_classes(None, positive)


def labelled(table: pd.DataFrame, classes: Any, name: str, columns: Any, notes: Any = (), images: Any = None):
    """Make the data set of a table whose labels are text; rows of other classes are left out."""
    class_of = class_mapping("classes", classes or in_order(table["label"].unique().tolist()), 2)
    kept, names = table["label"].isin(list(class_of)).to_numpy(), tuple(dict.fromkeys(class_of.values()))
    left_out = LeftOut.group(("has a label that is not in classes=", key) for key in table["path"][~kept])
    frame = table[kept].reset_index(drop=True)
    frame["label"] = frame["label"].map(class_of).map(names.index)
    audit = DatasetAudit.from_frame(frame, names, name, left_out=left_out, notes=notes)
    columns = None if columns is None else columns.take(np.flatnonzero(kept)).reset_index(drop=True)
    positive = mapped_positive(class_of)
    return PatchDataset(frame, names, name, None, audit, columns=columns, images=images, positive=positive)


def dataset_of(X: Any, y: Any, groups: Any = None, *, name: str = "arrays") -> PatchDataset:
    """Make a data set of arrays.

    Parameters
    ----------
    X : DataFrame or array of shape (n, d), sequence of paths, array of shape (n, H, W, 3), or list of images
        Numbers become its columns, a column ``path`` its images.
    y : array-like of shape (n,)
        Labels; their text names the classes, numbers and then names in ascending order.
    groups : array-like of shape (n,)
        Patients.
    name : str, default="arrays"

    Returns
    -------
    PatchDataset

    Raises
    ------
    ValueError
        If lengths differ, there are no patients, or a label, a patient or a number is missing.

    Examples
    --------
    >>> dataset_of([[0.5], [1.5]], [0, 1], ["a", "b"]).target_names
    ('0', '1')
    """
    X = list(X["path"]) if "path" in getattr(X, "columns", ()) else X
    lengths = [len(part) for part in (X, y, () if groups is None else groups)]
    if len(set(lengths)) > 1:
        raise DatasetError(f"(X, y, groups): expected one label and patient a row, got {lengths} values. Align them.")
    table = pd.DataFrame({"label": canonical_patients(y), "patient": canonical_patients(groups)}).assign(
        x=pd.NA, y=pd.NA
    )
    table["path"], first, columns, images = table.index.astype(str), X if hasattr(X, "columns") else X[0], None, None
    if hasattr(X, "columns") or np.ndim(first) == 1:
        columns = pd.DataFrame(X).rename(columns=str).astype(np.float32).reset_index(drop=True)
    elif isinstance(first, str | os.PathLike):
        table["path"] = [os.fspath(path) for path in X]
    else:
        images = X if isinstance(X, np.ndarray) else np.fromiter(X, dtype=object, count=len(y))
    check_rows(table["label"] == "", table.index, "y: expected a label for each row, got none in row", "Add it.")
    return labelled(table, None, name, columns, images=images)


def holds_embeddings(place: Path) -> bool:
    """Whether a file is embeddings by its ending, or a folder by those of its files.

    A CSV file is, if most of its columns are numbers that can only be features, and its first row names no image that
    is there.
    """
    if place.suffix.lower() not in _ENDINGS[-2:] or not place.is_file():
        # Tensors count too: the loader says how they are converted.
        found = any(file.suffix.lower() in (*_ENDINGS[:-2], ".pt") for file in (place, *place.glob("*")))
        return found or holds_shards(place)
    with suppress(*DAMAGED):  # its loader says what is wrong
        first = read_table(place, 1)
        features = first.drop(columns=[*_KEYS], errors="ignore").select_dtypes("number")
        there = any((place.parent / str(path)).is_file() for path in first.get("path", ()))
        return 2 * features.shape[1] > first.shape[1] and not there
    return False


def _package(name: str, ending: str) -> Any:
    extra = "histofeat[embeddings]" if name in ("h5py", "fsspec") else name
    with needs(extra, f"embeddings, {ending}: expected the package {name}"):
        return import_module(name)


def _files(path: str) -> list[Path]:
    """Give the files that a path, a folder, a pattern or a URL stands for."""
    place, found = Path(path).expanduser(), []
    if "://" in path:
        opened = _package("fsspec", path)
        with suppress(OSError, ValueError):  # there is no such file
            found = np.atleast_1d(opened.open_local(f"simplecache::{path}", simplecache={"same_names": True})).tolist()
    elif not place.is_file():
        patterns = [f"*{ending}" for ending in _ENDINGS] if place.is_dir() else [place.name]
        folder = place if place.is_dir() else place.parent
        found = next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])
    found = [place] if place.is_file() else found
    if not found:
        expected = f"{path}: expected embeddings ({', '.join(_ENDINGS)})"
        raise DatasetError(f"{expected}, got no such file. Correct the path. {_CONVERT}")
    return [Path(file) for file in found]


def _joined(files: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read files and put them below each other: features, and what else is known of each patch."""
    tables = [read_table(file).copy().assign(file=str(file)) for file in files]  # a copy has its columns together
    plain = [table.drop(columns=[*_KEYS, "file"], errors="ignore") for table in tables]
    features = [_features(table, str(file)) for table, file in zip(plain, files, strict=True)]
    odd = [one.empty or list(one) != list(features[0]) for one in features]
    expected = f"{files[0]}: expected a column of numbers for each feature, the same in all files, got others in"
    check_rows(odd, map(str, files), expected, "Write one row a patch, by one encoder.")
    table = pd.concat([one.drop(columns=list(features[0])) for one in tables], ignore_index=True)
    stem = table.pop("file").map(lambda file: Path(file).stem)
    table["slide"] = table.get("slide", table.get("patient", stem)).astype(str)
    table[["x", "y"]] = table.reindex(columns=["x", "y"]).apply(pd.to_numeric, errors="coerce").round().astype("Int64")
    return pd.concat(features, ignore_index=True).astype(np.float32), table


def _features(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Columns of numbers; refused is one that is a fact by its name, or has a name of its own beside numbered ones."""
    numbers = table.select_dtypes("number")
    texts = [name for name in table.select_dtypes(exclude=["number", "bool"]) if not _FACT.fullmatch(str(name))]
    cells = table[texts].apply(lambda column: column.astype(str).str.replace(",", "."))
    mostly = [pd.to_numeric(cells[name], errors="coerce").notna().mean() > 0.5 for name in cells]
    expected = f"{where}: expected a number in each cell of a column of features, got text in"
    check_rows(mostly, texts, expected, "Correct its cells, with a point for decimals, or drop the column.")
    names = [str(name) for name in numbers]
    words = [re.match(r"[^\W\d_]*", name)[0].lower() for name in names]
    numbered = [name[-1:].isdecimal() for name in names]
    lone = [sum(numbered) > 1 and not at and words.count(word) == 1 for at, word in zip(numbered, words, strict=True)]
    odd = [alone or _FACT.fullmatch(name) for alone, name in zip(lone, names, strict=True)]
    remedy = "Drop the column, or, if it is a feature, name it as the others."
    check_rows(odd, names, f"{where}: expected only features in columns of numbers, got", remedy)
    return numbers


def read_table(file: Path, n_rows: int | None = None, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table with one row a patch under the names that columns have here; `texts` are more columns of text.

    Of a CSV file at most `n_rows`.

    Raises
    ------
    DatasetError
        When it cannot be read, has no matrix where it is made of arrays, or two columns of one name.
    """
    try:
        content = _content(file, file.suffix.lower(), n_rows, texts)
        table = content if isinstance(content, pd.DataFrame) else _from_arrays(content)
        table = table.reset_index(drop=True)  # rows are joined by it
        for name in [name for name in table if len(table) and isinstance(table[name].iloc[0], list | np.ndarray)]:
            table = table.drop(columns=name).join(pd.DataFrame(table[name].tolist()).add_prefix(f"{name}_"))
    except DAMAGED as error:
        got = f"{file}: expected a table, or one matrix and its rows, got: {first_line(error)[:200]}"
        remedy = f"Write it as one of {', '.join(_ENDINGS)}. {_CONVERT}"
        raise DatasetError(f"{got}. {'Correct the path.' if isinstance(error, OSError) else remedy}") from error
    return own_names(table, file)


def _content(file: Path, ending: str, n_rows: int | None, more: Sequence[str]) -> Any:
    """Give a table, or arrays by their names."""
    if ending == ".parquet":
        table = pd.read_parquet(file)
        return table if table.index.name is None else table.reset_index()
    if ending == ".npz":
        return dict(np.load(file, allow_pickle=False))
    if ending == ".h5ad":
        found = _package("anndata", ending).read_h5ad(file)
        matrix = found.X.toarray() if hasattr(found.X, "toarray") else found.X
        return {"path": found.obs_names, **{name: found.obs[name] for name in found.obs}, "X": matrix, **found.obsm}
    if ending in (".h5", ".hdf5"):
        package = _package("h5py", ending)
        check_hdf5(file, regular_size(file))
        with package.File(file) as opened:
            return {name: item[()] for name, item in opened.items() if isinstance(item, package.Dataset)}
    if ending not in _ENDINGS:
        raise ValueError(f"the ending {ending!r}")
    with file.open(encoding="utf-8-sig") as opened:
        header = opened.readline().strip()
    divider = max(",;\t", key=header.count)
    texts = [name for name in header.replace('"', "").split(divider) if name in more or _own_name(name) in _TEXTS]
    table = pd.read_csv(file, sep=divider, dtype=dict.fromkeys(texts, str), encoding="utf-8-sig", nrows=n_rows)
    if table.get("embeddings", pd.Series(dtype=str)).astype(str).str.endswith(".pt").any():
        raise ValueError("names of tensors (.pt), as eva writes them")
    return table


def _from_arrays(arrays: Mapping[str, Any]) -> pd.DataFrame:
    """Put arrays of one length side by side as a table."""
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    arrays = {name: values[0] if values.ndim == 3 and len(values) == 1 else values for name, values in arrays.items()}
    matrices = [name for name, values in arrays.items() if values.ndim == 2 and name.lower() not in _PLACES]
    if not matrices:
        raise ValueError(", ".join(f"{name} of shape {values.shape}" for name, values in arrays.items()) or "no array")
    known = [name for name in matrices if name.lower() in _MATRICES]  # beside it may be others, such as components
    if len(matrices) > 1 and len(known) != 1:
        raise ValueError(f"the matrices {', '.join(matrices)}; call the one to read features, and none beside it feats")
    (chosen,) = known or matrices
    table = pd.DataFrame(arrays[chosen]).add_prefix(f"{chosen}_")
    for name, values in arrays.items():
        if (values.ndim == 1 or name.lower() in _PLACES) and len(values) != len(table):
            raise ValueError(f"{len(table):,} rows of {chosen!r} and {len(values):,} of {name!r}")
        if name.lower() in _PLACES:
            table["x"], table["y"] = values[:, 0], values[:, 1]
        elif values.ndim == 1:
            table[name] = [one.decode() if isinstance(one, bytes) else one for one in values]
    return table


def _own_name(name: Any) -> Any:
    plain = str(name).strip().lower()
    return _OF_EVA.get(plain) or next((own for own in _TEXTS if candidates(own, [str(name)])), name)


def own_names(table: pd.DataFrame, where: Any) -> pd.DataFrame:
    """Give columns the names that they have here, such as ``path`` for "filename"; drop the numbers of rows."""
    table = table.loc[:, [not str(name).startswith(("Unnamed:", "__index")) for name in table]].copy()
    names = pd.Index([_own_name(name) for name in table])
    check_rows(names.duplicated(), names, f"{where}: expected one column for each name, got again", "Rename one.")
    table = table.set_axis(names, axis=1).reset_index(drop=True)
    numbers = table[names.intersection(_TEXTS)].select_dtypes(["number", "bool"])
    return table.assign(**{name: canonical_patients(numbers[name]) for name in numbers})


def _labels(table: pd.DataFrame, labels: Any, where: str) -> np.ndarray:
    """Give the label of each row as text, from a column, a mapping or another table."""
    if isinstance(labels, Mapping):
        labels = pd.DataFrame({"path": list(labels), "label": list(labels.values())})
    elif labels is not None:
        labels = own_names(labels, where) if isinstance(labels, pd.DataFrame) else read_table(Path(labels).expanduser())
    other = table if labels is None else labels
    by = next((name for name in ("path", "slide", "patient") if name in other and name in table), None)
    known, found = canonical_patients(other.get("label", [""] * len(other))), np.full(len(table), "", dtype=object)
    if labels is None:
        found = known
    elif by == "path":
        found = known[match_rows(other, table, where)]
    elif by is not None:
        pairs = pd.DataFrame({"key": canonical_patients(other[by]), "label": known}).drop_duplicates()
        twice = pairs["key"].duplicated()
        check_rows(twice, pairs["key"], f"{where}: expected one label for each {by}, got two for", "Correct one.")
        found = pd.Series(canonical_patients(table[by])).map(pairs.set_index("key")["label"]).fillna("").to_numpy()
    expected = f"{where}: expected a label for each patch, got none for"
    check_rows(found == "", table["path"], expected, 'Add a column label, or a table of them, labels="labels.csv".')
    return found
