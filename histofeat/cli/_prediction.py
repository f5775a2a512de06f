"""``histofeat predict``: classify images with a saved model, as a table."""

import json
import shutil
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

import typer

import histofeat
from histofeat.cli._options import RunOptions, Weights, argument, group, option
from histofeat.cli._outputs import check_output, classes_of
from histofeat.exceptions import counted

#: Rows that are printed; of longer tables only the counts. How their columns begin: the rest is in the file.
_PRINTED = 20
_SHOWN = ("path", "patient", "images", "label", "p_", "mean_", "share_", "known", "reason")
_INTERVALS = ("mean_low", "mean_high", "share_low", "share_high")

_Images = argument(list[str], "IMAGE|FOLDER|GLOB...", "Images, folders of images, or 'a/*/*.png'.")
_Patients = option(
    str | None,
    "REGEX|CSV|folder|tcga|model",
    "How to find the patient of an image: an expression searched in its path, a table with path and patient, "
    "its folder, its TCGA barcode, or the rule of the training. Adds FILE_patients with the scores of each patient.",
)
_Policy = option(
    str,
    "NAME",
    "For images of another size than the training patches. tile: cut and put together; resize: scale; "
    "whole: as they are; auto: tile larger ones, mirror smaller ones to size; pad: the same, and fractions of a patch.",
)
_Mpp = option(
    float | None, "UM", "Micrometres per pixel of the images.  [default: by name of IDC, BreakHis, or headers]"
)


def predict(
    model: argument(Path, "MODEL", "What `histofeat train` wrote."),
    images: _Images,
    run: group(RunOptions, without=["seed", "store", "no_store", "ledger"]),
    output: option(Path | None, "FILE", "The new table of scores; - is the standard output.", "--output", "-o") = None,
    output_format: option(str | None, "NAME", "csv, parquet or json.  [default: by the suffix, or csv]") = None,
    patients: _Patients = None,
    mpp: _Mpp = None,
    policy: _Policy = "auto",
    aggregate: option(str, "NAME", "Tiles to image: mean, median or vote.") = "mean",
    edges: option(str, "NAME", "The last tiles: overlap their neighbours, or reflect the image.") = "overlap",
    min_tissue: option(float | None, "SHARE", "Leave out tiles with less tissue, such as 0.05.") = None,
    on_error: option(str, "NAME", "Files that cannot be read: skip: go on and exit with 1; raise: stop.") = "skip",
    weights: Weights = None,
) -> None:
    """Predict images with a model, as a table: label, probabilities, and what to know before trusting them.

    Labels are positive from the threshold that was chosen in training, otherwise the most probable class; columns say
    which. Images of another scale than the training (more than a quarter off) are resampled by area first: "mpp" is
    their micrometres per pixel, "rescaled" the factor of their sides. "known" says that the model was trained on
    this image, or on this patient; "unlike" near 1 that the image is farther from the training images than nearly all
    of them are from each other.

    Rows are in the order of the arguments, files of a folder or pattern by name. An image that cannot be read has a
    row without a label and with the reason, and the exit status is 1. FILE_facts.json names the model, its versions and
    what was left out; FILE.run.toml repeats the run. Give the same command again to resume an interrupted run: until
    the table is complete, finished scores are in the folder FILE.partial. They are used if model, options and images
    are the same.

    Examples
    --------
    histofeat predict model.histofeat slides/*.png --output scores.csv
    histofeat predict model.histofeat images --patients model --output scores.parquet
    histofeat predict model.histofeat image.png --output - --output-format json
    """
    from histofeat.datasets import list_images
    from histofeat.models import load_model, predict_images

    piped, output = output == Path("-"), None if output == Path("-") else output
    output_format = _checked(output, output_format, patients is not None)
    progress, found = run.progress, list_images(images, on_error=on_error)
    loaded = load_model(model, weights_dir=weights, n_jobs=run.n_jobs)
    owners = _owners(patients, loaded, found.paths)
    _say_skipped(found, model, progress)
    settings = {"mpp": mpp, "policy": policy, "edges": edges, "aggregate": aggregate, "min_tissue": min_tissue}
    folder = output and output.with_name(f"{output.name}.partial")
    if folder and folder.is_dir():
        progress.say(f"Going on from what an earlier run has left in {folder}.")

    def predict_some(paths, patients, before):
        told = replace(runtime, progress=lambda stage, at, _: progress(stage, before + at, len(found.paths)))
        return told.call(predict_images, loaded, paths, patients=patients, on_error=on_error, runtime=told, **settings)

    model_hash = sha256(model.read_bytes()).hexdigest()
    facts = {"model": model.name, "sha256": model_hash, "trained": dict(loaded.description)}
    known, runtime = [histofeat.__version__, model_hash, settings], run.runtime("predict")
    predictions = _in_shards(predict_some, found.paths, owners, folder, known, runtime)
    tables = {"": predictions.to_frame(), "patients": None if owners is None else predictions.by_patient()}
    if output:
        _write(tables, predictions, found.failures, facts, (output, output_format, folder))
        run.write_config(output)
    _print(run, facts, f"{model.name}: {classes_of(loaded)}", tables, output_format if piped else None)
    _say_left_out(predictions, found.failures, progress)


def _say_skipped(found, model: Path, progress) -> None:
    if found.n_ignored:
        progress.say(f"skipped, since the name is not of an image: {counted(found.n_ignored, 'file')}.")
    if found.slides:
        first = f"`histofeat map {model} {found.slides[0]}`"
        progress.say(f"skipped, since maps show whole slides: {counted(len(found.slides), 'slide')}; try {first}.")


def _checked(output: Path | None, output_format: str | None, by_patient: bool) -> str:
    """Check that the files can be written; give their format."""
    from histofeat.datasets import TABLE_FORMATS
    from histofeat.exceptions import check_name

    suffix = output.suffix.lower()[1:] if output else ""
    output_format = output_format or (suffix if suffix in TABLE_FORMATS else "csv")
    check_name("output_format", output_format, TABLE_FORMATS)
    for word in ("", "facts", "patients")[: 2 + by_patient]:
        check_output(_beside(output, word))
    return output_format


def _print(run, facts, head, tables, piped: str | None) -> None:
    from histofeat.datasets import table_bytes

    def show():
        if piped:
            sys.stdout.buffer.write(table_bytes(tables[""], piped))
        else:
            print(head)
        for word, frame in () if piped else tables.items():
            if frame is not None:
                _show(frame, word or "images")

    shown = tables.items() if run.json else ()
    run.show(facts | {word or "images": frame.to_dict("records") for word, frame in shown if frame is not None}, show)


def _beside(output: Path | None, word: str) -> Path | None:
    suffix = ".json" if word == "facts" else output and output.suffix
    return output and output.with_name(f"{output.stem}{word and '_'}{word}{suffix}")


def _write(tables, predictions, failures, facts, place) -> None:
    from histofeat.datasets import table_bytes, write_whole

    output, output_format, folder = place
    facts |= {"histofeat": histofeat.__version__, "conversions": dict(predictions.conversions)}
    facts["left_out"] = failures + predictions.unreadable
    contents = {word: table_bytes(frame, output_format) for word, frame in tables.items() if frame is not None}
    contents["facts"] = (json.dumps(facts, indent=1) + "\n").encode()
    try:
        for word, content in contents.items():
            with write_whole(_beside(output, word)) as part:
                part.write_bytes(content)
    finally:  # without a table, what is done is kept; another run of the same command may have written it
        _remove(folder, whole=output.exists())


def _owners(patients: str | None, model, paths):
    """Give the patient of each image; refuse class folders as such, as in the layout PATIENT/CLASS of IDC."""
    from histofeat.datasets import find_patients
    from histofeat.model_selection import canonical_patients

    if patients is None:
        return None
    rule = model.patient_rule if patients == "model" else patients
    if rule is None:
        raise ValueError(
            "--patients: expected a model that knows how its patients were found, got one without. Give an expression "
            "or a table."
        )
    owners = canonical_patients(find_patients(rule, paths))
    classes = {*owners} & {"0", "1", *model.class_names}
    if patients == "folder" and classes and (classes - {"0", "1"} or classes == {*owners}):
        raise ValueError(
            f"--patients: expected folders of patients, got those of classes: {', '.join(sorted(classes))}. Give "
            "--patients model for the rule of the training, an expression or a table."
        )
    return owners


def _say_left_out(predictions, folders, progress) -> None:
    from histofeat.models import FAR

    n_known, n_far = sum(map(bool, predictions.known)), int((predictions.unlike >= FAR).sum())
    if n_known:
        progress.say(f"known: the model was trained on {n_known:,} of these images or on their patients.")
    if n_far:
        far = counted(n_far, "image is", "images are")
        progress.say(f"unlike: {far} farther from the training images than {FAR:.0%} of those are.")
    if n_rescaled := int((predictions.rescaled != 1).sum() - len(predictions.unreadable)):
        grown = int((predictions.rescaled > 1).sum())
        more = f", {grown:,} of them enlarged: their fine structures are missing" if grown else ""
        progress.say(f"rescaled: {counted(n_rescaled, 'image')} to the scale of the training{more}.")
    if predictions.conversions:
        progress.say(f"converted: {', '.join(f'{n:,} {rule}' for rule, n in predictions.conversions.items())}")
    for name, reason in (*folders, *predictions.unreadable[:_PRINTED]):
        progress.say(f"left out: {reason if name in reason else f'{name}: {reason}'}")
    if len(predictions.unreadable) > _PRINTED:
        progress.say(f"left out: {len(predictions.unreadable) - _PRINTED:,} more, named in the table.")
    # Printed with --quiet too: it explains the exit status.
    if predictions.unreadable:
        counts = f"{len(predictions.unreadable):,} of {len(predictions):,}"
        print(f"histofeat: {counts} images could not be read or used.", file=sys.stderr)
    if folders:
        print(f"histofeat: {len(folders):,} folders could not be listed.", file=sys.stderr)
    if folders or predictions.unreadable:
        raise typer.Exit(1)


def _show(frame, what: str) -> None:
    """Print a table, or its counts where it is long."""
    if len(frame) == 1:
        for column, value in frame.iloc[0].items():
            print(f"{column:<24}{value:.4f}" if isinstance(value, float) else f"{column:<24}{value}")
    elif len(frame) <= _PRINTED:
        shown = [column for column in frame if column.startswith(_SHOWN) and column not in _INTERVALS]
        print(frame[shown].to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    else:
        counts = frame["label"].replace("", "(unreadable)").value_counts()
        print(f"{len(frame):,} {what}: {', '.join(f'{count:,} {label}' for label, count in counts.items())}")


#: Fields of predictions that are not by image.
_OF_ALL = ("class_names", "unreadable", "conversions", "decision")
#: Images and bytes of files that are predicted and written to the partial table together.
_SHARD, _SHARD_BYTES = 1000, 1 << 26


def _shards(paths, owners):
    """Yield rows of shards, always the same for the same files, with all images of a patient in one."""
    rows, n_bytes = [], 0
    for row in range(len(paths)) if owners is None else sorted(range(len(paths)), key=owners.__getitem__):
        full = len(rows) >= _SHARD or n_bytes > _SHARD_BYTES
        if full and (owners is None or owners[row] != owners[rows[-1]]):
            yield rows
            rows, n_bytes = [], 0
        rows.append(row)
        n_bytes += (_facts(paths[row]) or [0])[0]
    yield rows


def _facts(path):
    """Size and times of a file; None where it has none."""
    with suppress(OSError):
        found = Path(path).stat()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _remove(folder: Path, *, whole: bool) -> None:
    """Remove what was kept of a table that is complete, otherwise its folder if it is empty; files of others stay."""
    with suppress(OSError):
        for scratch in folder.glob(".*") if whole else ():  # of a run that was killed while it wrote
            shutil.rmtree(scratch)
        for file in folder.glob("*.part") if whole else ():
            file.unlink()
        folder.rmdir()


def _in_shards(predict, paths, owners, folder, known, runtime):
    """Predict images in shards, as far as a folder lacks them; give all in the order of the rows."""
    from histofeat import evaluation  # loads nothing, as long as no folder is there to take from
    from histofeat.models import ImagePredictions

    shards, order, parts = [], [], [*_shards(paths, owners)]

    def predicted(task):
        rows, before = task
        some, whose = [paths[row] for row in rows], None if owners is None else [owners[row] for row in rows]
        stands_on = json.dumps([known, [(path, _facts(path)) for path in some], whose])
        file = folder and folder / f"{sha256(stands_on.encode()).hexdigest()}.part"
        work = partial(predict, some, whose, before)
        return evaluation.take_up(file, work) if file else work()

    tasks = [*zip(parts, accumulate(map(len, parts), initial=0), strict=False)]
    for rows, shard in zip(parts, (runtime.each if runtime.cluster else map)(predicted, tasks), strict=True):
        shards.append(shard)
        order += rows
        if runtime.cluster:
            runtime.report("predict", len(order), len(paths))
    places = sorted(range(len(order)), key=order.__getitem__)
    by_row = [name for name in vars(shards[0]) if name not in _OF_ALL and getattr(shards[0], name) is not None]
    columns = {name: [value for shard in shards for value in getattr(shard, name)] for name in by_row}
    whole = {name: tuple(values[at] for at in places) for name, values in columns.items()}
    reasons = dict(pair for shard in shards for pair in shard.unreadable)
    unreadable = tuple((name, reasons[name]) for name in whole["images"] if name in reasons)
    conversions = sum((Counter(shard.conversions) for shard in shards), Counter())
    same = {"class_names": shards[0].class_names, "decision": shards[0].decision}
    return ImagePredictions(**whole, **same, unreadable=unreadable, conversions=conversions)
