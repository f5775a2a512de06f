"""The folder of a speed report: JSON, CSV, a table in Markdown and a bar chart, moved into place when complete."""

import csv
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rows import COLUMNS

from histofeat.datasets import write_whole
from histofeat.reporting import Redactor, describe_environment, dump

#: Raised whenever the keys of speed.json change their meaning.
SCHEMA = 1
#: Written and moved last: the file that makes a folder a finished report.
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
    """Return the content of speed.json: the machine, and each row with its target and whether it was reached."""
    judged = [row.met for row in rows if row.target is not None]
    counts = {"reached": judged.count(True), "missed": judged.count(False), "not measured": judged.count(None)}
    payload = {
        "schema": SCHEMA, "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "command": command, "quick": quick,
        "data": data, "seconds": round(seconds, 1), "machine": _machine(), "targets": counts,
        "rows": [row.to_dict() for row in rows],
    }  # fmt: skip
    return Redactor({Path.cwd(): ".", Path.home(): "~"})(payload)


def write(payload, output) -> Path:
    """Write a payload of `payload_of`; return the path of the table."""
    from chart import draw

    output = Path(output)
    with write_whole(output, folder=True, parents=True, last=FINISHED) as part:
        _write_csv(payload["rows"], part / "speed.csv")
        (part / "speed.md").write_text(_markdown(payload), encoding="utf-8", newline="\n")
        for name in ("speed.svg", "speed.png"):
            draw(payload, part / name)
        dump(payload, part / FINISHED)
        (output / FINISHED).unlink(missing_ok=True)
    return output / "speed.md"


def _machine() -> dict:
    found = describe_environment()
    packages = found["packages"] | {name: metadata.version(name) for name in ("mahotas", "threadpoolctl")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    keep = {key: found[key] for key in ("cpu", "cores", "platform", "python")}
    return {**keep, "memory_gib": None if memory is None else round(memory, 1), "packages": packages}


def _write_csv(rows, path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "target": target_words(row)} for row in rows)


def target_words(row) -> str:
    """Return the target of a row of speed.json in words, such as "peer / ours at least 20"."""
    target = row["target"]
    if target is None:
        return ""
    if target["of"] == "ratio":
        return f"{row['ratio_of']} {target['words']} {target['limit']:g}"
    return f"{target['of']} {target['words']} {target['limit']:,g} {row['unit']}"


def _markdown(payload) -> str:
    machine, counts = payload["machine"], payload["targets"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    quick = "**A quick run: it shows that everything works. Its numbers say nothing.**\n\n" if payload["quick"] else ""
    return f"""# Speed

{payload["data"]}. Measured {payload["made"]} in {payload["seconds"]:,.0f} s by `{payload["command"]}`.

Machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB, {machine["platform"]}, Python \
{machine["python"]}; {packages}.

Targets reached: {counts["reached"]}; missed: {counts["missed"]}; not measured: {counts["not measured"]}.

{quick}| measure | ours | peer | ratio | target | reached |
|---|---:|---:|---:|---|---|
{"".join(map(_line, payload["rows"]))}
## How each was measured

{"".join(map(_paragraph, payload["rows"]))}"""


def _line(row) -> str:
    ratio = "" if row["ratio"] is None else f"{_number(row['ratio'])} ({row['ratio_of']})"
    reached = "" if row["target"] is None else {True: "yes", False: "**no**", None: "not measured"}[row["met"]]
    ours, peer = (f"{_number(v)} {row['unit']}" if v is not None else "" for v in (row["ours"], row["peer"]))
    return f"| {row['name']} | {ours} | {peer} | {ratio} | {target_words(row)} | {reached} |\n"


def _paragraph(row) -> str:
    parts = {
        "Peer: ": row["peer_name"],
        "": row["repeats"][:1].upper() + row["repeats"][1:],
        "Checked: ": row["checked"],
    }
    words = [f"- **{row['name']}**: {row['what']}.", *(f"{lead}{text}." for lead, text in parts.items() if text)]
    return " ".join([*words, *([row["note"].removesuffix(".") + "."] if row["note"] else [])]) + "\n"


def _number(value) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
