"""Hostile and damaged models: whatever is in a file, it is loaded as it was saved or refused by a sentence."""

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import mutate_models
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler
from sklearn.svm import SVC

from histofeat import IDCPipeline
from histofeat.datasets import _writing as writing
from histofeat.models import (
    HEADS,
    FeatureHead,
    ModelFileError,
    _archive as archive,
    _saved_model as saved_model,
    _trusted as trusted,
    load_model,
    save_model,
)
from histofeat.models._checked_trees import check_booster, check_estimator

SMALL = {
    "random_forest": {"n_estimators": 5},
    "xgboost": {"n_estimators": 8},
    **{name: {"xgboost__n_estimators": 5} for name in ("vote", "late_vote", "stacking")},
}


@pytest.fixture(scope="module")
def rows(cohort):
    chosen = np.flatnonzero(np.isin(cohort.patients, sorted(set(cohort.patients))[:8]))
    return cohort.X[chosen], cohort.y[chosen], cohort.patients[chosen]


@pytest.fixture(scope="module")
def saved(rows, tmp_path_factory):
    """Path of a good model with a head, fitted once."""
    folder, paths = tmp_path_factory.mktemp("models"), {}

    def of(head):
        if head not in paths:
            given = GradientBoostingClassifier(n_estimators=4, random_state=0) if head == "boosting" else head
            pipeline = IDCPipeline(features="color", head=given, head_params=SMALL.get(head))
            paths[head] = save_model(pipeline.fit(rows[0], rows[1], groups=rows[2]), folder / f"{head}.histofeat")
        return paths[head]

    return of


def forged(path, target, changes):
    """A copy whose parts are replaced, or changed by functions of their bytes, with hashes that fit."""
    members = mutate_models.opened(path.read_bytes())
    for name, change in changes.items():
        members[name] = change(members[name]) if callable(change) else change
    record = json.loads(members["model.json"])
    record["parts"] = {
        name: {"bytes": len(content), "sha256": archive._digest(content)}
        for name, content in members.items()
        if name != "model.json"
    }
    members["model.json"] = json.dumps(record).encode()
    target.write_bytes(archive.fixed_zip(members))
    return target


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# --- boosters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def booster():
    """A booster of three classes as a mapping."""
    from xgboost import XGBClassifier

    rng = np.random.default_rng(0)
    X, y = rng.random((60, 4)), np.arange(60) % 3
    return XGBClassifier(n_estimators=3, max_depth=3, n_jobs=1).fit(X, y).get_booster()


def as_json(booster, change=None):
    record = json.loads(bytes(booster.save_raw("json")))
    learner = record["learner"]
    if change is not None:
        change(learner, learner["gradient_booster"]["model"], learner["gradient_booster"]["model"]["trees"][0])
    return json.dumps(record).encode()


def test_a_booster_in_another_format_of_xgboost_is_refused(booster):
    check_booster(as_json(booster))
    with pytest.raises(ValueError, match="it is no JSON"):
        check_booster(bytes(booster.save_raw("ubj")))


@pytest.mark.parametrize("settings", [{"booster": "dart"}, {"booster": "gblinear"}, {"max_leaves": 3}])
def test_every_kind_of_booster_is_accepted(settings):
    from xgboost import XGBClassifier

    X = np.random.default_rng(0).random((40, 3))
    fitted = XGBClassifier(n_estimators=3, n_jobs=1, **settings).fit(X, np.arange(40) % 2)
    check_booster(bytes(fitted.get_booster().save_raw("json")))


CHANGES = {
    "child beyond": lambda learner, model, tree: tree["left_children"].__setitem__(0, 10**6),
    "circle": lambda learner, model, tree: tree["right_children"].__setitem__(1, 0),
    "two parents": lambda learner, model, tree: tree["right_children"].__setitem__(0, tree["left_children"][0]),
    "parent": lambda learner, model, tree: tree["parents"].__setitem__(2, 10**6),
    "column": lambda learner, model, tree: tree["split_indices"].__setitem__(0, 4),
    "length": lambda learner, model, tree: tree["default_left"].pop(),
    "threshold": lambda learner, model, tree: tree["split_conditions"].__setitem__(0, float("nan")),
    "categories": lambda learner, model, tree: tree["split_type"].__setitem__(0, 1),
    "vector": lambda learner, model, tree: tree["tree_param"].update(size_leaf_vector="3"),
    "nodes": lambda learner, model, tree: tree["tree_param"].update(num_nodes="10000000"),
    "class of a tree": lambda learner, model, tree: model["tree_info"].__setitem__(0, 3),
    "rounds": lambda learner, model, tree: model.update(iteration_indptr=[0, 10**6]),
    "trees": lambda learner, model, tree: model["trees"].pop(),
    "features": lambda learner, model, tree: learner["learner_model_param"].update(num_feature="3"),
    "classes": lambda learner, model, tree: learner["learner_model_param"].update(num_class="30"),
    "base score": lambda learner, model, tree: learner["learner_model_param"].update(base_score="[nan]"),
    "targets": lambda learner, model, tree: learner["learner_model_param"].update(num_target="2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_booster_that_does_not_fit_itself_is_refused_before_xgboost_reads_it(change, booster):
    with pytest.raises(ValueError, match="its trees do not fit each other, their features or their classes"):
        check_booster(as_json(booster, CHANGES[change]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no JSON"),
        (b"binf", "it is no JSON"),
        (b'{"a": 1, "a": 2}', "names a key twice"),
        (b'{"a": 1', "delimiter"),
        (b'{"a": ' + b"[" * (2**21 + 1), "lists more than 2,097,152 texts and arrays"),
    ],
)
def test_a_damaged_booster_is_no_json(content, message):
    with pytest.raises(ValueError, match=message):
        check_booster(content)


def test_a_model_names_the_file_with_such_a_booster(saved, tmp_path):
    def broken(content):
        record = json.loads(content)
        record["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 10**6
        return json.dumps(record).encode()

    path = forged(saved("xgboost"), tmp_path / "m.histofeat", {"booster-1.json": broken})
    message = r"m\.histofeat: expected 'booster-1.json' to be a XGBClassifier.* trees do"
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_a_booster_that_could_not_be_loaded_is_not_saved(rows, tmp_path):
    pipeline = IDCPipeline(features="color", head="xgboost", head_params={"n_estimators": 2}).fit(rows[0], rows[1])
    pipeline.head_.classifier_.get_booster().load_model(bytearray(_with_nan(pipeline)))
    with pytest.raises(ModelFileError, match="save_model: expected a booster that load_model reads, got one that it"):
        save_model(pipeline, tmp_path / "m.histofeat")


def _with_nan(pipeline):
    record = json.loads(bytes(pipeline.head_.classifier_.get_booster().save_raw("json")))
    record["learner"]["gradient_booster"]["model"]["trees"][0]["split_conditions"][0] = float("inf")
    return json.dumps(record).replace("Infinity", "1e39").encode()


# --- fitted estimators -----------------------------------------------------------------------------------------------


X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def changed(estimator, **values):
    vars(estimator).update(values)
    return estimator


def of_fewer_columns(boosting):
    other = GradientBoostingClassifier(n_estimators=1).fit(X[:, :3], Y)
    return changed(boosting, estimators_=other.estimators_)


ESTIMATORS = {
    "jobs": (lambda: StandardScaler().fit(X), lambda e: changed(e, n_jobs=10**9), "n_jobs=1000000000"),
    "method": (
        lambda: StandardScaler().fit(X),
        lambda e: changed(e, transform=np.negative),
        "in the place of a method",
    ),
    "support": (lambda: SVC().fit(X, Y), lambda e: changed(e, _n_support=e._n_support * 9), "support vectors that do"),
    "dual": (lambda: SVC().fit(X, Y), lambda e: changed(e, _dual_coef_=e._dual_coef_[:1]), "support vectors that do"),
    "offsets": (lambda: SVC().fit(X, Y), lambda e: changed(e, _intercept_=np.zeros(1)), "support vectors that do"),
    "kind": (lambda: SVC().fit(X, Y), lambda e: changed(e, _impl="nu_svr"), "support vectors that do"),
    "kernel": (lambda: SVC().fit(X, Y), lambda e: changed(e, kernel="precomputed"), "support vectors that do"),
    "sparse": (lambda: SVC().fit(X, Y), lambda e: changed(e, _sparse=True), "support vectors that do"),
    "Platt": (lambda: SVC().fit(X, Y), lambda e: changed(e, _probA=np.zeros(9)), "support vectors that do"),
    "labels": (lambda: KNeighborsClassifier().fit(X, Y), lambda e: changed(e, _y=e._y * 99), "neighbours of no class"),
    "rows": (lambda: KNeighborsClassifier().fit(X, Y), lambda e: changed(e, n_samples_fit_=99), "neighbours of no"),
    "columns": (
        lambda: GradientBoostingClassifier(n_estimators=1).fit(X, Y),
        of_fewer_columns,
        "trees of other columns",
    ),
    "trees": (
        lambda: GradientBoostingClassifier(n_estimators=1).fit(X, Y),
        lambda e: changed(e, estimators_=np.hstack([e.estimators_] * 4)),
        "trees of other columns or classes",
    ),
    "tree": (
        lambda: GradientBoostingClassifier(n_estimators=1).fit(X, Y).estimators_[0, 0],
        lambda e: changed(e, n_features_in_=5),
        "a tree of other columns",
    ),
}


@pytest.mark.parametrize("case", ESTIMATORS)
def test_arrays_that_do_not_fit_each_other_are_refused_wherever_they_are(case):
    make, change, message = ESTIMATORS[case]
    check_estimator(make())
    holder = np.empty((1, 1), dtype=object)
    holder[0, 0] = {"inside": (change(make()),)}
    for place in (change(make()), changed(StandardScaler(), of=holder)):
        with pytest.raises(ModelFileError, match=f"that is whole, got one with .*{message}"):
            check_estimator(place)


@pytest.mark.parametrize(
    ("head", "attribute", "value"),
    [
        ("logistic", "coef_", np.zeros((1, 3))),
        ("logistic", "coef_", "much"),
        ("logistic", "intercept_", np.array([np.nan])),
        ("logistic", "classes_", np.arange(3)),
        ("qda", "components_", np.zeros((2, 2))),
    ],
)
def test_a_head_that_cannot_score_a_row_is_refused(head, attribute, value, saved, tmp_path):
    pipeline = load_model(saved(head)).pipeline
    setattr(pipeline.head_.classifier_, attribute, value)
    path = tmp_path / "m.histofeat"
    save_model(pipeline, path)
    with pytest.raises(ModelFileError, match=r"m\.histofeat: expected a "):
        load_model(path)


@pytest.mark.parametrize(("name", "labels"), [("SVC", "classes_"), ("CalibratedClassifierCV", "classes")])
def test_many_classes_are_refused_before_a_fit_of_as_many_rows(name, labels):
    with pytest.raises(ModelFileError, match=f"expected a {name} as save_model writes it, .*10,000,000 classes, more"):
        trusted.unflatten(name, {}, {labels: np.zeros(10**7)})


def test_a_head_that_takes_positive_numbers_only_is_whole():
    head = FeatureHead(make_pipeline(PowerTransformer("box-cox"), LogisticRegression())).fit(np.abs(X) + 0.1, Y)
    names = SimpleNamespace(get_feature_names_out=lambda: list("abcd"))
    pipeline = SimpleNamespace(takes_pixels=False, features_=names, head_=head, classes_=head.classes_, rails_=None)
    saved_model._check_head(pipeline)


def test_a_head_for_features_of_other_names_is_refused():
    head = FeatureHead(LogisticRegression()).fit(pd.DataFrame(X, columns=list("abcd")), Y)
    names = SimpleNamespace(get_feature_names_out=lambda: list("abce"))
    pipeline = SimpleNamespace(takes_pixels=False, features_=names, head_=head, classes_=head.classes_, rails_=None)
    with pytest.raises(ValueError, match="feature names should match"):
        saved_model._check_head(pipeline)


# --- archives --------------------------------------------------------------------------------------------------------


def schema(change):
    """A function that changes the description of an estimator in the bytes of a part."""

    def of(content):
        inner = mutate_models.opened(content)
        inner["schema.json"] = change(inner["schema.json"])
        return archive.fixed_zip(inner)

    return of


def node(of, inside, number):
    content = f'{{"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [{inside}]'
    return f'{content}, "__id__": {number}}}'


def doubled(depth):
    """Lists in lists that name the next one twice: few bytes, 2 ** depth places."""
    text = node(None, "", 1)
    for number in range(2, depth):
        text = node(None, f'{text}, {{"__id__": {number - 1}}}', number)
    return text.replace('"content"', '"protocol": 2, "content"', 1).encode()


def packed(names, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, content in names:
            target.writestr(name, content)
    return buffer.getvalue()


def zeros(n):
    return np.zeros(n, dtype=np.uint8).tobytes()


def other_shape(content):
    inner = mutate_models.opened(content)
    name = next(name for name in inner if name.endswith(".npy"))
    array = npy(np.zeros(10**5))
    inner[name] = array.replace(b"(100000,)", b"(10**8,) ") if b"(10**8,)" in array else array[:-8]
    return archive.fixed_zip(inner)


def sparse(content):
    return archive.fixed_zip(mutate_models.opened(content) | {"1.npz": b"PK"})


def twice(content):
    """The same array for every object: a small file that takes the memory of many."""
    inner = mutate_models.opened(content)
    arrays = [name for name in inner if name.endswith(".npy")]
    for name in arrays[1:]:
        inner["schema.json"] = inner["schema.json"].replace(f'"{name}"'.encode(), f'"{arrays[0]}"'.encode())
    return archive.fixed_zip(inner)


INNER = {
    "bomb": (lambda content: packed([("schema.json", zeros(2**27))]), "134,217,728 bytes are packed into"),
    "deep": (schema(lambda text: b"[" * 10**5), "RecursionError"),
    "values": (schema(lambda text: b"[" + b"1," * 2**21 + b"1]"), "its description lists 2,097,153 values"),
    "doubled": (schema(lambda text: doubled(60)), "object 1 is written in two ways"),
    "no json": (schema(lambda text: b"\xff\xfe"), "UnicodeDecodeError|JSONDecodeError"),
    "shape": (other_shape, "bytes are not an array of shape"),
    "header": (
        lambda content: content.replace(b"", b"") and _with_array(content, npy(np.zeros(3)).replace(b"}", b"(", 1)),
        "header of an array is damaged|Cannot parse header",
    ),
    "sparse": (sparse, "is no array; sparse matrices are not read"),
    "array twice": (twice, "belongs to two objects"),
}


def _with_array(content, array):
    inner = mutate_models.opened(content)
    name = next(name for name in inner if name.endswith(".npy"))
    return archive.fixed_zip(inner | {name: array})


@pytest.mark.parametrize("case", INNER)
def test_an_inner_archive_is_bounded_and_read_as_data(case, saved, tmp_path):
    change, message = INNER[case]
    path = forged(saved("svm"), tmp_path / "m.histofeat", {"pipeline.skops": change})
    with pytest.raises(ModelFileError, match=rf"m\.histofeat: expected a model that save_model wrote.*({message})"):
        load_model(path)


def test_members_are_bounded_before_they_are_read(saved, tmp_path):
    path = tmp_path / "m.histofeat"
    for members, method, message in (
        ([("model.json", zeros(2**27))], zipfile.ZIP_DEFLATED, "134,217,728 bytes are packed into"),
        ([("model.json", b"{}")], zipfile.ZIP_LZMA, "'model.json' is packed in another way, or is there twice"),
        ([("model.json", b"[" * 10**5)], zipfile.ZIP_DEFLATED, "model.json is no JSON"),
    ):
        path.write_bytes(packed(members, method))
        with pytest.raises(
            ModelFileError, match=rf"m\.histofeat: expected a whole model, got a damaged one: {message}"
        ):
            load_model(path)


def test_a_size_that_an_archive_hides_is_not_unpacked(tmp_path):
    """Python would unpack all of a member whose size the archive states too small."""
    content = bytearray(packed([("model.json", zeros(2**26))]))
    for at in (22, content.index(b"PK\x01\x02") + 24):
        content[at : at + 4] = struct.pack("<I", 100)
    path = tmp_path / "m.histofeat"
    path.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match=r"Bad CRC-32 for file 'model\.json'"):
        load_model(path)


def test_what_compresses_too_well_is_stored_so_that_it_can_be_read(monkeypatch):
    monkeypatch.setattr(writing, "_UNPACKED_BYTES", 2**16)
    content = trusted.dump_estimator(changed(StandardScaler().fit(X), padding_=np.zeros(2**16)))
    assert len(content) > 2**19
    assert len(trusted.load_estimator(content, "file").padding_) == 2**16


# --- damage at random ------------------------------------------------------------------------------------------------


def outcomes(path, rows, folder, last, kind, first=0):
    """What comes of each damaged copy, from a process of its own."""
    patches = folder / "patches.npy"
    np.save(patches, np.array(rows[0][:2].tolist()))
    before = folder / "before.npy"
    np.save(before, load_model(path).pipeline.predict_proba(np.load(patches)))
    script = Path(mutate_models.__file__)
    words = [sys.executable, script, path, patches, before, str(first), str(last), kind]
    child = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    found = [line.partition(" ")[2] for line in child.stdout.splitlines()]
    assert child.returncode == 0, (
        f"copy {first + len(found) - 1} of {path.name} ended the process: {child.stderr[-500:]}"
    )
    return found


def test_damaged_models_are_the_same_or_refused(saved, rows, tmp_path):
    found = outcomes(saved("vote"), rows, tmp_path, 20, "both")
    assert len(found) == 20
    assert set(found[::2]) <= {"same", "refused"}, found
    assert set(found[1::2]) <= {"same", "other", "refused"}, found


@pytest.mark.long
@pytest.mark.parametrize("head", [*sorted(HEADS), "boosting"])
def test_damaged_models_of_every_head(head, saved, rows, tmp_path):
    assert set(outcomes(saved(head), rows, tmp_path, 1000, "file")) <= {"same", "refused"}
    assert set(outcomes(saved(head), rows, tmp_path, 1000, "forged")) <= {"same", "other", "refused"}
