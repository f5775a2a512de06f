"""Pseudonyms: no id and no name of a file in any file of a report, and the same numbers as without."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histofeat import cli
from histofeat.datasets import LeftOut, load_image_folder
from histofeat.evaluation import LeftOut as PatientsLeftOut, NotRun, audit_split, evaluate_predictions
from histofeat.reporting import check_output, read_key, write_report
from histofeat.reporting._pseudonyms import Pseudonyms, pseudonymous

#: Ids that are words, numbers, and parts of each other.
IDS = ("1", "12", "the", "patients", "P-7", "P-77", "TCGA-A1-A0SB", "22549AB", "2000", "John Smith", "tumour", "0.5")
CLASSES = ("no", "tumour")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in folders of classes and patients, some of which lie about."""
    root, rng = tmp_path_factory.mktemp("hospital") / "P-7 and others", np.random.default_rng(0)
    for patient in IDS:
        for at in range(6):
            label = CLASSES[at % 2]
            place = root / label / patient
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(place / f"{patient} ({at}).png")
    (root / "no" / "P-77" / "P-77 letter.txt").write_text("Dear John Smith")
    return root


@pytest.fixture(scope="module")
def evaluation(folder):
    dataset = load_image_folder(folder, patients="folder")
    rng = np.random.default_rng(1)
    score = np.clip(dataset.y * 0.3 + rng.random(len(dataset)) * 0.7, 0, 1)
    table = dataset.frame[["path"]].assign(score=score, fold=pd.factorize(dataset.patients)[0] % 3)
    two = [table.assign(model=name, score=score**power) for name, power in (("a", 1), ("b", 2))]
    found = evaluate_predictions(pd.concat(two), dataset, n_resamples=40)
    # What reports name: failures, files left out, patients left out, findings of all kinds, notes and reasons.
    first = str(dataset.relative_paths[0])
    lost = (("no/P-77/P-77 (9).png", "expected an image, got P-77 (9).png, which is cut off."),)
    notes = ("Patients without any other image: 'the', '1'.", f"Equal files: '{first}' and 'no/12/12 (0).png'.")
    groups = (LeftOut("is no image", 1, ("no/P-77/P-77 letter.txt",)),)
    audit = replace(dataset.audit, failures=lost, notes=(*dataset.audit.notes, *notes), left_out=groups)
    dataset = replace(dataset, audit=audit)
    splits = [(np.arange(len(dataset)), np.arange(0, len(dataset), 2))]
    report = replace(audit_split(dataset, splits), accepted=("HF001",))
    gone = (NotRun("cnn", "svm", f"expected weights, got none in {folder}/P-77 (0).png."),)
    left = PatientsLeftOut(("the", "P-7"), 3, 10, 60, {"histo": 2}, ("IDC",))
    protocol = {**found.protocol, "left_out": left.to_dict(), "random_state": 12}
    more = {"not_run": gone, "left_out": left, "protocol": protocol, "audit": report}
    return replace(found, dataset=dataset, **more)


@pytest.fixture(scope="module")
def reports(evaluation, tmp_path_factory):
    """The same report twice: as it is, and with pseudonyms."""
    out, how = tmp_path_factory.mktemp("out"), {"gallery": 2, "title": "Study of TCGA-A1-A0SB"}
    shown = write_report(evaluation, out / "shown", **how).parent
    return shown, write_report(evaluation, out / "hidden", pseudonyms=True, **how).parent


def texts_of(folder):
    """Give every text in every file of a folder, also those of Parquet and the names of the files."""
    for path in sorted(folder.rglob("*")):
        yield path.name, str(path.relative_to(folder))
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            yield path.name, "\n".join([*map(str, frame.columns), str(frame.attrs)])
            for name in frame.select_dtypes(["object", "string", "category"]):
                yield path.name, "\n".join(frame[name].astype(str))
        elif path.is_file() and path.suffix != ".png":
            yield path.name, path.read_text(encoding="utf-8")


def test_no_name_is_in_any_file(reports, evaluation):
    telling = [name for name in IDS if name not in ("1", "12", "the", "patients", "2000", "tumour", "0.5")]
    names = [*telling, "P-7 and others", "letter.txt", *(str(path) for path in evaluation.dataset.relative_paths)]
    names += [str(path).rpartition("/")[2] for path in evaluation.dataset.relative_paths]
    shown = "\n".join(text for _, text in texts_of(reports[0]))
    assert all(name in shown for name in names)  # the search finds what is there
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, names))})(?!\w)")
    found = {file: pattern.findall(text) for file, text in texts_of(reports[1])}
    assert not any(found.values()), found


def strings_of(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, str):
        yield value


def test_ids_that_are_words_or_numbers_are_in_no_place_of_a_name(reports):
    hidden = reports[1]
    for name in ("predictions.parquet", "patients.csv"):
        table = pd.read_parquet(hidden / name) if name.endswith("parquet") else pd.read_csv(hidden / name)
        assert table["patient"].str.fullmatch(r"patient \d{3}").all()
    assert pd.read_parquet(hidden / "predictions.parquet")["path"].str.fullmatch(r"image \d{5}").all()
    assert pd.read_csv(hidden / "failures.csv")["path"].str.fullmatch(r"file \d{3}").all()
    splits = json.loads((hidden / "splits.json").read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"patient \d{3}", id) for fold in splits["folds"] for id in fold["test"]["patients"])
    metrics = json.loads((hidden / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["pseudonyms"] is True
    words = "\n".join(strings_of(metrics))
    assert not re.search(r"(?:'|\bpatient |\bpatients )(?:1|12|the|patients|2000|0\.5)(?:'|,| and| in fold)", words)
    assert re.search(r"Patients without any other image: 'patient \d{3}', 'patient \d{3}'\.", words)
    assert "letter.txt" not in words


def test_the_numbers_are_those_of_the_report_with_ids(reports):
    shown, hidden = (json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in reports)

    def numbers_of(value):
        if isinstance(value, dict):
            return {key: numbers_of(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers_of(item) for item in value]
        return value if isinstance(value, int | float) else None

    for part in ("results", "comparison", "folds", "protocol", "dataset", "table_probe"):
        assert numbers_of(shown[part]) == numbers_of(hidden[part]), part
    assert shown["protocol"] == hidden["protocol"]
    assert any(found["offenders"]["n"] for found in shown["audit"]["findings"])
    assert not any(found["offenders"]["n"] for found in hidden["audit"]["findings"])  # they name patients and files
    assert [found["detail"] for found in shown["audit"]["findings"]] == [
        f["detail"] for f in hidden["audit"]["findings"]
    ]
    tables = [pd.read_csv(folder / "metrics.csv") for folder in reports]
    pd.testing.assert_frame_equal(tables[0].drop(columns="dataset"), tables[1].drop(columns="dataset"))
    # A page says what it is: all words but names are the same.
    pages = [(folder / "report.md").read_text(encoding="utf-8").splitlines() for folder in reports]
    assert any("This report shows ids" in line for line in pages[0])
    assert not any("This report shows ids" in line for line in pages[1])


def test_the_key_leads_back_and_is_outside_the_folder(reports, evaluation):
    hidden = reports[1]
    key = pd.read_csv(hidden.with_name("hidden-pseudonyms.csv"), dtype=str).set_index("pseudonym")["name"]
    assert not list(hidden.rglob("*pseudonyms*"))
    assert set(key[key.index.str.startswith("patient")]) == set(IDS)
    assert key.is_unique
    expected = evaluation.by_patient().set_index(["model", "patient"])["brier"]
    found = pd.read_csv(hidden / "patients.csv")
    found["patient"] = found["patient"].map(key)
    np.testing.assert_allclose(
        found.set_index(["model", "patient"])["brier"].reindex(expected.index), expected, rtol=1e-5
    )
    table = pd.read_parquet(hidden / "predictions.parquet")
    paths = dict(zip(evaluation.dataset.relative_paths, evaluation.models[0].proba[:, 1], strict=True))
    mine = table[table["model"] == "a/predictions"]
    assert [paths[path] for path in mine["path"].map(key)] == mine["p_tumour"].tolist()


def test_pseudonyms_are_drawn_and_never_kept_by_accident(evaluation, reports):
    hidden = reports[1]
    with pytest.raises(FileExistsError, match="expected no key to pseudonyms yet, got "):
        check_output(hidden.with_name("hidden"), pseudonyms=True)
    again = hidden.with_name("again")
    write_report(replace(evaluation, models=()), again, pseudonyms=True)
    assert read_key(again).exact != read_key(hidden).exact
    before = read_key(again).exact
    write_report(replace(evaluation, models=()), again, pseudonyms=True, overwrite=True)
    assert read_key(again).exact != before


@pytest.mark.parametrize("name", ["P-7_data", "2024_John Smith", "IDC"])
def test_a_data_set_named_after_a_patient_is_data(evaluation, name):
    named = replace(evaluation.dataset, name=name, audit=replace(evaluation.dataset.audit, name=name))
    found = pseudonymous(replace(evaluation, dataset=named))[0].dataset
    assert found.name == found.audit.name
    assert "P-7" not in found.name
    assert "Smith" not in found.name
    assert (found.name == "IDC") == (name == "IDC")


@pytest.mark.parametrize("name", ["P-7", "model of John Smith"])
def test_models_with_the_name_of_a_patient_are_refused(evaluation, tmp_path, name):
    models = (replace(evaluation.models[0], name=name), *evaluation.models[1:])
    with pytest.raises(ValueError, match=r"pseudonyms: expected models whose names hold none of a patient or file"):
        write_report(replace(evaluation, models=models), tmp_path / "out", pseudonyms=True)
    assert not [*tmp_path.iterdir()]


def test_a_failed_report_leaves_no_key(evaluation, tmp_path):
    with pytest.raises(ValueError, match="expected the file of a template"):
        write_report(replace(evaluation, models=()), tmp_path / "out", pseudonyms=True, template="none.md.j2")
    assert not list(tmp_path.iterdir())


def test_pictures_say_file_and_place(reports):
    text = (reports[1] / "galleries" / "gallery.md").read_text(encoding="utf-8")
    assert re.search(r"p = \d\.\d{3}; patient \d{3}, image \d{5}\n", text)
    shown = (reports[0] / "galleries" / "gallery.md").read_text(encoding="utf-8")
    assert re.search(r"patient TCGA-A1-A0SB, (no|tumour)/TCGA-A1-A0SB/TCGA-A1-A0SB \(\d\)\.png\n", shown)


def test_the_command_line_writes_neither_ids_nor_folders_of_patients(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "compare",
        str(folder),
        "--patients",
        "folder",
        "--features",
        "color",
        "--heads",
        "logistic",
        "--folds",
        "2",
    ]
    words += ["--resamples", "20", "--no-shortcuts", "--no-store", "-o", str(out), "--pseudonyms"]
    assert cli.main(words) == 0
    assert "P-7 and others" not in (out / "run.toml").read_text(encoding="utf-8")
    assert "command" in (out / "metrics.json").read_text(encoding="utf-8")
    for file, text in texts_of(out):
        for name in ("TCGA-A1-A0SB", "P-77", "John Smith", "P-7 and others"):
            assert name not in text, (name, file)
    assert cli.main(["report", str(out), "--pseudonyms"]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Look at P-7.", "Look at patient 001."),
        ("Is it P-7? /data/8863/P-7!", "Is it patient 001? patient 001!"),
        ("Mary Ann Smith and Mary Ann", "patient 003 and patient 002"),
        ("the class 'tumour' of 'the', and the rest", "the class 'tumour' of 'patient 004', and the rest"),
        (["P-7", {"P-7": "P-77", "n": 7}], ["patient 001", {"P-7": "P-77", "n": 7}]),
    ],
)
def test_names_are_replaced_and_words_are_not(said, shown):
    known = {"P-7": "patient 001", "Mary Ann": "patient 002", "Mary Ann Smith": "patient 003", "the": "patient 004"}
    assert Pseudonyms(known | {"tumour": "patient 005"}, words=("tumour",))(said) == shown


def test_numbers_do_not_follow_the_ids_and_rows_keep_what_is_theirs(evaluation):
    drawn = []
    for _ in range(3):
        found, names = pseudonymous(evaluation)
        drawn.append(tuple(names.exact[patient] for patient in IDS))
    assert len(set(drawn)) > 1, "the order of the numbers is drawn each time"
    assert sorted(drawn[0]) == [f"patient {number:03d}" for number in range(1, 13)]
    places = {names.exact[str(path)]: row for row, path in enumerate(evaluation.dataset.relative_paths)}
    rows = [places[path] for path in found.dataset.frame["path"]]
    np.testing.assert_array_equal(found.fold, evaluation.fold[rows])
    np.testing.assert_array_equal(found.models[1].proba, evaluation.models[1].proba[rows])
    for hidden, shown in zip(found.splits, evaluation.splits, strict=True):
        for some, own in zip(hidden, shown, strict=True):
            assert sorted(np.array(rows)[some]) == sorted(own)


def test_slides_have_pseudonyms_pictures_stay_with_their_rows_and_reasons_name_no_file(evaluation):
    dataset, slides = evaluation.dataset, [f"S-{row % 5}" for row in range(len(evaluation.dataset))]
    own = replace(evaluation, dataset=replace(dataset, frame=dataset.frame.assign(slide=slides)))
    found, names = pseudonymous(own)
    places = {names.exact[str(path)]: row for row, path in enumerate(dataset.relative_paths)}
    rows = [places[path] for path in found.dataset.frame["path"]]
    assert found.dataset.frame["slide"].tolist() == [names.exact[slides[row]] for row in rows]
    assert {*found.dataset.frame["slide"]} == {f"slide {number:03d}" for number in range(1, 6)}
    np.testing.assert_array_equal(found.dataset.X, dataset.X[rows])
    assert [reason for _, reason in found.dataset.audit.failures] == [
        "expected an image, got the file, which is cut off."
    ]
