"""What a patient or slide id says beyond itself: the number of the case, and the letters of the section."""

from __future__ import annotations

import re

__all__ = ["case_number", "section_letters"]

#: BreakHis puts the tumour type before the year; one case filed under two types is one patient all the same.
_TUMOUR_TYPE = re.compile(r"(?:SOB_)?(?:[BM]_)?(?:A|F|PT|TA|DC|LC|MC|PC)[-_](?=\d+-\d)", re.IGNORECASE)
#: Numbers only, so that "TCGA-A1-A0SB" and "patient7b" are not taken for sections of one case.
_SECTION = re.compile(r"((?:\d+-)?\d+)([A-Z]{0,3})", re.IGNORECASE | re.ASCII)


def _parts(identifier: str) -> tuple[str, str] | None:
    match = _SECTION.fullmatch(_TUMOUR_TYPE.sub("", identifier.strip(), count=1))
    return None if match is None else (match.group(1), match.group(2).upper())


def case_number(identifier: str) -> str:
    """Number of the case that an id belongs to, or the id itself where it has another form.

    Parameters
    ----------
    identifier : str
        Such as ``"22549AB"``, ``"14-22549AB"`` or ``"SOB_B_A-14-22549AB"``.

    Returns
    -------
    number : str
        Without section letters and without BreakHis's tumour type.

    Examples
    --------
    >>> [case_number(name) for name in ("22549AB", "22549G", "SOB_M_LC-14-13412", "8863", "TCGA-A1-A0SB")]
    ['22549', '22549', '14-13412', '8863', 'TCGA-A1-A0SB']
    """
    parts = _parts(identifier)
    return identifier if parts is None else parts[0]


def section_letters(identifier: str) -> str:
    """Letters of the section at the end of an id, in capitals; empty where there are none.

    Examples
    --------
    >>> section_letters("14-22549ab"), section_letters("18842"), section_letters("TCGA-A1-A0SB")
    ('AB', '', '')
    """
    parts = _parts(identifier)
    return "" if parts is None else parts[1]
