"""Do probabilities mean what they say, and what to do where they do not."""

from histofeat.metrics.calibration.bins import STRATEGIES, BinTable
from histofeat.metrics.calibration.calibrator import METHODS, Calibrator, fit_calibrator
from histofeat.metrics.calibration.reliability import (
    BrierDecomposition,
    CalibrationAssessment,
    CalibrationError,
    ReliabilityCurve,
    assess_calibration,
    brier_decomposition,
    expected_calibration_error,
    reliability_curve,
)

__all__ = [
    "METHODS",
    "STRATEGIES",
    "BinTable",
    "BrierDecomposition",
    "CalibrationAssessment",
    "CalibrationError",
    "Calibrator",
    "ReliabilityCurve",
    "assess_calibration",
    "brier_decomposition",
    "expected_calibration_error",
    "fit_calibrator",
    "reliability_curve",
]
