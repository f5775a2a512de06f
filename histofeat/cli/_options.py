"""Options of the commands: each is declared once, in a group; a command names the groups that it takes.

A command is a function of groups and options, ``def train(data: DataOptions, run: RunOptions, folds: NFolds = 5)``.
`expanded` writes the fields of its groups into the signature that typer reads.
"""

import inspect
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from histofeat.cli._outputs import absolute, code_of_others


def option(kind: Any, metavar: str, help: str, *names: str, **settings: Any) -> Any:
    """Type of a parameter of a command that is an option with a value.

    Parameters
    ----------
    kind : type
        Type of its value, such as ``str | None``.
    metavar, help : str
        What ``--help`` shows.
    *names : str
        Its names, where they are not that of the parameter.
    **settings
        Others of `typer.Option`.
    """
    return Annotated[kind, typer.Option(*names, metavar=metavar, help=help, **settings)]


def argument(kind: Any, metavar: str, help: str) -> Any:
    """Type of a parameter of a command that has a place, not a name."""
    return Annotated[kind, typer.Argument(metavar=metavar, help=help)]


def flag(name: str, help: str) -> Any:
    """Type of a parameter of a command that is an option without a value."""
    return Annotated[bool, typer.Option(name, help=help)]


def group(kind: type, *, without: Collection[str] = (), required: Collection[str] = (), **defaults: Any) -> Any:
    """Type of a parameter of a command that takes a group of options, but not all of them as they are.

    Parameters
    ----------
    kind : type
        The group, such as `DataOptions`.
    without : collection of str
        Fields that the command does not offer; they keep their defaults.
    required : collection of str
        Fields that must be given.
    **defaults
        Other defaults of fields.
    """
    return Annotated[kind, tuple(without), tuple(required), defaults]


def _read_config(ctx: typer.Context, file: Path | None) -> None:
    """Take the values of a TOML file as the defaults of a command's options."""
    if file is None:
        return
    import tomllib

    from histofeat.exceptions import known_names

    if file.exists() and not file.is_file():
        raise ValueError(f"--config: expected a TOML file, got {file}, a folder or a device. Correct the path.")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--config: expected a TOML file, got {file}: {error}. Correct it.") from error
    of, _ = content.pop("command", ctx.info_name), content.pop("version", None)
    if not isinstance(of, str) or of.split()[-1:] != [ctx.info_name]:
        raise ValueError(f"--config: expected options of {ctx.info_name}, got those of {of!r} in {file}. Correct it.")
    options = [parameter for parameter in ctx.command.params if parameter.name not in ("help", "config")]
    known = {parameter.name.replace("_", "-"): parameter for parameter in options}
    ctx.default_map = {}
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in known:
            raise ValueError(f"--config: expected options of {of}, got {key!r} in {file}. {known_names(name, known)}")
        several = getattr(known[name], "multiple", False) or known[name].nargs == -1
        if isinstance(value, dict) or (isinstance(value, list) and not several):
            raise ValueError(f"--config: expected one value for {key!r}, got {value!r:.80} in {file}. Write one.")
        ctx.default_map[known[name].name] = [value] if several and not isinstance(value, list) else value


_Config = option(
    Path | None, "FILE.toml", "Take options from here, such as a run.toml.", is_eager=True, callback=_read_config
)
#: Options that say nothing about what a run computes.
_OF_THE_CALL = ("ctx", "overwrite", "quiet", "json")


def expanded(command: Callable) -> Callable:
    """Write the fields of the groups that a command takes into its signature, one option each.

    Parameters
    ----------
    command : callable
        Its parameters are groups (frozen dataclasses) and single options.

    Returns
    -------
    function : callable
        The same command as typer reads it. Options stand in the order of the parameters, those of the run last.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters
    groups, shown, last = {}, [], []
    for name, parameter in given.items():
        kind, *more = get_args(hints[name]) or (hints[name],)
        if not is_dataclass(kind):
            shown.append(keyword(name, hints[name], parameter.default))
            continue
        without, required, defaults = more or ((), (), {})
        offered = [each for each in fields(kind) if each.compare and each.name not in without]
        groups[name], types = (kind, [each.name for each in offered]), get_type_hints(kind, include_extras=True)
        for each in offered:
            default = parameter.empty if each.name in required else defaults.get(each.name, each.default)
            (last if issubclass(kind, RunOptions) else shown).append(keyword(each.name, types[each.name], default))
    shown += [*last, keyword("config", _Config, None)] if last else []

    @wraps(command)
    def function(config: Any = None, **words: Any) -> Any:
        given = {name: value for name, value in words.items() if value is not None and name not in _OF_THE_CALL}
        made = {name: kind(**{each: words.pop(each) for each in taken}) for name, (kind, taken) in groups.items()}
        for options in made.values():
            if isinstance(options, RunOptions):
                options.given.update(command=command.__name__.strip("_"), **given)
        with code_of_others(aside=any(getattr(each, "json", False) for each in made.values())):
            return command(**words, **made)

    function.__signature__ = inspect.Signature(shown)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return function


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Parameter of a command, as typer reads it; `inspect.Parameter.empty` is the default of one that must be given."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def built_command(function: Callable, name: str, help: str, epilog: str | None = None) -> Any:
    """Build the command that typer runs from a function of groups and options."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, help=help, epilog=epilog)(expanded(function))
    return typer.main.get_command(alone)


def _threads(given: int) -> int:
    if given == 0:
        raise typer.BadParameter("expected 1 or more threads, or -1 for all cores, got 0.")
    return given


def _there(given: Path | None) -> Path | None:
    if given is not None and not given.exists() and str(given) != "imagenet":
        raise typer.BadParameter(f"expected a file or folder of weights, found none at {given}. Correct the path.")
    return given


NJobs = option(int, "N", "Threads; -1 takes all cores.", callback=_threads)
Seed = option(int, "N", "Seed of everything that is drawn.", min=0)
#: The one name of weights on the command line.
Weights = option(
    Path | None, "FILE|DIR", "Weights of the encoder, or their folder.  [default: $HISTOFEAT_WEIGHTS]", callback=_there
)


@dataclass(frozen=True)
class DataOptions:
    """Which labelled images a command reads, and how."""

    data: argument(
        list[Path] | None, "DATA", "A folder (IDC, BreakHis, CLASS/IMAGE), CSV file or embeddings; or folders of IDC."
    ) = None
    format: option(str, "NAME", "auto, idc, breakhis, folder, csv or embeddings.") = "auto"
    patients: option(
        str | None,
        "REGEX|CSV|folder|tcga|image",
        "How to find the patient of an image, but for IDC and BreakHis: an expression with one group, a table "
        "with path and patient, its folder, its TCGA barcode; image where patients are unknown.",
    ) = None
    labels: option(str | None, "FILE", "Embeddings: labels by path, slide or patient, if they have none.") = None
    positive: option(str | None, "CLASS", "The positive class of two.  [default: the name that tells]") = None
    classes: option(str | None, "LIST", "Classes to take, to merge or to rename: normal,tumour=idc+ilc.") = None
    target: option(str | None, "NAME", "BreakHis: malignant or subtype.") = None
    magnification: option(str | None, "N", "BreakHis: 40, 100, 200 or 400; all pools them.") = None
    mpp: option(
        float | None, "UM", "Micrometres per pixel of the images.  [default: of IDC, BreakHis, column mpp or headers]"
    ) = None
    duplicates: option(str | None, "NAME", "BreakHis, copies under two names: refuse, drop or published.") = None
    path_prefix: option(list[str] | None, "OLD=NEW", "CSV: paths that begin with OLD begin with NEW here.") = None
    on_error: option(
        str | None, "NAME", "Images that cannot be read: skip or raise.  [default: skip those without a sound header]"
    ) = None
    only: option(Path | None, "FILE", "Take these patients only, one id a line.") = None

    @property
    def name(self) -> str:
        """Name of the data, for a ledger."""
        return ", ".join(Path(path).name for path in self.data) if self.data else "synthetic"

    def open(self, *, training: bool = False, cohort: Mapping[str, Any] | None = None) -> Any:
        """Read names and headers of the data.

        Parameters
        ----------
        training : bool, default=False
            Whether to take only rows that a model may learn from, where the data come in parts.
        cohort : mapping, optional
            Arguments of `make_cohort`, where no data are named.

        Returns
        -------
        dataset : PatchDataset
            The synthetic cohort where no data are named.

        Raises
        ------
        ValueError
            If an option is wrong, or not of this format.
        DatasetError
            If there are no such data.
        """
        from histofeat.datasets import make_cohort, open_dataset, training_part

        names = "patients labels positive classes target magnification mpp duplicates on_error"
        options = {name: getattr(self, name) for name in names.split()}
        options["prefixes"] = dict(map(_prefix, self.path_prefix or ())) or None
        paths = self.data or [make_cohort(**(cohort or {})).root]
        dataset = open_dataset(paths[0] if len(paths) == 1 else paths, self.format, **options)
        return training_part(dataset, only=self.only) if training or self.only else dataset


def _prefix(text: str) -> list[str]:
    if not all(text.partition("=")[::2]):
        raise ValueError(rf"--path-prefix: expected OLD=NEW, got {text!r}. Write D:\scans=/mnt/scans.")
    return text.split("=", 1)


@dataclass(frozen=True)
class RunOptions:
    """How a command runs, and what it prints."""

    seed: Seed = 0
    n_jobs: NJobs = 1
    store: option(Path | None, "FILE", "Keep features here, so that no image is measured twice.") = None
    no_store: flag("--no-store", "Keep no features.") = False
    ledger: option(Path | None, "FILE", "Write looks at registered test patients, as those of IDC, here.") = None
    cluster: option(str | None, "local:N|URL", "Work on N processes, or on the workers of a Dask scheduler.") = None
    quiet: flag("--quiet", "No progress on stderr.") = False
    json: flag("--json", "Print one JSON object on stdout, and nothing else there.") = False

    #: What the whole command was given, for `write_config`; no option itself.
    given: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    #: Where `show` prints JSON; no option either.
    stdout: Any = field(default_factory=lambda: sys.stdout, compare=False, repr=False)

    @cached_property
    def progress(self) -> Any:
        """Progress on stderr (`histofeat.features.Progress`)."""
        from histofeat.features import Progress

        return Progress(quiet=self.quiet)

    def show(self, record: Any, show: Callable[[], None]) -> None:
        """Print a result: as one JSON object with ``--json``, otherwise as a person reads it.

        Parameters
        ----------
        record : dict
            What `histofeat.reporting.jsonable` can write.
        show : callable
            Prints the same for a person.
        """
        if not self.json:
            show()
            return
        from histofeat.reporting import jsonable

        print(json.dumps(jsonable(record), indent=1, ensure_ascii=False), file=self.stdout)

    def write_config(self, output: Path, shown: Callable[[Any], Any] | None = None) -> None:
        """Write the options of the run as TOML, so that ``--config`` repeats it.

        Parameters
        ----------
        output : Path
            What the run wrote: a folder gets ``run.toml``, a file ``NAME.run.toml`` beside it.
        shown : callable, optional
            Takes names that are not to be shown out of the value of an option.
        """
        import tomli_w

        import histofeat
        from histofeat.datasets import printable, write_whole

        file = output / "run.toml" if output.is_dir() else output.with_name(f"{output.stem}.run.toml")
        plain = {name: absolute(value) for name, value in self.given.items()}
        plain = shown(plain | ({"data": ["DATA"]} if plain.get("data") else {})) if shown else plain
        text = tomli_w.dumps({"version": histofeat.__version__, **plain})
        head = f"# histofeat {self.given.get('command')} --config {file.name} does it once more: its paths are full.\n"
        with write_whole(file, overwrite=True) as part:
            part.write_text(printable(head + text), encoding="utf-8")

    def looks(self, command: str) -> Any:
        """Open the ledger, before the work that it will record; None without ``--ledger``.

        Parameters
        ----------
        command : str
            What it writes down, such as "train idc".

        Returns
        -------
        ledger : Ledger or None
        """
        from histofeat.datasets import Ledger

        ledger = self.ledger and Ledger(self.ledger, f"histofeat {command}")
        if ledger and self.ledger.exists():
            ledger.open()
        return ledger

    def runtime(self, command: str, **settings: Any) -> Any:
        """Threads, store, progress and ledger of the run.

        Parameters
        ----------
        command : str
            What the ledger writes down, such as "train idc".
        **settings
            Other parameters of `Runtime`, in place of those of the options.

        Returns
        -------
        runtime : Runtime
        """
        from histofeat.features import FeatureStore, Runtime

        if self.no_store and self.store:
            raise ValueError("--no-store: expected either this or --store, got both. Leave one out.")
        found = {"n_jobs": self.n_jobs, "progress": self.progress, "ledger": self.looks(command)}
        found |= {"cluster": self.cluster, "store": None if self.no_store else self.store}
        if found["store"] and self.store.exists():
            FeatureStore(self.store).entries()  # refuses a file that is none
        return Runtime.of(Runtime(**found | settings))


@dataclass(frozen=True)
class EncoderOptions:
    """The network whose embeddings are features (family cnn)."""

    encoder: option(str | None, "NAME", "Of the family cnn.  [default: the best whose weights are at hand]") = None
    weights: Weights = None
    input_size: option(int | None, "PX", "Side of the images that the encoder sees, in px.") = None

    def params(self, families: Collection[str]) -> dict[str, Any]:
        """Parameters of the family, as ``feature_params`` of a pipeline; none where it is not measured.

        Parameters
        ----------
        families : collection of str
            What is measured.

        Returns
        -------
        params : dict
            Such as ``{"cnn__encoder": "densenet121"}``.

        Raises
        ------
        ValueError
            If something is given, and cnn is not among the families; if there is no such encoder; if a file of weights
            has none.
        """
        from histofeat.networks import find_encoder
        from histofeat.studies import network_params

        if self.encoder is not None:
            find_encoder(self.encoder, owner="--encoder")
        folder = self.weights is not None and self.weights.is_dir()
        found = {"encoder": self.encoder, "weights_dir" if folder else "weights": self.weights and str(self.weights)}
        found = {name: value for name, value in (found | {"input_size": self.input_size}).items() if value is not None}
        if found and "cnn" not in families:
            got = f"{', '.join(families) or 'none'}. Add cnn to --features, or leave the option out."
            raise ValueError(f"{min(found)}: expected the family cnn among the features, got {got}")
        if "weights" in found and self.encoder is None:
            raise ValueError("--encoder: expected the name of a network with a file of weights, got none. Add it.")
        usual = network_params(self.weights) if self.encoder is None and "cnn" in families else {}
        return usual | {f"cnn__{name}": value for name, value in found.items()}
