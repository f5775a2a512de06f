"""Which pipeline goes to the official IDC test patients: a few candidates, compared on all other patients.

    python benchmarks/protocols/official_candidates.py --data /path/to/idc --weights /path/to/weights

Three folds of the patients outside the official test set; ROC-AUC, and balanced accuracy at the threshold that is
chosen for Youden's index inside the training patients of each fold. The candidate of the highest ROC-AUC is `CHOSEN`,
the one pipeline that `idc_official.py` adds to its standard sets. Writes reports/official-candidates.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "benchmarks")]

import study  # noqa: E402

PROGRAM = "official_candidates.py"
RULE = "youden"
HANDCRAFTED = ("color", "lbp", "haralick")
NETWORK, MIDDLE = "mobilenetv2_0.35", "mobilenetv2_0.35_mid"
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
        from histofeat import IDCPipeline

        network = {"cnn__encoder": self.encoder, "cnn__input_size": 128}
        if options.weights:
            network["cnn__weights_dir"] = str(options.weights.expanduser().resolve())
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
    Candidate("PFTAS and middle layers", ALL, encoder=MIDDLE),
    Candidate("PFTAS and middle layers, slow boosting", ALL, boosting=SLOW_BOOSTING, encoder=MIDDLE),
    Candidate("PFTAS and middle layers, svm", ALL, head="svm", encoder=MIDDLE),
    Candidate("PFTAS and middle layers, vote", ALL, head="vote", boosting=SLOW_BOOSTING, encoder=MIDDLE),
)
#: Of the run that lies in reports/official-candidates.
CHOSEN = CANDIDATES[-1]


def make_parser():
    """Build the command line."""
    return study.study_parser(
        PROGRAM, "Compare candidates for the official IDC test patients on all others.", "official-candidates"
    )


def main(arguments=None):
    """Compare; returns the exit code."""
    return study.run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Evaluate every candidate on the same folds, and write what came out."""
    import run_all

    from histofeat.evaluation import evaluate
    from histofeat.model_selection import PatientKFold
    from histofeat.reporting import check_output

    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    dataset = study.development_patients(options)
    candidates = [c for c in CANDIDATES if not options.quick or "cnn" not in c.families]
    with run_all.make_progress() as progress:
        evaluation = evaluate(
            dataset,
            [(candidate.name, candidate.pipeline(options)) for candidate in candidates],
            PatientKFold(2 if options.quick else 3, random_state=options.seed),
            n_resamples=100 if options.quick else 2000,
            random_state=options.seed,
            runtime=Runtime(n_jobs=options.n_jobs, store=options.store, progress=progress),
            threshold=RULE,
        )
    command = study.command_line(f"protocols/{PROGRAM}", make_parser(), options)
    print(study.write_study(describe(evaluation), options, command=command))


def describe(evaluation):
    """Turn the evaluation into a page."""
    import pandas as pd

    from histofeat.reporting import Notice, Table, Text

    table = pd.DataFrame([_row(model) for model in evaluation.models])
    best = table["roc_auc"].idxmax() if len(table) else None
    data = evaluation.dataset
    n_patients = len(set(data.patients))
    words = (
        f"{len(data):,} patches of {n_patients:,} patients outside the official test set, three folds of patients. "
        f"{len(table)} candidates. Balanced accuracy at the threshold of the highest sensitivity + specificity among "
        "the training patients of each fold. Intervals resample patients; the highest of several is a little too high."
    )
    missing = tuple(f"{entry.name}: {entry.reason}" for entry in evaluation.not_run)
    rows = tuple(
        (row.candidate, row.head, f"{row.n_features:,}", _score(row, "roc_auc"), _score(row, "balanced_accuracy"))
        for row in table.itertuples()
    )
    columns = ("Candidate", "Head", "Features", "ROC-AUC [95 % interval]", "Balanced accuracy [95 % interval]")
    blocks = [Notice("warning", "Not run", missing)] if missing else []
    blocks += [Text(words), Table("Pooled out of fold", columns, rows, n_text=2)]
    if best is not None:
        blocks.append(Text(f"Highest ROC-AUC: {table['candidate'][best]}."))
    results = {"rows": table, "families": {model.name: model.families for model in evaluation.models}}
    return study.Study("Candidates for the official test patients", tuple(blocks), results, {"candidates": table})


def _row(model):
    row = {"candidate": model.name, "head": model.head, "n_features": model.n_features}
    for name, score in (("roc_auc", model.scores["roc_auc"]), ("balanced_accuracy", model.tuned["balanced_accuracy"])):
        row |= {name: score.pooled, f"{name}_low": score.ci95[0], f"{name}_high": score.ci95[1]}
    return {**row, "fit_s": round(model.fit_s, 1)}


def _score(row, metric):
    low, high = getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")
    return f"{getattr(row, metric):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
