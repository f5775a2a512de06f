"""``histofeat audit``, ``info``, ``list`` and ``store``: what data, files and registers hold."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from histofeat.cli._options import DataOptions, RunOptions, argument, group, option
from histofeat.cli._outputs import cells, check_output

#: What can be listed: the wing and the register of the names.
LISTS = {
    "architectures": ("networks", "ARCHITECTURES"),
    "encoders": ("networks", "ENCODERS"),
    "families": ("features", "FAMILIES"),
    "heads": ("models", "HEADS"),
    "studies": ("studies", "STUDIES"),
}
#: Fields of a record that say what it is, best first.
_SAYING = ("words", "description", "reference")
#: What a card says of a model under each heading; the rest is said under "Model".
_SECTIONS = {
    "Data": ("dataset", "synthetic", "completeness", "n_images", "class_names", "positive", "class_counts"),
    "Patients": ("n_patients", "patients"),
    "Scale": ("patch_size", "magnification", "mpp", "stain"),
    "Scores": ("estimate", "threshold"),
    "Limits": ("notes",),
}
_LIMITS = (
    "For research; no medical device.",
    "Scores hold for patients, scanners, stains and sizes like those above; others are not known.",
)
_Answer = group(RunOptions, without=["seed", "n_jobs", "store", "no_store", "ledger", "cluster", "quiet"])


def audit(data: group(DataOptions, required=["data"]), run: _Answer) -> None:
    """List what folders or tables of labelled images hold, and what was left out and why.

    Without --magnification it lists all magnifications of BreakHis.

    Examples
    --------
    histofeat audit idc
    histofeat audit breakhis --magnification 100
    """
    from histofeat.datasets import format_of

    (path, *more), none = data.data, data.magnification is None
    if none and not more and (format_of(path) if data.format == "auto" else data.format) == "breakhis":
        data = replace(data, magnification="all")
    dataset = data.open()
    scales = sorted(dataset.frame["mpp"].dropna().unique() if "mpp" in dataset.frame else filter(None, [dataset.mpp]))
    scale = ", ".join(f"{mpp:g}" for mpp in scales) + " micrometres per pixel" if scales else "unknown; --mpp tells it"
    record = {"data": data.name, "mpp": scales, "audit": dataset.audit}
    run.show(record, lambda: print(f"{dataset.audit.summary()}\n- scale: {scale}"))


def info(
    file: argument(Path, "FILE", "A model, or a saved evaluation."),
    run: _Answer,
    markdown: option(Path | None, "FILE.md", "Also write it here: the card of a model.") = None,
) -> None:
    """Describe a model (its data, patients, scale, scores and limits) or an evaluation.

    Nothing of a model is built, so that neither its weights nor its packages are needed.

    Examples
    --------
    histofeat info model.histofeat --markdown card.md
    """
    from histofeat.datasets import write_whole

    check_output(markdown)
    record, text = _described(file)
    if markdown is not None:
        with write_whole(markdown) as part:
            part.write_text(f"{text}\n", encoding="utf-8")
    run.show(record, lambda: print(text))


def _described(file: Path) -> tuple[dict, str]:
    """Give the content of a file for programs and for people."""
    from histofeat.evaluation import load_evaluation
    from histofeat.models import read_archive

    with suppress(ValueError):  # what is no evaluation is said of a model
        evaluation = load_evaluation(file)
        return {"evaluation": evaluation.to_frame()}, str(evaluation)
    description, _ = read_archive(file)
    about = description["about"] | {"sha256": sha256(file.read_bytes()).hexdigest()}
    parts = {name: {key: about.pop(key) for key in keys if key in about} for name, keys in _SECTIONS.items()}
    parts["Scale"] = {"micrometres per pixel": parts["Scale"].pop("mpp", None) or "unknown"} | parts["Scale"]
    parts["Patients"]["rule of ids"] = parts["Patients"].pop("patients", None)
    parts = {"Model": about | {"histofeat": description.get("histofeat")}, **parts}
    positive = parts["Data"].get("positive")
    lines = [f"# {file.name}" + f"; positive class: {positive}" * bool(positive)]
    for name, content in parts.items():
        lines += ["", f"## {name}", "", *_bullets(content)]
    return description, "\n".join([*lines, *(f"- {limit}" for limit in _LIMITS)])


def _bullets(record: Mapping, indent: str = "") -> Iterator[str]:
    for key, value in record.items():
        name = f"{indent}- {key.removeprefix('n_').replace('_', ' ')}:"
        if value in (None, [], {}):
            continue
        if isinstance(value, Mapping) and set(value) == {"value", "ci95"}:
            shown, interval = cells(value)
            yield f"{name} {shown}" + f" (95 % interval {interval})" * bool(interval)
        elif isinstance(value, Mapping):
            yield from (name, *_bullets(value, f"{indent}  "))
        else:
            yield f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def list_names(what: argument(str, "WHAT", f"{', '.join(LISTS)}."), run: _Answer) -> None:
    """List the names that options take: feature families, heads, encoders, studies and others.

    Examples
    --------
    histofeat list families
    """
    from histofeat.cli._studies import idc_official
    from histofeat.exceptions import check_name

    check_name("list", what, LISTS)
    wing, register = LISTS[what]
    records = getattr(import_module(f"histofeat.{wing}"), register)
    said = {name: [getattr(record, field, "") for field in _SAYING] for name, record in records.items()}
    named = {name: next(filter(None, words), "") for name, words in said.items()}
    if what == "studies":  # a command that is no study of the register
        named["idc-official"] = idc_official.__doc__.splitlines()[0]
    lines = [f"{name:<{max(map(len, named))}}  {words}".rstrip() for name, words in named.items()]
    run.show(named, lambda: print("\n".join(lines)))


def store(
    file: argument(Path, "FILE", "The store's file."),
    purge: option(str | None, "FAMILY", "Remove what is stored of this family.") = None,
) -> None:
    """List the content of a feature store by family.

    Examples
    --------
    histofeat store features.sqlite
    histofeat store features.sqlite --purge glcm
    """
    from histofeat.features import FeatureStore

    if not file.is_file():
        raise ValueError(f"{file}: expected a feature store, found no such file. Correct the path.")
    if purge is not None:
        print(f"removed {FeatureStore(file).purge(purge):,} rows of {purge}")
    print(FeatureStore(file).summary())
