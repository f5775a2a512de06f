"""Averages over patients, paired comparisons and tests; each says what it may be used for, and refuses the rest."""

from histofeat.metrics.statistics.comparison import Comparison, Comparisons, bootstrap_p, compare_models, holm
from histofeat.metrics.statistics.delong import DeLong, PatientScores, delong, patient_scores
from histofeat.metrics.statistics.patient_average import PatientAverages, patient_averages
from histofeat.metrics.statistics.recognition import RecognitionRates, recognition_rates
from histofeat.metrics.statistics.resampled_t import ResampledTTest, nadeau_bengio

__all__ = [
    "Comparison",
    "Comparisons",
    "DeLong",
    "PatientAverages",
    "PatientScores",
    "RecognitionRates",
    "ResampledTTest",
    "bootstrap_p",
    "compare_models",
    "delong",
    "holm",
    "nadeau_bengio",
    "patient_averages",
    "patient_scores",
    "recognition_rates",
]
