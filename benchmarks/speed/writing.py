"""The folder of a speed report: JSON, CSV, a table in Markdown and a bar chart, moved into place when complete."""

import csv
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from histofeat.datasets import write_whole
from histofeat.reporting import Redactor, describe_environment, dump

__all__ = ["FILES", "FINISHED", "SCHEMA", "check_output", "payload_of", "write"]

#: Raised whenever the keys of speed.json change their meaning.
SCHEMA = 1
#: Written and moved last: the file that makes a folder a finished report.
FINISHED = "speed.json"
FILES = ("speed.csv", "speed.md", "speed.svg", "speed.png", FINISHED)
_PEER_PACKAGES = ("mahotas", "threadpoolctl")


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
    """Everything that speed.json holds: the machine, and each row with its target and whether it was reached."""
    redact = Redactor({Path.cwd(): ".", Path.home(): "~"})
    judged = [row.met for row in rows if row.target is not None]
    return redact(
        {
            "schema": SCHEMA,
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": command,
            "quick": quick,
            "data": data,
            "seconds": round(seconds, 1),
            "machine": _machine(),
            "targets": {
                "reached": judged.count(True),
                "missed": judged.count(False),
                "not measured": judged.count(None),
            },
            "rows": [_plain(row) for row in rows],
        }
    )


def write(payload, output) -> Path:
    """Write a payload of `payload_of`; returns the table."""
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
    packages = dict(found["packages"])
    for name in _PEER_PACKAGES:
        packages[name] = metadata.version(name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    keep = {key: found[key] for key in ("cpu", "cores", "platform", "python")}
    return {**keep, "memory_gib": None if memory is None else round(memory, 1), "packages": packages}


def _plain(row) -> dict:
    target = row.target
    return {
        "name": row.name,
        "group": row.group,
        "what": row.what,
        "unit": row.unit,
        "ours": _short(row.ours),
        "peer": _short(row.peer),
        "peer_name": row.peer_name,
        "ratio": _short(row.ratio),
        "ratio_of": row.ratio_of if row.peer_name else "",
        "target": None if target is None else {"of": target.of, "words": target.words, "limit": target.limit},
        "met": row.met,
        "checked": row.checked,
        "repeats": row.repeats,
        "ours_median": _short(row.ours_median),
        "peer_median": _short(row.peer_median),
        "note": row.note,
    }


def _short(value):
    return None if value is None else float(f"{value:.5g}")


def _write_csv(rows, path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([_target(row) if key == "target" else value for key, value in row.items()])


def _target(row) -> str:
    target = row["target"]
    if target is None:
        return ""
    if target["of"] == "ratio":
        return f"{row['ratio_of']} {target['words']} {target['limit']:g}"
    return f"{target['of']} {target['words']} {target['limit']:,g} {row['unit']}"


_REACHED = {True: "yes", False: "**no**", None: "not measured"}


def _markdown(payload) -> str:
    machine, counts = payload["machine"], payload["targets"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        "# Speed",
        "",
        f"{payload['data']}. Measured {payload['made']} in {payload['seconds']:,.0f} s by `{payload['command']}`.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['platform']}, "
        f"Python {machine['python']}; {packages}.",
        "",
        f"Targets reached: {counts['reached']}; missed: {counts['missed']}; not measured: {counts['not measured']}.",
        "",
    ]
    if payload["quick"]:
        lines += ["**A quick run: it shows that everything works. Its numbers say nothing.**", ""]
    lines += [
        "| measure | ours | peer | ratio | target | reached |",
        "|---|---:|---:|---:|---|---|",
        *(_line(row) for row in payload["rows"]),
        "",
        "## How each was measured",
        "",
        *(_paragraph(row) for row in payload["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _line(row) -> str:
    ratio = "" if row["ratio"] is None else f"{_number(row['ratio'])} ({row['ratio_of']})"
    reached = "" if row["target"] is None else _REACHED[row["met"]]
    ours, peer = (f"{_number(v)} {row['unit']}" if v is not None else "" for v in (row["ours"], row["peer"]))
    return f"| {row['name']} | {ours} | {peer} | {ratio} | {_target(row)} | {reached} |"


def _paragraph(row) -> str:
    words = [f"- **{row['name']}**: {row['what']}."]
    if row["peer_name"]:
        words.append(f"Peer: {row['peer_name']}.")
    if row["repeats"]:
        words.append(f"{row['repeats'][0].upper()}{row['repeats'][1:]}.")
    if row["checked"]:
        words.append(f"Checked: {row['checked']}.")
    if row["note"]:
        words.append(row["note"] if row["note"].endswith(".") else f"{row['note']}.")
    return " ".join(words)


def _number(value) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
