"""``histofeat train``: fit a model on labelled images, estimate its scores, save it."""

from pathlib import Path
from typing import Annotated

import typer

from histofeat.cli._options import DataOptions, RunOptions, flag, group, option
from histofeat.cli._outputs import SHOWN

_Features = option(
    str | None,
    "LIST",
    "Families, separated by commas: color, lbp, haralick, pftas, fuzzy_color, joint_color, gray, glcm, clbp, "
    "lpq, cnn, histo; or pixels, for a network.  [default: color,lbp,haralick]",
)
_Head = option(str, "NAME", "xgboost, svm, logistic, random_forest, vote, knn or qda; or a network such as cancernet.")
_Folds = Annotated[int, typer.Option(metavar="N", min=2, help="Folds of patients for the estimate.")]


def train(
    data: group(DataOptions, required=["data"]),
    output: option(Path, "MODEL", "The new file of the model.", "--output", "-o"),
    run: group(RunOptions, without=["store", "no_store"]),
    features: _Features = None,
    head: _Head = "xgboost",
    normalizer: option(str | None, "NAME", "Stain normaliser: reinhard, macenko.") = None,
    class_weight: option(str | None, "balanced", "Give rare classes more weight.") = None,
    epochs: option(int | None, "N", "Of a network.") = None,
    folds: _Folds = 5,
    no_estimate: flag("--no-estimate", "Only fit; make no estimate on unseen patients.") = False,
    overwrite: flag("--overwrite", "Replace a model that is there.") = False,
) -> None:
    """Train a model on labelled images, and estimate it on patients that it has not seen.

    If there are folders "train" and "validation" or "test", only the images in "train" are used. The estimate scores
    each image by a fit on other patients; the model that is saved is a last fit on all of them.

    Examples
    --------
    histofeat train idc --output model.histofeat
    histofeat train breakhis --magnification 100 --features pftas --head svm --output model.histofeat
    """
    from histofeat.evaluation import make_pipeline, train_model
    from histofeat.models import check_target, save_model

    check_target(output, overwrite=overwrite)
    families = None if features is None else [name.strip() for name in features.split(",")]
    settings = {"epochs": epochs, "class_weight": class_weight, "normalizer": normalizer, "n_jobs": run.n_jobs}
    settings["progress"] = lambda done, total, values: run.progress.say(_epoch(done, total, values))
    pipeline = make_pipeline(families, head, random_state=run.seed, **settings)
    runtime = run.runtime(f"train {data.name}", n_jobs=None)
    dataset = data.open(training=True)
    run.progress.say(dataset.audit.summary())
    n_folds = None if no_estimate else folds
    model = train_model(dataset, pipeline, folds=n_folds, random_state=run.seed, runtime=runtime)
    save_model(model, output, overwrite=overwrite)
    run.write_config(output)
    run.show(model.about, lambda: _show(model, output))


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
