"""The audit of the split as a section of a report, from the content of `metrics.json`."""

from histofeat.reporting.blocks import Details, Facts, Heading, Notice, Table, Text

__all__ = ["audit_blocks", "audit_notices"]

_CAPTION = "What was looked for before anything was fitted"
_COLUMNS = ("Code", "Looked for", "Result", "What was found")


def audit_notices(payload_audit):
    """Give what a reader must not miss: errors that the evaluation went on with, and those nobody was asked about.

    Parameters
    ----------
    payload_audit : dict or None
        ``AuditReport.to_dict()``.

    Returns
    -------
    notices : list of Notice
        Empty without an audit and without errors; of level "danger".
    """
    if payload_audit is None:
        return []
    errors = [finding for finding in payload_audit["findings"] if _is_error(finding)]
    accepted = [finding for finding in errors if finding["code"] in payload_audit["accepted"]]
    others = [finding for finding in errors if finding not in accepted]
    titles = (
        (accepted, "The split has errors that were accepted by name: no number here is one for new patients"),
        (others, "The split has errors"),
    )
    return [Notice("danger", title, tuple(map(_sentence, found))) for found, title in titles if found]


def audit_blocks(payload_audit, *, notices=True, label=None):
    """Give the section on the audit of the split.

    Parameters
    ----------
    payload_audit : dict or None
        ``AuditReport.to_dict()``.
    notices : bool, default=True
        Whether `audit_notices` stand under the heading; False where they stand elsewhere.
    label : str, optional
        Whose patches, to stand before the caption of the table.

    Returns
    -------
    blocks : list
        Of `histofeat.reporting.blocks`; empty without an audit.

    Examples
    --------
    >>> finding = {"code": "HF001", "title": "shared patient", "severity": "error", "status": "passed",
    ...            "detail": "None.", "unseen": "", "offenders": {"n": 0, "first": []}, "numbers": {}}
    >>> blocks = audit_blocks({"findings": [finding], "accepted": [], "errors": [], "warnings": []})
    >>> blocks[-1].rows
    (('HF001', 'shared patient', 'passed', 'None.'),)
    """
    if payload_audit is None:
        return []
    findings = payload_audit["findings"]
    rows = tuple((f["code"], f["title"], _result(f, payload_audit["accepted"]), f["detail"]) for f in findings)
    blocks = [
        Heading("Audit of the split"),
        *(audit_notices(payload_audit) if notices else ()),
        Text(_count_words(findings)),
        Table(f"{label}. {_CAPTION}" if label else _CAPTION, _COLUMNS, rows, n_text=len(_COLUMNS)),
    ]
    offenders = tuple((f["code"], _offenders(f["offenders"])) for f in findings if f["offenders"]["n"])
    unseen = tuple((f["code"], f["unseen"]) for f in findings if f["unseen"])
    if offenders:
        blocks.append(Details("Offenders by name", (Facts(offenders),)))
    if unseen:
        blocks.append(Details("What each check cannot see", (Facts(unseen),)))
    return blocks


def _is_error(finding):
    return finding["status"] == "issue" and finding["severity"] == "error"


def _result(finding, accepted):
    if finding["status"] != "issue":
        return finding["status"]
    return f"{finding['severity']}, accepted by name" if finding["code"] in accepted else finding["severity"]


def _sentence(finding):
    return f"{finding['code']} {finding['title']}: {finding['detail']}"


def _offenders(offenders):
    more = offenders["n"] - len(offenders["first"])
    return "; ".join(offenders["first"]) + (f" (and {more:,} more)" if more > 0 else "")


def _count_words(findings):
    issues = [finding for finding in findings if finding["status"] == "issue"]
    errors = sum(map(_is_error, issues))
    idle = sum(finding["status"] == "not applicable" for finding in findings)
    passed = len(findings) - len(issues) - idle
    return (
        f"Errors: {errors}; warnings: {len(issues) - errors}; passed: {passed}; not applicable: {idle}. An audit finds "
        "what it looks for: what each check cannot see is said below."
    )
