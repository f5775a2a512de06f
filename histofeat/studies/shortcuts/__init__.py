"""Shortcuts: what a label could be guessed from without looking at the tissue, and what a split by patch hides."""

from histofeat.studies.shortcuts.families import BackgroundFraction, CompressionAndBlur, MeanColor, coordinate_features
from histofeat.studies.shortcuts.identification import identify_patients
from histofeat.studies.shortcuts.leakage import Leakage, LeakageRow, measure_leakage, touching_share
from histofeat.studies.shortcuts.panel import panel_of, shortcut_panel
from histofeat.studies.shortcuts.records import Identification, Probe, Reference, ShortcutPanel, Skipped

__all__ = [
    "BackgroundFraction",
    "CompressionAndBlur",
    "Identification",
    "Leakage",
    "LeakageRow",
    "MeanColor",
    "Probe",
    "Reference",
    "ShortcutPanel",
    "Skipped",
    "coordinate_features",
    "identify_patients",
    "measure_leakage",
    "panel_of",
    "shortcut_panel",
    "touching_share",
]
