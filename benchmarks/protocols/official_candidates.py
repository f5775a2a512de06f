"""Which pipeline goes to the official IDC test patients: a few candidates, compared on all other patients.

    python benchmarks/study.py official-candidates --data /path/to/idc --weights /path/to/weights

Three folds of the patients outside the official test set; ROC-AUC, and balanced accuracy at the threshold that is
chosen for Youden's index inside the training patients of each fold. The candidate of the highest ROC-AUC on the first
sample of IDC is `CHOSEN`, the one pipeline that stands beside the standard sets on the published split, as an option
of `study idc-official`: `--pipeline chosen=official_candidates:CHOSEN_PIPELINE`. Writes reports/official-candidates.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.studies import Findings, Study, load_development_patients, network_params

HANDCRAFTED = ("color", "lbp", "haralick")
NETWORK, STAGES = "mobilenetv2_0.35", "mobilenetv2_0.35_stages"
#: More and smaller steps than the default head takes: slower, and a little better where columns are many.
SLOW_BOOSTING = {
    "n_estimators": 600,
    "learning_rate": 0.04,
    "max_depth": 5,
    "colsample_bytree": 0.2,
    "min_child_weight": 5,
}


@dataclass(frozen=True)
class Candidate:
    """One pipeline to compare.

    Parameters
    ----------
    name : str
    families : tuple of str
    head : str
    boosting : mapping
        Parameters of XGBoost beside the defaults.
    encoder : str
        The network of ``cnn``.
    """

    name: str
    families: tuple
    head: str = "xgboost"
    boosting: dict = field(default_factory=dict)
    encoder: str = NETWORK

    def pipeline(self, options):
        """Build it, with the weights and the seed of the command line."""
        network = network_params(options.weights, {"cnn__encoder": self.encoder, "cnn__input_size": 128})
        prefix = "xgboost__" if self.head == "vote" else ""
        return IDCPipeline(
            features=self.families,
            head=self.head,
            feature_params=network if "cnn" in self.families else None,
            head_params={f"{prefix}{name}": value for name, value in self.boosting.items()} or None,
            random_state=options.seed,
        )


ALL = (*HANDCRAFTED, "pftas", "cnn")
CANDIDATES = (
    Candidate("handcrafted", HANDCRAFTED),
    Candidate("handcrafted and network", (*HANDCRAFTED, "cnn")),
    Candidate("PFTAS and stages", ALL, encoder=STAGES),
    Candidate("PFTAS and stages, slow boosting", ALL, boosting=SLOW_BOOSTING, encoder=STAGES),
    Candidate("PFTAS and stages, svm", ALL, head="svm", encoder=STAGES),
    Candidate("PFTAS and stages, vote", ALL, head="vote", boosting=SLOW_BOOSTING, encoder=STAGES),
)
#: Of the run on the first sample, before any look.
CHOSEN = CANDIDATES[-1]
CHOSEN_PIPELINE = CHOSEN.pipeline(SimpleNamespace(weights=None, seed=0))
TEMPLATE = Path(__file__).with_name("study-official-candidates.md.j2")


def compare_candidates(candidates, options, runtime):
    """Evaluate every candidate on the same folds."""
    dataset = load_development_patients(options.data, quick=options.quick, random_state=options.seed)
    candidates = [one for one in candidates if not options.quick or "cnn" not in one.families]
    evaluation = evaluate(
        dataset, [(one.name, one.pipeline(options)) for one in candidates],
        PatientKFold(2 if options.quick else 3, random_state=options.seed),
        n_resamples=100 if options.quick else 2000, random_state=options.seed, threshold="youden", runtime=runtime,
    )  # fmt: skip
    table = pd.DataFrame([row_of(model) for model in evaluation.models])
    tested = {"patches": len(dataset), "patients": len(set(dataset.patients))}
    results = {
        "rows": table.to_dict("records"), "families": {model.name: model.families for model in evaluation.models},
        "tested": tested, "not_run": [f"{entry.name}: {entry.reason}" for entry in evaluation.not_run],
    }  # fmt: skip
    return Findings(results, {"candidates": table})


def row_of(model):
    """Return scores of one candidate with their intervals."""
    row = {"candidate": model.name, "head": model.head, "n_features": model.n_features}
    for name, score in (("roc_auc", model.scores["roc_auc"]), ("balanced_accuracy", model.tuned["balanced_accuracy"])):
        row |= {name: score.value, f"{name}_low": score.ci95[0], f"{name}_high": score.ci95[1]}
    return {**row, "fit_s": round(model.fit_s, 1)}


STUDY = Study(
    "official-candidates",
    "Candidates for the official test patients",
    "Compare candidates for the official IDC test patients on all others.",
    partial(compare_candidates, CANDIDATES),
    template=TEMPLATE,
)
