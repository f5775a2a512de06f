"""Plant leaks that people make on real patches, and count how often the audit refuses, warns or misses them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets import load_breakhis
from histofeat.evaluation import audit_fingerprints
from histofeat.features import ColorHistogram, ImageFingerprint, TrainingImages, extract
from histofeat.images import read_patch
from histofeat.model_selection import PatientHoldOuts, PatientKFold
from histofeat.models import IDCPipeline
from histofeat.studies import Findings, Study, load_development_patients, option

#: Size of the sample that a leak is planted on.
PATIENTS, PATCHES = 40, 10
#: Splits of each whole sample on which nothing is planted.
CLEAN_SPLITS = 200


class Trial:
    """A small random sample in two folds by patient, and what a leak makes of it.

    Parameters
    ----------
    dataset : PatchDataset
    prints : ndarray of shape (n, 35), float32
        Fingerprints of its images.
    seed : int
        Of the sample and of everything that a leak draws.

    Attributes
    ----------
    frame : DataFrame, prints : ndarray, folds : list of (list of int, list of int), pipelines : mapping or None
        What is audited; leaks change them.
    """

    def __init__(self, dataset, prints, seed):
        self.rng = np.random.default_rng(seed)
        patients, rows = dataset.patients.astype(str), []
        for patient in self.rng.permutation(np.unique(patients))[:PATIENTS]:
            rows.extend(self.rng.permutation(np.flatnonzero(patients == patient))[:PATCHES])
        self.dataset = dataset.subset(np.sort(rows))
        self.frame, self.prints, self.pipelines = self.dataset.frame, prints[np.sort(rows)], None
        folds = PatientKFold(2, random_state=seed).split(self.dataset.X, self.dataset.y, self.dataset.patients)
        self.folds = [tuple(map(list, fold)) for fold in folds]

    def audit(self):
        """Audit the sample as it is now; gives the codes of errors and those of warnings."""
        dataset = replace(self.dataset, frame=self.frame, root=None, audit=None)
        report = audit_fingerprints(dataset, self.folds, self.prints, pipelines=self.pipelines)
        return [finding.code for finding in report.errors], [finding.code for finding in report.warnings]

    def append(self, rows, patients, changed, **columns):
        """Add changed images of some rows under other patients."""
        added = self.frame.iloc[rows].assign(patient=patients, path=[f"{k}.png" for k in range(len(rows))], **columns)
        self.frame = pd.concat([self.frame, added], ignore_index=True)
        self.prints = np.concatenate([self.prints, ImageFingerprint().transform(changed)])

    def divide(self, ids):
        """Test a random half of the ids, and train on the others."""
        names, code = np.unique(ids, return_inverse=True)
        tested = self.rng.permutation(len(names))[: len(names) // 2]
        self.folds = [tuple(list(np.flatnonzero(np.isin(code, tested) == side)) for side in (False, True))]


def copies():
    """Return the kinds of copies by name: functions of a patch (H, W, 3) uint8, of which one is drawn."""
    import cv2

    def jpeg(patch, quality=90):
        return cv2.imdecode(cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)

    def moved(right, down):
        shift = np.float32([[1, 0, right], [0, 1, down]])
        # Pixels from beyond the border are not in the patch: mirrored ones stand for them.
        return lambda patch: cv2.warpAffine(patch, shift, patch.shape[1::-1], borderMode=cv2.BORDER_REFLECT)

    mirrored = [lambda patch: patch[:, ::-1].copy(), lambda patch: patch[::-1].copy()]
    turned = [lambda patch, times=times: np.rot90(patch, times).copy() for times in (1, 3)]
    return {
        "JPEG, quality 90": [jpeg],
        "JPEG, quality 50": [lambda patch: jpeg(patch, 50)],
        "5 % darker": [lambda patch: np.rint(0.95 * patch).astype(np.uint8)],
        "moved 1 px right": [moved(1, 0)],
        "moved 1 px right and down": [moved(1, 1)],
        "moved 2 px right": [moved(2, 0)],
        "moved 3 px right and down": [moved(3, 3)],
        "moved 4 px right and down": [moved(4, 4)],
        "moved 5 px right and down": [moved(5, 5)],
        "cropped by 2 px a side": [lambda patch: cv2.resize(patch[2:-2, 2:-2], patch.shape[1::-1])],
        "same pixels": [np.copy],
        "mirrored": mirrored,
        "turned by a quarter": turned,
        "turned or mirrored, JPEG": [lambda patch, view=view: jpeg(view(patch)) for view in (*mirrored, *turned)],
    }


def leaks():
    """Return the leaks by name: a function of a `Trial`, which it changes."""
    kinds = copies()
    return {
        "split by patch": lambda trial: trial.divide(np.arange(len(trial.frame))),
        "one patient under two spellings": _two_spellings,
        "slides as patients": lambda trial: _by_halves(trial, "TCGA-A2-{}-01Z-00-DX1", "TCGA-A2-{}-01Z-00-DX2"),
        "sections as patients": lambda trial: _by_halves(trial, "{}A", "{}CD"),
        **{f"copy: {name}": _copied(kind) for name, kind in kinds.items()},
        "copy: same pixels, other label": _copied(kinds["same pixels"], other=True),
        "copy: JPEG, quality 90, other label": _copied(kinds["JPEG, quality 90"], other=True),
        "augmented before the split": lambda trial: _augmented(trial, kinds["turned or mirrored, JPEG"]),
        "other file format by class": _format_by_class,
        "encoder trained on a tested patient": _known_to_encoder,
    }


def _copied(kinds, *, other=False):
    """Copy a tested patch into a training patient; under another label where `other`."""

    def plant(trial):
        train, test = trial.folds[0]
        row, host, change = trial.rng.choice(test), trial.rng.choice(train), kinds[trial.rng.integers(len(kinds))]
        label = (trial.frame["label"][row] + other) % len(trial.dataset.target_names)
        changed = [change(read_patch(trial.frame["path"][row]))]
        trial.append([row], trial.frame["patient"][host], changed, label=label)
        new = len(trial.frame) - 1
        trial.folds = [([*train, new], test), (trial.folds[1][0], [*trial.folds[1][1], new])]

    return plant


def _augmented(trial, views):
    """Add a changed copy of each patch, take each file for a patient, and divide."""
    chosen = trial.rng.integers(len(views), size=len(trial.frame))
    changed = [views[k](read_patch(path)) for k, path in zip(chosen, trial.frame["path"], strict=True)]
    trial.append(np.arange(len(trial.frame)), "", changed)
    trial.frame = trial.frame.assign(patient=[f"image {k}" for k in range(len(trial.frame))])
    trial.divide(np.arange(len(trial.frame)))


def _two_spellings(trial):
    """Train on the half of a tested patient's patches, under another spelling of the id."""
    ids = "P-" + trial.frame["patient"].astype(str)
    spellings = (lambda x: x.lower(), lambda x: x.replace("-", "_"), lambda x: x.replace("P-", "P-0"), "{} ".format)
    train, test = trial.folds[0]
    tested = ids.iloc[test]
    rows = np.flatnonzero(ids == trial.rng.choice(tested[tested.duplicated()]))
    moved = [int(row) for row in rows[1::2]]
    ids.iloc[moved] = spellings[trial.rng.integers(len(spellings))](ids[rows[0]])
    trial.frame = trial.frame.assign(patient=ids)
    trial.folds = [([*train, *moved], [row for row in test if row not in moved])]


def _by_halves(trial, first, second):
    """Give the patches of each patient two ids in turn."""
    ids = [f"{patient:0>4}" for patient in trial.frame["patient"].astype(str).str[-4:]]
    forms = [(first, second)[k] for k in trial.frame.groupby("patient").cumcount() % 2]
    trial.frame = trial.frame.assign(patient=[form.format(name) for form, name in zip(forms, ids, strict=True)])
    trial.divide(trial.frame["patient"].to_numpy(str))


def _format_by_class(trial):
    paths = trial.frame["path"].str.replace(r"\.\w+$", "", regex=True)
    trial.frame = trial.frame.assign(path=paths + np.where(trial.frame["label"] == 0, ".png", ".jpg"))


def _known_to_encoder(trial):
    family, patients = ColorHistogram(), trial.frame["patient"].to_numpy(str)
    family.trained_on = TrainingImages.of("mine", trial.prints[patients == patients[trial.folds[0][1][0]]])
    trial.pipelines = {"mine": IDCPipeline(features=[family])}


def plant_leaks(dataset, prints, *, n_trials, random_state=0, runtime):
    """Plant each leak on random samples of a data set.

    Parameters
    ----------
    dataset : PatchDataset
    prints : ndarray of shape (n, 35), float32
        Fingerprints of its images, by `histofeat.features.ImageFingerprint`.
    n_trials : int
        Samples on which each leak is planted.
    random_state : int, default=0
        The first trial has this seed.
    runtime : Runtime
        Progress, with the stage "leaks".

    Returns
    -------
    rows : list of dict
        One for each leak: ``leak, trials, caught, warned, missed`` (counts) and ``codes`` (text). A leak is caught
        where the audit has an error that it does not have before, and warned of where it has only such a warning.
        The first row is without a leak: there everything that is found counts.
    """
    rows, kinds = [], {"nothing": lambda trial: None, **leaks()}
    for done, (name, plant) in enumerate(kinds.items()):
        runtime.report("leaks", done, len(kinds))
        outcomes, codes = Counter(), Counter()
        for seed in range(random_state, random_state + n_trials):
            trial = Trial(dataset, prints, seed)
            plant(trial)
            errors, warnings = trial.audit()
            outcomes["caught" if errors else "warned" if warnings else "missed"] += 1
            codes.update([*errors, *warnings])
        found = ", ".join(f"{code} {n}" for code, n in sorted(codes.items()))
        counts = {key: outcomes[key] for key in ("caught", "warned", "missed")}
        rows.append({"leak": name, "trials": n_trials, **counts, "codes": found})
    runtime.report("leaks", len(kinds), len(kinds))
    return rows


def false_alarms(dataset, prints, *, n_splits=CLEAN_SPLITS, random_state=0):
    """Audit random splits by patient of a sample as it is, all together: each code is found if it is in any split.

    Parameters
    ----------
    dataset, prints, random_state
        As for `plant_leaks`.
    n_splits : int
        How many splits hold out three patients of ten.

    Returns
    -------
    row : dict
        ``sample, patches, patients, splits``, and the codes of errors and of warnings that any of them has, as text.
    """
    holdouts = PatientHoldOuts(n_splits, random_state=random_state)
    report = audit_fingerprints(dataset, holdouts.split(dataset.X, dataset.y, groups=dataset.patients), prints)
    counts = {"patches": len(dataset), "patients": len(np.unique(dataset.patients.astype(str))), "splits": n_splits}
    found = {kind: ", ".join(f.code for f in getattr(report, kind)) for kind in ("errors", "warnings")}
    return {"sample": dataset.name, **counts, **found}


def run_planted_leaks(options, runtime):
    """Plant leaks on patients outside the official test set; look for false alarms there and on BreakHis."""
    dataset = load_development_patients(options.data, quick=options.quick, random_state=options.seed)
    beside = [folder / "breakhis" for folder in options.data]
    samples = [dataset, *(load_breakhis(folder) for folder in beside if folder.is_dir())]
    prints = [extract([ImageFingerprint()], one.X, n_jobs=runtime.n_jobs).features[0] for one in samples]
    n_trials, n_splits = (1, 5) if options.quick else (options.trials, CLEAN_SPLITS)
    rows = plant_leaks(dataset, prints[0], n_trials=n_trials, random_state=options.seed, runtime=runtime)
    alarms = [false_alarms(*one, n_splits=n_splits) for one in zip(samples, prints, strict=True)]
    results = {"leaks": rows, "false_alarms": alarms, "patients": PATIENTS, "patches": PATCHES}
    return Findings(results, {"leaks": pd.DataFrame(rows), "false_alarms": pd.DataFrame(alarms)})


STUDY = Study(
    "planted-leaks",
    "Planted leaks: what the audit finds",
    "Plant leaks that people make on real patches; count which of them the audit refuses, warns of and misses.",
    run_planted_leaks,
    {"trials": option(100, "samples on which each leak is planted")},
    template=Path(__file__).with_name("study-planted-leaks.md.j2"),
)
