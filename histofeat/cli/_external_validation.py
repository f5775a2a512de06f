"""``histofeat evaluate``: validate a saved model on the patients of other data."""

from dataclasses import replace
from pathlib import Path

import histofeat
from histofeat.cli._options import DataOptions, RunOptions, Weights, argument, group, option
from histofeat.cli._outputs import check_output, give
from histofeat.cli._scoring import describe_scores

_Known = option(str, "NAME", "Patients of the training: refuse or leave_out, by id and pixels; by_pixels ignores ids.")


def evaluate(
    model: argument(Path, "MODEL", "What `histofeat train` wrote."),
    data: group(DataOptions, required=["data"]),
    run: group(RunOptions, without=["store", "no_store", "cluster"]),
    known_patients: _Known = "refuse",
    policy: option(
        str, "NAME", "For images of another size: auto, tile, pad, resize or whole, as in predict."
    ) = "auto",
    weights: Weights = None,
    resamples: option(int, "N", "Resamples of the patients.") = 2000,
    output: option(Path | None, "FILE.json", "Also write the numbers here.", "--output", "-o") = None,
) -> None:
    """Validate a model on other data: scores with intervals over patients, at its threshold too, and calibration.

    Images of another scale are resampled first. Warns where scale, size or shape are not those of the training.

    Examples
    --------
    histofeat evaluate model.histofeat other_hospital --patients folder
    histofeat evaluate model.histofeat BreaKHis_v1 --magnification 100 --known-patients leave_out --output scores.json
    """
    from histofeat.evaluation import evaluate_model
    from histofeat.models import load_model

    check_output(output)
    loaded, dataset = load_model(model, weights_dir=weights, n_jobs=run.n_jobs), data.open()
    dataset.require_images("evaluate", "Give the images, for models measure them.")
    settings = {"known_patients": known_patients, "policy": policy, "positive": data.positive}
    settings |= {"n_resamples": resamples, "random_state": run.seed}
    found = evaluate_model(loaded, dataset, runtime=run.runtime(f"evaluate {data.name}"), **settings)
    one = replace(found.models[0], name=model.name, notes=())
    numbers, show = describe_scores(replace(found, models=(one,)), dataset.name)
    numbers = {"histofeat": histofeat.__version__, "model": model.name, "data": dataset.name, **numbers}
    give(run, numbers, show, output)
