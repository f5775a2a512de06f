"""Read a CSV: check its encoding, delimiter, header and cells, and keep the line number of each row."""

import codecs
import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histofeat.exceptions import DatasetError, and_more, known_names
from histofeat.model_selection import canonical_patient

_SAVE = "Save it as CSV in UTF-8"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Columns of file names, in which "NA" is a name.
_PATHS = ("path", "image")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


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
        ``patient`` are in the form of `histofeat.model_selection.canonical_patient`.
    lines : list of int
        Line of the file on which each row begins, from 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]

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
            raise DatasetError(
                f"{self.at(wrong[0])}: expected {expected} in the column {column!r}, got {got}{and_more(len(wrong))}. "
                f"{remedy}"
            )
        return list(values.values())


def read_csv_rows(path: str | os.PathLike[str], required: Sequence[str], *, owner: str) -> CsvRows:
    """Read a CSV whose header has at least the required columns.

    Parameters
    ----------
    path : path
        The file: UTF-8, with or without a byte-order mark; cells divided by commas, semicolons or tabs; the names of
        the columns in line 1.
    required : sequence of str
        Columns that must be there.
    owner : str
        Function and parameter for messages about `path` itself.

    Returns
    -------
    CsvRows
        Lines without any cell are skipped.

    Raises
    ------
    DatasetError
        When the file is missing, a folder, a spreadsheet, empty or in another encoding; when a column is missing or
        there twice; when a row has too few or too many cells; when no row follows the header. Each but the first four
        with a line number.

    Notes
    -----
    The delimiter is the first of comma, semicolon and tab by which the header has the required columns. A line
    ``sep=;`` above the header, and columns without a name, which spreadsheets write, are skipped.
    """
    file = Path(path).expanduser().absolute()
    text = _text(file, owner)
    first, _, below = text.partition("\n")
    skipped = int(first.lower().startswith("sep="))
    text = below if skipped else text
    delimiter = _delimiter(text, required)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        columns = _header(file, next(reader, []), required)
        rows, lines, begins = [], [], reader.line_num + 1 + skipped
        for cells in reader:
            if cells and any(cell.strip() for cell in cells):
                _check_width(file, begins, cells, columns, _DELIMITERS[delimiter])
                named = {name: cell for name, cell in zip(columns, cells, strict=True) if name}
                rows.append({name: _settled(name, cell) for name, cell in named.items()})
                lines.append(begins)
            begins = reader.line_num + 1 + skipped
    except csv.Error as error:
        divided, line = _DELIMITERS[delimiter], reader.line_num + skipped
        raise DatasetError(
            f"{file}, line {line}: expected cells divided by {divided}, got text that is not CSV ({error}). "
            f'Put cells that hold {divided} or quotes between double quotes, and write " as "".'
        ) from error
    if not rows:
        raise DatasetError(f"{file}: expected one row or more below the header, got 0. Add a row for each image.")
    return CsvRows(file, tuple(filter(None, columns)), rows, lines)


def _delimiter(text: str, required: Sequence[str]) -> str:
    """The first delimiter by which the header has the required columns, else the most frequent one."""
    for delimiter in _DELIMITERS:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        if {cell.strip() for cell in header}.issuperset(required):
            return delimiter
    return max(_DELIMITERS, key=text.partition("\n")[0].count)


def _text(file: Path, owner: str) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        got = (
            "a folder" if file.is_dir() else "a path that does not exist" if not file.exists() else str(error.strerror)
        )
        raise DatasetError(f"{owner}: expected a CSV file, got {got}: {file}. Check the path.") from error
    if content.startswith(b"PK\x03\x04"):
        raise DatasetError(f"{file}: expected a CSV file, got a spreadsheet or an archive. {_SAVE}.")
    if content.startswith(_UTF16) or b"\0" in content[:4096]:
        raise DatasetError(f"{file}, line 1: expected text in UTF-8, got UTF-16 or no text. {_SAVE}.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DatasetError(
            f"{file}, line {line}: expected text in UTF-8, got the byte 0x{error.object[error.start]:02x}. {_SAVE}."
        ) from error
    if not text.strip():
        raise DatasetError(f"{file}: expected a header and rows, got an empty file. {_SAVE}.")
    return text


def _header(file: Path, cells: list[str], required: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    twice = [name for position, name in enumerate(columns) if name and name in columns[:position]]
    if twice:
        raise DatasetError(
            f"{file}, line 1: expected each column once, got {twice[0]!r} again{and_more(len(twice))}. Rename one."
        )
    absent = [name for name in required if name not in columns]
    if absent:
        remedy = f"The first line must name the columns. {known_names(absent[0], filter(None, columns))}"
        if any(name.lower() == absent[0] for name in columns):
            remedy = "Write the names of the columns in lower case."
        raise DatasetError(
            f"{file}, line 1: expected the columns {', '.join(required)}, got none named {absent[0]!r}"
            f"{and_more(len(absent))}. {remedy}"
        )
    return columns


def _check_width(file: Path, line: int, cells: list[str], columns: tuple[str, ...], divided: str) -> None:
    if len(cells) != len(columns):
        raise DatasetError(
            f"{file}, line {line}: expected {len(columns)} cells as in the header, got {len(cells)}. Put cells that "
            f"hold {divided} between double quotes."
        )


def _settled(column: str, cell: str) -> str:
    if column == "path":
        return cell
    return (canonical_patient(cell) if column == "patient" else "") or cell.strip()
