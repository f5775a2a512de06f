"""The audit of a split: shared patients, copies, siblings, contradictions, and what was fitted too early.

Every finding has a code, which `histofeat.evaluate(..., accept_findings=("HF001",))` accepts by name:

===== =========================================================================== =========
code  what is looked for                                                          severity
===== =========================================================================== =========
HF001 a patient on both sides of a fold                                           error
HF002 images of equal pixels on both sides                                        error
HF003 images that look the same on both sides                                     warning
HF004 a side of a fold without a class                                            error
HF005 sections of one case on both sides, under different patient ids             error
HF006 one patient or one image under two labels                                   error [1]_
HF007 an encoder that was trained on images of tested patients                    error [1]_
HF008 a part, a threshold or a standardisation fitted outside the training rows   error [1]_
===== =========================================================================== =========

.. [1] Or a warning: see `contradicting_labels`, `trained_encoders` and `fitted_outside`.
"""

from importlib import import_module

_HOME = {
    "AuditReport": "findings",
    "CODES": "findings",
    "Finding": "findings",
    "Fingerprints": "fingerprint",
    "ImageFingerprint": "fingerprint",
    "KnownPatients": "known_patients",
    "TrainingImages": "fingerprint",
    "audit_encoders": "audit",
    "audit_fingerprints": "audit",
    "audit_split": "audit",
    "cheap_findings": "audit",
    "check_audit": "findings",
    "check_codes": "findings",
    "find_known_patients": "known_patients",
    "predictions_of": "predictions",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return __all__
