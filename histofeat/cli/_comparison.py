"""``histofeat compare`` and ``histofeat report``: feature sets times heads on one data set, by patient, and a page."""

import importlib
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, argument, flag, group, option
from histofeat.cli._outputs import command_words, default_output, device_words, say_dataset
from histofeat.exceptions import check_that, counted, first_line
from histofeat.metrics import rule_examples
from histofeat.studies import SETS

#: Written out, for to import them takes longer than `--help` may take.
_HEADS = "xgboost, svm, logistic, random_forest, vote, late_vote, stacking, knn, qda"
_DEFAULT_SETS = "color,lbp,haralick,handcrafted,cnn,everything,histo,with_histo"
_HEADS_OF = "xgboost,svm"
#: Of a quick run.
QUICK_COHORT, _QUICK_TREES = {"n_patients": 15, "patches_per_patient": 20}, 50
#: Columns on the screen.
_SHOWN = ("name", "head", "roc_auc", "roc_auc_low", "roc_auc_high", "f1", "f1_tuned", "fit_s")
_Several = list[str] | None
_ITS_X = "its X is an array of paths of images, of embeddings a DataFrame."


@dataclass(frozen=True)
class ModelOptions:
    """What is compared."""

    features: option(str, "LIST", f"Separated by commas, {SETS}.") = _DEFAULT_SETS
    heads: option(str, "LIST", f"Heads of these sets and of embeddings: {_HEADS}.") = _HEADS_OF
    pipeline: option(_Several, "NAME=MODULE:OBJECT", f"A classifier, also of this folder; repeatable; {_ITS_X}") = None
    embeddings: option(_Several, "NAME=FILE", "Embeddings of the same patches; repeatable.") = None
    predictions: option(_Several, "NAME=FILE", "Probabilities by another system; repeatable.") = None
    quick: flag("--quick", "Fewer patches and trees, to see that everything works.") = False
    ladder: flag("--ladder", "Rows that any model should beat, from guessing to an encoder, beside yours.") = False

    def __post_init__(self) -> None:
        if self.ladder:
            one, fits = "logistic, one head for all rows of --ladder", self.heads in ("logistic", _HEADS_OF)
            check_that("--heads", self.heads, fits, one, "Leave it out.")
            vars(self).update(heads="logistic", features=self.features.replace(_DEFAULT_SETS, ""))
        for name in ("embeddings", "predictions"):
            for word in getattr(self, name) or ():
                if not (re.match("[^=]+=.", word) and Path(word.split("=", 1)[1]).exists()):
                    raise ValueError(f"--{name}: expected NAME=FILE that exists, got {word!r}. Write MINE=my_file.csv.")

    def pipelines(self, network: EncoderOptions, seed: int) -> list[tuple[str, Any]]:
        """Give (name, pipeline) for every feature set and head, and every classifier of the user's own."""
        from histofeat.studies import FEATURE_SETS, make_pipelines

        families = [family for name in split_list(self.features) for family in FEATURE_SETS.get(name, ())]
        params, n_trees = network.params(families + ["cnn"] * self.ladder), _QUICK_TREES if self.quick else None
        settings = {"network": params, "n_trees": n_trees, "random_state": seed}
        sets = make_pipelines(split_list(self.features), split_list(self.heads), **settings)
        return [*sets, *map(_imported, self.pipeline or ())]

    def on_data(self, dataset: Any, network: EncoderOptions, seed: int, others: list) -> list[tuple[str, Any]]:
        """Give (name, pipeline) for rows of a ladder, others, and columns of the data and of files with each head."""
        from histofeat import IDCPipeline, load_embeddings
        from histofeat.studies import ladder_pipelines

        files = [word.split("=", 1) for word in self.embeddings or ()]
        sets, heads = [(dataset.name, dataset)] if dataset.lacks_images else [], split_list(self.heads)
        sets += [(name, load_embeddings(file, labels=dataset, name=name)) for name, file in files]
        others = [*(ladder_pipelines(dataset, network=network.params(["cnn"])) if self.ladder else ()), *others]
        return others + [(name, IDCPipeline([rows], head, random_state=seed)) for name, rows in sets for head in heads]

    def given(self, dataset: Any, whole: Any) -> dict[str, Any]:
        """Give the probabilities in every file of predictions, of rows (n,) that are among all rows of their data."""
        from histofeat.evaluation import given_probabilities

        rows = whole.frame.index[whole.frame["path"].isin(dataset.frame["path"])]
        tested = whole.frame.index.isin(rows)
        files = dict(word.split("=", 1) for word in self.predictions or ())
        return {name: given_probabilities(whole, tested, name, file)[rows] for name, file in files.items()}


@dataclass(frozen=True)
class ProtocolOptions:
    """How models are scored."""

    folds: option(int, "N", "Folds of patients.") = 5
    repeats: option(int, "N", "Repeats of the folds, for the intervals of the method.") = 1
    resamples: option(int, "N", "Resamples of the patients, for the intervals of these fits.") = 2000
    train_patches: option(
        int | None, "N", "Train on at most N patches of a patient, for data that memory cannot hold."
    ) = None
    inner_patches: option(int, "N", "At most N patches of a patient in inner fits, which choose thresholds.") = 300
    split: option(Path | None, "FILE", "Test as a split does: any that `histofeat audit` reads or knows.") = None
    margin: option(float, "D", "With --ladder: the largest loss of ROC-AUC that does not matter.") = 0.01
    threshold: option(str, "RULE", f"What the tuned threshold is chosen for: {rule_examples()}.") = "f1"
    plan: option(Path | None, "FILE", "Differences planned before any score, by histofeat.metrics.write_plan.") = None
    known_patients: option(str, "NAME", "Patients that an encoder knows: skip its sets, or leave_out for all.") = "skip"
    retrain_encoder: flag("--retrain-encoder", "Train such encoders again in each fold and its inner fits.") = False
    cross_fit: flag("--cross-fit", "Train such encoders again for inner fits, which choose thresholds.") = False

    def settings(self, seed: int) -> dict[str, Any]:
        """Give arguments of `evaluate`, checked as far as that takes no data."""
        from histofeat.exceptions import check_name, check_real, check_whole
        from histofeat.metrics import parse_rule, read_plan
        from histofeat.model_selection import LimitedTraining, PatientKFold, RepeatedPatientKFold

        parse_rule(self.threshold)
        for name, least, usual in (("folds", 2, 5), ("resamples", 0, 2000), ("inner_patches", 1, 300)):
            check_whole(f"--{name.replace('_', '-')}", getattr(self, name), least, f"Use {usual}.")
        check_real("--margin", self.margin, "above 0", lambda value: value > 0, "Use 0.01.")
        check_name("--known-patients", self.known_patients, ("skip", "leave_out"))
        several = RepeatedPatientKFold(self.folds, self.repeats, seed) if self.repeats > 1 else None
        cv = several or PatientKFold(self.folds, random_state=seed)
        if self.train_patches is not None:
            check_whole("--train-patches", self.train_patches, 1, "Use 500.")
            check_whole("--repeats", self.repeats, 1, "Leave it out with --train-patches.", most=1)
            cv = LimitedTraining(cv, self.train_patches, random_state=seed)
        found = {"cv": cv, "n_resamples": self.resamples, "plan": self.plan and read_plan(self.plan)}
        found["inner_cv"] = LimitedTraining(PatientKFold(3), self.inner_patches)
        return found | {"random_state": seed, "threshold": self.threshold}

    def of_split(self, dataset: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Give the folds of --split as an argument of `evaluate`, and words for the protocol."""
        from histofeat.datasets import load_published_split, published_splits, read_split

        if self.split is None:
            return {}, {}
        split = (load_published_split if str(self.split) in published_splits() else read_split)(str(self.split))
        if split is None:
            raise ValueError(f"--split: expected a split, got {str(self.split)!r}. Add a column of parts or folds.")
        folds, note = split.match(dataset)
        tests = [fold for (title, *_), fold in zip(split.folds, folds, strict=True) if title.endswith("test")]
        return {"cv": tests or folds}, {"split": f"{self.split.name}. {note}".removesuffix(". ")}


@dataclass(frozen=True)
class PageOptions:
    """Where the report goes, and what it shows."""

    output: option(Path | None, "DIR", "Folder of the report.", "--output", "-o") = None
    overwrite: flag("--overwrite", "Replace a finished report in the output folder.") = False
    no_shortcuts: flag("--no-shortcuts", "Leave the panel of shortcuts out of the report.") = False
    gallery: option(
        int | None, "N", "Also show N right and wrong images of each class: pictures of patients, not to be passed on."
    ) = None
    maps: option(int | None, "N", "Also map N patients, the hardest first: not to be passed on either.") = None
    pseudonyms: flag("--pseudonyms", "Replace patient ids and file names; the key is DIR-pseudonyms.csv.") = False

    def check(self, output: Path | None, dataset: Any = None) -> None:
        """Refuse what is wrong about a folder and the other options, as far as folder and data are known yet."""
        from histofeat.reporting import check_output, check_pictures

        check_pictures(self.gallery, self.maps, dataset)
        if output is not None:
            check_output(output, overwrite=self.overwrite, option="--overwrite", pseudonyms=self.pseudonyms)

    def write(self, evaluation: Any, output: Path, panel: Any = None, run: Any = None, **how: Any) -> Path:
        """Write the report of an evaluation, with the panel of shortcuts and the options of the run, if any."""
        from histofeat.reporting import read_key, write_report

        if panel:
            how |= {"context": {"shortcuts": panel}, "files": {"shortcuts.json": panel}}
        own = {"overwrite": self.overwrite, "gallery": self.gallery, "maps": self.maps, "pseudonyms": self.pseudonyms}
        page = write_report(evaluation, output, **own, **how)
        if run:
            run.write_config(output, read_key(output) if self.pseudonyms else None)
        return page


def compare(
    ctx: typer.Context,
    data: DataOptions,
    models: ModelOptions,
    network: EncoderOptions,
    protocol: ProtocolOptions,
    page: PageOptions,
    run: RunOptions,
) -> None:
    """Compare feature sets and heads on one data set, by patient; write a report.

    All are scored on the same folds, on patients that they have not seen. Without data it draws the synthetic cohort.
    Features and finished fits are kept in a store, so that an interrupted run resumes. The report is in
    histofeat-reports, if no output is named; the evaluation is kept beside it, for `histofeat report`.

    Examples
    --------
    histofeat compare --quick
    histofeat compare idc --features handcrafted,histo --heads logistic,xgboost --n-jobs -1
    histofeat compare uni.parquet --patients tcga --heads logistic,xgboost
    histofeat compare idc --ladder --split my_split.csv --embeddings uni=uni.parquet
    histofeat compare idc --embeddings uni=uni.parquet --predictions net=scores.csv --pipeline own=my_models:pipeline
    """
    from histofeat.features import leave_out_unreadable
    from histofeat.reporting import describe_environment
    from histofeat.studies import LADDER_SEARCH, development_patients

    pipelines, settings = models.pipelines(network, run.seed), protocol.settings(run.seed)
    page.check(page.output)
    runtime = open_runtime(ctx, run, data.on_error)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        cohort = {"root": Path(scratch) / "synthetic", "random_state": run.seed}
        whole = dataset = data.open(cohort=cohort | (QUICK_COHORT if models.quick else {}))
        if models.quick and data.data:  # to see that everything works is no reason to look at official test patients
            dataset = development_patients(whole, quick=True, random_state=run.seed)
        if dataset.lacks_images and models.features == _DEFAULT_SETS:  # nobody asked for sets that need pixels
            pipelines = replace(models, features="").pipelines(network, run.seed)
        pipelines = models.on_data(dataset, network, run.seed, pipelines)
        if not pipelines:
            raise ValueError("--features: expected a set, a pipeline or embeddings, got none. Leave the option out.")
        dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
        output = page.output or default_output(ctx, dataset.name)
        page.check(output, dataset)
        given, (folds, words) = models.given(dataset, whole), protocol.of_split(dataset)
        if not run.json:
            say_dataset(dataset)
        if models.quick:
            few = f"{len(dataset):,} of {counted(len(whole), 'patch')}"
            words["quick"] = f"{few}, {counted(len(set(dataset.patients)), 'patient')}, and {_QUICK_TREES} trees."
        settings |= {"search": LADDER_SEARCH if models.ladder else None, **folds}
        evaluation = _evaluate(dataset, pipelines, protocol, settings, runtime)
        evaluation = _completed(evaluation, given, words, models.ladder and pipelines, protocol.margin)
        _keep(evaluation, output, run)
        panel = None if page.no_shortcuts or dataset.lacks_images else _shortcuts(evaluation, runtime)
        environment = describe_environment(device=device_words(evaluation, pipelines))
        written = page.write(evaluation, output, panel, run, command=command_words(ctx), environment=environment)
    show(run, evaluation, written, stored=runtime.store is not None)


def report(
    ctx: typer.Context,
    finished: argument(Path, "RUN", "Folder of a report of `histofeat compare`, or FOLDER.evaluation."),
    page: PageOptions,
    run: group(RunOptions, without=["seed", "ledger", "cluster"]),
) -> None:
    """Write the report of a finished run again; nothing is fitted.

    It goes to the folder of the run, if no output is named. A report with pseudonyms that it replaces keeps them. The
    images are read for a gallery, and for the panel of shortcuts if the run was ended before it.

    Examples
    --------
    histofeat report out --overwrite --gallery 8
    """
    from histofeat.evaluation import load_evaluation

    file = finished if finished.suffix == ".evaluation" else finished.with_name(f"{finished.name}.evaluation")
    output = page.output or file.with_suffix("")
    files = [*(file.with_suffix("") / name for name in ("metrics.json", "shortcuts.json")), output / "metrics.json"]
    old, panel, there = (json.loads(one.read_text(encoding="utf-8")) if one.is_file() else None for one in files)
    # Who overwrites a report with pseudonyms did not ask for ids in it.
    page = replace(page, pseudonyms=page.pseudonyms or (page.overwrite and bool((there or {}).get("pseudonyms"))))
    page.check(output)
    evaluation = load_evaluation(file)
    wanted = not (page.no_shortcuts or evaluation.dataset.lacks_images)
    panel = wanted and (panel or _shortcuts(evaluation, open_runtime(ctx, run, None)))
    written = page.write(
        evaluation, output, panel, **{name: (old or {}).get(name) for name in ("command", "environment")}
    )
    show(run, evaluation, written)


def split_list(text: str) -> list[str]:
    """Split a list of names at commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _imported(given):
    """Import a pipeline as NAME=MODULE:OBJECT, also from the current folder."""
    found = re.fullmatch(r"([^=]+)=([\w.]+):(\w+)", given)
    if found is None:
        raise ValueError(f"--pipeline: expected NAME=MODULE:OBJECT, got {given!r}. Write MINE=my_models:pipeline.")
    name, module, attribute = found.groups()
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        pipeline = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever the code of the user raises
        raise ValueError(
            f"--pipeline: expected an object {attribute} in the module {module}, got {type(error).__name__}: "
            f"{first_line(error)}. Try python -c 'import {module}' in this folder."
        ) from error
    finally:
        sys.path[:] = before
    if isinstance(pipeline, type) or not hasattr(pipeline, "fit"):
        raise ValueError(f"--pipeline: expected an unfitted classifier, got {pipeline!r:.60}. Give one; {_ITS_X}")
    return name, pipeline


def open_runtime(ctx: typer.Context, run: RunOptions, on_error: str | None, *, usual: bool = True) -> Any:
    """Give the runtime of a run, whose store is proven to open: the usual one may be missing, one by name may not."""
    from histofeat.images import user_cache

    # Read by OpenMP when xgboost is loaded: threads that wait by spinning take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    runtime = run.runtime(command_words(ctx).removeprefix("histofeat "), on_error=on_error or "raise")
    if usual and not (run.store or run.no_store):
        try:
            runtime = replace(runtime, store=user_cache() / "features.sqlite")
            with runtime.store.session():
                pass
        except ValueError as error:
            run.progress.say(f"no feature store, everything is measured again: {error}")
            runtime = replace(runtime, store=None, fits=None)
    elif runtime.store:
        with runtime.store.session():
            pass
    if runtime.ledger:  # one date for all lines of a command, which are one look
        now = datetime.now(UTC).isoformat(timespec="seconds")
        runtime = replace(runtime, ledger=replace(runtime.ledger, commit=ctx.obj["commit"], date=now))
    return runtime


def _evaluate(dataset, pipelines, protocol, settings, runtime):
    """Evaluate the pipelines; those whose encoder knows patients of the data set are skipped where that is asked."""
    from histofeat.evaluation import AuditPolicy, NotRun, evaluate, find_known_patients

    reasons, again = {}, protocol.retrain_encoder or (protocol.cross_fit and "inner")
    skip, quiet = protocol.known_patients == "skip", replace(runtime, progress=False)
    if skip and not dataset.lacks_images:
        known, folds = find_known_patients(dataset, pipelines, retrained=again is True, runtime=quiet), settings["cv"]
        rows = [row for _, test in folds for row in test] if isinstance(folds, list) else slice(None)
        reasons = {one.pipeline: _knowing_words(one) for one in known if {*dataset.patients[rows]} & {*one.patients}}
    # Several heads share a name, and with it the families.
    fair = [(name, pipeline) for name, pipeline in pipelines if name not in reasons]
    if not fair:
        why = " ".join(dict.fromkeys(reasons.values()))
        raise ValueError(f"--features: expected a set whose encoder knows none of these patients, got none. {why}")
    policy = AuditPolicy(known_patients="refuse" if skip else protocol.known_patients)
    evaluation = evaluate(dataset, fair, audit=policy, retrain_encoder=again, runtime=runtime, **settings)
    heads = [(name, str(getattr(pipeline, "head", "pipeline"))) for name, pipeline in pipelines]
    skipped = [NotRun(name, head, reasons[name]) for name, head in heads if name in reasons]
    return replace(evaluation, not_run=(*evaluation.not_run, *skipped))


def _completed(evaluation, given, words, ladder, margin):
    """Add the predictions that were given, words on the split, and what a ladder of these pipelines needs."""
    from histofeat.studies import as_ladder

    for name, proba in given.items():
        evaluation = evaluation.add_predictions(name, proba)
    evaluation = replace(evaluation, protocol={**evaluation.protocol, **words})
    return as_ladder(evaluation, ladder, margin=margin) if ladder else evaluation


def _keep(evaluation, output, run):
    """Write the evaluation down beside its report: from here on nothing costs a fit."""
    from histofeat.evaluation import save_evaluation

    kept = output.with_name(f"{output.name}.evaluation")
    try:
        save_evaluation(evaluation, kept, overwrite=True)
        run.progress.say(f"evaluation: {kept} (`histofeat report` writes its report again)")
    except OSError as error:
        run.progress.say(f"the evaluation is not kept, its report is written now: {error}")


def _knowing_words(known):
    """Say which patients an encoder knows, and what to do."""
    return (
        f"{known.encoder.partition(': ')[2]} was trained on images of {counted(len(known.patients), 'patient')} of "
        f"this data set ({known.trained_on}): scores on them would not be of new patients. Give --known-patients "
        "leave_out to test all sets on the other patients, or --retrain-encoder to train an encoder again in each fold."
    )


def _shortcuts(evaluation, runtime):
    from histofeat.studies import panel_of

    return panel_of(evaluation, runtime=replace(runtime, progress=False)).to_dict()


def show(run: RunOptions, evaluation: Any, page: Path, *, stored: bool = False) -> None:
    """Print what did not run, the scores, the answer, what was measured, and where the report is."""
    record = json.loads(page.with_name("metrics.json").read_text(encoding="utf-8"))
    run.show({**record, "report": str(page)}, lambda: _print(evaluation, record, page, stored=stored))


def _print(evaluation, record, page, *, stored):
    from histofeat.reporting import by_reason

    for reason, models in by_reason(record["not_run"]).items():
        print(f"not run: {'; '.join(models)}: {reason}")
    title = "SYNTHETIC cohort" if evaluation.dataset.synthetic else evaluation.dataset.name
    frame = evaluation.to_frame().filter(items=_SHOWN)
    print(f"{title}, out of fold\n{frame.to_string(index=False, float_format='{:.3f}'.format)}")
    blind = evaluation.dataset.lacks_images and "not applicable without images: shortcuts, gallery"
    floor = record.get("ladder", {}).get("noise_floor", {}).get("sentence")
    print(*filter(None, (*record["answer"]["sentences"], blind, floor, evaluation.protocol["registered"])), sep="\n")
    counts = ", ".join(f"{family} {count:,}" for family, count in evaluation.computed.items())
    rest = stored and any(count < len(evaluation.dataset) for count in evaluation.computed.values())
    print(f"networks: {record['environment']['device']}")
    print(f"extraction: {evaluation.seconds['extraction']:.1f} s")
    print(f"measured: {counts or 'nothing'}{' (the rest came from the store)' if rest else ''}")
    print(f"report: {page}")
