"""A split by its names alone: from tables, JSON, lists of ids, dsfold files, CLAM's files, folders; published ones."""

from __future__ import annotations

import io
import json
import os
import re
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets._base import PatchDataset, check_rows
from histofeat.datasets._csv_rows import candidates, table_text
from histofeat.datasets._idc import STEM
from histofeat.datasets._image_files import IMAGE_SUFFIXES, is_image_name, walk_files
from histofeat.datasets._parts import PARTS, part_named
from histofeat.datasets._patients import COST_OF_NO_PATIENTS, EACH_IMAGE, find_patients, patients_by_name
from histofeat.datasets._positive_class import in_order
from histofeat.datasets.breakhis._tree import SLIDE
from histofeat.exceptions import DAMAGED, DatasetError, and_more, check_name, first_line, refuse_first
from histofeat.model_selection import canonical_patients

KEYS = ("path", "slide", "patient")
_SUFFIX = re.compile(rf"\.(?i:{'|'.join(suffix.lstrip('.') for suffix in IMAGE_SUFFIXES)})$")
_PLACE = re.compile(r"(?:^|[_/-])x[_-]?(\d+)[_-]?y[_-]?(\d+)")
_CLASSES = {"0": "no IDC", "1": "IDC", "B": "benign", "M": "malignant"}
_IDC_SIZE = 50
_PUBLISHED = Path(__file__).with_name("published_splits.toml")
#: What columns of a split are called; those of `candidates` count as well.
_COLUMNS = {
    "path": "image_id patch_path tile tile_path tile_id name id images paths files", "patient": "patients cases",
    "slide": "slide slide_id slide_name wsi wsi_id slides", "label": "labels",
    "part": "part split subset set partition phase role usage data_split", "fold": "fold folds kfold k_fold cv_fold",
    "x": "x coord_x x_coord", "y": "y coord_y y_coord", "size": "size patch_size tile_size", "n_images": "n_images",
}  # fmt: skip
_TRUE, _FALSE = ["true", "1", "1.0"], ["false", "0", "0.0"]
_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".parquet")


@dataclass(frozen=True, eq=False)
class SplitTable:
    """A split by its names: what was split, and where each name stands.

    Parameters
    ----------
    dataset : PatchDataset
        One row for each name, without images.
    places : DataFrame
        Columns ``hold_out``, ``row`` (of the data set) and ``part``, one of `PARTS` or a fold that is tested in turn.
    labelled : bool
        Whether labels are known; else all rows have the first of two made-up classes.
    repeated : tuple of (str, tuple of str)
        Names that a hold-out lists more than once, and the parts.
    """

    dataset: PatchDataset
    places: pd.DataFrame
    labelled: bool = True
    repeated: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @cached_property
    def folds(self) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
        """Title, training rows and test rows of each fold; validation is trained on, and tested by train."""
        found = []
        for title, part in self.places.groupby("hold_out", sort=False):
            rows = {name: np.unique(its["row"]) for name, its in part.groupby("part")}
            train, validation, test = (rows.get(name, np.arange(0)) for name in PARTS)
            both = "train and validation" if len(train) and len(validation) else "train"
            pairs = [(f"{both} | test", np.union1d(train, validation), test), ("train | validation", train, validation)]
            if not {*rows} <= {*PARTS}:
                others = {name: [its for other, its in rows.items() if other != name] for name in in_order([*rows])}
                pairs = [(f"{name} is tested", np.concatenate(its), rows[name]) for name, its in others.items()]
            words = [(": ".join(filter(None, (title, pair[0]))), *pair[1:]) for pair in pairs]
            found += [pair for pair in words if len(pair[1]) and len(pair[2])]
        return tuple(found)

    def to_frame(self) -> pd.DataFrame:
        """Path, label (where known), patient, part or fold of each name: a table that `read_split` reads back."""
        frame = self.dataset.frame.loc[self.places["row"]].reset_index(drop=True)
        table = pd.DataFrame({"path": frame["name"], "patient": frame["patient"]})
        if self.labelled:
            table["label"] = np.array(self.dataset.target_names, dtype=object)[frame["label"]]
        turns = self.places["part"].str.startswith("fold ")
        table["fold" if turns.all() else "part"] = self.places["part"].str.removeprefix("fold ")
        return table.assign(fold=self.places["hold_out"]) if self.places["hold_out"].nunique() > 1 else table

    def match(self, images: PatchDataset) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
        """Folds as rows of a data set of images, and a note on names without one; refuse sides without any."""
        names, paths, patient = self.dataset.frame, pd.Series(images.relative_paths), pd.Series(images.patients)
        base, slide = (_key(names["name"], base=True), _key(paths, base=True)), images.frame.get("slide", patient)
        ways = [(_key(names["name"]), _key(paths)), base, (names["name"], slide), (names["patient"], patient)]
        ways.append((names["patient"], paths.str.extract(SLIDE)["slide"]))
        found = [pd.Series(names.index, index=want)[~want.duplicated().to_numpy()].reindex(of) for want, of in ways]
        best = max(found, key=lambda rows: rows.nunique()).to_numpy()
        missing = names["name"][~names.index.isin(best)].tolist()
        first = f"{missing[0]!r}{and_more(len(missing))}" if missing else ""
        folds = [tuple(np.flatnonzero(np.isin(best, side)) for side in sides) for _, *sides in self.folds]
        empty = not all(len(side) for sides in folds for side in sides)
        expected = f"{images.name}: expected images of the split on each side of each fold, got none for"
        check_rows([empty], [first], expected, "Give the folder of the images that were split.")
        return folds, f"Names of the split without an image: {len(missing):,}, such as {first}." * bool(missing)


def read_split(paths: Any, *, patients: str | None = None) -> SplitTable | None:
    """Read a split without its images.

    Parameters
    ----------
    paths : path or sequence of paths
        A table (CSV, TSV, Parquet) with a column of parts or folds, or one for each part (CLAM); JSON by part, or by
        fold and part; lines ``FILE.png|MAGNIFICATION|FOLD|train or test``; lists whose names tell the part
        (``cases_train.txt``); a folder of these, or of parts. Several files with parts are hold-outs of their own.
    patients : str, optional
        The patient of each name, see `find_patients`. By default a column, or what names of IDC, BreakHis, TCGA and
        CAMELYON17 tell, or ids that are no names of images.

    Returns
    -------
    split : SplitTable or None
        None where nothing tells a part.

    Raises
    ------
    DatasetError
        If a file cannot be read or is no split, there is one part or patient, or a name has not one patient and label.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "split.json"
    >>> written = file.write_text('{"train": ["22549AB", "8863"], "test": ["22549CD"]}')
    >>> [(title, train.tolist(), test.tolist()) for title, train, test in read_split(file).folds]
    [('train | test', [0, 1], [2])]
    """
    given = [Path(paths)] if isinstance(paths, str | os.PathLike) else [*map(Path, paths)]
    files = [file for path in given for file in _lists_in(path)]
    tables = {file: _read(file, _part_in(file) if len(files) > 1 else None) for file in files}
    alone = [str(file) for file, table in tables.items() if table is None]
    if len(alone) == len(tables):
        return None
    refuse_first(alone, "audit: expected a split in each file, got none in", "Name it alone.", error=DatasetError)
    raw = pd.concat(tables.values(), ignore_index=True)
    if raw["source"].nunique() > 1:
        raw["hold_out"] = (raw["source"] + ", " + raw["hold_out"]).str.strip(", ")
    return split_of(raw, str(given[0]), patients)


def _lists_in(path: Path) -> list[Path]:
    """Give the lists of a folder that are a split together; itself where it holds none."""
    inside = sorted(file for file in path.glob("*") if file.suffix.lower() in _ENDINGS)
    groups = [[one for one in inside if re.fullmatch(name, one.stem)] for name in (r"dsfold\d+", r"splits_\d+")]
    groups.append([file for file in inside if _part_in(file)])
    return next((files for files in groups if len(files) > 1), [path])


def _part_in(file: Path) -> str | None:
    """Part that the name of a file or folder tells, if it is one."""
    found = set(filter(None, map(part_named, re.split(r"[^A-Za-z]+", file.stem))))
    return found.pop() if len(found) == 1 else None


def _read(file: Path, part: str | None) -> pd.DataFrame | None:
    """Names of a file or folder with their parts; None where it tells none."""
    if not file.is_dir() and not (file.suffix.lower() in _ENDINGS and file.exists()):
        return None
    try:
        if file.suffix.lower() == ".json":
            found = _json_parts(json.loads(table_text(file, "audit")[0]))
            table = pd.concat([pd.DataFrame(), *found], ignore_index=True)
        else:
            table = _read_folder(file, part) if file.is_dir() else _read_table(file)
    except DatasetError:
        raise
    except DAMAGED as error:
        expected = f"{file}: expected a split, got: {first_line(error)[:150].rstrip('.')}"
        raise DatasetError(f"{expected}. Write a table with the columns path and part.") from error
    table = table if not part or {"part", "fold"} & {*table} else table.assign(part=part)
    return None if not len(table) or not {"part", "fold"} & {*table} else _with_hold_outs(table, file, part)


def _read_folder(folder: Path, part: str | None) -> pd.DataFrame:
    """Images below the folders of parts, or below a folder that is a part; the folder in it names the class."""
    inside = {entry: its for entry in sorted(folder.iterdir()) if entry.is_dir() and (its := part_named(entry.name))}
    inside = inside if len({*inside.values()}) > 1 else {folder: part}
    rows = [
        (names := Path(os.path.relpath(entry.path, top)).parts, "/".join((top.name, *names)), its)
        for top, its in inside.items()
        if its
        for entry in walk_files(str(top))
        if is_image_name(entry.name)
    ]
    return pd.DataFrame({"path": path, "part": its, "label": names[0] * (len(names) > 1)} for names, path, its in rows)


def _read_table(file: Path) -> pd.DataFrame:
    if file.suffix.lower() == ".parquet":
        return _own_names(pd.read_parquet(file).reset_index())
    text = table_text(file, "audit")[0]
    first, names = text.partition("\n")[0].strip(), None
    divider = max("|,;\t", key=first.count)
    if divider == "|" and first.count("|") == 3:
        names = ["path", "magnification", "fold", "part"]
    elif divider not in first and not any(_hits(own, [first]) for own in _COLUMNS):
        names, divider = ["path"], ","  # a list of ids has no header
    table = pd.read_csv(io.StringIO(text), sep=divider, names=names, dtype=str, keep_default_na=False)
    return _own_names(_by_part(table))


def _json_parts(node: Any, title: str = "") -> Iterator[pd.DataFrame]:
    """Rows of each list of records, each mapping of names to parts, and each list by part."""
    if isinstance(node, list):
        if node and isinstance(node[0], dict) and not any(map(part_named, node[0])):
            yield _own_names(pd.DataFrame(node))
        node = {f"fold {number}": each for number, each in enumerate(node, start=1)}
    if not isinstance(node, dict):
        return
    if node and all(isinstance(value, str) and part_named(value) for value in node.values()):
        yield pd.DataFrame({"path": [*node], "part": [*node.values()]})
    for key, value in node.items():
        part = part_named(str(key))
        if part and value and not isinstance(value, str):
            yield _own_names(_json_names(value)).assign(part=part, hold_out=title)
        elif not part:
            yield from _json_parts(value, ", ".join(filter(None, (title, str(key) * (key != "folds")))))


def _json_names(value: Any) -> pd.DataFrame:
    """Names of one part: a list of them or of records, a mapping to labels, or lists of names and labels."""
    if isinstance(value, dict):
        lists = {key: its for key, its in value.items() if isinstance(its, list)}
        n = next((len(lists[hit]) for own in KEYS for hit in _hits(own, [*lists])), -1)
        value = {key: its for key, its in lists.items() if len(its) == n} or {"path": [*value], "label": value.values()}
    return pd.DataFrame(value if isinstance(value, dict) or isinstance(value[0], dict) else {"path": value})


def _hits(own: str, columns: list) -> list:
    plain = {column: re.sub(r"[\s.-]+", "_", str(column).strip().lower()) for column in columns}
    return candidates(own, [*map(str, columns)]) or [one for one in columns if plain[one] in _COLUMNS[own].split()]


def _own_names(table: pd.DataFrame) -> pd.DataFrame:
    """Columns by the names that they have here; without a column of parts, one whose cells are parts."""
    found: dict[Any, str] = {}
    for own in _COLUMNS:
        found |= {column: own for column in _hits(own, [*table])[:1] if column not in found}
    if not {"part", "fold"} & {*found.values()}:
        parts = (column for column in table if all(part_named(str(cell)) for cell in table[column].unique()))
        found |= {column: "part" for column in [*parts][:1] if len(table)}
    table = table[[*found]].rename(columns=found)
    numbers = "part" in table and "fold" not in table and table["part"].astype(str).str.fullmatch(r"\d+(\.0)?").all()
    return table.rename(columns={"part": "fold"}) if numbers else table


def _by_part(table: pd.DataFrame) -> pd.DataFrame:
    """Put CLAM's columns of parts, with ids or true and false, below each other; other tables stay."""
    named = {column: part for column in table if (part := part_named(str(column)))}
    if len(named) < 2:
        return table
    cells = {part: table[column].astype(str).str.lower() for column, part in named.items()}
    if all(its.isin(_TRUE + _FALSE).all() for its in cells.values()):
        table = table.rename(columns={"Unnamed: 0": "path"}).drop(columns=[*named])
        return pd.concat([table[its.isin(_TRUE)].assign(part=part) for part, its in cells.items()])
    both = pd.concat([pd.DataFrame({"path": table[column], "part": part}) for column, part in named.items()])
    return both[canonical_patients(both["path"]) != ""]


def _with_hold_outs(table: pd.DataFrame, file: Path, part: str | None) -> pd.DataFrame:
    """Parts by their names here, and the hold-out of each row; without parts the folds take turns."""
    key = next((key for key in KEYS if key in table), "")
    check_rows([not key], [", ".join(table)], f"{file}: expected a column path, slide or patient, got", "Name one so.")
    cells = canonical_patients(table.get("part", table.get("fold")))
    if "part" in table:
        parts = {cell: part_named(cell) or "" for cell in {*cells}}
        wrong, expected = [cell and not parts[cell] for cell in cells], "expected train, validation or test as part"
        check_rows(wrong, cells, f"{file}: {expected}, got", "Correct it.")
        cells = np.array([parts[cell] for cell in cells], dtype=object)
        if "fold" in table and table["fold"].nunique() > 1 and table[key].duplicated().any():
            table = table.assign(hold_out="fold " + canonical_patients(table["fold"]))
    else:
        cells = np.where(cells == "", "", "fold " + cells)
    if (cells == "").any():
        warnings.warn(f"{file}: names in no part, which are left out: {(cells == '').sum():,}.", stacklevel=4)
    title = table["hold_out"].fillna("") if "hold_out" in table else ""
    return table.assign(part=cells, hold_out=title, source="" if part else file.name)[cells != ""]


def split_of(raw: pd.DataFrame, where: str, patients: str | None = None) -> SplitTable:
    """Make a split of a table with the columns that `read_split` knows, ``part`` and ``hold_out``."""
    blank = pd.Series("", index=raw.index, dtype=object)
    text = {own: pd.Series(canonical_patients(raw[own])) if own in raw else blank for own in (*KEYS, "label")}
    numbers = {own: pd.to_numeric(raw.get(own, blank), errors="coerce") for own in ("x", "y", "size", "n_images")}
    names = text["path"].mask(text["path"] == "", text["slide"]).mask(lambda its: its == "", text["patient"])
    if "path" not in raw and numbers["x"].notna().all():  # tiles of slides
        names = names + "_" + numbers["x"].astype(str) + "_" + numbers["y"].astype(str)
    check_rows(names == "", raw.index, f"{where}: expected a name in each row, got none in row", "Fill it in.")
    idc, breakhis = _told(names, re.compile(f"(?:^|/){STEM}")), _told(names, re.compile(SLIDE))
    place = idc[[2, 3]].set_axis([0, 1], axis=1) if idc[0].notna().all() else _told(names, _PLACE)
    published = idc[0].fillna(breakhis["slide"])
    images = bool(names.str.contains(_SUFFIX).mean() > 0.5)
    code, _ = pd.factorize(_key(names, base=bool(published.notna().all())) if images else names)
    whose = pd.Series(_patients_of(names, published, text, patients, images, where), index=raw.index)
    # In IDC's own tree the folder below a part is the patient's, not a class.
    untold, named = text["label"].isin(["", *idc[0].dropna().unique()]), idc[4].fillna(breakhis[0]).map(_CLASSES)
    label = text["label"].mask(untold, named.fillna(""))
    labelled, remedy = bool((label != "").any()), "Fill them all in, or leave the column out."
    check_rows((label == "") & labelled, names, f"{where}: expected a label for each name, got none for", remedy)
    pairs = pd.DataFrame({"row": code, "patient": whose, "label": label}).drop_duplicates()
    expected = f"{where}: expected one patient and one label for each name, got two for"
    check_rows(pairs["row"].duplicated(), names[pairs.index], expected, "Correct one of the rows.")
    classes = [*in_order(label[label != ""].unique().tolist()), "(no class)", "(no other class)"]
    classes = classes[: max(2, len(classes) - 2)]
    sizes = numbers["size"].mask(numbers["size"].isna() & idc[0].notna(), _IDC_SIZE).fillna(1)
    frame = pd.DataFrame({"path": names if images else "id " + names, "patient": whose, "name": names, "size": sizes})
    frame = frame.assign(label=label.map(classes.index) if labelled else 0, n_images=numbers["n_images"].fillna(1))
    frame["x"], frame["y"] = (numbers[axis].fillna(place[at].astype(float)).round() for at, axis in enumerate("xy"))
    if (text["slide"] != "").all() and published.isna().any():
        frame["slide"] = text["slide"]
    places = pd.DataFrame({"hold_out": raw["hold_out"], "row": code, "part": raw["part"]})
    _check_parts(places, frame, where)
    first = np.unique(code, return_index=True)[1]
    twice = places[places.duplicated(["hold_out", "row"], keep=False)].groupby(["row", "hold_out"], sort=False)["part"]
    return SplitTable(
        PatchDataset(frame.iloc[first].reset_index(drop=True), tuple(classes), Path(where).name),
        places.drop_duplicates().reset_index(drop=True),
        labelled,
        tuple((names[first[row]], tuple(its)) for (row, _), its in twice),
    )


def _check_parts(places: pd.DataFrame, frame: pd.DataFrame, where: str) -> None:
    n_parts, expected = places.groupby("hold_out", sort=False)["part"].agg(["nunique", "first"]), "or more, got only"
    check_rows(n_parts["nunique"] < 2, n_parts["first"], f"{where}: expected two parts {expected}", "Add the others.")
    one, remedy = frame["patient"].nunique() < 2, "If ids are read wrongly, give the right rule for patients."
    check_rows([one], frame["patient"][:1], f"{where}: expected two patients {expected}", remedy)


def _patients_of(names, published, text, patients, images: bool, where: str) -> Any:
    """Patient of each name, see `read_split`."""
    if patients is not None:
        return names if patients == EACH_IMAGE else find_patients(patients, names.tolist())
    if (text["patient"] != "").any():
        remedy = "Fill it in, or leave the column out."
        check_rows(text["patient"] == "", names, f"{where}: expected a patient for each name, got none for", remedy)
        return text["patient"]
    if published.notna().all():
        return published
    source = text["slide"] if (text["slide"] != "").all() else names
    found = patients_by_name(source.tolist())
    if found is None and images and source is names:
        expected = f"{where}: expected names that tell the patient, as IDC, BreakHis, TCGA and CAMELYON17 have, got"
        remedy = f"{COST_OF_NO_PATIENTS} Give a rule for the patients, such as '^([0-9]+)_', a CSV, or image."
        check_rows([True], names, expected, remedy)
    return source if found is None else found


def _told(names: pd.Series, pattern: re.Pattern) -> pd.DataFrame:
    """Groups of an expression in each name; none where the first name has none."""
    first = names[:1].str.extract(pattern)
    return names.str.extract(pattern) if first[0].notna().all() else first.reindex(names.index)


def _key(names: Any, base: bool = False) -> pd.Series:
    """Names in small letters without the ending of an image, and without folders."""
    plain = pd.Series(names).str.replace("\\", "/").str.replace(_SUFFIX.pattern, "", regex=True).str.lower()
    return plain.str.replace("^.*/", "", regex=True) if base else plain.str.removeprefix("./")


def published_splits() -> dict[str, dict[str, Any]]:
    """Splits that others published: title, source, licence, what its authors say, and what is inferred.

    Examples
    --------
    >>> list(published_splits())
    ['idc-official', 'breakhis-eva', 'breakhis-eva-2024', 'breakhis-thunder']
    """
    return tomllib.loads(_PUBLISHED.read_text(encoding="utf-8"))


def load_published_split(name: str) -> SplitTable:
    """Give a split of `published_splits`; slides of BreakHis with their number of images.

    Examples
    --------
    >>> split = load_published_split("breakhis-eva")
    >>> [int(split.dataset.frame["n_images"].iloc[rows].sum()) for _, *sides in split.folds for rows in sides]
    [1132, 339]
    """
    check_name("registry", name, published_splits())
    table = pd.read_csv(_PUBLISHED.with_suffix(".csv"), dtype=str, keep_default_na=False)
    return split_of(table[table["split"] == name].assign(hold_out="").reset_index(drop=True), name)
