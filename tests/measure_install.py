"""Measure what an installation takes on disk: the wheel with each extra in an empty environment.

``python tests/measure_install.py dist/histofeat-*.whl`` installs it with pip and prints a table. ``--write PAGE`` puts
the table between the marks of a page, such as docs/install.md. Needs a package index, and some gigabytes in the
temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

BEGIN, END = "<!-- sizes:begin -->", "<!-- sizes:end -->"
#: None of these may come with a plain installation.
UNWANTED = ("keras", "tensorflow", "torch", "nvidia", "triton", "jax")
LIMIT_MB = 1400
LARGEST = 10
#: Runs in the new environment: bytes by distribution. Compiled files and bundled libraries lie below the same entries.
COUNT = """
import importlib.metadata, json, pathlib, sysconfig
site, sizes, seen = pathlib.Path(sysconfig.get_path("purelib")), {}, set()
for each in importlib.metadata.distributions(path=[str(site)]):
    tops = {path.parts[0] for path in each.files or () if path.parts[0] not in ("..", "__pycache__", "bin")}
    for top in tops - seen:
        place = site / top
        files = [place] if place.is_file() else place.rglob("*")
        sizes[each.name] = sizes.get(each.name, 0) + sum(f.lstat().st_size for f in files if f.is_file())
    seen |= tops
print(json.dumps(sizes))
"""


def sizes_of(wheel, extra):
    """Install the wheel with an extra into an empty environment; give its megabytes by distribution."""
    with tempfile.TemporaryDirectory(prefix="histofeat-install-") as scratch:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", scratch], check=True)
        python = next(Path(scratch).glob("[bS]*/python*"))
        asked = f"{wheel}[{extra}]" if extra else str(wheel)
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-cache-dir", asked]
        subprocess.run(command, check=True)
        found = subprocess.run([python, "-I", "-c", COUNT], check=True, capture_output=True, text=True).stdout
    return {name: size / 1e6 for name, size in json.loads(found).items()}


def tables(found):
    """Give the sizes as tables in Markdown."""
    lines = ["| you install | packages | MB on disk |", "|---|---:|---:|"]
    for extra, sizes in found.items():
        name = f"histofeat[{extra}]" if extra else "histofeat"
        lines.append(f"| `{name}` | {len(sizes)} | {sum(sizes.values()):,.0f} |")
    largest = sorted(next(iter(found.values())).items(), key=lambda item: -item[1])[:LARGEST]
    lines += ["", f"The {LARGEST} largest packages of the first line:", "", "| package | MB |", "|---|---:|"]
    lines += [f"| {name} | {size:,.0f} |" for name, size in largest]
    lines += ["", f"Python {sys.version_info[0]}.{sys.version_info[1]} on {sys.platform}, compiled files included."]
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extras", default="", help="also these, separated by commas: cnn, embeddings, timm, gpu")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the marks of this page")
    options = parser.parse_args(arguments)
    found = {extra: sizes_of(options.wheel, extra) for extra in ("", *filter(None, options.extras.split(",")))}
    text = tables(found)
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        options.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    plain = found[""]
    unwanted = [name for name in plain if name.lower().startswith(UNWANTED)]
    total = sum(plain.values())
    if unwanted or total > LIMIT_MB:
        print(f"expected at most {LIMIT_MB:,} MB without {', '.join(UNWANTED)}, got {total:,.0f} MB and {unwanted}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
