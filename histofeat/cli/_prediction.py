"""``histofeat predict``: classify images with a saved model, as a table."""

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

import histofeat
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
    row without a label and is named in FILE_failures.csv, and the exit status is 1. A run that was ended goes on where
    it was, when the same command is given again: until the table is complete, what is done lies in FILE.csv.partial,
    and counts as long as model, options and images are the same.
    """
    from histofeat.datasets import find_patients, list_images
    from histofeat.features import Runtime
    from histofeat.model_selection import canonical_patients
    from histofeat.models import load_model, predict_images, write_table

    by_patient, failures = _beside(output, "patients"), _beside(output, "failures")
    for file in (output, failures, None if patients is None else by_patient):
        check_output(file)
    progress = Progress(quiet=quiet)
    found = list_images(images, on_error=on_error)
    loaded = load_model(model, weights_dir=weights_dir, n_jobs=n_jobs)
    owners = None if patients is None else canonical_patients(find_patients(_rule(patients, loaded), found.paths))
    if found.n_ignored:
        progress.say(f"{found.n_ignored:,} files were skipped: their names are not those of images.")
    settings = {"policy": policy, "edges": edges, "aggregate": aggregate, "min_tissue": min_tissue}
    partial = _PartialTable(output, [histofeat.__version__, sha256(model.read_bytes()).hexdigest(), settings])

    def predict_some(paths, patients, before):
        told = Runtime(n_jobs=n_jobs, progress=lambda stage, at, _: progress(stage, before + at, len(found.paths)))
        return predict_images(loaded, paths, patients=patients, on_error=on_error, runtime=told, **settings)

    predictions = _in_shards(predict_some, found.paths, owners, partial)
    if partial.n_taken:
        progress.say(f"{partial.n_taken:,} images were predicted by an earlier run.")
    tables = {"images": predictions.to_frame()} | ({} if owners is None else {"patients": predictions.by_patient()})
    for frame, file in zip(tables.values(), (output, by_patient), strict=False) if output else ():
        write_table(frame, file)
    partial.remove()
    for what, frame in tables.items():
        _show(frame, what)
    _say_left_out(predictions, found.failures, failures, progress)


def _beside(output: Path | None, word: str) -> Path | None:
    return output and output.with_name(f"{output.stem}_{word}{output.suffix}")


def _rule(patients: str, model):
    if patients != "model":
        return patients
    if model.patient_rule is None:
        raise ValueError(
            "--patients: expected a model that knows how its patients were found, got one without. Give an expression "
            "or a table."
        )
    return model.patient_rule


def _say_left_out(predictions, folders, file: Path | None, progress: Progress) -> None:
    from pandas import DataFrame

    from histofeat.models import write_table

    failures = (*folders, *predictions.unreadable)
    if failures and file is not None:
        write_table(DataFrame(failures, columns=["path", "reason"]), file)
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
    if failures:
        raise typer.Exit(1)


def _show(frame, what: str) -> None:
    """Print a table, or its counts where it is long."""
    if len(frame) == 1:
        for column, value in frame.iloc[0].items():
            print(f"{column:<24}{value:.4f}" if isinstance(value, float) else f"{column:<24}{value}")
    elif len(frame) <= _PRINTED:
        print(frame.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    else:
        counts = frame["label"].replace("", "(unreadable)").value_counts()
        print(f"{len(frame):,} {what}: {', '.join(f'{count:,} {label}' for label, count in counts.items())}")


#: Images and bytes of files that are predicted and written to the partial table together.
_SHARD, _SHARD_BYTES = 1000, 1 << 26
_HEADER = "histofeat partial table 1"


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
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _PartialTable:
    """What is done of a table, in a file beside it: a line for each shard, with a checksum and with what it stands on.

    Parameters
    ----------
    table : Path or None
        None keeps nothing.
    stands_on : list
        JSON values that the predictions depend on, beside the images.

    Raises
    ------
    ValueError
        If another file has the name of the partial one.
    """

    def __init__(self, table: Path | None, stands_on: list):
        self.path = None if table is None else table.with_name(f"{table.name}.partial")
        self.stands_on, self.n_taken, self._found = stands_on, 0, {}
        if self.path is None:
            return
        header, *lines = self.path.read_text(errors="replace").split("\n") if self.path.exists() else [_HEADER]
        if not _HEADER.startswith(header):
            raise ValueError(f"{self.path}: expected no file or a partial table, got another file. Move it away.")
        for digest, _, text in (line.partition(" ") for line in lines):
            if digest == _digest(text):
                self._found.update([json.loads(text)])

    def shard(self, predict: Callable[..., Any], paths: list, owners: list | None, before: int) -> dict:
        """Give the predictions of some images as they were found, else as `predict` makes them, and keep these."""
        key = _digest(json.dumps([self.stands_on, [[path, _facts(path)] for path in paths], owners]))
        if key in self._found:
            self.n_taken += len(paths)
            return self._found[key]
        text = json.dumps(
            [key, vars(predict(paths, owners, before))], default=lambda value: getattr(value, "tolist", value.copy)()
        )
        self._append(f"\n{_digest(text)} {text}")
        return json.loads(text)[1]

    def _append(self, line: str) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.write(line if file.tell() else _HEADER + line)
        except OSError as error:  # the images that follow may still fit into the table
            warnings.warn(f"{self.path}: expected to write, got: {error.strerror}. The run goes on.", stacklevel=2)

    def remove(self) -> None:
        """Remove the file: the table is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _in_shards(predict, paths, owners, partial):
    """Predict images in shards, as far as the partial table lacks them; give all in the order of the rows."""
    from histofeat.models import ImagePredictions

    shards, done = [], 0
    for part in _shards(paths, owners):
        some = [paths[row] for row in part], None if owners is None else [owners[row] for row in part]
        shards.append((part, partial.shard(predict, *some, done)))
        done += len(part)
    rows = [row for rows, _ in shards for row in rows]
    order = sorted(range(len(rows)), key=rows.__getitem__)

    def column(name):
        values = [value for _, shard in shards for value in shard[name] or ()]
        return tuple(values[at] for at in order) if values else None

    whole = {name: column(name) for name in ("images", "proba", "policies", "n_tiles", "n_background", "patients")}
    place = {name: at for at, name in enumerate(whole["images"])}
    unreadable = sorted((tuple(each) for _, shard in shards for each in shard["unreadable"]), key=lambda e: place[e[0]])
    conversions = sum((Counter(shard["conversions"]) for _, shard in shards), Counter())
    more = {"class_names": tuple(shards[0][1]["class_names"]), "unreadable": tuple(unreadable)}
    return ImagePredictions(**whole, **more, conversions=conversions)
