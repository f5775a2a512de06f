"""The folder of a speed report: JSON, CSV, a table in Markdown and a bar chart, moved into place when complete."""

import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd
from rows import COLUMNS

from histofeat.datasets import check_place, csv_text, write_whole
from histofeat.reporting import Redactor, describe_environment, dump

#: Raised whenever the keys of speed.json change their meaning.
SCHEMA = 2
#: Written last: the file that makes a folder a finished report.
FINISHED = "speed.json"
FILES = ("speed.csv", "speed.md", "speed.svg", "speed.png", FINISHED)


def check_output(output, *, overwrite=False) -> None:
    """Refuse a finished report, or a folder that holds other things, before anything is measured.

    Raises
    ------
    FileExistsError
        Saying what is there and what to do.
    """
    output = Path(output)
    check_place(output, folder=True)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"--output: expected a folder, got the file {str(output)!r}. Choose another name.")
    if (output / FINISHED).exists() and not overwrite:
        raise FileExistsError(
            f"--output: expected a new folder, got {str(output)!r}, which holds a finished report. Choose another "
            "name, or pass --overwrite to replace it."
        )
    others = sorted(path.name for path in output.iterdir() if path.name not in FILES) if output.is_dir() else []
    if others:
        raise FileExistsError(
            f"--output: expected a new or an empty folder, got {str(output)!r}, which holds other files "
            f"({others[0]!r}). Choose another name."
        )


def payload_of(rows, *, data, command, seconds, quick=False) -> dict:
    """Return the content of speed.json: the machine, and each row."""
    payload = {
        "schema": SCHEMA, "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "command": command, "quick": quick,
        "data": data, "seconds": round(seconds, 1), "machine": _machine(),
        "rows": [row.to_dict() for row in rows],
    }  # fmt: skip
    return Redactor({Path.cwd(): ".", Path.home(): "~"})(payload)


def write(payload, output, *, title="Speed", draw=None) -> Path:
    """Write a payload of `payload_of`, drawn by ``draw(payload, path)``; return the path of the table."""
    import chart

    output = Path(output)
    with write_whole(output, folder=True, parents=True, replaced=FILES) as part:
        _write_csv(payload["rows"], part / "speed.csv")
        (part / "speed.md").write_text(_markdown(payload, title), encoding="utf-8", newline="\n")
        for name in ("speed.svg", "speed.png"):
            (draw or chart.draw)(payload, part / name)
        dump(payload, part / FINISHED)
    return output / "speed.md"


def _machine() -> dict:
    found = describe_environment()
    packages = found["packages"] | {name: metadata.version(name) for name in ("mahotas", "threadpoolctl")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    keep = {key: found[key] for key in ("cpu", "cores", "platform", "python")}
    return {**keep, "memory_gib": None if memory is None else round(memory, 1), "packages": packages}


def _write_csv(rows, path) -> None:
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    path.write_text(csv_text(table), encoding="utf-8", newline="\n")


def _markdown(payload, title) -> str:
    machine = payload["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    quick = "**A quick run: it shows that everything works. Its numbers say nothing.**\n\n" if payload["quick"] else ""
    return f"""# {title}

{payload["data"]}. Measured {payload["made"]} in {payload["seconds"]:,.0f} s by `{payload["command"]}`.

Machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB, {machine["platform"]}, Python \
{machine["python"]}; {packages}.

{quick}![The chart](speed.png)

| measure | ours | peer | ratio |
|---|---:|---:|---:|
{"".join(map(_line, payload["rows"]))}
## How each was measured

{_paragraphs(payload["rows"])}"""


def _line(row) -> str:
    ratio = "" if row["ratio"] is None else f"{_number(row['ratio'])} ({row['ratio_of']})"
    ours, peer = (f"{_number(v)} {row['unit']}" if v is not None else "" for v in (row["ours"], row["peer"]))
    return f"| {row['name']} | {ours or 'not measured'} | {peer} | {ratio} |\n"


def _paragraphs(rows) -> str:
    """Say how each was measured; rows of the same words share a paragraph."""
    said = {}
    for row in rows:
        said.setdefault(_paragraph(row), []).append(f"**{row['name']}**")
    return "".join(f"- {', '.join(names)}: {words}\n" for words, names in said.items())


def _paragraph(row) -> str:
    parts = {
        "Peer: ": row["peer_name"],
        "": row["repeats"][:1].upper() + row["repeats"][1:],
        "Checked: ": row["checked"],
    }
    words = [f"{row['what']}.", *(f"{lead}{text}." for lead, text in parts.items() if text)]
    return " ".join([*words, *([row["note"].removesuffix(".") + "."] if row["note"] else [])])


def _number(value) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
