"""Check that what `make release-check` built can be published: metadata, licences, content, and an installation of it.

``python tests/measure_release.py dist/*`` takes a wheel and a source archive. Needs a package index. The commands run
in an empty folder, in an environment that has nothing of this checkout.
"""

import argparse
import email
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
#: Words of the commands that have to end with 0, in this order.
COMMANDS = (("--version",), ("--help",), ("doctor",), ("compare", "--quick", "-o", "report"))
IN_THE_WHEEL = (
    "histofeat/py.typed",
    "histofeat/__init__.pyi",
    "histofeat/datasets/idc_official_split.csv",
    "histofeat/networks/pretrained/encoders.toml",
    "histofeat/networks/pretrained/further_networks.toml",
    "histofeat/networks/pretrained/timm_encoders.toml",
    "histofeat/reporting/templates/report.md.j2",
    "histofeat/networks/pretrained/shipped/histo/LICENSE",
    "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md",
    "histofeat/networks/pretrained/shipped/histo/histo.npz",
)


def version_problems(version):
    """Say where the version is another one, or a date is missing."""
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if re.search(r"^## (\S+)", log, re.MULTILINE)[1] != version:
        yield f"CHANGELOG.md does not begin with {version}"
    if f"\nversion: {version}\n" not in cited:
        yield f"CITATION.cff is not of version {version}"


def metadata_problems(content):
    """Say what an index would refuse or show badly."""
    Metadata.from_email(content, validate=True)
    read = email.message_from_bytes(content)
    if (read["License-Expression"] or read["License"]) != "MIT":
        yield "the licence is not named as MIT"
    if read["Description-Content-Type"] != "text/markdown":
        yield "the description is not said to be Markdown"
    text = read.get_payload()
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            yield f"the description has a link that an index cannot follow: {target}"
    if len(text) < 500:
        yield "the description is missing"


def content_problems(wheel, archive):
    """Say which files are missing, or should not be there."""
    names = zipfile.ZipFile(wheel).namelist()
    yield from (f"{wheel.name} lacks {name}" for name in IN_THE_WHEEL if name not in names)
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        yield f"{wheel.name} lacks the licence"
    yield from (f"{wheel.name} holds {name}" for name in names if not name.startswith("histofeat"))
    with tarfile.open(archive) as packed:
        there = {name.partition("/")[2] for name in packed.getnames()}
    needed = {f"{name}" for name in IN_THE_WHEEL} | {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "setup.cfg",
    }
    yield from (f"{archive.name} lacks {name}" for name in sorted(needed - there))
    # What git does not know was left by a build of another state.
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in names:
        if name.startswith("histofeat/") and name not in known:
            yield f"{wheel.name} holds {name}, which is not in the repository"


def run_problems(wheel):
    """Install the wheel into an empty environment, and run the commands in an empty folder."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HISTOFEAT", "VIRTUAL"))
    }
    with tempfile.TemporaryDirectory(prefix="histofeat-release-") as scratch:
        home = Path(scratch) / "environment"
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        python = next(home.glob("[bS]*/python*"))
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, env=clean)
        checked = subprocess.run([python, "-m", "pip", "install", "--quiet", "twine"], env=clean)
        if checked.returncode == 0:
            check = [python, "-m", "twine", "check", "--strict", wheel]
            if subprocess.run(check, env=clean).returncode:
                yield "twine refuses the wheel"
        empty = Path(scratch) / "empty"
        empty.mkdir()
        clean |= {"HOME": scratch, "XDG_CACHE_HOME": str(Path(scratch) / "cache")}
        for words in COMMANDS:
            print("histofeat", *words, flush=True)
            code = subprocess.run([python, "-m", "histofeat", *words], cwd=empty, env=clean).returncode
            if code:
                yield f"`histofeat {' '.join(words)}` ended with {code}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="one wheel and one source archive")
    files = {path.suffix: path.resolve() for path in parser.parse_args(arguments).files}
    wheel, archive = files[".whl"], files[".gz"]
    packed = zipfile.ZipFile(wheel)
    content = packed.read(next(name for name in packed.namelist() if name.endswith(".dist-info/METADATA")))
    version = email.message_from_bytes(content)["Version"]
    problems = [*version_problems(version), *metadata_problems(content), *content_problems(wheel, archive)]
    problems += run_problems(wheel)
    for problem in problems:
        print(f"- {problem}")
    print(f"histofeat {version}: {'not ready' if problems else 'ready'} to be released")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
