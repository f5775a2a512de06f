"""``histofeat map``: the tumour on a slide, or on the patches of a patient, by a model."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import typer

import histofeat
from histofeat.cli._comparison import open_runtime
from histofeat.cli._options import DataOptions, RunOptions, Weights, argument, flag, group, option
from histofeat.cli._outputs import classes_of
from histofeat.exceptions import DAMAGED

_Slides = argument(list[Path], "SLIDE|PATIENT_FOLDER...", "Whole slides; folders of IDC patients, or data as below.")


def map_(
    ctx: typer.Context,
    model: argument(Path, "MODEL", "What `histofeat train` wrote."),
    slides: _Slides,
    data: group(DataOptions, without=["data", "labels", "target", "magnification", "duplicates", "only"]),
    run: group(RunOptions, without=["seed", "store", "no_store"]),
    output: option(Path, "DIR", "The new folder; of several maps each has a folder in it.", "--output", "-o"),
    patient: option(list[str] | None, "ID", "Map this patient of the data; repeatable.  [default: all]") = None,
    target_class: option(str | None, "CLASS", "The class to map.  [default: the positive one of two]") = None,
    threshold: option(float | None, "P", "Positive from this probability on.  [default: that of the model]") = None,
    min_tissue: option(float | None, "SHARE", "Leave out tiles with less tissue.  [default: 0.1, of patches 0]") = None,
    no_tissue: flag("--no-tissue", "Draw no tissue: no pixel of a patient is in the picture.") = False,
    weights: Weights = None,
    overwrite: flag("--overwrite", "Replace finished maps in the output folder.") = False,
) -> None:
    """Map a slide or a patient by a model: a picture, a table, GeoJSON for QuPath, a mask and areas.

    A slide is cut into tiles of the size and scale of the training patches. Patches of a patient lie where their names
    (IDC) or the columns x and y say, and are compared with their labels. Give the same command again to resume an
    interrupted run: finished tiles are in DIR.partial, and finished maps stay.

    Examples
    --------
    histofeat map model.histofeat slide.svs -o map
    histofeat map model.histofeat idc/10254 -o map --no-tissue
    histofeat map model.histofeat idc --patient 10254 --patient 8865 -o maps
    """
    from histofeat.models import load_model
    from histofeat.reporting import check_output, file_words, write_map

    loaded, digest = load_model(model, weights_dir=weights, n_jobs=run.n_jobs), sha256(model.read_bytes()).hexdigest()
    chosen = {"target_class": target_class, "threshold": threshold, "min_tissue": min_tissue}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    jobs = _jobs(loaded, slides, data, patient, chosen, open_runtime(ctx, run, None, usual=False))
    names, found = [name for name, _ in jobs], {}
    places = [output / word for word in file_words(names)] if len(jobs) > 1 else [output]
    others = [name for name in ("map.json", "metrics.json") if (output / name).exists()]
    finished = "map.json" if len(jobs) == 1 else "maps" if others else "run.toml"  # no folder of maps has these
    keys = _keys([digest, chosen, asdict(data), no_tissue], slides, names)
    before = [_read(place) for place in places]
    if not any(kept.get("key") == key for key, kept in zip(keys, before, strict=True)):
        check_output(output, overwrite=overwrite, option="--overwrite", finished=finished)
    for (name, job), place, key, kept in zip(jobs, places, keys, before, strict=True):
        if kept.get("key") != key or overwrite:
            scratch = place.with_name(f"{place.name}.partial")
            made = job(folder=scratch)
            facts = {"model": model.name, "sha256": digest, "trained": dict(loaded.description), "key": key}
            made = replace(made, about={**made.about, **facts})
            write_map(made, place, tissue=not no_tissue, overwrite=overwrite)
            shutil.rmtree(scratch, ignore_errors=True)
            run.progress.say(f"{name}: {place}")
        found[f"{name} ({place.name})" if name in found else name] = _read(place)
    run.write_config(output)
    run.show({"maps": found}, lambda: _print(f"{model.name}: {classes_of(loaded)}", found, output))


def _keys(options, slides, names) -> list[str]:
    """Give a key for each map: what is made of the same files with the same options is not made again."""
    from histofeat.datasets import printable

    files = [(str(path), path.is_file() and [path.stat().st_size, path.stat().st_mtime_ns]) for path in slides]
    of = [histofeat.__version__, files, *options]
    return [sha256(printable(json.dumps([*of, name], default=str)).encode()).hexdigest() for name in names]


def _read(place) -> dict:
    """Read what a finished map says; nothing where there is none."""
    with suppress(*DAMAGED):
        return dict(json.loads((place / "map.json").read_text(encoding="utf-8")))
    return {}


def _jobs(loaded, slides, data, patients, chosen, runtime) -> list:
    """Give name and function of each map; what is wrong with data is found here, with options by the first function."""
    from histofeat.datasets import Look, format_of, printable
    from histofeat.exceptions import DatasetError
    from histofeat.images import is_slide
    from histofeat.models import find_patches, map_patient, map_slide

    def of_patient(own, folder):
        facts = {"data": own.name, "n_patches": len(own), "kind": "map", "ledger": runtime.ledger}
        tested, trained = (own.patients, own.frame["path"]), loaded.pipeline.patients_ or ()
        look = None if own.synthetic else Look.at(tested, trained, **facts)
        found = map_patient(loaded, own, runtime=runtime, **chosen)
        if look is not None:
            name, head = (loaded.about.get(part) for part in ("features", "head"))
            auc = (found.summary()["truth"] or {}).get("roc_auc")
            line = {"pipeline": f"{name if isinstance(name, str) else '+'.join(name or ())}/{head}", "roc_auc": auc}
            runtime.progress.say(look.record([line]))
        return found

    jobs = []
    for path in slides:
        if is_slide(path):
            job = partial(map_slide, loaded, path, mpp=data.mpp, runtime=runtime, **chosen)
            jobs.append((printable(path.name), job))
            continue
        whole = path.is_dir() and next(filter(is_slide, sorted(path.iterdir())), None)
        if whole and data.format == "auto":
            words = f"{path}: expected the file of a whole slide, got a folder of them"
            raise DatasetError(f"{words}. Name the slides, as in {path}/*{whole.suffix}: each gets its map.")
        try:
            kind = format_of(path) if data.format == "auto" else data.format
        except DatasetError as error:
            got = "a folder without images" if path.is_dir() else "another file" if path.exists() else "no such path"
            words = f"expected a whole slide, a folder of patches or a CSV file, got {got}"
            raise DatasetError(f"{path}: {words}. Name one; images are for `histofeat predict`.") from error
        # All magnifications of BreakHis: no option chooses one, as none has places.
        dataset = replace(data, data=[path], magnification="all" if kind == "breakhis" else None).open()
        for one in patients or dict.fromkeys(dataset.patients):
            own = dataset.subset(find_patches(dataset, one, loaded.class_names))
            jobs.append((one, partial(of_patient, own)))
    return jobs


def _print(head, found, output) -> None:
    import pandas as pd

    columns = ["positive", "tiles", "positive_tiles", "area_mm2", "largest_focus_mm2", "share_of_tissue", "roc_auc"]
    rows = {name: {**one, "roc_auc": (one["truth"] or {}).get("roc_auc")} for name, one in found.items()}
    table = pd.DataFrame(rows).T[columns].to_string(float_format="{:.3f}".format)
    print(head, table, f"maps: {output}", sep="\n")
