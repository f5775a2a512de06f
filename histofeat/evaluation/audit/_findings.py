"""Findings of an audit as frozen records, and `check_audit`, which refuses errors that were not accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from histofeat.exceptions import GroupLeakageError, and_more, check_name, known_names

CODES: dict[str, str] = {
    "HF001": "shared patient",
    "HF002": "exact duplicates",
    "HF003": "near-duplicates",
    "HF004": "fold without a class",
    "HF005": "sibling slides",
    "HF006": "contradicting labels",
    "HF007": "encoder trained on test patients",
    "HF008": "fitted outside the fold",
    "HF009": "patient ids that look alike",
    "HF010": "slides as patients",
    "HF011": "classes told by their files",
    "HF012": "repeated rows",
    "HF013": "classes told by a part of the name",
    "HF014": "overlapping places",
    "HF015": "class of very few patients",
}
"""Every code of an audit and what it looks for; HF012 to HF015 are those of `audit_names`."""

#: Test patients are known to the model in one way or another.
_LEAKS = frozenset({"HF001", "HF002", "HF003", "HF005", "HF007", "HF009", "HF010", "HF012", "HF014"})
_STATUSES = ("issue", "passed", "not applicable")
#: Enough to find the culprit by hand; more would drown a report when a whole split leaks.
_SHOWN = 3
_REMEDIES = {
    "HF001": "Split by patient, as PatientKFold does.",
    "HF002": "Drop the copies, or keep all of them on one side.",
    "HF003": "Look at these pairs, and drop the copies.",
    "HF004": "Use fewer folds, or sides with more patients.",
    "HF005": "Give all slides of one number the same patient id.",
    "HF006": "Find out which label is right, or drop these images.",
    "HF007": "Use another encoder or test other patients: of patients found by their pixels, "
    'AuditPolicy(known_patients="leave_out") tests only the others, and evaluate(retrain_encoder=True) trains the '
    "encoder in each fold.",
    "HF008": "Fit everything inside the training patients of each fold.",
    "HF009": "Write one id for each patient.",
    "HF010": 'Give all slides of a patient one id: patients="tcga" reads it from TCGA barcodes, an expression such as '
    r"patients=r'^(.+)[-_]' from other names.",
    "HF011": "Save all images in the same way.",
    "HF012": "Keep one row for each name.",
    "HF013": "Split within each value of that part, or report scores for each of them.",
    "HF014": "Keep the patches of a patient on one side.",
    "HF015": "Use fewer parts, or add patients of that class.",
}


@dataclass(frozen=True)
class Finding:
    """One code of an audit: what was looked for and what was found.

    Parameters
    ----------
    code : str
        One of `CODES`.
    title : str
        What the code looks for.
    severity : {"error", "warning"}
        Whether an issue makes the scores misleading ("error"), or only needs a look.
    status : {"issue", "passed", "not applicable"}
    detail : str
        One sentence or two: what was found.
    unseen : str
        One sentence: what this check cannot see.
    offenders : tuple of str
        Everything that was found, one description each; `to_dict` and `AuditReport.summary` name the first three.
    numbers : Mapping of str to int or float
        Counts behind the sentence.

    Examples
    --------
    >>> finding = Finding("HF001", CODES["HF001"], "error", "issue", "Patients on both sides: 1.", offenders=("7",))
    >>> finding.is_error, finding.named
    (True, '7')
    """

    code: str
    title: str
    severity: str
    status: str
    detail: str
    unseen: str = ""
    offenders: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("code", CODES), ("severity", ("error", "warning")), ("status", _STATUSES)):
            check_name(f"Finding.{name}", getattr(self, name), known)

    @property
    def is_error(self) -> bool:
        """Whether this is an issue that makes scores misleading."""
        return self.status == "issue" and self.severity == "error"

    @property
    def remedy(self) -> str:
        """What to do about an issue."""
        return _REMEDIES[self.code]

    @property
    def named(self) -> str:
        """The first offenders and the count of the rest."""
        return "; ".join(self.offenders[:_SHOWN]) + and_more(len(self.offenders) - _SHOWN + 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; of the offenders the first three and the count."""
        offenders = {"n": len(self.offenders), "first": list(self.offenders[:_SHOWN])}
        return {**asdict(self), "offenders": offenders, "numbers": dict(self.numbers)}


def decide(code, offenders, found, otherwise, unseen, /, *, severity="error", **numbers) -> Finding:
    """Make the finding of a check: an issue with the detail `found` if there are offenders, else `otherwise`."""
    status, detail = ("issue", found) if offenders else ("passed", otherwise)
    return Finding(code, CODES[code], severity, status, detail, unseen, tuple(offenders), numbers)


def not_applicable(code, detail, unseen) -> Finding:
    """Make the finding of a check that has nothing to look at; `detail` says why."""
    return Finding(code, CODES[code], "error", "not applicable", detail, unseen)


@dataclass(frozen=True)
class AuditReport:
    """The findings of an audit, one for each code that could be decided.

    Parameters
    ----------
    findings : tuple of Finding
        In the order of their codes.
    accepted : tuple of str
        Codes whose errors were accepted by name, by `check_audit`.

    Examples
    --------
    >>> shared = Finding("HF001", CODES["HF001"], "error", "issue", "Patients on both sides: 1.", offenders=("7",))
    >>> report = AuditReport((shared,))
    >>> [finding.code for finding in report.errors], report.warnings
    (['HF001'], ())
    >>> print(report.summary())
    - HF001 shared patient: ISSUE (error). Patients on both sides: 1. First: 7.
    """

    findings: tuple[Finding, ...]
    accepted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        codes = [finding.code for finding in self.findings]
        if len(set(codes)) < len(codes):
            raise ValueError(f"AuditReport.findings: expected each code once, got {codes}. Join findings of one code.")
        object.__setattr__(self, "findings", tuple(sorted(self.findings, key=lambda finding: finding.code)))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The issues that are errors."""
        return tuple(finding for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The issues that are warnings."""
        return tuple(f for f in self.findings if f.status == "issue" and f.severity == "warning")

    def finding(self, code: str) -> Finding:
        """Give the finding of a code.

        Raises
        ------
        ValueError
            If the code is unknown, or was not decided in this report.
        """
        by_code = {finding.code: finding for finding in self.findings}
        check_name("AuditReport.finding", code, by_code, "a code of this report")
        return by_code[code]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types, for ``metrics.json``."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "accepted": list(self.accepted),
            "errors": [finding.code for finding in self.errors],
            "warnings": [finding.code for finding in self.warnings],
        }

    def summary(self) -> str:
        """Lines that read as plain text and as a Markdown list."""
        return "\n".join(f"- {self._line(finding)}" for finding in self.findings)

    def _line(self, finding: Finding) -> str:
        status = finding.status
        if status == "issue":
            accepted = ", accepted by name" if finding.code in self.accepted else ""
            status = f"ISSUE ({finding.severity}{accepted})"
        first = f"First: {finding.named}." if finding.offenders else ""
        unseen = f"Not seen: {finding.unseen}" if finding.unseen else ""
        return " ".join(filter(None, (f"{finding.code} {finding.title}: {status}.", finding.detail, first, unseen)))


def check_audit(report: AuditReport, accept: Iterable[str] = ()) -> AuditReport:
    """Refuse errors that were not accepted by name.

    Parameters
    ----------
    report : AuditReport
        What the audit found.
    accept : iterable of str, default=()
        Codes whose errors are known and wanted, such as ``("HF001",)`` to measure what a split by patch adds.

    Returns
    -------
    report : AuditReport
        The same, with ``accepted`` naming the errors that were there and were accepted.

    Raises
    ------
    GroupLeakageError
        If an error means that the model knows test patients (HF001 to HF003, HF005, HF007, HF009, HF010, HF012, HF014)
        and was not accepted.
    ValueError
        If there is another error that was not accepted, or `accept` holds an unknown code.

    Examples
    --------
    >>> shared = Finding("HF001", CODES["HF001"], "error", "issue", "Patients on both sides: 1.", offenders=("7",))
    >>> check_audit(AuditReport((shared,)), accept=("HF001",)).accepted
    ('HF001',)
    >>> check_audit(AuditReport((shared,)))
    Traceback (most recent call last):
    histofeat.exceptions.GroupLeakageError: HF001 shared patient: expected none, got 1: 7. Patients on both sides: 1...
    """
    accept = check_codes(accept)
    refused = [finding for finding in report.errors if finding.code not in accept]
    if refused:
        # A leak outweighs the rest, and decides the kind of the error.
        first = min(refused, key=lambda finding: (finding.code not in _LEAKS, finding.code))
        kind = GroupLeakageError if first.code in _LEAKS else ValueError
        raise kind(_refusal(first, refused, accept))
    return replace(report, accepted=tuple(f.code for f in report.errors if f.code in accept))


def check_codes(accept: object) -> tuple[str, ...]:
    """Check that all codes are known, and return them as a tuple.

    Raises
    ------
    ValueError
        If a code is unknown; the message gives the nearest one.
    """
    codes = (accept,) if isinstance(accept, str) or not isinstance(accept, Iterable) else tuple(accept)
    wrong = [code for code in codes if code not in CODES]
    if wrong or isinstance(accept, str):
        got, hint = (wrong or codes)[0], known_names(wrong[0], CODES) if wrong else 'Write ("HF001",).'
        raise ValueError(f"accept_findings: expected a tuple of codes of the audit, got {got!r}. {hint}")
    return codes


def _refusal(first: Finding, refused: list[Finding], accept: tuple[str, ...]) -> str:
    codes = sorted({*accept, *(finding.code for finding in refused)})
    wanted = ", ".join(f'"{code}"' for code in codes) + ("," if len(codes) == 1 else "")
    others = [f"{finding.code} {finding.title}" for finding in refused if finding is not first]
    also = f" Errors as well: {', '.join(others)}." if others else ""
    return (
        f"{first.code} {first.title}: expected none, got {max(1, len(first.offenders)):,}: {first.named}. "
        f"{first.detail} {first.remedy}{also} To accept this: AuditPolicy(accept_findings=({wanted}))."
    )
