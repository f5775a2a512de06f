"""README's results table, from a report: `python benchmarks/readme_table.py reports/idc-sample [--check]`.

Rewrites what stands between `<!-- results:begin -->` and `<!-- results:end -->`. No number is typed by hand.
"""

import argparse
import json
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main(arguments=None):
    """Rewrite or check the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="readme_table.py", description="Write README's results table from a report.")
    parser.add_argument("report", type=Path, help="folder of a finished report, such as reports/idc-sample")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the table is not up to date")
    parser.add_argument("--readme", type=Path, default=REPOSITORY / "README.md", help="default: README.md")
    options = parser.parse_args(arguments)
    try:
        before = options.readme.read_text(encoding="utf-8")
        after = with_table(before, results_block(options.report), options.readme.name)
    except (OSError, ValueError) as error:
        print(f"readme_table.py: {error}", file=sys.stderr)
        return 2
    if before == after:
        print(f"{options.readme.name}: the results table is up to date")
        return 0
    if options.check:
        print(f"{options.readme.name}: the results table differs from {options.report}", file=sys.stderr)
        return 1
    options.readme.write_text(after, encoding="utf-8", newline="\n")
    print(f"{options.readme.name}: results table written from {options.report}")
    return 0


def results_block(report):
    """The Markdown between the marks: the headline table, and whose numbers they are."""
    from histofeat.reporting.blocks import Text
    from histofeat.reporting.markdown import to_markdown
    from histofeat.reporting.tables import headline_key, headline_table

    path = report / "metrics.json"
    if not path.is_file():
        raise ValueError(f"report: expected the folder of a finished report, got {str(report)!r} without metrics.json.")
    payload = json.loads(path.read_text(encoding="utf-8"))
    home = report.resolve()
    where = home.relative_to(REPOSITORY).as_posix() if home.is_relative_to(REPOSITORY) else home.name
    link = f"Full report: [{where}]({where}/report.md); this table: `python benchmarks/readme_table.py {where}`."
    table = to_markdown([headline_table(payload), Text(headline_key(payload))])
    return f"{table}\n{link}\n"


def with_table(text, block, name):
    """`text` with `block` between the marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{name}: expected the lines {BEGIN} and {END} once each, in this order. Add them.")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}{END}", text)


if __name__ == "__main__":
    sys.exit(main())
