"""``histofeat audit``, ``info``, ``list`` and ``store``: what data, files and registers hold."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from histofeat.cli._options import DataOptions, RunOptions, argument, group, option
from histofeat.cli._outputs import cells, check_output
from histofeat.exceptions import check_that, refuse_first

#: What can be listed: the wing and the register of the names.
LISTS = {
    "architectures": ("networks", "ARCHITECTURES"),
    "encoders": ("networks", "ENCODERS"),
    "families": ("features", "FAMILIES"),
    "heads": ("models", "HEADS"),
    "metrics": ("metrics", "METRIC_RECORDS"),
    "rules": ("metrics", "RULES"),
    "studies": ("studies", "STUDIES"),
}
#: Fields of a record that say what it is, best first.
_SAYING = ("definition", "words", "description", "reference")
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


def audit(
    data: group(DataOptions),
    run: _Answer,
    images: option(Path | None, "DIR", "Of a split: its images, to look for copies as well.") = None,
    encoder: option(str | None, "NAME", "Of a split: are test patients in the known training set?") = None,
    registry: option(str | None, "NAME", "A published split instead of a file; list names them.") = None,
    markdown: option(Path | None, "FILE.md", "Of a split: also write the findings here.") = None,
    fix: option(Path | None, "FILE.csv", "Of a split: write it with whole patients moved.") = None,
) -> None:
    """Audit a split by its names, or list what labelled images hold, and what was left out and why.

    A split is a table with a column of parts or folds, JSON, lists of ids, dsfold files or CLAM's, or folders of parts.
    The exit status is 1 where it has errors, 0 with warnings alone. Without --magnification all those of BreakHis are
    listed.

    Examples
    --------
    histofeat audit idc
    histofeat audit split.csv --fix repaired.csv
    histofeat audit cases_train.txt cases_val.txt cases_test.txt --encoder uni
    histofeat audit --registry breakhis-eva
    """
    from histofeat.datasets import csv_text, load_published_split, published_splits, read_split, write_whole

    published = published_splits() if registry else {}
    if registry == "list":
        run.show(published, lambda: print("\n".join(f"{name}: {its['title']}" for name, its in published.items())))
        return
    one = bool(data.data) != bool(registry)
    check_that("DATA", data.data, one, "a path, or a name after --registry", "Give one of the two.")
    table = load_published_split(registry) if registry else None
    if data.data and data.format == "auto":
        table = read_split(data.data, patients=data.patients)
    options = {"--images": images, "--encoder": encoder, "--markdown": markdown, "--fix": fix}
    if table is None:
        given = [name for name, its in options.items() if its]
        refuse_first(given, f"{data.data[0]}: expected a split, got data without parts for", "Leave it out.")
        _list_data(data, run)
        return
    from histofeat.evaluation import audit_names, repair_split

    for file in (markdown, fix):
        check_output(file)
    opened = None if images is None else replace(data, data=[images]).open()
    report = audit_names(table, encoder=encoder, images=opened)
    repaired, changes = repair_split(table) if fix else (table, ())
    text = "\n".join(_said_of(table, report, published.get(registry, {}), changes))
    for file, content in ((markdown, f"{text}\n"), (fix, csv_text(repaired.to_frame()))):
        if file is not None:
            with write_whole(file) as part:
                part.write_text(content, encoding="utf-8")
    record = {"split": table.dataset.name, "offenders": {each.code: each.offenders for each in report.findings}}
    run.show(record | report.to_dict() | {"changes": changes}, lambda: print(text))
    if report.errors:
        raise typer.Exit(1)


def _said_of(table: Any, report: Any, about: Mapping, changes: Sequence[str]) -> Iterator[str]:
    """Say in Markdown what is known of a split, the verdict of each code, everything found, and what moved."""
    yield from (f"# Split {table.dataset.name}", "", *_bullets(about))
    for number, (title, train, test) in enumerate(table.folds, start=1):
        yield f"- fold {number}: {title}: {len(train):,} | {len(test):,} of {len(table.dataset):,} names"
    parts = table.places.groupby("row")["part"].nunique()
    if (parts > 1).any():  # folds do; two files that should be one split disagree
        first = table.dataset.frame["name"][parts.idxmax()]
        yield f"- names with another part in another file or fold: {(parts > 1).sum():,}, such as {first!r}"
    yield from ("", "| code | looks for | verdict | found |", "|---|---|---|---|")
    for each in report.findings:
        verdict = each.severity if each.status == "issue" else each.status
        yield f"| {each.code} | {each.title} | {verdict} | {each.detail} |"
    yield ""
    for each in (*report.errors, *report.warnings):
        yield from (f"- {each.code}: {words}" for words in each.offenders)
        yield f"- {each.code}: remedy: {each.remedy}"
    yield from (f"- moved: {words}" for words in changes)


def _list_data(data: DataOptions, run: RunOptions) -> None:
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
    """List the names that options take: feature families, heads, encoders, metrics, threshold rules and others.

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
