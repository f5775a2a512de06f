"""Read a CSV as spreadsheets and R write it, with the line of each row; write one that is safe to open."""

import codecs
import csv
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from histofeat.exceptions import DatasetError, and_more, known_names, refuse_first
from histofeat.images import read_regular
from histofeat.model_selection import canonical_patient

_SAVE = "Save it as CSV in UTF-8"
#: Encodings with a mark before the text; that of UTF-16 begins that of UTF-32.
_MARKED = {"utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
#: A number as a spreadsheet rounds it: of the id 10253 only "1.03E+04" is left.
_ROUNDED = re.compile(r"[0-9]+(?:[.,][0-9]+)?E\+[0-9]+")
#: Columns of file names, in which "NA" is a name.
_PATHS = ("path", "image", "patch")
_FILE = ("path", "image", "file", "filename", "file_path", "filepath", "image_path", "image_file", "image_name", "img")
_PATIENT = ("patient", "patient_id", "patientid", "case", "case_id", "caseid", "subject", "subject_id", "subjectid")
#: Other names for columns, as `_plain` writes them.
_SYNONYMS = {
    "path": (*_FILE, "file_name", "patch"),
    "patch": (*_FILE, "file_name"),
    "label": ("class", "target", "class_name", "label_name", "category", "diagnosis"),
    "patient": _PATIENT,
    "score": ("probability", "prob", "proba", "prediction"),
}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
#: What a spreadsheet takes for a formula; a number is none. Apostrophes before it are of an earlier guard.
_FORMULA = re.compile(r"'*(?:[=@\t\r\n]|[+-](?!(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z))")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class CsvRows:
    """The content of a CSV.

    Parameters
    ----------
    path : Path
        Absolute path of the file.
    columns : tuple of str
        Names in the header, without blanks around them.
    rows : list of dict of str to str
        One a row; without blanks around the cells, except in ``path``, since file names may have them. Ids in
        ``patient`` and labels are in the form of `histofeat.model_selection.canonical_patient`.
    lines : list of int
        Line of the file on which each row begins, from 1.
    notes : tuple of str
        What was guessed: an encoding, and columns that were recognised by other names.
    written : mapping of str to str
        The name in the file of each column that has another one here.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]
    notes: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)

    def at(self, row: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.path}, line {self.lines[row]}"

    def refuse_empty(self, columns: Sequence[str]) -> None:
        """Refuse the first empty cell in one of the columns; a word for a missing value, such as "NA", is one.

        Raises
        ------
        DatasetError
            With the line number and the count of the rest.
        """
        for column in columns:
            text = str.strip if column in _PATHS else canonical_patient
            words = "" if column in _PATHS else " (words such as NA mean a missing value)"
            remedy = f"Fill it in, or remove the row{words}."
            self.parsed(column, lambda cell, text=text: text(cell) or None, "text", remedy)

    def parsed(
        self, column: str, parse: Callable[[str], Any], expected: str, remedy: str, rows: Sequence[int] | None = None
    ) -> list[Any]:
        """Give the cells of a column as `parse` reads them, each as "" where there is no such column.

        Parameters
        ----------
        column : str
            Its name.
        parse : callable
            Gives the value of a cell, or None for a cell that is refused.
        expected, remedy : str
            What a message says.
        rows : sequence of int, optional
            Which rows; by default all.

        Raises
        ------
        DatasetError
            With the line number of the first cell that is refused, and the count of the rest.
        """
        rows = range(len(self.rows)) if rows is None else rows
        values = {row: parse(self.rows[row].get(column, "")) for row in rows}
        wrong = [row for row, value in values.items() if value is None]
        if wrong:
            cell = self.rows[wrong[0]][column]
            got = repr(cell) if cell.strip() else "an empty cell"
            name = self.written.get(column, column)
            raise DatasetError(
                f"{self.at(wrong[0])}: expected {expected} in the column {name!r}, got {got}{and_more(len(wrong))}. "
                f"{remedy}"
            )
        return list(values.values())

    def first_of(self, keys: Sequence[str], column: str, expected: str, remedy: str) -> dict[str, int]:
        """First row of each key, of which there is one a row; `expected` and `remedy` are what a message says.

        Raises
        ------
        DatasetError
            With the numbers of two lines of one key that differ in the column.
        """
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            here, there = self.rows[row][column], self.rows[first.setdefault(key, row)][column]
            if here != there:
                raise DatasetError(
                    f"{self.at(row)}: expected {expected}, got {here!r} here and {there!r} in line "
                    f"{self.lines[first[key]]}. {remedy}"
                )
        return first


def read_csv_rows(
    path: str | os.PathLike[str], required: Sequence[str], *, owner: str, optional: Sequence[str] = ()
) -> CsvRows:
    """Read a CSV whose header has at least the required columns.

    Parameters
    ----------
    path : path
        The file: text in UTF-8, in UTF-16 or UTF-32 with a byte-order mark, or in Windows-1252 (with a warning); cells
        divided by commas, semicolons or tabs; the names of the columns in line 1.
    required : sequence of str
        Columns that must be there.
    owner : str
        Function and parameter for messages about `path` itself.
    optional : sequence of str
        Columns that are recognised by other names, too, where they are there.

    Returns
    -------
    CsvRows
        Lines without any cell are skipped.

    Raises
    ------
    DatasetError
        When the file is missing, a folder, a spreadsheet, empty or in another encoding; when a column is missing,
        there twice, or could be any of several; when a row has too few or too many cells; when no row follows the
        header. Each but the first four with a line number.

    Notes
    -----
    The delimiter is that of a line ``sep=;`` above the header, else the first of comma, semicolon and tab by which the
    header has the required columns. Columns and cells without name or content at the end, which spreadsheets write, and
    the row names of R are skipped.

    A column is found by its name; else by that name in other capitals, with blanks, dots or dashes for ``_``, or by a
    synonym ("filename" for ``path``, "class" for ``label``, "case_id" for ``patient``), if there is just one such.
    """
    file = Path(path).expanduser().absolute()
    text, notes = table_text(file, owner)
    if not text.strip():
        raise DatasetError(f"{file}: expected a header and rows, got an empty file. {_SAVE}.")
    first, _, below = text.partition("\n")
    first = first.strip().strip('"')  # some spreadsheets quote it
    skipped = int(first.lower().startswith("sep="))
    text = below if skipped else text
    said = first[4:5] if skipped and first[4:5] in _DELIMITERS else None
    delimiter = said or _delimiter(text, required)
    header, table, lines = _divided(file, text, delimiter, skipped)
    numbers = [str(number) for number in range(1, len(table) + 1)]
    if table and all(len(cells) > len(header) for cells in table) and [cells[0] for cells in table] == numbers:
        header = ["", *header]  # R gives the numbers of its rows no name
    columns, written = _header(file, header, required, optional)
    rows = []
    for line, cells in zip(lines, table, strict=True):
        if len(cells) < len(columns) or any(map(str.strip, cells[len(columns) :])):
            raise DatasetError(
                f"{file}, line {line}: expected {len(columns)} cells as in the header, got {len(cells)}. Put cells "
                f"that hold {_DELIMITERS[delimiter]} between double quotes."
            )
        named = zip(columns, cells, strict=False)  # a spreadsheet may write empty cells beyond the header
        rows.append({name: _settled(name, cell) for name, cell in named if name})
    if not rows:
        raise DatasetError(f"{file}: expected one row or more below the header, got 0. Add a row for each image.")
    if written:
        read_as = ", ".join(f"{other!r} as {name}" for name, other in written.items())
        notes = (*notes, f"Columns of {file.name} that were read under other names: {read_as}.")
    found = CsvRows(file, tuple(filter(None, columns)), rows, lines, notes, written)
    remedy = (
        "A spreadsheet has rounded it: give the column the format of text there, fill the ids in, and save it again."
    )
    found.parsed("patient", lambda cell: None if _ROUNDED.fullmatch(cell) else cell, "a whole id", remedy)
    return found


def _divided(file: Path, text: str, delimiter: str, skipped: int) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, cells of each row, and the line on which it begins, below `skipped` lines."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        header, lines, table, begins = next(reader, []), [], [], reader.line_num + 1 + skipped
        for cells in reader:
            if any(cell.strip() for cell in cells):
                table.append(cells)
                lines.append(begins)
            begins = reader.line_num + 1 + skipped
    except csv.Error as error:
        divided, line = _DELIMITERS[delimiter], reader.line_num + skipped
        if "field limit" in str(error):
            got = f"cells of at most {csv.field_size_limit():,} characters, got a longer one"
            raise DatasetError(f"{file}, line {line}: expected {got}. Close the double quote before it.") from error
        raise DatasetError(
            f"{file}, line {line}: expected cells divided by {divided}, got text that is not CSV ({error}). "
            f'Put cells that hold {divided} or quotes between double quotes, and write " as "".'
        ) from error
    return header, table, lines


def _delimiter(text: str, required: Sequence[str]) -> str:
    """The first delimiter by which the header has the required columns, else the most frequent one."""
    for delimiter in _DELIMITERS:
        header = []
        with suppress(csv.Error):  # said in words where the rows are read
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        if all(candidates(name, header) for name in required):
            return delimiter
    return max(_DELIMITERS, key=text.partition("\n")[0].count)


def table_text(file: Path, owner: str) -> tuple[str, tuple[str, ...]]:
    """Text of a file that a spreadsheet, R or an editor wrote, and a note where its encoding is a guess.

    Raises
    ------
    DatasetError
        If it cannot be read, is no text, or in an encoding that cannot be told.
    """
    try:
        content = read_regular(file)
    except OSError as error:
        got = "a path that does not exist" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise DatasetError(f"{owner}: expected a CSV file, got {got}: {file}. Check the path.") from error
    if content.startswith(b"PK\x03\x04"):
        raise DatasetError(f"{file}: expected a CSV file, got a spreadsheet or an archive. {_SAVE}.")
    wide, notes = next((name for name, marks in _MARKED.items() if content.startswith(marks)), ""), ()
    if not wide and b"\0" in content[:4096]:
        raise DatasetError(f"{file}, line 1: expected text in UTF-8, got UTF-16 or no text. {_SAVE}.")
    try:
        text = content.decode(wide or "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 if wide else error.object[: error.start].count(b"\n") + 1
        got = f"the byte 0x{error.object[error.start]:02x}"
        text = ""
        with suppress(UnicodeDecodeError):
            text = "" if wide else content.decode("cp1252")
        if not text:
            raise DatasetError(f"{file}, line {line}: expected text in UTF-8, got {got}. {_SAVE}.") from error
        notes = (f"{file.name} is no UTF-8 ({got} in line {line}): it was read as Windows-1252 (Latin-1).",)
        warnings.warn(f"{file}: expected text in UTF-8. {notes[0]} {_SAVE}.", stacklevel=3)
    return text, notes


def _plain(name: str) -> str:
    """A name of a column in lower case, with ``_`` for blanks, dots and dashes."""
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def candidates(wanted: str, columns: Sequence[str]) -> list[str]:
    """Columns that may be the wanted one: that name alone, else in other spellings and synonyms."""
    columns = [column.strip() for column in columns]
    if wanted in columns:
        return [wanted]
    same = [column for column in columns if _plain(column) == wanted]
    return same or [column for column in columns if _plain(column) in _SYNONYMS.get(wanted, ())]


def names_patient(cell: str) -> bool:
    """Whether a cell is the name of the column of patients."""
    return _plain(cell) in _PATIENT


def _header(
    file: Path, cells: list[str], required: Sequence[str], optional: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the columns, and the name in the file of those that were renamed."""
    columns = tuple(" ".join(_as_written(cell.strip()).split()) for cell in cells)
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise DatasetError(
            f"{file}, line 1: expected each column once, got {twice[0]!r} again{and_more(len(twice))}. Rename one."
        )
    written, absent = {}, []
    for name in dict.fromkeys((*required, *optional)):
        found = [column for column in candidates(name, columns) if column not in written.values()]
        if len(found) > 1:
            raise DatasetError(
                f"{file}, line 1: expected one column for {name}, got {found[0]!r} and {found[1]!r}. Rename the right "
                f"one to {name!r}."
            )
        if found and found[0] != name:
            written[name] = found[0]
        elif not found and name in required:
            absent.append(name)
    if absent:
        remedy = f"The first line must name the columns. {known_names(absent[0], filter(None, columns))}"
        expected = f"{file}, line 1: expected the columns {', '.join(required)}, got none named"
        refuse_first(absent, expected, remedy, error=DatasetError)
    name_of = {other: name for name, other in written.items()}
    return tuple(name_of.get(column, column) for column in columns), written


def _settled(column: str, cell: str) -> str:
    cell = _as_written(cell)
    if column == "path":
        return cell
    return (canonical_patient(cell) if column in ("patient", "label") else "") or cell.strip()


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    r"""Text of a table as CSV that spreadsheets show and never run; `read_csv_rows` gives the same cells back.

    Parameters
    ----------
    table : DataFrame
        Written without its index.
    **options
        More keywords of `DataFrame.to_csv`, such as ``float_format``.

    Returns
    -------
    text : str
        With ``\n`` at the end of each line. A text that starts as a formula does (``=``, ``+``, ``-``, ``@``, a tab, a
        line break) and is no number has an apostrophe before it; bytes of file names that are no UTF-8 are written as
        ``\udce9``.

    Examples
    --------
    >>> print(csv_text(pd.DataFrame({"patient": ["=1+1", "-7"], "score": [-0.5, 1.0]})), end="")
    patient,score
    '=1+1,-0.5
    -7,1.0
    """
    safe = table.set_axis([_guarded(name) for name in table.columns], axis=1)
    for column, kind in enumerate(table.dtypes):
        if kind.kind == "O":  # text, and categories
            cells = [_guarded(cell) for cell in table.iloc[:, column]]
            safe.isetitem(column, pd.Series(cells, index=table.index, dtype=object))
    text = safe.to_csv(index=False, lineterminator="\n", **options)
    if "\r" in text:  # readers end a row there, unless it is quoted
        text = safe.to_csv(index=False, lineterminator="\n", **options, quoting=csv.QUOTE_NONNUMERIC)
    return printable(text)


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _as_written(cell: str) -> str:
    """Give the text that `csv_text` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def printable(text: str) -> str:
    r"""Text in which characters that no file of text, JSON or SVG can hold are written as escapes.

    These are control characters, and bytes of a file name that are no UTF-8.

    Examples
    --------
    >>> printable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
