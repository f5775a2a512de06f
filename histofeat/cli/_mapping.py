"""``histofeat map``: the tumour on a slide, or on the patches of a patient, by a model."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import histofeat
from histofeat.cli._options import DataOptions, RunOptions, Weights, argument, flag, group, option
from histofeat.cli._outputs import classes_of

_Slides = argument(list[Path], "SLIDE|PATIENT_FOLDER...", "Whole slides; folders of IDC patients, or data as below.")


def map_(
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
    (IDC) or the columns x and y say, and are compared with their labels. A run that was ended goes on where it was,
    when the same command is given again: what is done lies in DIR.partial, and finished maps stay.

    Examples
    --------
    histofeat map model.histofeat slide.svs -o map
    histofeat map model.histofeat idc/10254 -o map --no-tissue
    histofeat map model.histofeat idc --patient 10254 --patient 8865 -o maps
    """
    from histofeat.models import load_model
    from histofeat.reporting import check_output, write_map

    loaded, progress = load_model(model, weights_dir=weights, n_jobs=run.n_jobs), run.progress
    chosen = {"target_class": target_class, "threshold": threshold, "min_tissue": min_tissue}
    jobs = _jobs(loaded, slides, data, patient, chosen, run.runtime(f"map {model.name}"))
    facts = {"model": model.name, "sha256": sha256(model.read_bytes()).hexdigest(), "trained": dict(loaded.description)}
    known = [histofeat.__version__, facts["sha256"], chosen, data.mpp, no_tissue, [*jobs]]
    scratch, places, key = output.with_name(f"{output.name}.partial"), _places(output, [*jobs]), json.dumps(known)
    kept, found = scratch / "run.json", {}
    if not (kept.is_file() and kept.read_text(encoding="utf-8") == key):
        finished = "map.json" if places == [output] else "run.toml"
        check_output(output, overwrite=overwrite, option="--overwrite", finished=finished)
    for (name, job), place in zip(jobs.items(), places, strict=True):
        if not (place / "map.json").exists() or overwrite:
            progress.say(f"{name}: mapping")
            made = job(scratch / place.name)
            made = replace(made, about={**made.about, **facts})
            write_map(made, place, tissue=not no_tissue, overwrite=overwrite)
            scratch.mkdir(exist_ok=True)
            kept.write_text(key, encoding="utf-8")
        found[name] = json.loads((place / "map.json").read_text(encoding="utf-8"))
    for done in (scratch / place.name for place in places):
        shutil.rmtree(done, ignore_errors=True)
    with suppress(OSError):  # it is gone, or holds files of others
        kept.unlink()
        scratch.rmdir()
    run.write_config(output)
    run.show({"maps": found}, lambda: _print(f"{model.name}: {classes_of(loaded)}", found, output))


def _jobs(loaded, slides, data, patients, chosen, runtime) -> dict:
    """Give a function for each map, by the name of slide or patient; what can be wrong is found here."""
    from histofeat.evaluation import look_at
    from histofeat.exceptions import check_real
    from histofeat.images import is_slide
    from histofeat.models import find_patches, map_patient, map_slide, mapped_class

    mapped_class(loaded.class_names, loaded.decision, **{name: chosen[name] for name in ("target_class", "threshold")})
    given, jobs = {name: value for name, value in chosen.items() if value is not None}, {}

    if chosen["min_tissue"] is not None:
        words, remedy = "from 0 to 1", "Use 0.1, or leave it out."
        check_real("--min-tissue", chosen["min_tissue"], words, lambda share: 0 <= share <= 1, remedy)

    def of_slide(path, folder):
        return map_slide(loaded, path, mpp=data.mpp, folder=folder, runtime=runtime, **given)

    def of_patient(dataset, patient, folder):
        rows = find_patches(dataset, patient)
        look = look_at(dataset, [(rows[:0], rows)], runtime)
        found = map_patient(loaded, dataset, patient, runtime=runtime, **given)
        if look is not None:
            auc = (found.summary()["truth"] or {})["roc_auc"]
            runtime.progress.say(look.record([{"pipeline": loaded.about.get("features"), "roc_auc": auc}]))
        return found

    for path in slides:
        if is_slide(path):
            jobs[path.name] = partial(of_slide, path)
        else:
            dataset = replace(data, data=[path]).open()
            dataset.require_images("map")
            for one in patients or dict.fromkeys(dataset.patients):
                find_patches(dataset, one, loaded.class_names)
                jobs[one] = partial(of_patient, dataset, one)
    return jobs


def _places(output, names):
    """Give the folder of each map."""
    from histofeat.reporting import file_words

    return [output / word for word in file_words(names)] if len(names) > 1 else [output]


def _print(head, found, output) -> None:
    import pandas as pd

    columns = ["positive", "tiles", "positive_tiles", "area_mm2", "largest_focus_mm2", "share_of_tissue"]
    rows = {name: {**one, **{"roc_auc": (one["truth"] or {}).get("roc_auc")}} for name, one in found.items()}
    print(head)
    print(pd.DataFrame(rows).T[[*columns, "roc_auc"]].to_string(float_format=lambda value: f"{value:.3f}"))
    print(f"maps: {output}")
