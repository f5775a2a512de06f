"""The register of studies: their names and options, as plain data; the function of a study is imported when it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from histofeat.exceptions import check_name


@dataclass(frozen=True)
class Study:
    """A question about features, heads or splits that one command answers.

    Parameters
    ----------
    name : str
        Of the study, of its template in `histofeat.reporting` (``study-NAME.md.j2``) and of its folder of results.
    title, description : str
        Heading of the page, and one sentence for ``--help``.
    run : callable
        Called as ``run(options, runtime)``, with an object that has an attribute for each option and a
        `histofeat.features.Runtime`; returns `Findings`.
    options : Mapping of str to Mapping
        Options beyond those of all studies: names with dashes, each as `option` describes it.
    data : {"any", True, "optional", False}, default=True
        Whether the study reads images: "any" data set, which it opens by ``options.open()``, or the folders
        ``options.data``, which may be none where they are optional.
    folder : str, optional
        Name of its folder of results; by default that of the study.
    template : path-like, optional
        The template of a study outside the library.
    """

    name: str
    title: str
    description: str
    run: Callable[[Any, Any], Any] = field(repr=False)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    data: bool | str = True
    folder: str = ""
    template: str | Path = ""


def option(
    default: Any, words: str, *, kind: type | None = None, metavar: str = "", choices: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Describe an option of a study: one with a list takes several values, one that is False by default takes none.

    Examples
    --------
    >>> option([10, 20], "sizes")
    {'default': [10, 20], 'words': 'sizes', 'kind': <class 'int'>, 'metavar': 'N', 'choices': ()}
    """
    kind = kind or type(next(iter(default), "") if isinstance(default, list) else default)
    metavar = metavar or "|".join(choices) or {int: "N", float: "X", str: "NAME"}.get(kind, "FILE")
    return {"default": default, "words": words, "kind": kind, "metavar": metavar, "choices": choices}


#: Written out, for to import the families takes longer than `--help` may take.
SETS = (
    "feature sets: color, lbp, haralick, handcrafted (these three), pftas, fuzzy_color, joint_color, gray, glcm, clbp, "
    "lpq, cnn, everything (handcrafted and cnn), histo, with_histo (handcrafted and histo)"
)
#: Options of every study on folds of patients.
FOLDS = {"folds": option(5, "folds of patients"), "resamples": option(2000, "resamples of the patients")}
#: Models of BreakHis by default, and the one that all others are compared with.
_FEATURES, REFERENCE = ["clbp", "lpq", "lbp", "glcm", "haralick", "pftas", "color", "handcrafted"], "pftas/svm"
MAGNIFICATIONS = [40, 100, 200, 400]
_DUPLICATES = ("refuse", "drop", "published")
_LISTS = "folder of dsfold1.txt to dsfold5.txt; by default beside the images"
_LEAKS = "leaks of the published lists to go on with: siblings, 'two labels'"
_EVERY_SET = ["color", "lbp", "haralick", "pftas", "handcrafted", "cnn", "everything"]
_PER_PATIENT = {"patches-per-patient": option(20, "tested patches of a patient, at most")}
_HEADS = {"heads": option(["xgboost"], "heads")}
#: Families to identify patients with.
IDENTIFIED = ["color", "lbp", "haralick", "pftas", "cnn"]


def _run(file, name, options, runtime):
    return getattr(import_module(f"histofeat.studies._{file}"), name)(options, runtime)


_EVERY = (
    Study(
        "breakhis",
        "The protocol of BreakHis",
        "Run the protocol of BreakHis.",
        partial(_run, "breakhis_study", "run_breakhis"),
        {
            "features": option(_FEATURES, "families, or handcrafted: color, lbp and haralick"),
            "heads": option(["knn", "qda", "random_forest", "svm", "xgboost"], "heads on the hold-outs"),
            "fold-heads": option(["random_forest", "svm"], "heads under folds of patients, fitted four times a fold"),
            "reference": option(REFERENCE, "the model that all others are compared with, as SET/HEAD"),
            "magnifications": option(MAGNIFICATIONS, "magnifications"),
            "patient-key": option("number", "a patient is a slide number, or each full id", choices=("number", "full")),
            "duplicates": option("drop", "slide 13412, which lies under two subtypes", choices=_DUPLICATES),
            "lists": option(None, _LISTS, kind=Path, metavar="DIR"),
            "accept-leaks": option([], _LEAKS, metavar="LEAK"),
            "resamples": option(2000, "resamples of the patients"),
        },
        data="optional",
    ),
    Study(
        "calibration",
        "Probabilities, thresholds and prediction sets",
        "Measure calibration, thresholds and prediction sets.",
        partial(_run, "calibration_study", "run_calibration"),
        {
            "features": option(["handcrafted", "everything"], SETS),
            "heads": option(["xgboost", "svm"], "heads"),
            "sensitivity": option([0.8, 0.9, 0.95, 0.99], "required sensitivities"),
            "levels": option([0.8, 0.9, 0.95], "coverages asked of prediction sets"),
            **FOLDS,
        },
        data="any",
    ),
    Study(
        "encoders",
        "Encoders: alone, beside handcrafted features, and what they cost",
        "Compare encoders with handcrafted features, alone and beside them.",
        partial(_run, "encoder_study", "run_encoders"),
        {
            "encoders": option([], "encoders, by default those whose weights are at hand"),
            "sizes": option([96, 128], "sizes in px of patches, for networks that accept several"),
            "heads": option(["logistic", "xgboost"], "heads"),
            "families": option(["color", "lbp", "haralick", "pftas"], "handcrafted families"),
            **FOLDS,
            "patches-per-patient": option(20, "patches of a patient, at most"),
        },
        data="any",
    ),
    Study(
        "explanation",
        "Explanation: what the score depends on, and what it costs",
        "Say which features a score depends on, and what they cost.",
        partial(_run, "explanation_study", "run_explanation"),
        {
            "head": option("xgboost", "the head of every fit"),
            "repeats": option(5, "permutations of each part"),
            **FOLDS,
        },
        data="any",
    ),
    Study(
        "interval-coverage",
        "Do the intervals cover? A simulation",
        "Count how often 95 % intervals contain the truth, and how often tests err, on simulated patients.",
        partial(_run, "interval_coverage", "run_interval_coverage"),
        {
            "repetitions": option(2000, "cohorts drawn in each setting"),
            "resamples": option(500, "resamples behind each interval"),
            "population": option(100_000, "patients behind the true values"),
            "patients": option([10, 20, 30, 49, 100, 200], "patients of a cohort"),
            "compared": option([10, 20, 49], "patients of a cohort on which models are compared"),
        },
        data=False,
    ),
    Study(
        "leakage",
        "What a split by patch adds",
        "Score the same pipelines under a split by patch and by patient.",
        partial(_run, "idc_studies", "run_leakage"),
        {
            "features": option(_EVERY_SET, SETS),
            **_HEADS,
            "few-patients": option([16], "numbers of patients to measure the leak of few patients with"),
            "draws": option(10, "random draws of that many patients"),
            "few-heads": option(["svm", "xgboost"], "heads there"),
            **FOLDS,
        },
        data="any",
    ),
    Study(
        "learning-curves",
        "Learning curves in patients",
        "Score feature sets by the number of training patients.",
        partial(_run, "idc_studies", "run_learning_curves"),
        {
            "features": option(["handcrafted", "cnn", "everything"], SETS),
            "sizes": option([10, 20, 40, 80], "numbers of training patients, before all of them"),
            "draws": option(5, "orders of the training patients in each fold"),
            **FOLDS,
        },
        data="any",
    ),
    Study(
        "normalization",
        "Stain normalisation before each feature family",
        "Score families with and without stain normalisation.",
        partial(_run, "idc_studies", "run_normalization"),
        {
            "features": option(["color", "haralick", "handcrafted", "cnn"], SETS),
            **FOLDS,
            **_PER_PATIENT,
            # The smallest p-value is 1 / resamples, and it is multiplied by the number of comparisons: 112.
            "resamples": option(10_000, "resamples of the patients"),
        },
        data="any",
    ),
    Study(
        "robustness",
        "Robustness: ROC-AUC under perturbed patches",
        "Score families on perturbed patches of held-out patients.",
        partial(_run, "idc_studies", "run_robustness"),
        {"features": option(_EVERY_SET, SETS), **FOLDS, **_PER_PATIENT},
        data="any",
    ),
    Study(
        "shortcuts",
        "Shortcuts and patient identification",
        "Score shortcuts alone, and identify patients by features.",
        partial(_run, "idc_studies", "run_shortcuts"),
        {
            "features": option(["handcrafted", "everything"], SETS),
            **_HEADS,
            "identify": option(IDENTIFIED, "families to identify patients with"),
            **FOLDS,
        },
        data="any",
    ),
)
#: Studies by name.
STUDIES: dict[str, Study] = {study.name: study for study in _EVERY}


def find_study(name: str) -> Study:
    """Return the study of this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    check_name("study", name, STUDIES, "a known name")
    return STUDIES[name]
