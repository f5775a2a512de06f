"""BreakHis: the archive's names and tree, its copies and siblings, its published hold-outs, and a cohort like it."""

from histofeat.datasets.breakhis.audit import BreakHisAudit
from histofeat.datasets.breakhis.folds import BreakHisFolds, breakhis_hold_outs, read_breakhis_folds
from histofeat.datasets.breakhis.loading import load_breakhis
from histofeat.datasets.synthetic.breakhis_cohort import make_breakhis_cohort

__all__ = [
    "BreakHisAudit",
    "BreakHisFolds",
    "breakhis_hold_outs",
    "load_breakhis",
    "make_breakhis_cohort",
    "read_breakhis_folds",
]
