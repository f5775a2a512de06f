"""Predictions on a published split: the rules of our own reports, and every bad table refused by name."""

import json
import math
import struct

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from test_bootstrap import t_by_hand

from histofeat.datasets import official_roles
from histofeat.evaluation import PROTOCOLS, Protocol, read_predictions, score_predictions
from histofeat.evaluation._published_rows import check_complete, sort_rows
from histofeat.exceptions import DatasetError
from histofeat.metrics import choose_threshold

IDC = PROTOCOLS["idc-official"]
ROLES = official_roles()
TEST = IDC.patients("test")


def name(patient, place, label):
    return f"{patient}_idx5_x{50 * place + 1}_y451_class{label}.png"


def predict(roles=("test",), *, n_patches=6, seed=0, unlisted=()):
    """A row for each of a few made-up patches of every patient of these roles, one in three positive."""
    rng = np.random.default_rng(seed)
    patients = [*(patient for patient, role in ROLES.items() if role in roles), *unlisted]
    rows = [(patient, place, int(place % 3 == 0)) for patient in patients for place in range(n_patches)]
    scores = 1 / (1 + np.exp(1 - 1.5 * np.array([row[2] for row in rows]) - rng.normal(size=len(rows))))
    return pd.DataFrame({"patch": [name(*row) for row in rows], "score": scores.round(3)})


def labels(table):
    return table["patch"].str[-5].astype(int).to_numpy()


def write_tree(root, table):
    """Files that a data set can be made of: the names of the table, and the first bytes of a PNG."""
    for patch in table["patch"]:
        patient, label = patch.split("_")[0], patch[-5]
        folder = root / patient / label
        folder.mkdir(parents=True, exist_ok=True)
        size = struct.pack(">II", 50, 50)
        (folder / patch).write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size)
    return root


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn_on_the_test_rows():
    table = predict(("test", "validation", "train"), unlisted=["1"])
    roles = table["patch"].str.split("_").str[0].map(ROLES)
    test, selection = table[roles == "test"], table[roles.isin(["train", "validation"])]
    scored = score_predictions(table.sample(frac=1, random_state=0), n_resamples=50)
    y, score = labels(test), test["score"].to_numpy()
    threshold = choose_threshold(labels(selection), selection["score"].to_numpy(), "f1")
    assert scored.threshold == threshold
    for found, called in ((scored.scores, score > 0.5), (scored.tuned, score >= threshold)):
        assert found["f1"].pooled == pytest.approx(sk.f1_score(y, called))
        assert found["balanced_accuracy"].pooled == pytest.approx(sk.balanced_accuracy_score(y, called))
        assert found["sensitivity"].pooled == pytest.approx(sk.recall_score(y, called))
        assert found["specificity"].pooled == pytest.approx(sk.recall_score(1 - y, ~called))
    assert scored.scores["roc_auc"].pooled == pytest.approx(sk.roc_auc_score(y, score))
    assert scored.scores["average_precision"].pooled == pytest.approx(sk.average_precision_score(y, score))
    assert scored.scores["brier"].pooled == pytest.approx(sk.brier_score_loss(y, score))
    assert "roc_auc" not in scored.tuned
    assert (scored.test, scored.n_positive, scored.absent) == ((294, 49), 98, ())
    assert scored.selection == {"train": (504, 84), "validation": (174, 29)}
    assert scored.ignored == (6, 1)
    assert scored.caution is None


def test_intervals_resample_patients():
    table = predict(n_patches=4)
    scored = score_predictions(table, n_resamples=200, random_state=7)
    y, score = labels(table).reshape(49, 4), table["score"].to_numpy().reshape(49, 4)
    # The order of the patients is that of their numbers; the draws are those of the documented generator.
    order = np.argsort([int(patient) for patient in TEST])
    drawn = np.random.default_rng(7).multinomial(49, np.full(49, 1 / 49), size=200)
    aucs = []
    for weights in drawn:
        rows = order.repeat(weights)
        aucs.append(sk.roc_auc_score(y[rows].ravel(), score[rows].ravel()))
    df = min(sum((y == code).any(axis=1)) for code in (0, 1)) - 1
    value = sk.roc_auc_score(y.ravel(), score.ravel())
    assert scored.scores["roc_auc"].ci95 == pytest.approx(t_by_hand(value, aucs, 49, df), abs=1e-12)


@pytest.mark.slow
def test_a_table_of_our_own_predictions_gets_the_numbers_of_our_own_report(tmp_path):
    from histofeat import IDCPipeline, PatchDataset, PatientKFold, evaluate, make_cohort

    cohort = make_cohort(n_patients=14, patches_per_patient=8, random_state=1, root=tmp_path / "cohort")
    train = [patient for patient, role in ROLES.items() if role == "train"]
    new = dict(zip(dict.fromkeys(cohort.patients), [*TEST[:6], *train[:8]], strict=True))
    frame = cohort.frame.assign(patient=[new[patient] for patient in cohort.patients])
    dataset = PatchDataset(frame, cohort.target_names, "renamed")
    pipelines = {"color": IDCPipeline("color", head="logistic")}
    tested = np.isin(dataset.patients, TEST)
    (model,) = evaluate(dataset, pipelines, [(~tested, tested)], inner_cv=PatientKFold(2), n_resamples=100).models
    rows = np.flatnonzero(tested)
    at = frame.iloc[rows]
    names = [f"{r.patient}_idx5_x{r.x}_y{r.y}_class{r.label}.png" for r in at.itertuples()]
    table = pd.DataFrame({"patch": names, "score": model.proba[rows, 1]})
    scored = score_predictions(table, allow_missing_patients=True, n_resamples=100)
    assert scored.test.n_patients == 6
    assert scored.caution.startswith("Only 6 tested patients, of whom 6 carry the rarest class")
    assert scored.caution in scored.notes
    for metric, ours in model.scores.items():
        assert scored.scores[metric].pooled == pytest.approx(ours.pooled, abs=1e-12)
        assert scored.scores[metric].ci95 == pytest.approx(ours.ci95, abs=1e-12, nan_ok=True)


def test_the_threshold_follows_its_rule():
    table = predict(("test", "validation"))
    selection = table[table["patch"].str.split("_").str[0].map(ROLES) == "validation"]
    for rule in ("youden", "sensitivity=0.9"):
        scored = score_predictions(table, threshold=rule, n_resamples=0)
        assert scored.rule == rule
        assert scored.threshold == choose_threshold(labels(selection), selection["score"].to_numpy(), rule)


def test_the_test_rows_do_not_choose_the_threshold():
    table = predict(("test", "validation"))
    other = table.copy()
    is_test = table["patch"].str.split("_").str[0].isin(TEST)
    other.loc[is_test, "score"] = 1 - other.loc[is_test, "score"]
    assert score_predictions(table, n_resamples=0).threshold == score_predictions(other, n_resamples=0).threshold


def test_one_class_leaves_scores_undefined_and_the_json_strict():
    table = predict()
    scored = score_predictions(table[labels(table) == 0], n_resamples=10)
    assert math.isnan(scored.scores["roc_auc"].pooled)
    written = json.dumps(scored.to_dict(), allow_nan=False)
    assert json.loads(written)["scores_at_half"]["roc_auc"]["pooled"] is None
    assert json.loads(written)["scores_at_half"]["specificity"]["pooled"] is not None


# --- what is said beside them ----------------------------------------------------------------------------------------


def said(scored):
    return " ".join(scored.notes)


def test_what_was_not_done_is_said(tmp_path):
    table = predict(unlisted=["1", "2"])
    alone = said(score_predictions(table, n_resamples=10))
    assert "Completeness was not checked" in alone
    assert "No rows of train or validation patients: labels at 0.5 only" in alone
    assert "Ignored: 12 patches of 2 patients" in alone
    assert "resample the 49 test patients 10 times" in alone
    assert "Absent" not in alone
    checked = said(score_predictions(table, data=write_tree(tmp_path, table), n_resamples=0))
    assert "Complete: every patch" in checked
    assert "resample" not in checked
    some = score_predictions(table[6:], allow_missing_patients=True, n_resamples=0)
    assert some.absent == TEST[:1]
    assert f"Absent: 1 of the 49 test patients ({TEST[0]})" in said(some)
    chosen = said(score_predictions(predict(("test", "train")), n_resamples=0))
    assert "for the highest F1, chosen on 504 patches of 84 patients (train)" in chosen


# --- what is read ----------------------------------------------------------------------------------------------------


def test_both_spellings_and_paths_of_any_machine_are_read():
    patches = ["8864_idx5_x1_y1_class0.png", "8864idx5x51y1class1.png", "a\\8864\\1\\8864_idx5_x101_y1_class1.PNG"]
    table = sort_rows(pd.DataFrame({"patch": [*patches, "/b/c/1_idx5_x1_y1_class0.png"], "score": 0.5}), IDC)
    assert table["patient"].tolist() == ["8864", "8864", "8864", "1"]
    assert table["x"].tolist() == [1, 51, 101, 1]
    assert table["label"].tolist() == [0, 1, 1, 0]
    assert table["role"].tolist() == ["test", "test", "test", "unlisted"]


def test_a_csv_file_is_read_whatever_else_it_holds(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text('\ufeffmodel, score ,patch\nNA,0.25,a.png\n\nx,1e-3,"b,c.png"\nx,,d.png\n', encoding="utf-8")
    table = read_predictions(path)
    assert table["patch"].tolist() == ["a.png", "b,c.png", "d.png"]
    assert table["score"].tolist()[:2] == [0.25, 0.001]
    assert math.isnan(table["score"][2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header and rows, got an empty file"),
        (b"patches,score\na.png,0.5\n", r"line 1: .* got none named 'patch'.* Did you mean 'patches'\?"),
        (b"patch;score\na.png;1.000,5\n", r"line 2: expected a number .*, got '1.000,5'.* with a decimal point"),
        (b"patch,score\na.png,0,5\nb.png,0,6\n", "line 2: expected 2 cells as in the header, got 3"),
        (b"patch,score\na.png,yes\nb.png,0.1\n", r"line 2: expected a number in the column 'score', got 'yes'"),
        (b"patch,score\n\x81.png,0.5\n", "line 2: expected text in UTF-8, got the byte 0x81. Save it as CSV in UTF-8"),
        (b'patch,score\n"a.png,0.5\n', "line 2: .* text that is not CSV .*unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_of_predictions_is_refused(tmp_path, content, message):
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_predictions(path)
    assert str(refused.value).startswith(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a CSV file, got a path that does not exist: .*none\.csv"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="predictions: expected a CSV file, got a folder"):
        read_predictions(tmp_path)


# --- what is refused -------------------------------------------------------------------------------------------------


def change(table, row, **values):
    return table.assign(**{column: table[column].mask(table.index == row, value) for column, value in values.items()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t.drop(columns="score"), r"predictions: expected a column 'score', got 'patch'"),
        (lambda t: t[:0], "predictions: expected a row for every patch, got 0 rows"),
        (lambda t: change(t, 3, patch="thumbs.db"), r"got 'thumbs.db'\. Give"),
        (lambda t: change(t, 3, patch=None), r"got '(nan|None)'\. Give"),
        (lambda t: change(t, 3, patch="{x}.png"), r"got '\{x\}.png'\. Give"),
        (lambda t: pd.concat([t, t[2:5]]), rf"one row for each patch, got again '{name(TEST[0], 2, 0)}' \(and 2 more"),
        (
            lambda t: pd.concat([t, t[2:3].assign(patch=name(TEST[0], 2, 0).replace("_", ""))]),
            r"one row for each patch, got again '\w+.png'\. Keep",
        ),
        (
            lambda t: pd.concat([t, t[2:3].assign(patch=name(TEST[0], 2, 1))]),
            rf"one class for each place, got another beside '{name(TEST[0], 2, 1)}'\. Take",
        ),
        (lambda t: change(t, 1, score=np.nan), r"got 'nan for \w+\.png'\. Leave"),
        (lambda t: t.assign(score=t["score"] * 3 - 1), r"score: expected the probability of IDC .*, got '-?\d"),
        (lambda t: change(t, 1, score=np.inf), r"got 'inf for \w+\.png'\. Leave"),
        (lambda t: t.assign(score=["high"] * len(t)), "predictions.score: expected numbers, got a column of "),
        (lambda t: t.assign(patch=t["patch"].str.replace(r"^\d+", "1", regex=True))[:6],
         r"expected rows of the 49 test patients of idc-official, got 0 of 6 rows, the first of patient 1\."),
        (lambda t: t[12:], rf"rows of all 49 test patients of idc-official, got none of {TEST[0]} \(2 absent\)"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_scored_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        score_predictions(make(predict()), n_resamples=0)


def test_missing_and_surplus_rows_are_refused_against_the_data(tmp_path):
    table = predict(("test", "train"), n_patches=2)
    whole = write_tree(tmp_path / "{whole}", table)
    assert score_predictions(table, data=whole, n_resamples=0).complete
    # Train patients may be there or not: they are not what is scored.
    assert score_predictions(predict(n_patches=2), data=whole, n_resamples=0).complete
    rows = table.index[table["patch"].str.startswith(tuple(f"{patient}_" for patient in TEST))]
    first = min(TEST, key=int)
    missing = table[~table["patch"].str.startswith((f"{first}_", f"{TEST[-1]}_"))]
    with pytest.raises(ValueError, match=rf"\{{whole\}}, got none for '{name(first, 0, 1)}' \(and 3 more\)"):
        score_predictions(missing, data=whole, n_resamples=0)
    extra = pd.DataFrame({"patch": [name(TEST[3], 8, 0), name(TEST[4], 8, 0)], "score": 0.5})
    with pytest.raises(ValueError, match=rf"got also '{name(TEST[3], 8, 0)}' \(and 1 more\)"):
        score_predictions(pd.concat([table, extra]), data=whole, n_resamples=0)
    other = change(table, rows[1], patch=name(TEST[0], 1, 1))
    with pytest.raises(ValueError, match=rf"the class .*, got another for '{name(TEST[0], 1, 0)}'\. Take"):
        score_predictions(other, data=whole, n_resamples=0)


def test_an_incomplete_copy_decides_who_is_asked_for(tmp_path):
    some = predict()[: 5 * 6]
    scored = score_predictions(some, data=write_tree(tmp_path, some), n_resamples=0)
    assert (scored.complete, scored.test.n_patients, len(scored.absent)) == (True, 5, 44)
    with pytest.raises(ValueError, match=r"got also \S+ \(and 263 more\)"):
        score_predictions(predict(), data=tmp_path, n_resamples=0)


def test_a_folder_without_test_patients_is_refused(tmp_path):
    root = write_tree(tmp_path, predict(("train",), n_patches=2)[:4])
    with pytest.raises(DatasetError, match="patches of the test patients of idc-official, got 0 of 4 patches"):
        score_predictions(predict(), data=root, n_resamples=0)
    with pytest.raises(DatasetError, match="a path that does not exist"):
        score_predictions(predict(), data=tmp_path / "none", n_resamples=0)


def test_unknown_protocols_and_rules_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"protocol: .* got 'idc_oficial'. Did you mean 'idc-official'\?"):
        score_predictions(predict(), "idc_oficial")
    with pytest.raises(ValueError, match="protocol: expected the name of a published split, got 5"):
        score_predictions(predict(), 5)
    with pytest.raises(ValueError, match=r"threshold: expected a rule such as .* got 'yuoden'. Did you mean 'youden'"):
        score_predictions(predict(), threshold="yuoden")
    with pytest.raises(ValueError, match="rows of train or validation patients to choose 'f1' on, got 0"):
        score_predictions(predict(), threshold="f1")


def test_a_project_may_bring_its_own_protocol():
    roles = {"8864": "test", "8865": "test", "9000": "validation"}
    mine = Protocol("mine", "Mine", lambda: roles, IDC.parse, IDC.example, "tumour", IDC.load, "")
    table = pd.DataFrame(
        {"patch": [name(patient, place, place % 2) for patient in roles for place in range(4)], "score": [0.2, 0.7] * 6}
    )
    scored = score_predictions(table, mine, n_resamples=0)
    assert scored.protocol is mine
    assert (scored.test, scored.selection["validation"]) == ((8, 2), (4, 1))
    assert scored.scores["roc_auc"].pooled == 1.0
    assert "" not in scored.notes
    with pytest.raises(
        ValueError, match="expected the probability of tumour of every patch, from 0 to 1, got 'nan for "
    ):
        score_predictions(change(table, 0, score=np.nan), mine)


def test_check_complete_alone_takes_any_data_set(tmp_path):
    table = predict()[:12]
    dataset = IDC.load(write_tree(tmp_path, table))
    assert check_complete(sort_rows(table, IDC), dataset, tmp_path) is None
    with pytest.raises(ValueError, match=r"got none for '\S+'\. Score"):
        check_complete(sort_rows(table[1:], IDC), dataset, tmp_path)
