"""``histofeat train``: fit a model on labelled images, estimate its scores, save it."""

from pathlib import Path
from typing import Annotated

import typer

from histofeat.cli._outputs import SHOWN, LedgerFile, NJobs, Progress, Quiet, option

_Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A folder (IDC, BreakHis, or CLASS/IMAGE) or a CSV manifest.")
]
_Features = option(
    str | None,
    "LIST",
    "Families, separated by commas: color, lbp, haralick, pftas, fuzzy_color, joint_color, gray, glcm, clbp, "
    "lpq, cnn, histo; or pixels, for a network.  [default: color,lbp,haralick]",
)
_Head = option(str, "NAME", "xgboost, svm, logistic, random_forest, vote, knn or qda; or a network such as cancernet.")
_Patients = option(
    str | None,
    "REGEX|CSV|folder|tcga|image",
    "Class folders: how to find the patient of an image: an expression with one group, a table with path and "
    "patient, its folder, its TCGA barcode; image where patients are unknown.",
)
_Duplicates = option(str | None, "NAME", "BreakHis: what to do with copies under two names: refuse, drop or published.")
_OnError = option(
    str | None,
    "NAME",
    "Images that cannot be read: skip: go on without them; raise: stop.  [default: skip those without a sound header, "
    "stop at others]",
)
_Folds = Annotated[int, typer.Option(metavar="N", min=2, help="Folds of patients for the estimate.")]
_NoEstimate = Annotated[bool, typer.Option("--no-estimate", help="Only fit; make no estimate on unseen patients.")]


def train(
    data: _Data,
    output: option(Path, "MODEL", "The new file of the model.", "--output", "-o"),
    format: option(str, "NAME", "auto, idc, breakhis, folder or csv.") = "auto",
    features: _Features = None,
    head: _Head = "xgboost",
    normalizer: option(str | None, "NAME", "Stain normaliser: reinhard, macenko.") = None,
    target: option(str | None, "NAME", "BreakHis: malignant or subtype.") = None,
    magnification: option(int | None, "N", "BreakHis: 40, 100, 200 or 400.") = None,
    duplicates: _Duplicates = None,
    patients: _Patients = None,
    path_prefix: option(list[str] | None, "OLD=NEW", "CSV: paths that begin with OLD begin with NEW here.") = None,
    on_error: _OnError = None,
    only: option(Path | None, "FILE", "Learn from these patients only, one id a line.") = None,
    class_weight: option(str | None, "balanced", "Give rare classes more weight.") = None,
    epochs: option(int | None, "N", "Of a network.") = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the fits and folds.")] = 0,
    n_jobs: NJobs = 1,
    folds: _Folds = 5,
    no_estimate: _NoEstimate = False,
    ledger: LedgerFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on labelled images, and estimate it on patients that it has not seen.

    If there are folders "train" and "validation" or "test", only the images in "train" are used. The estimate scores
    each image by a fit on other patients; the model that is saved is a last fit on all of them.
    """
    from histofeat.datasets import Ledger, open_dataset, training_part
    from histofeat.evaluation import make_pipeline, train_model
    from histofeat.features import Runtime
    from histofeat.models import check_target, save_model

    check_target(output, overwrite=overwrite)
    progress = Progress(quiet=quiet)
    families = None if features is None else [name.strip() for name in features.split(",")]
    settings = {"epochs": epochs, "class_weight": class_weight, "normalizer": normalizer, "n_jobs": n_jobs}
    settings["progress"] = lambda done, total, values: progress.say(_epoch(done, total, values))
    pipeline = make_pipeline(families, head, random_state=seed, **settings)
    reading = {"target": target, "magnification": magnification, "duplicates": duplicates, "on_error": on_error}
    reading["prefixes"] = dict(map(_prefix, path_prefix)) if path_prefix else None
    dataset = training_part(open_dataset(data, format, patients=patients, **reading), only=only)
    progress.say(dataset.audit.summary())
    n_folds = None if no_estimate else folds
    runtime = Runtime(progress=progress, ledger=ledger and Ledger(ledger, f"histofeat train {data.name}"))
    model = train_model(dataset, pipeline, folds=n_folds, random_state=seed, runtime=runtime)
    save_model(model, output, overwrite=overwrite)
    _show(model, output)


def _prefix(text: str) -> list[str]:
    if not all(text.partition("=")[::2]):
        raise ValueError(rf"--path-prefix: expected OLD=NEW, got {text!r}. Write D:\scans=/mnt/scans.")
    return text.split("=", 1)


def _epoch(done: int, total: int, values) -> str:
    known = [name for name in ("loss", "val_loss", "val_roc_auc", "seconds") if name in values]
    return f"epoch {done} of {total}: {', '.join(f'{name} {values[name]:.3f}' for name in known)}"


def _show(model, output: Path) -> None:
    from histofeat.metrics import METRIC_RECORDS

    about = model.about
    size = "of several sizes" if model.patch_size is None else "of {} x {} px".format(*model.patch_size)
    print(
        f"{output}: {about['head']} on {about['n_images']:,} images {size}, {about['n_patients']:,} patients of "
        f"{about['dataset']}; classes {', '.join(model.class_names)}"
    )
    estimate = about["estimate"]
    if estimate is None:
        print("No estimate was made: the scores of the model on other patients are not known.")
        return
    print(estimate["protocol"])
    for metric in SHOWN:
        score = estimate["scores"].get(metric)
        if score is not None:
            value, (low, high) = score["value"], score["ci95"]
            interval = "" if low is None else f"   95 % interval {low:.3f} to {high:.3f}"
            print(f"  {METRIC_RECORDS[metric].label:<30}{'undefined' if value is None else f'{value:.3f}'}{interval}")
