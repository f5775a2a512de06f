"""A folder on disk becomes a `PatchDataset`: which image, whose, which label, where on the slide."""

from histofeat.datasets.audit import DatasetAudit, FullSet, LeftOut
from histofeat.datasets.base import PatchDataset
from histofeat.datasets.idc import load_idc
from histofeat.datasets.official import OfficialSplit, official_roles
from histofeat.datasets.signature import make_signature_cohort
from histofeat.datasets.synthetic import make_cohort

__all__ = [
    "DatasetAudit",
    "FullSet",
    "LeftOut",
    "OfficialSplit",
    "PatchDataset",
    "load_idc",
    "make_cohort",
    "make_signature_cohort",
    "official_roles",
]
