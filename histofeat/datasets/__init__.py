"""A folder on disk becomes a `PatchDataset`: which image, whose, which label, where on the slide."""

from histofeat.datasets.audit import DatasetAudit, FullSet, LeftOut
from histofeat.datasets.base import PatchDataset
from histofeat.datasets.breakhis import load_breakhis
from histofeat.datasets.breakhis.audit import BreakHisAudit
from histofeat.datasets.breakhis.folds import BreakHisFolds, breakhis_hold_outs, read_breakhis_folds
from histofeat.datasets.folders.class_folders import load_image_folder
from histofeat.datasets.folders.table import load_manifest
from histofeat.datasets.idc.loading import load_idc
from histofeat.datasets.idc.official import OfficialSplit, official_roles
from histofeat.datasets.parts import DatasetSplit, predefined_split
from histofeat.datasets.rare_classes import merge_rare_classes
from histofeat.datasets.splitting import split_dataset
from histofeat.datasets.synthetic.breakhis_cohort import make_breakhis_cohort
from histofeat.datasets.synthetic.idc_cohort import make_cohort
from histofeat.datasets.synthetic.signature import make_signature_cohort

__all__ = [
    "BreakHisAudit",
    "BreakHisFolds",
    "DatasetAudit",
    "DatasetSplit",
    "FullSet",
    "LeftOut",
    "OfficialSplit",
    "PatchDataset",
    "breakhis_hold_outs",
    "load_breakhis",
    "load_idc",
    "load_image_folder",
    "load_manifest",
    "make_breakhis_cohort",
    "make_cohort",
    "make_signature_cohort",
    "merge_rare_classes",
    "official_roles",
    "predefined_split",
    "read_breakhis_folds",
    "split_dataset",
]
