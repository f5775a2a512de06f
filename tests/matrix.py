"""Save every head with one set of package versions, predict with every other, and compare the predictions.

    python tests/matrix.py                      # Python 3.11, 3.12 and 3.13, oldest and newest packages
    python tests/matrix.py --python 3.11 --networks --folder /tmp/matrix

"oldest" is the series that ``setup.cfg`` names as the floor of each package, "newest" what pip finds. The environments
stay in the folder, and are used again. A Python or an environment that cannot be had is listed as "not tried". The exit
status is 0 if every pair that was tried predicts the same to 1e-6 and at least one was, 1 otherwise.
"""

import argparse
import configparser
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-6
PYTHONS, KINDS = ("3.11", "3.12", "3.13"), ("oldest", "newest")
SHOWN = ("numpy", "scikit-learn", "xgboost-cpu", "xgboost", "opencv-python-headless", "openvino", "keras")
MINUTES = 60


# --- environments ----------------------------------------------------------------------------------------------------


def requirements(kind: str, networks: bool) -> list[str]:
    """Name what an installation needs, from ``setup.cfg``: the series of each floor, or any version from it on."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    if networks:
        lines += config["options.extras_require"]["cnn"].splitlines()
    found = [line for line in lines if ">=" in line and not line.startswith("#")]
    return [re.sub(r">=([^;\s]+)", r"==\1.*", line) for line in found] if kind == "oldest" else found


def find_python(version: str) -> str | None:
    """Find an interpreter of a version on PATH, or among those of pyenv."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [sys.executable, which(f"python{version}"), *sorted(home.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, found):
        words = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(words, capture_output=True, text=True).stdout.strip() == version:
            return str(candidate)
    return None


def make_environment(folder: Path, version: str, kind: str, networks: bool) -> tuple[Path | None, str]:
    """Make an environment, or use the one that is there; give its Python, or None and the reason."""
    home = folder / f"py{version}-{kind}{'-networks' if networks else ''}"
    python, done = home / "bin" / "python", home / "done"
    wanted = requirements(kind, networks)
    # One that was made for other requirements is made anew.
    if done.is_file() and done.read_text().splitlines() == wanted:
        return python, ""
    base = find_python(version)
    if base is None:
        return None, f"no Python {version}"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    for words in ([base, "-m", "venv", "--clear", str(home)], [*pip, *wanted]):
        try:
            ran = subprocess.run(words, capture_output=True, text=True, timeout=60 * MINUTES)
        except subprocess.TimeoutExpired:
            return None, f"no end after {MINUTES} minutes: {words[3]}"
        if ran.returncode:
            errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or ["venv failed"]
            return None, errors[-1].removeprefix("ERROR: ")[:100]
    done.write_text("\n".join(wanted))
    return python, ""


# --- what runs inside an environment ---------------------------------------------------------------------------------


def cases(networks: bool) -> dict:
    """Name every head, and what a pipeline of it takes: parameters, and the number of classes."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from histofeat.models import HEADS

    small = {
        "xgboost": {"n_estimators": 20},
        "random_forest": {"n_estimators": 20},
        **{name: {"xgboost__n_estimators": 20} for name in ("vote", "late_vote", "stacking")},
    }
    named = {name: {"head": name, "head_params": small.get(name)} for name in HEADS}
    plan = {
        **{name: (settings, 2) for name, settings in named.items()},
        **{f"{name}, 3 classes": (settings, 3) for name, settings in named.items()},
        "svm, Nystroem": ({"head": "svm", "head_params": {"method": "nystroem", "n_components": 20}}, 2),
        "logistic, Macenko": ({"head": "logistic", "normalizer": "macenko"}, 2),
        "extra trees": ({"head": ExtraTreesClassifier(10, random_state=0)}, 2),
        "k-d tree": ({"head": KNeighborsClassifier(3, algorithm="kd_tree")}, 2),
        "naive Bayes": ({"head": make_pipeline(StandardScaler(), GaussianNB())}, 2),
        "linear discriminant": ({"head": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis("lsqr", 0.5))}, 3),
    }
    if networks:
        params = {"epochs": 1, "recipe": {"batch_size": 16}}
        plan["cancernet"] = ({"features": "pixels", "head": "cancernet", "head_params": params}, 2)
    return plan


def save(folder: Path, shared: Path, networks: bool) -> None:
    """Fit and save every head in this environment, with its predictions; the first one makes the patches."""
    import numpy as np

    from histofeat import IDCPipeline, make_cohort
    from histofeat.features import FAMILIES
    from histofeat.images import read_patch
    from histofeat.models import save_model

    if not shared.is_file():
        cohort = make_cohort(n_patients=9, patches_per_patient=6, random_state=0, root=folder / "cohort")
        pixels = [read_patch(path) for path in cohort.X]
        whole = [row for row, patch in enumerate(pixels) if patch.shape == (50, 50, 3)]
        kept = {"y": cohort.y[whole], "patients": cohort.patients[whole].astype(str)}
        np.savez(shared, X=np.stack([pixels[row] for row in whole]), **kept)
    with np.load(shared) as held:
        X, y, patients = held["X"], held["y"], held["patients"]
    families = sorted(set(FAMILIES) - {"cnn"})
    np.savez(folder / "families.npz", **{name: IDCPipeline(name).transform(X) for name in families})
    for number, (settings, n_classes) in enumerate(cases(networks).values()):
        labels = y if n_classes == 2 else np.arange(len(y)) % 3
        pipeline = IDCPipeline(**{"features": ("color", "lbp"), **settings}).fit(X, labels, groups=patients)
        save_model(pipeline, folder / f"{number}.histofeat", overwrite=True)
        # After a normaliser too: a stain matrix that differs in its last digits moves single pixels, so that
        # features differ by about 1 / 2500 in a few patches. Heads are compared on the features of the one that saved.
        values = {} if pipeline.takes_pixels else {"features": pipeline.transform(X)}
        np.savez(folder / f"{number}.npz", proba=pipeline.predict_proba(X), **values)


def predict(folders: list[Path], shared: Path, networks: bool) -> None:
    """Load what every environment saved, and print the largest differences of this one's predictions."""
    import numpy as np

    from histofeat import IDCPipeline
    from histofeat.models import load_model

    with np.load(shared) as held:
        X = held["X"]
    for folder in folders:
        with np.load(folder / "families.npz") as held:
            for name in held.files:
                found = np.asarray(IDCPipeline(name).transform(X))
                print(folder.name, f"features {name}", np.abs(found - held[name]).max(), "", sep="\t")
        for number, name in enumerate(cases(networks)):
            try:
                pipeline = load_model(folder / f"{number}.histofeat").pipeline
                with np.load(folder / f"{number}.npz") as held:
                    asked, part = (held["features"], pipeline.head_) if "features" in held.files else (X, pipeline)
                    print(folder.name, name, np.abs(part.predict_proba(asked) - held["proba"]).max(), "", sep="\t")
            except Exception as error:
                print(folder.name, name, "inf", f"{type(error).__name__}: {error}"[:300], sep="\t")


# --- the table -------------------------------------------------------------------------------------------------------


def run(python: Path, *words) -> str:
    """Run this script in an environment; give what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "NUMBA_CACHE_DIR": str(words[1])}
    ran = subprocess.run([python, __file__, *map(str, words)], capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(f"{python}: {ran.stderr[-2000:]}")
    return ran.stdout


def versions(python: Path) -> str:
    """Name the versions in an environment."""
    code = f"""
from importlib import metadata
for name in {SHOWN}:
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
"""
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return ", ".join(found.split("\n")).strip(", ")


def compare(folder: Path, environments: dict[str, Path], networks: bool) -> list[tuple]:
    """Save in every environment, predict in every one; give the rows of the table."""
    shared, places = folder / "patches.npz", [folder / "saved" / name for name in environments]
    option = ["--networks"] if networks else []
    for place, python in zip(places, environments.values(), strict=True):
        place.mkdir(parents=True, exist_ok=True)
        run(python, "--save", place, "--patches", shared, *option)
    rows = []
    for loaded, python in environments.items():
        for line in run(python, "--predict", *places, "--patches", shared, *option).splitlines():
            saved, head, difference, reason = line.split("\t")
            verdict = "same" if float(difference) <= TOLERANCE else f"FAILED {reason}".strip()
            rows.append((saved, loaded, head, float(difference), verdict))
    return rows


def show(rows: list[tuple], not_tried: dict[str, str]) -> int:
    """Print the table; give the exit status."""
    print("\nsaved with | loaded with | head | largest difference | verdict")
    print("--- | --- | --- | --- | ---")
    for saved, loaded, head, difference, verdict in rows:
        print(f"{saved} | {loaded} | {head} | {difference:.1e} | {verdict}")
    for name, reason in not_tried.items():
        print(f"{name} | {name} | all | | not tried: {reason}")
    failed = sum(verdict != "same" for *_, verdict in rows)
    print(f"\n{len(rows)} comparisons, {failed} failed, {len(not_tried)} environments not tried")
    return int(failed > 0 or not rows)


def main(words: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--kind", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--folder", type=Path, help="where the environments are kept (a temporary folder)")
    parser.add_argument("--networks", action="store_true", help="with Keras and TensorFlow: 2 GB for an environment")
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--predict", type=Path, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--patches", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.save or given.predict:
        save(given.save, given.patches, given.networks) if given.save else predict(
            given.predict, given.patches, given.networks
        )
        return 0
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="histofeat-matrix-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    environments, not_tried = {}, {}
    for version in given.python:
        for kind in given.kind:
            name = f"py{version}-{kind}"
            python, reason = make_environment(folder, version, kind, given.networks)
            if python is None:
                not_tried[name] = reason
                print(f"{name}: not tried: {reason}", flush=True)
            else:
                environments[name] = python
                print(f"{name}: {versions(python)}", flush=True)
    return show(compare(folder, environments, given.networks) if environments else [], not_tried)


if __name__ == "__main__":
    raise SystemExit(main())
