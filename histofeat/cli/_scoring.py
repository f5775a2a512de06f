"""``histofeat score``: score predictions on a published split."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

import histofeat
from histofeat.cli._options import RunOptions, flag, group, option
from histofeat.cli._outputs import SHOWN, check_output
from histofeat.metrics import rule_examples


def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS.csv",
            help="Columns patch (file name or path, such as 8863_idx5_x451_y1451_class0.png) and score (probability "
            "of IDC, 0 to 1).",
        ),
    ],
    protocol: option(str, "NAME", "The published split: idc-official."),
    run: group(RunOptions, without=["seed", "n_jobs", "store", "no_store", "quiet"]),
    data: option(
        list[Path] | None, "DIR", "A copy of the data: refuse missing and surplus rows; once for each of its folders."
    ) = None,
    threshold: option(
        str | None,
        "RULE",
        "What the threshold is chosen for on the rows of train and validation patients: "
        f"{rule_examples()}.  [default: f1 where there are such rows]",
    ) = None,
    output: option(Path | None, "FILE.json", "Also write the numbers here.") = None,
    resamples: option(int, "N", "Resamples of the test patients.") = 2000,
    allow_missing_patients: flag("--allow-missing-patients", "Score the test patients that have rows.") = False,
) -> None:
    """Score predictions on a published split, by the rules of histofeat's own reports.

    Patient, place and class of a patch are read from its name. Rows of the test patients are scored; rows of train and
    validation patients, scored by a model that did not learn from them, choose the threshold.

    Examples
    --------
    histofeat score scores.csv --protocol idc-official --data idc
    """
    from histofeat.evaluation import read_predictions, score_predictions

    check_output(output)
    scored = score_predictions(
        read_predictions(predictions),
        protocol,
        data=data or None,
        threshold=threshold,
        allow_missing_patients=allow_missing_patients,
        n_resamples=resamples,
        ledger=run.looks(f"score {predictions.name}"),
    )
    numbers = {"histofeat": histofeat.__version__, "predictions": predictions.name, **scored.to_dict()}
    run.show(numbers, lambda: _show(scored))
    if output is not None:
        _write(output, numbers)
        run.write_config(output)


def _show(scored) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from histofeat.metrics import METRIC_RECORDS

    console = Console(highlight=False, markup=False)
    # In a pipe or a narrow window the table would be wrapped.
    console.width = max(console.width, 100)
    console.print(f"{scored.protocol.title}\n{scored.test}, {scored.n_positive:,} positive")
    table = Table("", "at 0.5", "95 % interval", box=SIMPLE, pad_edge=False)
    if scored.tuned:
        table.add_column(f"at {scored.threshold:.4f} ({scored.rule})")
        table.add_column("95 % interval")
    for metric in SHOWN:
        tuned = _cells(scored.tuned[metric]) if metric in scored.tuned else ()
        table.add_row(METRIC_RECORDS[metric].label, *_cells(scored.scores[metric]), *tuned)
    console.print(table)
    for note in scored.notes:
        console.print(f"- {note}", soft_wrap=True)


def _cells(score) -> tuple[str, str]:
    low, high = score.ci95
    value = "undefined" if math.isnan(score.value) else f"{score.value:.4f}"
    return value, "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def _write(output: Path, numbers: dict) -> None:
    from histofeat.datasets import write_whole

    try:
        with write_whole(output) as part:
            part.write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(str(error)) from error
