"""Looks at registered test patients: who they are, and the ledger that every look is written into."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from histofeat.datasets._csv_rows import csv_text
from histofeat.datasets._idc import parse_name
from histofeat.datasets._parts import official_roles
from histofeat.exceptions import counted
from histofeat.model_selection import canonical_patients

#: Columns of a ledger. Lines of earlier versions end with the threshold.
LEDGER_COLUMNS = (
    *("date", "commit", "pipeline", "data", "n_patches", "n_test_patients", "n_test_patches", "roc_auc"),
    *("balanced_accuracy_tuned", "f1_tuned", "trained_on", "threshold", "kind", "registered", "command"),
)
#: So many of the tested ids, and this share of them, have to be registered where no file name says whose patch it is.
_FEWEST, _SHARE = 5, 0.1


@dataclass(frozen=True)
class RegisteredTest:
    """A published list of test patients that nobody should look at often.

    Parameters
    ----------
    roles : callable
        ``roles()`` returns the mapping of patient id to "train", "validation" or "test".
    parse : callable
        ``parse(file_name)`` returns an object with the attribute ``patient``, or None for a name of other data.
    """

    roles: Callable[[], Mapping[str, str]]
    parse: Callable[[str], Any]

    def trained_on(self, patients: Iterable[str]) -> str:
        """Return the roles of training patients, joined by "+"; "unlisted" are those without a role."""
        roles = self.roles()
        found = {roles.get(patient, "unlisted") for patient in set(patients)}
        return "+".join(role for role in ("train", "validation", "test", "unlisted") if role in found)


#: By name. Add an entry to have one's own test patients noticed.
REGISTERED_TESTS: dict[str, RegisteredTest] = {
    # The test patients of Cruz-Roa et al. 2014 and of Janowczyk and Madabhushi 2016.
    "idc-official": RegisteredTest(official_roles, parse_name)
}


def registered_patients(patients: Iterable[Any], names: Iterable[Any] = ()) -> dict[str, int]:
    """Count the patients of each registered list among tested patients.

    Parameters
    ----------
    patients : iterable of shape (n,)
        Ids of the tested rows.
    names : iterable of str, optional
        Names or paths of their images: a list is recognised by them, whatever the ids are.

    Returns
    -------
    counts : dict of str to int
        By the name of the list in `REGISTERED_TESTS`; without lists that nobody is on.

    Notes
    -----
    Ids that are numbers are shared by many data sets. Ids alone count from five patients of a list, if these are at
    least a tenth of the tested ones.

    Examples
    --------
    >>> registered_patients(["a", "b"], ["8864_idx5_x51_y1_class0.png", "8864_idx5_x101_y1_class0.png"])
    {'idc-official': 1}
    >>> registered_patients(["8864", "9"])
    {}
    """
    ids = set(canonical_patients(list(patients)))
    files = {re.split(r"[\\/]", str(name))[-1] for name in names}
    counts = {}
    for name, listed in REGISTERED_TESTS.items():
        test = {patient for patient, role in listed.roles().items() if role == "test"}
        found, by_id = {part.patient for part in map(listed.parse, files) if part} & test, ids & test
        if len(by_id) >= max(_FEWEST, _SHARE * len(ids)):
            found |= by_id
        if found:
            counts[name] = len(found)
    return counts


@dataclass(frozen=True)
class Ledger:
    """A CSV file with a line for every model that was ever scored on registered test patients.

    Lines are only appended: none is ever changed or removed.

    Parameters
    ----------
    path : path
        The file; made, with its header, by the first look.
    command : str, optional
        The command that looks.
    commit : str, optional
        The commit of the code; by default the version of histofeat.
    date : str, optional
        One date for all lines of a command, which are then one look; by default that of each call of `append`.

    Examples
    --------
    >>> import tempfile
    >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "ledger.csv", "python mine.py")
    >>> ledger.append([{"pipeline": "lbp/svm", "kind": "official"}, {"pipeline": "color/svm", "kind": "official"}])
    {'official': 1}
    """

    path: str | os.PathLike[str]
    command: str = ""
    commit: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise ValueError(f"ledger: expected a path, got {self.path!r:.80}. Give the path of a CSV file.")
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    def of(cls, value: Any) -> Ledger | None:
        """Return the ledger given as ``ledger=``: itself, that of a path, or None."""
        return value if value is None or isinstance(value, cls) else cls(value)

    def open(self) -> None:
        """Make sure that lines can be appended, before the work that they will record.

        Raises
        ------
        ValueError
            If it is a folder or a file with another header, or cannot be written.
        """
        path, expected = Path(self.path), ",".join(LEDGER_COLUMNS)
        if path.is_dir():
            raise ValueError(f"ledger: expected a file, got the folder {str(path)!r}. Give the path of a CSV file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() == 0:
                    file.write(f"{expected}\n".encode())
        except OSError as error:
            raise ValueError(
                f"ledger: expected a file that can be written, got {type(error).__name__} for {path.name}. Give "
                "another path."
            ) from error
        header = path.read_bytes().partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
        if header != expected:
            raise ValueError(
                f"ledger: expected a file with the ledger's header, got {header[:80]!r} in {path.name}. Nothing was "
                f"written; give another path, or a file that begins with {expected!r}."
            )

    def append(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Append a line for each row in one write, which is on the disk when this returns.

        Parameters
        ----------
        rows : iterable of mapping
            Values of `LEDGER_COLUMNS`, but for the date, the commit and the command; what is missing stays empty.

        Returns
        -------
        looks : dict of str to int
            As from `looks`.
        """
        import histofeat  # its version; not at the top, where it is still being imported

        self.open()
        own = {"date": self.date or datetime.now(UTC).isoformat(timespec="seconds"), "command": self.command}
        own["commit"] = self.commit or f"histofeat {histofeat.__version__}"
        lines = pd.DataFrame([own | dict(row) for row in rows], columns=LEDGER_COLUMNS)
        text = csv_text(lines, header=False, float_format="%.6f")
        path = Path(self.path)
        # An editor, or a machine that went down, may have left the last line open.
        start = "" if path.read_bytes().endswith(b"\n") else "\n"
        with path.open("ab") as file:
            file.write((start + text).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        return self.looks()

    def looks(self) -> dict[str, int]:
        """Count the looks by kind: lines of one date are one look, and lines without a kind are official."""
        # Short lines are of the time before the last columns.
        table = pd.read_csv(self.path, names=LEDGER_COLUMNS, header=0, dtype=str, encoding_errors="replace")
        looks = set(zip(table["date"], table["kind"].fillna("official"), strict=True))
        return dict(sorted(Counter(kind for _, kind in looks).items()))


@dataclass(frozen=True)
class Look:
    """Registered patients among those that a run tests.

    Parameters
    ----------
    registered : mapping of str to int
        Their number by the name of their list.
    facts : mapping of str to object
        Values of `LEDGER_COLUMNS` that all lines of the run share.
    ledger : Ledger or None
    """

    registered: Mapping[str, int]
    facts: Mapping[str, Any]
    ledger: Ledger | None = None

    @classmethod
    def at(
        cls,
        tested: tuple[Any, Any],
        trained: Iterable[Any] = (),
        *,
        n_folds: int = 1,
        kind: str | None = None,
        ledger: Ledger | None = None,
        **facts: Any,
    ) -> Look | None:
        """Return the look that a run takes, whose ledger is open; None where no tested patient is registered.

        Parameters
        ----------
        tested : (sequence, sequence)
            Patient ids and image names of the tested rows; the latter may be empty.
        trained : iterable
            Patient ids of the training rows.
        n_folds : int, default=1
            Folds of the run.
        kind : str, optional
            Of the look; by default "official" for one fold that tests nobody else, else "cross-validation".
        ledger : Ledger, optional
        **facts
            More values of `LEDGER_COLUMNS`.
        """
        patients, names = tested
        registered = registered_patients(patients, names)
        if not registered:
            return None
        if ledger is not None:
            ledger.open()
        n_patients, (first, *_) = len(set(canonical_patients(patients))), registered
        alone = n_folds == 1 and n_patients == sum(registered.values())
        known = {
            "n_test_patients": n_patients,
            "n_test_patches": len(patients),
            "trained_on": REGISTERED_TESTS[first].trained_on(canonical_patients(list(trained))),
            "kind": kind or ("official" if alone else "cross-validation"),
            "registered": " ".join(f"{name}:{n}" for name, n in registered.items()),
        }
        return cls(registered, known | facts, ledger)

    def record(self, rows: Iterable[Mapping[str, Any]]) -> str:
        """Write a line for each row into the ledger, if there is one; return in words what was tested and written."""
        who = " and ".join(f"{counted(n, 'registered patient')} ({name})" for name, n in self.registered.items())
        if self.ledger is None:
            return f"Tests {who}. No ledger was given, so this look was written down nowhere."
        looks = self.ledger.append({**self.facts, **row} for row in rows)
        counts = ", ".join(f"{n:,} {kind}" for kind, n in looks.items())
        return f"Tests {who}. Looks in the ledger, with this one: {counts}."
