"""Numbers that a change of structure must not move: features to the bit, scores to 1e-12.

    python tests/golden/test_golden.py        # write the files again, after numbers have changed on purpose

`features.npz` holds every family on 64 fixed patches, `synthetic.json.gz` and `real.json.gz` the metrics of the main
job on the synthetic cohort and on 24 real patients. A change of numbers renews them and is listed in the changelog.
"""

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: What differs from run to run, at the top of `metrics.json` and in it.
CHANGING = ("created", "command", "environment", "seconds", "files", "histofeat")
TIMES = ("fit_s", "predict_s", "ms_per_patch", "seconds_per_patch")
#: Sentences, which are worded better now and then.
WORDS = ("reason", "detail", "unseen", "sentences")


def patches():
    """Return 64 patches (64, 50, 50, 3), uint8: textured ones, then black, white, a ramp and noise."""
    rng = np.random.default_rng(20261129)
    coarse = rng.integers(40, 256, (60, 10, 10, 3)).repeat(5, axis=1).repeat(5, axis=2)
    textured = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 50).astype(np.uint8)[None, :, None], (50, 50, 3))
    noise = rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    black, white = np.zeros_like(noise), np.full_like(noise, 255)
    return np.concatenate([textured, np.stack([black, white, ramp, noise])])


def measure(name, weights=None):
    """Features of one family on the fixed patches; None where its weights are missing."""
    from histofeat.exceptions import MissingExtraError, WeightsError
    from histofeat.features import make_family

    params = {"encoder": "mobilenetv2_0.35", "weights_dir": str(weights)} if name == "cnn" else {}
    try:
        return make_family(name, **params).fit_transform(patches())
    except (WeightsError, MissingExtraError):
        return None


def main_job(folder, *options):
    """Metrics of a run of the main job, without what changes from run to run."""
    command = [sys.executable, "benchmarks/run_all.py", "--no-store", "--output", str(folder), *options]
    # Weights are those of the options: without --weights no network runs.
    without = {name: value for name, value in os.environ.items() if name != "HISTOFEAT_WEIGHTS"}
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, env=without)
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in CHANGING}


def differences(expected, found, place=""):
    """Yield a line for each value that is missing or differs by more than 1e-12; what is new is no difference."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key not in (*TIMES, *WORDS):
                yield from (
                    differences(value, found[key], f"{place}.{key}") if key in found else [f"{place}.{key}: missing"]
                )
    elif isinstance(expected, list):
        if len(expected) != len(found):
            yield f"{place}: {len(expected)} entries, now {len(found)}"
        for number, (old, new) in enumerate(zip(expected, found, strict=False)):
            yield from differences(old, new, f"{place}[{number}]")
    elif isinstance(expected, float) and isinstance(found, int | float):
        if not math.isclose(expected, found, rel_tol=1e-12, abs_tol=1e-12):
            yield f"{place}: {expected!r}, now {found!r}"
    elif expected != found:
        yield f"{place}: {expected!r}, now {found!r}"


def read(name):
    return json.loads(gzip.decompress((HERE / name).read_bytes()))


def write(name, found):
    (HERE / name).write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


FAMILIES = np.load(HERE / "features.npz") if (HERE / "features.npz").exists() else {}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_features_are_what_they_were(name):
    found = measure(name, os.environ.get("HISTOFEAT_WEIGHTS"))
    if found is None:
        pytest.skip("HISTOFEAT_WEIGHTS is not set: no weights on this machine")
    if name in ("cnn", "histo"):  # other processors add in another order
        np.testing.assert_allclose(found, FAMILIES[name], rtol=1e-3, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, FAMILIES[name])


@pytest.mark.long
def test_scores_of_the_synthetic_cohort_are_what_they_were(tmp_path):
    assert list(differences(read("synthetic.json.gz"), main_job(tmp_path / "report"))) == []


@pytest.mark.long
def test_scores_of_real_patients_are_what_they_were(real_data, real_weights, tmp_path):
    options = ("--quick", "--data", str(real_data / "idc"), "--weights", str(real_weights))
    assert list(differences(read("real.json.gz"), main_job(tmp_path / "report", *options))) == []


if __name__ == "__main__":
    weights, data = os.environ["HISTOFEAT_WEIGHTS"], os.environ["HISTOFEAT_DATA"]
    from histofeat.features import FAMILIES as NAMES

    np.savez_compressed(HERE / "features.npz", **{name: measure(name, weights) for name in NAMES})
    with tempfile.TemporaryDirectory() as scratch:
        write("synthetic.json.gz", main_job(Path(scratch, "synthetic")))
        write("real.json.gz", main_job(Path(scratch, "real"), "--quick", "--data", f"{data}/idc", "--weights", weights))
