"""``histofeat train``: fit a model on labelled images, estimate its scores, save it."""

import sys
from dataclasses import replace
from pathlib import Path

import typer

from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, flag, group, option
from histofeat.cli._outputs import classes_of, print_metrics, print_scores
from histofeat.exceptions import check_name, counted
from histofeat.metrics import parse_rule, rule_examples

_Features = option(
    str | None,
    "LIST",
    "Families, separated by commas: color, lbp, haralick, pftas, fuzzy_color, joint_color, gray, glcm, clbp, "
    "lpq, cnn, histo; or pixels, for a network.  [default: color,lbp,haralick]",
)
_HEADS = "xgboost, svm, logistic, random_forest, vote, late_vote, stacking, knn, qda; or a network such as cancernet."
_Head = option(str, "NAME", _HEADS)
_Threshold = option(str | None, "RULE", f"Label by a threshold, chosen on unseen patients: {rule_examples()}.")
_Known = option(str, "NAME", "Patients that an encoder was trained on: refuse, or leave_out of the estimate.")
_Folds = option(int, "N", "Folds of patients for the estimate.", min=2)


def train(
    data: group(DataOptions, required=["data"]),
    output: option(Path, "MODEL", "The new file of the model.", "--output", "-o"),
    run: group(RunOptions, without=["cluster"]),
    encoder: EncoderOptions,
    features: _Features = None,
    head: _Head = "xgboost",
    normalizer: option(str | None, "NAME", "Stain normaliser: reinhard, macenko.") = None,
    class_weight: option(str | None, "balanced", "Give rare classes more weight.") = None,
    epochs: option(int | None, "N", "Of a network.") = None,
    fine_tune: option(str | None, "NAME", "What of a pretrained network learns: head, last_blocks or all.") = None,
    checkpoint: option(Path | None, "DIR", "Keep the state of a network's training here, and go on from it.") = None,
    merge_rare: option(int | None, "N", "Merge classes of fewer than N patients, such as the folds.") = None,
    threshold: _Threshold = None,
    folds: _Folds = 5,
    resamples: option(int, "N", "Resamples of the patients, for the intervals of the estimate.", min=0) = 1000,
    known_patients: _Known = "refuse",
    stain: option(str, "NAME", "How the tissue is stained, for the model's card: H&E, IHC or special.") = "H&E",
    no_estimate: flag("--no-estimate", "Only fit; make no estimate on unseen patients.") = False,
    report: option(Path | None, "DIR", "Write the report of the estimate here.") = None,
    overwrite: flag("--overwrite", "Replace a model and a report that are there.") = False,
) -> None:
    """Train a model on labelled images, and estimate it on patients that it has not seen.

    If there are folders "train" and "validation" or "test", only the images in "train" are used. The estimate scores
    each image by a fit on other patients; the model that is saved is a last fit on all of them. With --magnification
    each there is a model for each magnification of BreakHis, MODEL_40X to MODEL_400X; the exit status is 1 if one
    cannot be trained.

    Examples
    --------
    histofeat train idc --threshold youden --output model.histofeat
    histofeat train breakhis --magnification each --features pftas --head svm --output model.histofeat
    histofeat train folders --patients folder --head densenet201 --weights imagenet --output model.histofeat
    """
    _check_words(known_patients, stain, threshold)
    places = _places(data.magnification, output, report, overwrite)
    network = {"epochs": epochs, "recipe": fine_tune and {"fine_tune": fine_tune}}
    network["checkpoint"] = checkpoint and f"{checkpoint}/{{fit}}"
    settings = {"class_weight": class_weight, "normalizer": normalizer, "n_jobs": run.n_jobs, "random_state": run.seed}
    pipeline = _pipeline(features, head, encoder, network, run.progress, settings)
    settings = {"folds": None if no_estimate else folds, "threshold": threshold, "known_patients": known_patients}
    settings |= {"n_resamples": resamples, "random_state": run.seed, "stain": stain}
    settings["runtime"] = run.runtime(f"train {data.name}", n_jobs=None)
    models, failed = _train_each(data, pipeline, places, merge_rare, overwrite, run.progress, settings)
    run.write_config(output)
    if len(places) == 1:
        (model,) = models.values()
        run.show(dict(model.about), lambda: _show(model, output))
        return
    records = {power: dict(model.about) for power, model in models.items()}
    run.show(records | failed, lambda: _show_each(models, failed, places))
    if failed:
        print(f"histofeat: {len(failed)} of {len(places)} magnifications have no model.", file=sys.stderr)
        raise typer.Exit(1)


def _check_words(known_patients: str, stain: str, threshold: str | None) -> None:
    from histofeat.evaluation import STAINS

    check_name("--known-patients", known_patients, ("refuse", "leave_out"))
    check_name("--stain", stain, STAINS)
    if threshold is not None:
        parse_rule(threshold)


def _train_each(data, pipeline, places, *settings):
    """Train a model for each place; give the models, and why others could not be trained, by magnification."""
    models, failed = {}, {}
    for power, place in places.items():
        try:
            models[power] = _train_one(replace(data, magnification=power), pipeline, *place, *settings)
        except ValueError as error:
            failed[power] = f"no model: {error}"
            if len(failed) == len(places):
                raise
    return models, failed


def _places(magnification, output: Path, report: Path | None, overwrite: bool):
    """Give the files of the models and the folders of their reports by magnification, all of which can be written."""
    from histofeat.models import check_target
    from histofeat.reporting import check_output

    places = {magnification: (output, report)}
    if magnification == "each":
        names = {power: f"{power}X" for power in (40, 100, 200, 400)}
        places = {power: (output.with_stem(f"{output.stem}_{x}"), report and report / x) for power, x in names.items()}
    for target, folder in places.values():
        check_target(target, overwrite=overwrite)
        if folder is not None:
            check_output(folder, overwrite=overwrite, option="--overwrite")
    return places


def _train_one(data, pipeline, output, report, merge_rare, overwrite, progress, settings):
    """Open the data, train a model, save it."""
    from histofeat.datasets import merge_rare_classes
    from histofeat.evaluation import save_evaluation, train_model
    from histofeat.models import save_model
    from histofeat.reporting import write_report

    dataset = data.open(training=True)
    dataset.require_images("train", "Run `histofeat compare` on them; models measure images.")
    if merge_rare is not None:
        dataset = merge_rare_classes(dataset, merge_rare, "malignancy" if "subtype" in dataset.frame else "other")
    progress.say(dataset.audit.summary())

    def keep(evaluation):  # as `histofeat compare` does, for `histofeat report`
        save_evaluation(evaluation, report.with_name(f"{report.name}.evaluation"), overwrite=True)
        write_report(evaluation, report, overwrite=overwrite)

    model = train_model(dataset, pipeline, on_evaluation=report and keep, **settings)
    save_model(model, output, overwrite=overwrite)
    return model


def _pipeline(features, head, encoder, network, progress, settings):
    """Make the pipeline; what is said of an encoder is meant for the family cnn, or for a network on pixels."""
    from histofeat.evaluation import make_pipeline
    from histofeat.models import HEADS
    from histofeat.networks import find_encoder, find_weights

    families = None if features is None else [name.strip() for name in features.split(",")]
    if families == ["pixels"] or (families is None and head not in HEADS):
        weights = encoder.weights and str(encoder.weights)
        if encoder.weights and encoder.weights.is_dir():
            weights = str(find_weights(find_encoder(head), "imagenet", weights))
        network |= {"weights": weights or (network["recipe"] and "imagenet"), "input_size": encoder.input_size}
        network["progress"] = lambda done, total, values: progress.say(_epoch(done, total, values))
        params = {"cnn__encoder": encoder.encoder} if encoder.encoder else {}
    else:
        params = encoder.params(families or ())
    return make_pipeline(families, head, feature_params=params or None, network=network, **settings)


def _epoch(done: int, total: int, values) -> str:
    known = [name for name in ("loss", "val_loss", "val_roc_auc", "seconds") if name in values]
    return f"epoch {done} of {total}: {', '.join(f'{name} {values[name]:.3f}' for name in known)}"


def _show_each(models, failed, places) -> None:
    none = {"protocol": "not estimated", "scores": {}}
    estimates = {power: model.about["estimate"] or none for power, model in models.items()}
    rates = {f"{power}X": each["scores"] for power, each in estimates.items() if each["scores"]}
    rows = {power: [scores["image_rate"], scores["patient_rate"]] for power, scores in rates.items()}
    if rows:
        print_scores(["Image recognition rate", "Patient recognition rate"], rows)
    for power, (output, _) in places.items():
        print(f"{power}X: {failed[power] if power in failed else f'{output}: ' + estimates[power]['protocol']}")


def _show(model, output: Path) -> None:
    about = model.about
    size = "of several sizes" if model.patch_size is None else "of {} x {} px".format(*model.patch_size)
    of = f"{counted(about['n_patients'], 'patient')} of {about['dataset']}"
    print(f"{output}: {about['head']} on {counted(about['n_images'], 'image')} {size}, {of}; {classes_of(model)}")
    print("\n".join(about["notes"]), end="\n" if about["notes"] else "")
    estimate = about["estimate"]
    if estimate is None:
        print("No estimate was made: the scores of the model on other patients are not known.")
        return
    print(estimate["protocol"])
    columns = {"labels at 0.5" if len(model.class_names) == 2 else "": estimate["scores"]}
    if about["threshold"]:
        columns["labels at {rule}".format(**about["threshold"])] = estimate["scores_at_threshold"]
    print_metrics(columns)
    if about["threshold"]:
        print("Labels are positive from {value:.4f} on ({rule}).".format(**about["threshold"]))
