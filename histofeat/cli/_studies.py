"""``histofeat study NAME``: a question asked of a data set, answered by a page with its numbers, tables and figures."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from histofeat.cli._comparison import (
    ModelOptions,
    PageOptions,
    ProtocolOptions,
    open_runtime,
    show,
    split_list,
)
from histofeat.cli._options import (
    DataOptions,
    EncoderOptions,
    RunOptions,
    Weights,
    built_command,
    flag,
    group,
    keyword,
    option,
)
from histofeat.cli._outputs import command_words, say_dataset
from histofeat.studies import STUDIES

#: Studies outside the library by name: functions that give them; and the program that knows them.
MORE: dict[str, Callable[[], Any]] = {}
PROGRAM = "histofeat study"
#: Of `DataOptions`, what a study does not take that reads folders of its own kind.
_READING = ("format", "patients", "labels", "target", "magnification", "mpp", "duplicates", "path_prefix", "only")
#: Studies of features that may be given, as columns.
_ON_COLUMNS = ("leakage", "learning-curves", "calibration")


class Studies(typer.core.TyperGroup):
    """The studies as commands, each built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Give the names of the studies."""
        return [*STUDIES, *MORE, "idc-official"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a study as a command; None where there is none."""
        if cmd_name == "idc-official":
            self.commands[cmd_name] = built_command(idc_official, f"study {cmd_name}", idc_official.__doc__)
        elif cmd_name in MORE or cmd_name in STUDIES:
            self.commands[cmd_name] = command_of(MORE[cmd_name]() if cmd_name in MORE else STUDIES[cmd_name])
        else:
            self.commands |= dict.fromkeys(self.list_commands(ctx))  # typer suggests the nearest of these
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the studies with whole sentences."""
        with formatter.section("Studies"):
            named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
            formatter.write_dl([(name, command.get_short_help_str(200)) for name, command in named])


study: typer.Typer = typer.Typer(
    cls=Studies,
    add_completion=False,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  histofeat study leakage idc --features color,handcrafted --n-jobs -1\n"
    "  histofeat study shortcuts breakhis --magnification 100",
)


@study.callback()
def _study() -> None:
    """Answer a question about a data set by a page; `histofeat study NAME --help` lists its options."""


def command_of(study: Any) -> Any:
    """Build the command of a study.

    Parameters
    ----------
    study : histofeat.studies.Study

    Returns
    -------
    command : click.Command
    """
    return built_command(_function(study), f"study {study.name}", study.description)


def _function(study):
    """Give the function of a study, whose signature has its options."""
    data = {"any": DataOptions, False: None}.get(study.data, group(DataOptions, without=_READING))
    runs = group(RunOptions, without=["cluster", *(() if study.data else ("store", "no_store", "ledger"))])
    given = inspect.Parameter.empty
    shown = {"ctx": (typer.Context, given), "data": (data, given), "run": (runs, given)}
    shown["weights"] = (Weights if study.data else None, None)
    shown |= {name.replace("-", "_"): _option(name, **described) for name, described in study.options.items()}
    folder = "Folder of the page.  [default: one in histofeat-reports]"
    shown["output"] = option(Path | None, "DIR", folder, "--output", "-o"), None
    shown["overwrite"] = flag("--overwrite", "Replace a finished page in the output folder."), False
    shown["quick"] = flag("--quick", "The smallest run, to see that all works; its numbers say nothing."), False
    shown = {name: known for name, known in shown.items() if known[0] is not None}

    def function(ctx, run, output, data=None, **own):
        _run(study, ctx, run, output, data, own)

    function.__name__ = f"study {study.name}"
    function.__annotations__ = {name: kind for name, (kind, _) in shown.items()}
    function.__signature__ = inspect.Signature([keyword(name, *known) for name, known in shown.items()])
    return function


def _option(name, *, default, words, kind, metavar, choices):
    """Give type and default of an option that a study describes."""
    help = f"{words[:1].upper()}{words[1:]}"
    if kind is bool:
        return flag(f"--{name}", f"{help}."), default
    if isinstance(default, list):
        return option(str, "LIST", f"{help}; separated by commas.", f"--{name}"), ",".join(map(str, default))
    return option(kind | None, metavar, f"{help}.", f"--{name}"), default


def _values(study, own):
    """Turn options of the command line into what the study takes: lists, and only what may be chosen."""
    from histofeat.exceptions import check_name

    for name, described in study.options.items():
        attribute, kind = name.replace("-", "_"), described["kind"]
        if isinstance(described["default"], list):
            try:
                own[attribute] = [kind(word) for word in split_list(own[attribute])]
            except ValueError as error:
                words = f"expected {kind.__name__} values with commas between, got {own[attribute]!r}"
                raise ValueError(f"--{name}: {words}. Write {described['default'][0]}.") from error
        if described["choices"]:
            check_name(f"--{name}", own[attribute], described["choices"])
    return own


def _run(study, ctx, run, output, data, own):
    """Check what can be checked, run the study, write its page."""
    from histofeat.datasets import format_of
    from histofeat.exceptions import DatasetError, check_whole
    from histofeat.reporting import check_output, write_study

    def opened():
        dataset = options.columns or data.open()
        say_dataset(dataset)
        return dataset

    check_whole("--resamples", own.get("resamples", 0), 0, "Use 2000.")
    check_whole("--folds", own.get("folds", 2), 2, "Use 5.")
    output = output or Path(ctx.obj["reports"]) / (study.folder or study.name)
    check_output(output, overwrite=own["overwrite"], option="--overwrite")
    options = SimpleNamespace(**_values(study, own), output=output, **vars(run), columns=None)
    if data is not None:
        options.data, options.open = [Path(path) for path in data.data or ()] or None, opened
        kind = data.format
        with suppress(DatasetError):  # what is missing is said when it is read
            kind = format_of(data.data[0]) if data.data and kind == "auto" else kind
        if kind == "embeddings":
            options.columns = data.open()
            if study.name not in _ON_COLUMNS or options.features != study.options["features"]["default"]:
                options.columns.require_images(f"study {study.name} of {', '.join(own.get('features', ['pixels']))}")
        if study.data is True and options.data is None:
            raise ValueError(f"{study.name}: expected a folder of images, got none. Name it behind the study.")
    command = command_words(ctx)
    if study.name in MORE:
        command = command.replace("histofeat study", PROGRAM, 1)
    runtime = open_runtime(ctx, run, data.on_error if data else None, usual=None)
    findings = study.run(options, runtime)
    page = write_study(output, study, findings, vars(options), command=command, overwrite=options.overwrite)
    run.write_config(output)
    run.show({"results": findings.results, "report": str(page)}, lambda: print(f"report: {page}"))


_Models = group(ModelOptions, without=["embeddings", "predictions", "quick", "ladder"], features="handcrafted")
_Protocol = group(
    ProtocolOptions, without=["split", "margin", "folds", "repeats", "known_patients", "retrain_encoder", "cross_fit"]
)
_RECIPES = "fuzzy_color,joint_color,gray,lbp,haralick"


def idc_official(
    ctx: typer.Context,
    data: group(DataOptions, without=("positive", "classes", *_READING), required=["data"]),
    models: _Models,
    network: EncoderOptions,
    protocol: _Protocol,
    page: group(PageOptions, without=["no_shortcuts"]),
    run: group(RunOptions, without=["cluster", "json"]),
    recipes: option(str, "LIST", "Recipes of 2014, each with a random forest.") = _RECIPES,
    add_unlisted: flag(
        "--add-unlisted", "A second run, fitted on patients without a role too, in DIR-unlisted."
    ) = False,
) -> None:
    """Score pipelines on the published test patients of IDC; write a report beside the published numbers.

    They are fitted on the train and validation patients. It is a test set, not a tuning set: choices are made by
    `histofeat compare` on other patients, and each look belongs into a ledger.
    """
    from histofeat import IDCPipeline, evaluate, studies

    studies.check_names("--recipes", split_list(recipes), studies.RECIPES)
    settings, pipelines = protocol.settings(run.seed), models.pipelines(network, run.seed)
    for family in split_list(recipes):
        forest = IDCPipeline(family, "random_forest", random_state=run.seed)
        pipelines.append((studies.RECIPES[family], forest))
    if not pipelines:
        raise ValueError("--features: expected a set, a recipe or a pipeline, got none. Leave one of the options out.")
    output = page.output or Path(ctx.obj["reports"]) / "idc-official"
    folders = {studies.PUBLISHED_SPLIT: output, studies.WITH_UNLISTED: output.with_name(f"{output.name}-unlisted")}
    for folder in list(folders.values())[: 1 + add_unlisted]:
        page.check(folder)
    runtime, dataset = open_runtime(ctx, run, data.on_error), data.open()
    split, runs = dataset.official_split(), []
    folds = studies.official_folds(split, unlisted=add_unlisted)
    say_dataset(dataset)
    for trained_on, fold in folds.items():
        evaluation = evaluate(dataset, pipelines, **settings | {"cv": [fold]}, runtime=runtime)
        described = {**evaluation.protocol, "cv": studies.cv_words(split, trained_on)}
        runs.append(studies.SplitRun(trained_on, replace(evaluation, protocol=described)))
    found = studies.compare_with_published(runs, split, studies.load_published())
    for each in reversed(runs):  # the published split last: it is what the screen ends with
        how = _beside_published(each, found) | {"command": command_words(ctx)}
        written = page.write(each.evaluation, folders[each.trained_on], run=run, **how)
        show(run, each.evaluation, written)


def _beside_published(run, found):
    """Give what the report of a run on the published split shows beside the evaluation."""
    listed = run.is_published_split
    kind = "published split of the patients" if listed else "published test patients"
    return {
        "title": f"IDC, {kind}, on {found.data}{'' if listed else '; fitted on unlisted patients too'}",
        "template": "published-report.md.j2",
        "context": {"found": found.to_dict(), "listed": listed, "target": run.evaluation.dataset.target_names[1]},
        "files": {"official.csv": found.to_csv(), "official.json": found.to_dict()},
    }
