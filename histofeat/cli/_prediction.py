"""``histofeat predict``: classify images with a saved model, as a table."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from histofeat.cli._outputs import NJobs, Progress, Quiet, check_output, option

#: Rows that are printed; of longer tables only the counts.
_PRINTED = 20

_Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Images, folders of images, or 'a/*/*.png'.")
]
_Patients = option(
    str | None,
    "REGEX|CSV|folder|tcga|model",
    "How to find the patient of an image: an expression searched in its path, a table with path and patient, "
    "its folder, its TCGA barcode, or the rule of the training. Adds FILE_patients.csv with the mean probability and "
    "the share of images of each class.",
)
_Policy = option(
    str,
    "NAME",
    "For images of another size than the training patches. tile: cut and put together; resize: scale; "
    "whole: as they are; auto: tile larger ones, mirror smaller ones to size.",
)


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What `histofeat train` wrote.")],
    images: _Images,
    output: option(Path | None, "FILE.csv", "The new table of scores.", "--output", "-o") = None,
    patients: _Patients = None,
    policy: _Policy = "auto",
    aggregate: option(str, "NAME", "Tiles to image: mean, median or vote.") = "mean",
    edges: option(str, "NAME", "The last tiles: overlap their neighbours, or reflect the image.") = "overlap",
    min_tissue: option(float | None, "SHARE", "Leave out tiles with less tissue, such as 0.05.") = None,
    on_error: option(str, "NAME", "Files that cannot be read: skip: go on and exit with 1; raise: stop.") = "skip",
    weights_dir: option(Path | None, "DIR", "Pretrained weights of an embedding.") = None,
    n_jobs: NJobs = 1,
    quiet: Quiet = False,
) -> None:
    """Predict images with a model, as a table: label, probability of each class, policy and tiles.

    Rows are in the order of the arguments, files of a folder or pattern by name. An image that cannot be read has a
    row without a label, and the exit status is 1.
    """
    from histofeat.datasets import find_patients, list_images
    from histofeat.features import Runtime
    from histofeat.models import load_model, predict_images

    by_patient = None if output is None else output.with_name(f"{output.stem}_patients{output.suffix}")
    check_output(output)
    check_output(None if patients is None else by_patient)
    progress = Progress(quiet=quiet)
    found = list_images(images, on_error=on_error)
    loaded = load_model(model, weights_dir=weights_dir, n_jobs=n_jobs)
    owners = None if patients is None else find_patients(_rule(patients, loaded), found.paths)
    if found.n_ignored:
        progress.say(f"{found.n_ignored:,} files were skipped: their names are not those of images.")
    predictions = predict_images(
        loaded,
        found.paths,
        policy=policy,
        edges=edges,
        aggregate=aggregate,
        min_tissue=min_tissue,
        patients=owners,
        on_error=on_error,
        runtime=Runtime(n_jobs=n_jobs, progress=progress),
    )
    _show(predictions.to_frame(), "images", output)
    if owners is not None:
        _show(predictions.by_patient(), "patients", by_patient)
    _say_left_out(predictions, found.failures, progress)


def _rule(patients: str, model):
    if patients != "model":
        return patients
    if model.patient_rule is None:
        raise ValueError(
            "--patients: expected a model that knows how its patients were found, got one without. Give an expression "
            "or a table."
        )
    return model.patient_rule


def _say_left_out(predictions, folders, progress: Progress) -> None:
    if predictions.conversions:
        progress.say(f"converted: {', '.join(f'{n:,} {rule}' for rule, n in predictions.conversions.items())}")
    for name, reason in (*folders, *predictions.unreadable[:_PRINTED]):
        progress.say(f"left out: {reason if name in reason else f'{name}: {reason}'}")
    # Printed with --quiet too: it explains the exit status.
    if predictions.unreadable:
        counts = f"{len(predictions.unreadable):,} of {len(predictions):,}"
        print(f"histofeat: {counts} images could not be read.", file=sys.stderr)
    if folders:
        print(f"histofeat: {len(folders):,} folders could not be listed.", file=sys.stderr)
    if folders or predictions.unreadable:
        raise typer.Exit(1)


def _show(frame, what: str, file: Path | None) -> None:
    """Write a table where a file is given, and print it, or its counts where it is long."""
    from histofeat.models import write_table

    if file is not None:
        write_table(frame, file)
    if len(frame) == 1:
        for column, value in frame.iloc[0].items():
            print(f"{column:<24}{value:.4f}" if isinstance(value, float) else f"{column:<24}{value}")
    elif len(frame) <= _PRINTED:
        print(frame.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    else:
        counts = frame["label"].replace("", "(unreadable)").value_counts()
        print(f"{len(frame):,} {what}: {', '.join(f'{count:,} {label}' for label, count in counts.items())}")
