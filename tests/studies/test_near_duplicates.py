"""The study behind the distance of near-duplicates: whole, small, and on made-up patches."""

import json

import numpy as np
import pandas as pd
import pytest

from histofeat import make_cohort
from histofeat.datasets import official_roles
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.evaluation import NEAR_DISTANCE, chance_rates
from histofeat.studies._near_duplicates import (
    DISTANCES,
    TOO_FAR,
    NearDuplicates,
    changes,
    count_false_alarms,
)


@pytest.fixture(scope="module")
def main(loaded_script):
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["near-duplicates", *words])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A cohort that reads as a folder of IDC patches: patients without an official role."""
    folder = tmp_path_factory.mktemp("near") / "tree"
    make_cohort(n_patients=8, patches_per_patient=12, root=folder)
    (folder / MANIFEST).unlink()
    return folder


@pytest.fixture(scope="module")
def finished(main, tree, tmp_path_factory):
    output = tmp_path_factory.mktemp("reports") / "near"
    arguments = ["--data", str(tree), "--quick", "--n-jobs", "1", "--output", str(output)]
    assert main(arguments) == 0
    return output, json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def test_it_writes_the_page_the_numbers_and_the_tables(finished):
    output, metrics = finished
    results = metrics["results"]
    assert metrics["quick"] is True
    assert results["patients"] == 8
    assert results["default_distance"] == NEAR_DISTANCE
    alarms = pd.read_csv(output / "false_alarms.csv")
    copies = pd.read_csv(output / "copies.csv")
    assert len(alarms) == len(results["false_alarms"]) == len(DISTANCES)
    assert (copies["copies"] == results["compared"]).all()
    # A larger distance finds no less.
    assert alarms["pairs"].is_monotonic_increasing
    assert (copies.filter(regex=r"^d\d").diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert copies.set_index("change").loc["5 % darker", "d20"] > 0.9
    page = (output / "report.md").read_text(encoding="utf-8")
    assert f"the audit uses {NEAR_DISTANCE}" in page
    assert "Quick run" in page
    assert {path.name for path in (output / "figures").glob("*.svg")} == {"copies.svg", "false_alarms.svg"}
    assert str(output.parent) not in page + (output / "report.html").read_text(encoding="utf-8")


def test_a_finished_folder_is_not_overwritten(main, finished, tree, capsys):
    output, _ = finished
    assert main(["--data", str(tree), "--quick", "--output", str(output)]) == 2
    assert "study.py near-duplicates: " in capsys.readouterr().err


def test_official_test_patients_alone_are_refused(main, tree, tmp_path, capsys):
    patient = next(patient for patient, role in official_roles().items() if role == "test")
    old = next(tree.rglob("*.png"))
    new = tmp_path / "idc" / patient / old.parent.name / old.name.replace(old.parents[1].name, patient)
    new.parent.mkdir(parents=True)
    new.write_bytes(old.read_bytes())
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "got only patients of that set" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_patient_is_refused(main, tree, tmp_path, capsys):
    patient = sorted(tree.iterdir())[0]
    (tmp_path / "idc").mkdir()
    (tmp_path / "idc" / patient.name).symlink_to(patient)
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "expected patches of two patients or more, got one" in capsys.readouterr().err


def test_false_alarms_are_counted_between_patients():
    codes = np.zeros((4, 2), dtype=np.uint64)
    codes[2:] = np.random.default_rng(0).integers(0, 2**64, (2, 2), dtype=np.uint64)
    for patients, pairs in (([0, 0, 1, 1], 0), ([0, 1, 2, 3], 1)):
        rows = list(count_false_alarms(np.repeat(codes, 1, axis=0), np.array(patients)))
        assert rows[0]["pairs"] == pairs
        assert rows[0]["patches_percent"] == 50 * pairs
        assert rows[0]["n_pairs"] == (4 if pairs == 0 else 6)


def test_what_chance_explains_grows_with_the_pairs():
    codes = np.random.default_rng(0).integers(0, 2**64, (40, 2), dtype=np.uint64)
    for row in count_false_alarms(codes, np.arange(40)):
        rate = chance_rates(codes, np.arange(40), 31)[row["distance"]]
        assert row["by_chance"] == pytest.approx(rate * 40 * 39 / 2)
        assert row["full_set_pairs"] == pytest.approx(rate * 277_524**2 / 2)


def test_the_smallest_distance_waits_for_every_kind_but_those_left_out():
    def row(name, least):
        return {"change": name} | {f"d{d}": float(d >= least) for d in DISTANCES}

    far = row(TOO_FAR[0], 36)

    def smallest(*copies):
        return NearDuplicates(1, 2, 1, (), copies, ()).smallest_distance

    assert smallest(row("a", 8), row("b", 14), far) == 14
    assert smallest(row("a", 99), far) is None


@pytest.mark.parametrize("name", ["enlarged to 200 %", "moved 1 px right", "5 % brighter"])
def test_changes_are_what_they_say(patches, name):
    changed = changes()[name](patches[0])
    if name == "enlarged to 200 %":
        assert changed.shape == (100, 100, 3)
    elif name == "moved 1 px right":
        assert np.array_equal(changed[:, 1:], patches[0][:, :-1])
    else:
        assert np.array_equal(changed, np.clip(np.rint(patches[0] * 1.05), 0, 255))


@pytest.mark.slow
def test_it_runs_on_real_patches(main, real_data, tmp_path):
    output = tmp_path / "near"
    assert main(["--data", str(real_data), "--quick", "--output", str(output)]) == 0
    results = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["results"]
    jpeg = next(row for row in results["copies"] if row["change"] == "JPEG, quality 90")
    assert jpeg["d20"] > 0.99
    assert results["false_alarms"][0]["pairs"] == 0
