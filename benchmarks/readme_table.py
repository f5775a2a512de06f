"""The results of README, docs/results.md and the model card of `histo`, from reports; no number is typed by hand.

    python benchmarks/readme_table.py reports/idc-sample reports/idc-encoder-sample [--check]
    python benchmarks/readme_table.py reports/idc-encoder-sample --readme MODEL_CARD.md

Rewrites what stands between `<!-- results:begin -->` and `<!-- results:end -->`.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from histofeat.datasets import write_whole

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main(arguments=None):
    """Rewrite or check the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="readme_table.py", description="Write a page's results from a report.")
    words = "folder of a finished report, such as reports/idc-sample; of further ones the scores of their models"
    parser.add_argument("report", type=Path, nargs="+", help=words)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the table is not up to date")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE", help="the page (default: README.md)")
    options = parser.parse_args(arguments)
    try:
        before = options.readme.read_text(encoding="utf-8")
        after = with_table(before, results_block(options.report, options.readme), options.readme.name)
    except (OSError, ValueError) as error:
        print(f"readme_table.py: {error}", file=sys.stderr)
        return 2
    if before == after:
        print(f"{options.readme.name}: the results table is up to date")
        return 0
    if options.check:
        print(f"{options.readme.name}: the results table differs from {options.report[0]}", file=sys.stderr)
        return 1
    with write_whole(options.readme, overwrite=True) as part:
        part.write_text(after, encoding="utf-8", newline="\n")
    print(f"{options.readme.name}: results table written from {options.report[0]}")
    return 0


def results_block(reports, page):
    """Return the Markdown between the marks: tables, where they come from, and the command that wrote them.

    Of the first report all tables, of the others the scores of their models.
    """
    page, tables, links, names = page.resolve(), [], [], []
    for report in reports:
        path, rows, home = report / "metrics.json", report / "baseline.json", report.resolve()
        if not path.is_file():
            raise ValueError(
                f"report: expected the folder of a finished report, got {str(report)!r} without metrics.json."
            )
        try:
            payload = json.loads((rows if rows.is_file() else path).read_text(encoding="utf-8"))
            tables.append(tables_of(payload, short=bool(tables)))
        except KeyError as error:
            raise ValueError(
                f"report: expected one that this version of histofeat made, got {str(report)!r} without {error}. Make "
                f"it again: make reports ONLY={home.name}."
            ) from error
        where = link = home.name
        if home.is_relative_to(REPOSITORY):
            where = link = home.relative_to(REPOSITORY).as_posix()
            if page.is_relative_to(REPOSITORY):
                link = Path(os.path.relpath(home, page.parent)).as_posix()
        names.append(where)
        links.append(f"[{where}]({link}/report.md)")
    option = f" --readme {page.relative_to(REPOSITORY).as_posix()}" if page.is_relative_to(REPOSITORY) else ""
    command = f"python benchmarks/readme_table.py {' '.join(names)}{'' if page == README else option}"
    return "\n".join([*tables, f"Full report: {', '.join(links)}; written by `{command}`.\n"])


def tables_of(payload, *, short=False):
    """Return what a page shows: the headline of `run_all.py`, rows of a ladder, what a card needs of `idc_encoder.py`.

    With `short` these are the scores of its models alone.
    """
    from histofeat.reporting import render_markdown

    if "rows" in payload:
        return render_markdown(REPOSITORY / "benchmarks/ladder-rows.md.j2", {"ladder": payload})
    results = payload["results"]
    if isinstance(results, list):
        return render_markdown(REPOSITORY / "benchmarks/headline.md.j2", {"payload": payload})
    if not {"models", "differences", "perturbed", "breakhis"} <= set(results):
        raise ValueError(
            f"report: expected one of run_all.py or study.py idc-encoder, got the study {payload['title']!r}. "
            "Its page is report.md beside it."
        )
    return render_markdown(REPOSITORY / "benchmarks/protocols/encoder-card.md.j2", {"results": results, "short": short})


def with_table(text, block, name):
    """`text` with `block` between the marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{name}: expected the lines {BEGIN} and {END} once each, in this order. Add them.")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}{END}", text)


if __name__ == "__main__":
    sys.exit(main())
