"""``histofeat doctor`` and ``histofeat fetch``: check an installation; download data and weights."""

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import typer

import histofeat
from histofeat.cli._options import argument, flag, option
from histofeat.exceptions import check_name, first_line

#: Packages that own one folder: pip installs several without a word, and the files of the last one lie there.
_ONE_FOLDER = (("xgboost-cpu", "xgboost"), ("opencv-python-headless", "opencv-python", "opencv-contrib-python"))
#: Status, what was found, and what to do about it.
_Rows = Iterator[tuple[str, str, str]]


def doctor(
    warm_up: flag("--warm-up", "Compile all kernels now, so that no later run waits for them.") = False,
    as_json: flag("--json", "Print one JSON object on stdout, and nothing else there.") = False,
) -> None:
    """Check what a run stands on, and say how to put it right.

    Packages, engines, weights, caches and stores, disk space, kernels and figures: each line is PASS, WARN or FAIL,
    with what to do about it. The exit status is 1 where something fails.

    Examples
    --------
    histofeat doctor
    histofeat doctor --warm-up
    """
    rows = []
    for check in (_packages, _engines, _places, partial(_run, warm_up)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", RuntimeWarning)
            try:
                rows += check()
            except Exception as error:  # whatever is broken is what this command is for
                rows.append(("FAIL", f"{type(error).__name__}: {first_line(error)}", ""))
        rows += [("WARN", str(warning.message), "") for warning in said if warning.category is RuntimeWarning]
    worst = max((row[0] for row in rows), key=("PASS", "WARN", "FAIL").index)
    if as_json:
        checks = [dict(zip(("status", "found", "fix"), row, strict=True)) for row in rows]
        print(json.dumps({"histofeat": histofeat.__version__, "status": worst, "checks": checks}, indent=1))
    for status, found, fix in () if as_json else rows:
        print(f"{status}  {found}", *fix.splitlines(), sep="\n      ")
    if worst == "FAIL":
        raise typer.Exit(1)


def _packages() -> _Rows:
    from histofeat.reporting import describe_environment

    about = describe_environment()
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    yield "PASS", f"Python {about['python']} on {about['platform']}, {about['cores']} cores, {versions}", ""
    there = {str(each.name).lower() for each in metadata.distributions()}
    for names in _ONE_FOLDER:
        twins = [name for name in names if name in there]
        if len(twins) > 1:
            fix = f"pip uninstall -y {' '.join(twins)}\npip install {twins[0]}"
            yield "FAIL", f"{' and '.join(twins)} own the same folder: one has overwritten files of the other", fix


def _engines() -> _Rows:
    from histofeat.networks import choose_engine, find_encoder, load_engine, shipped_weights

    choice, histo = choose_engine(), find_encoder("histo")
    load_engine(histo, shipped_weights(histo), choice, input_size=histo.default_size)  # compares its fingerprint
    yield "PASS", f"the shipped encoder gives what it should; {choice.note}", ""


def _places() -> _Rows:
    from histofeat.datasets import check_place
    from histofeat.features import FeatureStore
    from histofeat.images import user_cache
    from histofeat.networks import ENCODERS, best_encoder, encoders_at_hand, weight_folders

    for folder in weight_folders():
        known = [each.name for each in ENCODERS.values() if any((folder / f).exists() for f in each.accepted_files)]
        yield "PASS", f"{folder}: weights of {', '.join(known) or 'no network'}", ""
    usual = best_encoder()
    if usual in encoders_at_hand():
        yield "PASS", f"the family cnn takes {usual}", ""
    else:
        words = f"no weights of {usual}: `histofeat compare` leaves out cnn and everything, or downloads them"
        yield "WARN", words, f"histofeat fetch weights --encoder {usual}"
    cache, store = user_cache(), user_cache() / "features.sqlite"
    try:
        check_place(store)
    except OSError as error:
        yield "WARN", first_line(error), "Set XDG_CACHE_HOME to a folder that can be written."
    if store.exists():
        yield "PASS", FeatureStore(store).summary().splitlines()[0], ""
    for folder in (Path.cwd(), Path(tempfile.gettempdir()), next(p for p in (cache, *cache.parents) if p.exists())):
        free = shutil.disk_usage(folder).free / 1e9
        status, fix = ("PASS", "") if free >= 2 else ("WARN", "Make room before a long run.")
        yield status, f"{folder}: {free:.1f} GB free", fix


def _run(warm_up: bool) -> _Rows:
    from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort, write_report
    from histofeat.features import FAMILIES

    began = time.perf_counter()
    features = [name for name in FAMILIES if name != "cnn"] if warm_up else "color"
    cohort = make_cohort(n_patients=8, patches_per_patient=4, random_state=0)
    evaluation = evaluate(cohort, IDCPipeline(features=features, head="logistic"), PatientKFold(2), n_resamples=20)
    with tempfile.TemporaryDirectory() as scratch:
        write_report(evaluation, Path(scratch) / "report")
    what = f"{'every kernel is compiled; ' if warm_up else ''}a small run and its figures took"
    yield "PASS", f"{what} {time.perf_counter() - began:.1f} s", ""


def fetch(
    name: argument(str, "idc|breakhis|weights", "What to download."),
    encoder: option(str | None, "NAME", "Weights: of which network, such as resnet50.") = None,
    output: option(Path | None, "DIR", "[default: data; weights: where they are looked for]", "--output", "-o") = None,
    yes: flag("--yes", "Do not ask.") = False,
    quiet: flag("--quiet", "No progress on stderr.") = False,
) -> None:
    """Download IDC, BreakHis or pretrained weights.

    Size and licence come first. A download that broke goes on where it ended. The SHA-256 of the first download is kept
    beside the file, and a later download has to have the same one.

    Examples
    --------
    histofeat fetch idc
    histofeat fetch weights --encoder resnet50 --yes
    """
    from histofeat.datasets import DOWNLOADS, fetch_file, unpack
    from histofeat.features import Progress
    from histofeat.networks import ARCHITECTURES, ENCODERS, find_weights, weight_folders

    check_name("NAME", name, (*DOWNLOADS, "weights"))
    networks = {**ENCODERS, **{key: each.encoder for key, each in ARCHITECTURES.items() if each.encoder}}
    if name == "weights":
        check_name("--encoder", encoder, networks, "the name of a network with weights")
        network = networks[encoder]
        if network.source != "keras":  # in the package, or of the hub, which has its own way to download
            print(find_weights(network))
            return
        url, words = network.url, "ImageNet weights, licence: see https://keras.io/api/applications/"
    else:
        if encoder is not None:
            raise ValueError(f"--encoder: expected none with {name}, got {encoder!r}. Leave it out.")
        url, words = DOWNLOADS[name]
    folder = output or (weight_folders()[0] if name == "weights" else Path("data"))

    def ask(n_bytes: int) -> None:
        size = f"{n_bytes / 1e6:,.0f} MB" if n_bytes else "size unknown"
        print(f"{url}, {size}\n{words}", file=sys.stderr)
        if not (yes or (sys.stdin.isatty() and typer.confirm(f"Download to {folder}?", err=True))):
            print("histofeat: not downloaded; --yes answers the question.", file=sys.stderr)
            raise typer.Exit(2)

    path = fetch_file(url, folder, before=ask, progress=Progress(quiet=quiet))
    if name in DOWNLOADS:
        archive, path = path, folder / name
        if not (path.is_dir() and any(path.iterdir())):
            unpack(archive, path)
    print(path)
