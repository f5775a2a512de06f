"""What a shortcut panel holds, as frozen records."""

import math
from dataclasses import asdict, dataclass

__all__ = ["Identification", "Probe", "Reference", "ShortcutPanel", "Skipped", "plain_values"]

NOTHING = (math.nan, math.nan)


@dataclass(frozen=True)
class Probe:
    """A classifier on one shortcut alone, under the folds of an evaluation.

    Parameters
    ----------
    name : str
        The shortcut.
    definition : str
        What exactly the classifier sees.
    n_features : int
    roc_auc : float
        Of the pooled out-of-fold scores.
    ci95 : tuple of (float, float)
        95 % percentile interval, from resampling patients.
    share : float
        (`roc_auc` - 0.5) / (ROC-AUC of the reference - 0.5): how much of the reference's score above chance the
        shortcut reaches by itself. NaN without a reference, or where that cannot be told from chance.
    share_ci95 : tuple of (float, float)
        Its interval, both scores from the same resamples.
    """

    name: str
    definition: str
    n_features: int
    roc_auc: float
    ci95: tuple[float, float]
    share: float = math.nan
    share_ci95: tuple[float, float] = NOTHING


@dataclass(frozen=True)
class Identification:
    """How well a family of features tells patients apart.

    Parameters
    ----------
    family : str
    n_features : int
    accuracy : float
        Share of the patches that are given to their own patient, the mean over patients.
    ci95 : tuple of (float, float)
        95 % percentile interval, from resampling patients; the classifier and its choice of patients stay.
    chance : float
        Accuracy of guessing: one by the number of patients.
    n_patients : int
        The patients with enough patches.
    patches_per_patient : int
        Patches of each, every one of them tested once.
    """

    family: str
    n_features: int
    accuracy: float
    ci95: tuple[float, float]
    chance: float
    n_patients: int
    patches_per_patient: int


@dataclass(frozen=True)
class Reference:
    """The model whose score the shortcuts are held against."""

    name: str
    roc_auc: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Skipped:
    """A probe or a family that could not run, and the sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ShortcutPanel:
    """What shortcuts reach on their own, and how well features recognise the patient.

    Parameters
    ----------
    rows : tuple of Probe
        One per shortcut; the last is all of them together.
    identification : tuple of Identification
        One per family.
    reference : Reference or None
        The model of highest ROC-AUC among those given.
    not_run : tuple of Skipped
    n_patients, n_patches : int
        What was tested.
    n_folds : int
    n_resamples, random_state : int
        Behind the intervals.
    patient_overlap : bool
        Whether a patient is on both sides of a fold. A probe then shows what the leak gives it.
    """

    rows: tuple[Probe, ...]
    identification: tuple[Identification, ...]
    reference: Reference | None
    not_run: tuple[Skipped, ...]
    n_patients: int
    n_patches: int
    n_folds: int
    n_resamples: int
    random_state: int
    patient_overlap: bool

    def to_dict(self):
        """Give the content as dicts, lists and plain values, None for what is undefined: ready for JSON."""
        return plain_values(asdict(self))


def plain_values(value):
    """Give dicts, lists and plain values with the content of `value`; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
