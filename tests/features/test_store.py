"""The feature store: what a row is known by, who may write it when, and what a damaged or foreign file says."""

import json
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from histofeat import CNNEmbedding, FeatureStore, IDCPipeline, PatientKFold, evaluate
from histofeat.features import (
    PFTAS,
    RECENT_ROWS,
    ColorHistogram,
    HaralickTexture,
    LBPHistogram,
    PatchUnion,
    RecentRows,
    Runtime,
    _feature_store,
    _store_session,
    content_key,
    extract,
    extractor_name,
    scratch_store,
)
from histofeat.features._feature_store import as_store
from histofeat.features._store_session import extractor_fingerprint

FAMILIES = (ColorHistogram(), LBPHistogram())
FORK_OR_SPAWN = [
    pytest.param("fork", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")),
    pytest.param("spawn", marks=pytest.mark.long),
]
#: From Python 3.12 on, a warning for every fork of a process that has threads; here it is what is tested.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "kept" / "features.sqlite")


@pytest.fixture
def store(path):
    return FeatureStore(path)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path, images):
    paths = [str(tmp_path / f"{number:03}.png") for number in range(20)]
    for name, image in zip(paths, images, strict=False):
        cv2.imwrite(name, image)
    return paths


def assert_same(extraction, families, X):
    for found, block in zip(extraction.features, extract(families, X).features, strict=True):
        np.testing.assert_array_equal(found, block)


def counts(store):
    return {entry.family: (entry.computed, entry.n_images) for entry in store.entries()}


def sql(path, *statement):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(*statement).fetchall()


def fingerprint(family):
    return extractor_fingerprint(extractor_name(family), family._fingerprint())[0]


# --- what a row is known by ------------------------------------------------------------------------------------------


def test_an_image_is_known_by_its_content_alone():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = np.asfortranarray(image)
    assert content_key(image) == content_key(turned) == content_key(image.copy())
    others = [image + 1, image.reshape(4, 2, 3), image.astype(np.uint16), image.tobytes(), image[:1]]
    assert len({content_key(image), *map(content_key, others)}) == 6
    assert {len(content_key(image)), len(content_key(b""))} == {16}


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (LBPHistogram(radii_px=(1, 2)), LBPHistogram(radii_px=[np.int64(1), np.int32(2)])),
        (HaralickTexture(levels=16, distances=(1, 2)), HaralickTexture(levels=np.int64(16), distances=[1, 2])),
        (ColorHistogram(bins=8, moments=True), ColorHistogram(bins=np.uint8(8), moments=np.True_)),
        (PFTAS(channels=("red",)), PFTAS(channels=[np.str_("red")])),
    ],
    ids=lambda family: type(family).__name__,
)
def test_equal_parameters_are_the_same_extractor(one, same):
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(type(one)())


def test_an_extractor_is_known_by_its_class_parameters_and_version(monkeypatch):
    known = extractor_fingerprint("A", {"x": 1})
    assert known == extractor_fingerprint("A", {"x": np.array(1)})
    assert json.loads(known[1]) == {"extractor": "A", "version": 1, "x": 1}
    others = [
        extractor_fingerprint("B", {"x": 1}),
        extractor_fingerprint("A", {"x": 2}),
        extractor_fingerprint("A", {}),
    ]
    monkeypatch.setattr("histofeat.features._store_session.FEATURES_VERSION", 2)
    others.append(extractor_fingerprint("A", {"x": 1}))
    assert len({known, *others}) == 5


def test_a_parameter_without_a_lasting_form_is_refused():
    with pytest.raises(ValueError, match=r"Mine: expected parameters of numbers, .*, got <object object"):
        extractor_fingerprint("Mine", {"scale": object()})


@pytest.fixture
def weights(tmp_path):
    """Two files that begin as weights do; a fingerprint reads their bytes and nothing else."""
    for folder, content in (("one", b"1"), ("copy", b"1"), ("other", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + content)
    return lambda folder: str(tmp_path / folder / "w.h5")


def test_a_network_is_known_by_what_changes_its_numbers(weights, monkeypatch):
    def known(folder="one", encoder="mobilenet_0.25", **params):
        return fingerprint(CNNEmbedding(encoder, weights=weights(folder), **{"engine": "openvino", **params}))

    one = known()
    same = [
        known("copy"),
        known(batch_size=7),
        known(n_threads=1),
        known(device="cpu"),
        known(weights_dir="anywhere"),
        known(input_size=128),
        known(input_size=np.int64(128)),
        known(engine="auto", device="cpu"),
    ]
    assert set(same) == {one}
    others = [
        known("other"),
        known(encoder="mobilenetv2_0.35"),
        known(input_size=96),
        known(pooling="max"),
        known(precision="bfloat16"),
        known(engine="keras", device="cpu"),
    ]
    monkeypatch.setattr("histofeat.networks.pretrained._engines.GRAPH_VERSION", 99)
    others.append(known())
    assert len({one, *others}) == 8


# --- measured once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_what_comes_from_the_store_is_what_was_measured(store, files, n_jobs):
    first, second = (extract(FAMILIES, files, store=store, n_jobs=n_jobs) for _ in range(2))
    assert dict(first.computed) == {"color": 20, "lbp": 20}
    assert dict(second.computed) == {"color": 0, "lbp": 0}
    assert second.seconds["decode"] < first.seconds["decode"]
    assert_same(first, FAMILIES, files)
    assert_same(second, FAMILIES, files)
    assert counts(store) == {"color": (20, 20), "lbp": (20, 20)}


def test_a_hundred_new_images_cost_a_hundred(store, images):
    extract(FAMILIES, images[:100], store=store)
    shuffled = np.random.default_rng(0).permutation(200)
    more = extract(FAMILIES, images[shuffled], store=store)
    assert dict(more.computed) == {"color": 100, "lbp": 100}
    assert_same(more, FAMILIES, images[shuffled])


def test_only_the_family_that_is_missing_is_measured(store, images):
    extract(FAMILIES[:1], images, store=store)
    both = extract(FAMILIES, images, store=store)
    assert dict(both.computed) == {"color": 0, "lbp": 200}
    assert_same(both, FAMILIES, images)


def test_other_parameters_have_rows_of_their_own(store, images):
    extract([LBPHistogram(radii_px=(1,))], images, store=store)
    other = [LBPHistogram(radii_px=(2,))]
    found = extract(other, images, store=store)
    assert dict(found.computed) == {"lbp": 200}
    assert_same(found, other, images)
    assert [entry.n_images for entry in store.entries()] == [200, 200]


def test_another_version_has_rows_of_its_own(store, images, monkeypatch):
    extract(FAMILIES, images, store=store)
    monkeypatch.setattr("histofeat.features._store_session.FEATURES_VERSION", 2)
    assert dict(extract(FAMILIES, images, store=store).computed) == {"color": 200, "lbp": 200}
    assert {json.loads(entry.description)["version"] for entry in store.entries()} == {1, 2}


def test_families_are_keyed_by_name_and_classes_of_users_by_module_too():
    class Mine(ColorHistogram):
        pass

    assert extractor_name(ColorHistogram()) == "color"
    assert extractor_name(Mine()) == f"{__name__}.{Mine.__qualname__}"


def test_a_file_is_known_by_its_bytes_not_by_its_name(store, files, tmp_path):
    extract(FAMILIES, files, store=store)
    Path(files[3]).write_bytes(Path(files[4]).read_bytes())
    cv2.imwrite(files[5], np.full((9, 9, 3), 7, dtype=np.uint8))
    moved = [str(Path(name).rename(tmp_path / f"moved {number}.png")) for number, name in enumerate(files)]
    again = extract(FAMILIES, moved, store=store)
    assert dict(again.computed) == {"color": 1, "lbp": 1}
    assert_same(again, FAMILIES, moved)


def test_a_search_measures_each_image_once(cohort, path):
    pipe = IDCPipeline(features=("color", "lbp"), store=path)
    grid = [
        {"head": ["logistic"], "head__C": [0.1, 1.0]},
        {"head": ["random_forest"], "head__n_estimators": [5, 10]},
    ]
    search = GridSearchCV(pipe, grid, cv=PatientKFold(3), scoring="roc_auc", error_score="raise")
    search.fit(cohort.X, cohort.y, groups=cohort.patients)
    n_images = len(cohort)
    assert len(search.cv_results_["params"]) == 4
    assert counts(FeatureStore(path)) == {"color": (n_images, n_images), "lbp": (n_images, n_images)}


def counted(log, module="histofeat.counted"):
    """Make a family of this package that writes the number of images that it measures to a file, in any process."""

    def compute(self, batch):
        with log.open("a") as file:
            file.write(f"{len(batch)}\n")
        return ColorHistogram._compute(self, batch)

    body = {"family": "color", "_compute": compute, "__module__": module}
    return type("Counted", (ColorHistogram,), body)(bins=7)


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.long)])
def test_a_search_without_a_store_measures_each_image_once(cohort, tmp_path, n_jobs):
    family = counted(tmp_path / "measured")
    search = GridSearchCV(
        IDCPipeline(family, "logistic"), {"head__C": [0.1, 1.0]}, cv=PatientKFold(3), n_jobs=n_jobs, error_score="raise"
    ).fit(cohort.X, cohort.y, groups=cohort.patients)
    assert sum(map(int, (tmp_path / "measured").read_text().split())) == len(cohort)
    found = search.best_estimator_.transform(cohort.X)
    np.testing.assert_array_equal(found, extract([ColorHistogram(bins=7)], cohort.X).features[0])


def test_only_own_families_of_unsaved_models_are_remembered(images, tmp_path):
    y, family = np.arange(200) % 2, counted(tmp_path / "own")
    fitted = IDCPipeline(family, "logistic").fit(images, y)
    assert fitted.features_.store is RECENT_ROWS
    foreign = IDCPipeline(counted(tmp_path / "foreign", "elsewhere"), "logistic").fit(images, y)
    for pipe in (fitted, foreign):
        pipe.predict(images[:50])
    assert [sum(map(int, (tmp_path / name).read_text().split())) for name in ("own", "foreign")] == [200, 250]
    assert pickle.loads(pickle.dumps(RECENT_ROWS)) is None
    assert clone(fitted.features_).store is None


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr("histofeat.features._unnamed_stores._MOST_BYTES", 4 * (8 + 350))
    rows = RecentRows()
    for at in range(6):
        rows.keep("f", {bytes([at]): np.zeros(2, dtype=np.float32)})
    assert [rows.get("f", bytes([at])) is not None for at in range(6)] == [False, False, False, True, True, True]


def test_a_second_evaluation_measures_nothing(cohort, path):
    def once():
        pipelines = {"both": IDCPipeline(features=("color", "lbp"), head="logistic")}
        return evaluate(
            cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0, runtime=Runtime(store=path)
        )

    first, second = once(), once()
    # The fingerprints are those of the audit.
    assert dict(first.computed) == dict.fromkeys(("color", "lbp", "fingerprint"), len(cohort))
    assert dict(second.computed) == {"color": 0, "lbp": 0, "fingerprint": 0}
    np.testing.assert_array_equal(first.models[0].proba, second.models[0].proba)


# --- the object ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, FeatureStore])
def test_estimators_keep_their_store_when_cloned_and_pickled(path, images, kind):
    pipe = IDCPipeline(features="color", head="logistic", store=kind(path))
    for copy in (clone(pipe), pickle.loads(pickle.dumps(pipe))):
        assert copy.store == kind(path)
    fitted = pickle.loads(pickle.dumps(pipe.fit(images, np.arange(200) % 2)))
    fitted.predict(images)
    assert counts(FeatureStore(path)) == {"color": (200, 200)}
    union = clone(PatchUnion([ColorHistogram()], store=kind(path)))
    np.testing.assert_array_equal(union.transform(images), pipe.transform(images))
    assert counts(FeatureStore(path)) == {"color": (200, 200)}


def test_a_store_is_its_path_and_nothing_else(path):
    assert FeatureStore(Path(path)) == FeatureStore(path) == as_store(path) == as_store(Path(path))
    assert hash(FeatureStore(path)) == hash(FeatureStore(Path(path)))
    assert FeatureStore(path) != FeatureStore(path + "2")
    assert repr(FeatureStore("a.sqlite")) == "FeatureStore(path='a.sqlite')"
    assert vars(pickle.loads(pickle.dumps(FeatureStore(path)))) == {"path": path}
    assert as_store(None) is None
    with pytest.raises(ValueError, match="store: expected a path or a FeatureStore, got 3"):
        as_store(3)


def test_the_name_for_no_file_is_a_file_here(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extract(FAMILIES, images, store=":memory:")
    assert dict(extract(FAMILIES, images, store=":memory:").computed) == {"color": 0, "lbp": 0}


def test_looking_at_a_store_makes_no_file(store):
    assert store.entries() == []
    assert store.purge() == 0
    assert store.summary() == f"{store.path}: 0.0 MB, 0 extractors"
    assert not Path(store.path).parent.exists()


def test_summary_tells_size_and_extractors(store, images):
    extract(FAMILIES, images, store=store)
    first, color, lbp = store.summary().splitlines()
    assert first == f"{store.path}: {Path(store.path).stat().st_size / 1e6:,.1f} MB, 2 extractors"
    assert color.startswith("  color: 200 images x 180 features, 0.1 MB, {")
    assert lbp.startswith("  lbp: 200 images x 54 features, 0.0 MB, {")
    assert '"radii_px": [1, 2, 3]' in lbp
    assert sum(entry.n_bytes for entry in store.entries()) == 200 * (180 + 54) * 4


def test_purge_takes_a_family_and_gives_its_space_back(store, images, monkeypatch):
    extract(FAMILIES, images, store=store)
    monkeypatch.setattr("histofeat.features._store_session.FEATURES_VERSION", 2)
    extract(FAMILIES, images[:50], store=store)
    before = Path(store.path).stat().st_size
    assert store.purge("color") == 250
    assert Path(store.path).stat().st_size < 0.6 * before
    assert sorted((entry.family, entry.n_images) for entry in store.entries()) == [("lbp", 50), ("lbp", 200)]
    found = extract(FAMILIES, images[:60], store=store)
    assert dict(found.computed) == {"color": 60, "lbp": 10}
    assert_same(found, FAMILIES, images[:60])
    assert store.purge() == 60 + 200 + 60
    assert store.entries() == []
    assert sql(store.path, "SELECT (SELECT COUNT(*) FROM images) + (SELECT COUNT(*) FROM features)") == [(0,)]


def test_purge_of_what_is_not_there(store, images):
    with pytest.raises(ValueError, match=r"purge: expected a stored family \(none is stored\), got 'lbp'"):
        store.purge("lbp")
    extract(FAMILIES, images[:2], store=store)
    with pytest.raises(ValueError, match=r"purge: expected a stored family \(color, lbp\), got 'lpb'"):
        store.purge("lpb")


def test_a_purge_between_two_batches_mixes_nothing_up(store):
    ones, twos, keys = np.ones((2, 3)), np.full((2, 3), 2.0), [b"a" * 16, b"b" * 16]
    with store.session() as early:
        mine = early.register("mine", 3, {}, "Mine")
        early.write([(mine, keys, ones)])
        store.purge()
        with store.session() as late:
            late.write([(late.register("other", 3, {}, "Other"), keys[::-1], twos)])
        assert early.read(mine, keys, 3) == {}
        early.write([(mine, keys, ones)])
        for name, value in (("Mine", 1), ("Other", 2)):
            rows = early.read(early.register(name.lower(), 3, {}, name), keys, 3)
            assert {key: row.tolist() for key, row in rows.items()} == dict.fromkeys(keys, [value] * 3)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_of_a_wrong_length_or_kind_are_measured_again(store, images):
    extract(FAMILIES, images, store=store)
    first = "(SELECT MIN(id) FROM features)"
    sql(store.path, f"UPDATE features SET row = x'00' WHERE id = {first}")
    sql(store.path, f"UPDATE features SET row = ? WHERE id = {first} + 1", ("x" * 720,))
    sql(store.path, f"UPDATE features SET row = 12 WHERE id = {first} + 2")
    with pytest.warns(RuntimeWarning, match="expected rows that match their checksums, got 3 that do not"):
        found = extract(FAMILIES, images, store=store)
    assert dict(found.computed) == {"color": 3, "lbp": 0}
    assert_same(found, FAMILIES, images)
    assert dict(extract(FAMILIES, images, store=store).computed) == {"color": 0, "lbp": 0}


def test_a_batch_is_written_whole_or_not_at_all(store):
    with store.session() as session:
        one, two = (session.register(name, 2, {}, name) for name in ("one", "two"))
        with pytest.raises(ValueError, match="argument"):
            session.write([(one, [b"a"], np.ones((1, 2))), (two, [b"a", b"b"], np.ones((1, 2)))])
        assert session.read(one, [b"a"], 2) == {}
        session.write([(one, [b"a"], np.ones((1, 2))), (two, [], np.ones((0, 2)))])
        assert session.read(one, [b"a"], 2)[b"a"].tolist() == [1, 1]
    assert counts(store) == {"one": (1, 1)}


def test_more_keys_than_a_query_holds(store):
    keys = [number.to_bytes(16) for number in range(1203)]
    rows = np.arange(1203, dtype=np.float64)[:, None]
    with store.session() as session:
        extractor = session.register("long", 1, {}, "Long")
        session.write([(extractor, keys, rows)])
        found = session.read(extractor, keys, 1)
    assert [float(found[key][0]) for key in keys] == rows[:, 0].tolist()


# --- many at once ----------------------------------------------------------------------------------------------------


def test_threads_share_a_session(store):
    keys = [number.to_bytes(16) for number in range(400)]
    wrong = []

    def work(session, number):
        extractor = session.register(f"f{number % 2}", 4, {}, f"F{number % 2}")
        for start in range(0, 400, 20):
            part = keys[start : start + 20]
            session.write([(extractor, part, np.full((20, 4), number % 2))])
            wrong.extend(row for row in session.read(extractor, part, 4).values() if set(row) != {number % 2})

    with store.session() as session:
        threads = [threading.Thread(target=work, args=(session, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert counts(store) == {"f0": (1200, 400), "f1": (1200, 400)}


def _extract_at_once(path, images, start, said):
    start.wait(60)
    found = extract([ColorHistogram()], images, store=path, n_jobs=2)
    said.put((dict(found.computed), found.features[0]))


@forks
@pytest.mark.parametrize("method", FORK_OR_SPAWN)
def test_processes_make_and_fill_one_store_together(path, images, method):
    context = multiprocessing.get_context(method)
    start, said = context.Barrier(2), context.Queue()
    arguments = [(path, part, start, said) for part in (images, images[::-1])]
    processes = [context.Process(target=_extract_at_once, args=argument) for argument in arguments]
    for process in processes:
        process.start()
    answers = [said.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    expected = extract([ColorHistogram()], images).features[0]
    for _, features in answers:
        assert (features == expected).all() or (features == expected[::-1]).all()
    (entry,) = FeatureStore(path).entries()
    assert entry.n_images == 200
    assert entry.computed == sum(computed["color"] for computed, _ in answers) >= 200
    assert dict(extract([ColorHistogram()], images, store=path).computed) == {"color": 0}
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def _open_at_once(path, start):
    for number in range(20):
        start.wait(60)
        with FeatureStore(f"{path}{number}").session() as session:
            session.write([(session.register("a", 1, {}, "A"), [os.urandom(16)], np.ones((1, 1)))])


@forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_first_moment_of_a_file_belongs_to_several_processes(path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    processes = [context.Process(target=_open_at_once, args=(path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert {counts(FeatureStore(f"{path}{number}"))["a"] for number in range(20)} == {(4, 4)}
    assert sql(f"{path}0", "PRAGMA journal_mode") == [("wal",)]


def _in_a_child(path, images, inherited, said):
    for attempt in (
        lambda: FeatureStore(path).entries(),
        lambda: inherited and inherited.read(inherited.register("a", 1, {}, "A"), [b"a"], 1),
        lambda: extract(FAMILIES, images, store=path + "2").computed["lbp"],
    ):
        try:
            said.put(attempt())
        except ValueError as error:
            said.put(str(error))


@forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("is_open", [True, False])
def test_a_forked_child_must_not_believe_in_its_parent_s_locks(store, images, is_open):
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    with store.session() as session:
        inherited = session
        if is_open:
            child = context.Process(target=_in_a_child, args=(store.path, images[:5], inherited, said))
            child.start()
            answers = [said.get(timeout=60) for _ in range(3)]
            child.join(60)
            assert session.read(session.register("a", 1, {}, "A"), [b"a"], 1) == {}
    if is_open:
        message = f"expected to be closed when a process forks, got a child of process {os.getpid()}, which had it open"
        assert [message in answer for answer in answers[:2]] == [True, True]
        assert answers[2] == 5
        return
    child = context.Process(target=_in_a_child, args=(store.path, images[:5], None, said))
    child.start()
    assert [said.get(timeout=60) for _ in range(3)] == [[], None, 5]
    child.join(60)


KILLED = """
import json, os, random, signal, sys, time
import cv2, numpy as np
from histofeat.features import ColorHistogram, LBPHistogram, extract
cv2.setNumThreads(1)  # OpenCV's threads do not live in a forked child
folder, patches, families = sys.argv[1], np.load(sys.argv[2]), (ColorHistogram(), LBPHistogram())
extract(families, patches[:8])  # compiled and loaded before the clock runs

def tell(done, total):
    os.write(writer, b"%d\\n" % done)

def run(number):
    global writer
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        extract(families, patches, n_jobs=2, store=f"{folder}/{number}.sqlite", progress=tell)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        # A number of images and then some milliseconds: random, and as random on a machine that is busy.
        done, until = 0, random.randrange(len(patches))
        while done < until:
            done = int(told.readline())
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return max([done, *map(int, told.read().split())])

print(json.dumps([run(number) for number in range(10)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_an_extraction_killed_at_ten_moments_loses_only_what_was_in_flight(tmp_path, patches):
    rng = np.random.default_rng(2)
    many = np.concatenate([patches ^ rng.integers(0, 8, patches.shape, dtype=np.uint8) for _ in range(50)])
    np.save(tmp_path / "patches.npy", many)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "patches.npy")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    expected = extract(FAMILIES, many).features
    told = json.loads(finished.stdout)
    kept = []
    for number, done in enumerate(told):
        path = f"{tmp_path}/{number}.sqlite"
        sizes = {entry.n_images for entry in FeatureStore(path).entries()} or {0}
        # A batch has the rows of all its families or of none, and what was reported as done is there.
        assert len(sizes) == 1
        kept.append(sizes.pop())
        assert kept[-1] >= done
        found = extract(FAMILIES, many, store=path, n_jobs=2)
        assert dict(found.computed) == dict.fromkeys(("color", "lbp"), len(many) - kept[-1])
        for block, rows in zip(found.features, expected, strict=True):
            np.testing.assert_array_equal(block, rows)
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
        assert dict(extract(FAMILIES, many, store=path).computed) == {"color": 0, "lbp": 0}
    assert len(set(kept)) > 2, f"the kills fell on too few different moments: {kept}"


# --- files that are no store, or no longer one -----------------------------------------------------------------------

COSTS_TIME = "remove the file if it is a damaged store, which only costs the time to measure again"


def test_a_file_that_is_no_database_is_left_alone(tmp_path, images):
    thesis = tmp_path / "thesis.doc"
    thesis.write_bytes(b"my thesis " * 500)
    with pytest.raises(ValueError, match=rf"thesis.doc'\): .*got: file is not a database.*{COSTS_TIME}"):
        extract(FAMILIES, images, store=thesis)
    assert thesis.read_bytes() == b"my thesis " * 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.doc"]


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "bookmarks.sqlite"
    sql(path, "CREATE TABLE pages (id INTEGER PRIMARY KEY, url TEXT)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="got another program's SQLite database of 1 tables"):
        FeatureStore(path).entries()
    assert path.read_bytes() == before


def test_another_layout_is_refused(store, images):
    extract(FAMILIES, images[:2], store=store)
    sql(store.path, "PRAGMA user_version = 1")
    with pytest.raises(ValueError, match=r"expected layout 2, got 1, .*remove the file: that only costs time"):
        store.entries()


def test_an_empty_file_becomes_a_store(tmp_path, images):
    path = tmp_path / "empty"
    path.touch()
    assert dict(extract(FAMILIES, images[:3], store=path).computed) == {"color": 3, "lbp": 3}


def test_places_that_cannot_hold_a_file(tmp_path, images):
    with pytest.raises(ValueError, match=r"expected a feature store that can be read and written, got: .*Give another"):
        extract(FAMILIES, images, store=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/features.sqlite'\): expected a feature store that can be read"):
        extract(FAMILIES, images, store=tmp_path / "file" / "features.sqlite")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path, images):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(ValueError, match="got: unable to open database file"):
        extract(FAMILIES, images, store=folder / "features.sqlite")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no file system at hand that nobody can write")
def test_a_file_system_that_nobody_can_write(images):
    with pytest.raises(ValueError, match=r"/proc/histofeat/features.sqlite'\): expected a feature store"):
        extract(FAMILIES, images, store="/proc/histofeat/features.sqlite")


def in_a_new_process(monkeypatch):
    """Forget that this process had stores open: the first opening is refused where a later one is only warned of."""
    monkeypatch.setattr("histofeat.features._feature_store._opened", set())


def test_damaged_pages_in_the_middle_of_a_run_cost_time_and_one_warning(store, images):
    families = [*FAMILIES, HaralickTexture()]
    extract(families, images, store=store)
    whole = Path(store.path).read_bytes()
    page = 1 << 14
    assert len(whole) > 10 * page
    Path(store.path).write_bytes(whole[: 4 * page] + b"\xff" * (len(whole) - 4 * page))
    with pytest.warns(RuntimeWarning, match=rf"malformed.*{COSTS_TIME}. The run goes on without reading") as said:
        found = extract(families, images, store=store, n_jobs=2)
    assert len(said) == 1
    assert_same(found, families, images)
    for ending in ("", "-wal", "-shm"):
        Path(store.path + ending).unlink(missing_ok=True)
    assert dict(extract(families, images, store=store).computed) == {"color": 200, "lbp": 200, "haralick": 200}


def test_a_damaged_store_is_one_sentence_before_the_first_image(store, images, monkeypatch):
    extract(FAMILIES, images, store=store)
    whole = Path(store.path).read_bytes()
    for damaged in (whole[: 1 << 14] + b"\xff" * (len(whole) - (1 << 14)), whole[: len(whole) // 2]):
        in_a_new_process(monkeypatch)
        Path(store.path).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"features.sqlite'\): .*got: database disk image is malfo.*{COSTS_TIME}"):
            extract(FAMILIES, images, store=store, n_jobs=2)
        with pytest.raises(ValueError, match="malformed"):
            store.summary()


def test_a_store_that_was_open_before_and_is_refused_now_does_not_end_the_work(store, images):
    extract(FAMILIES, images[:2], store=store)
    Path(store.path).write_bytes(b"x" * 5000)
    with pytest.warns(RuntimeWarning, match=r"file is not a database.* The run goes on without it\.$") as said:
        found = extract(FAMILIES, images, store=store)
    assert len(said) == 1
    assert_same(found, FAMILIES, images)
    with pytest.raises(ValueError, match="file is not a database"):
        store.entries()


def test_a_writer_that_hangs_is_waited_for_once(store, images, monkeypatch):
    extract(FAMILIES, images[:20], store=store)
    monkeypatch.setattr("histofeat.features._store_session.BUSY_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert dict(extract(FAMILIES, images[:2], store=store).computed) == {"color": 0, "lbp": 0}
        started = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"database is locked.*Another process holds it: wait for it") as said:
            found = extract(FAMILIES, np.concatenate([images[20:], images[:20]]), store=store, n_jobs=3)
        assert time.monotonic() - started < 3
    assert len(said) == 1
    # What is stored is read on.
    assert dict(found.computed) == {"color": 180, "lbp": 180}


def test_a_maker_that_hangs_is_not_waited_for_for_ever(store, monkeypatch):
    monkeypatch.setattr("histofeat.features._store_session.BUSY_TIMEOUT_S", 0.1)
    Path(store.path).parent.mkdir()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ValueError, match=r"got: database is locked.*Another process holds it"), store.session():
            pass


def test_a_lock_is_waited_for_for_seconds():
    assert 5 <= _store_session.BUSY_TIMEOUT_S <= 15


class _Failing:
    """A connection that fails after some batches as a disk does."""

    def __init__(self, connection, fails_on, n_good, code):
        self._connection, self._fails_on, self._left, self._code = connection, fails_on, n_good, code

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def __enter__(self):
        return self._connection.__enter__()

    def __exit__(self, *error):
        return self._connection.__exit__(*error)

    def execute(self, statement, *arguments):
        if statement.lstrip().startswith(self._fails_on):
            self._left -= 1
            if self._left < 0:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = self._code
                raise error
        return self._connection.execute(statement, *arguments)


@pytest.mark.parametrize(
    ("statement", "code", "says", "n_kept"),
    [
        ("BEGIN", sqlite3.SQLITE_FULL, "Make room on the disk.*without writing to it", 128),
        ("BEGIN", sqlite3.SQLITE_READONLY, "Use it where it can be written.*without writing to it", 128),
        ("UPDATE", sqlite3.SQLITE_IOERR_WRITE, "which only costs the time.*without writing to it", 64),
        ("SELECT hash", sqlite3.SQLITE_IOERR_READ, "which only costs the time.*without reading or writing it", 64),
    ],
)
def test_a_store_that_fails_in_mid_run_is_left_with_one_warning(
    store, images, monkeypatch, statement, code, says, n_kept
):
    usual = _feature_store._connect
    with monkeypatch.context() as broken:
        broken.setattr(
            "histofeat.features._feature_store._connect", lambda path: _Failing(usual(path), statement, 2, code)
        )
        with pytest.warns(RuntimeWarning, match=says) as said:
            found = extract(FAMILIES, images, store=store)
    assert len(said) == 1
    assert_same(found, FAMILIES, images)
    assert {entry.n_images for entry in store.entries()} == {n_kept}
    assert dict(extract(FAMILIES, images, store=store).computed) == dict.fromkeys(("color", "lbp"), 200 - n_kept)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_removed_in_mid_run(store, images, replaced):
    def remove(done, total):
        Path(store.path).unlink(missing_ok=True)
        if replaced:
            Path(store.path).write_bytes(b"something else")

    with pytest.warns(RuntimeWarning, match=r"another file has taken|No such file.* goes on without writing") as said:
        found = extract(FAMILIES, images, store=store, progress=remove)
    assert len(said) == 1
    assert_same(found, FAMILIES, images)
    assert not replaced or Path(store.path).read_bytes() == b"something else"


def test_a_store_that_cannot_be_written_is_read(store, images, monkeypatch):
    """The mode of a file does not bind the superuser, hence the answer of `os.access` too."""
    extract(FAMILIES, images[:50], store=store)
    folder = Path(store.path).parent
    monkeypatch.setattr("os.access", lambda place, mode: False)
    Path(store.path).chmod(0o400)
    folder.chmod(0o500)
    try:
        assert counts(store) == {"color": (50, 50), "lbp": (50, 50)}
        assert "2 extractors" in store.summary()
        with pytest.warns(RuntimeWarning, match=r"readonly database.*Use it where it can be written") as said:
            found = extract(FAMILIES, images[::-1], store=store)
        assert len(said) == 1
        assert dict(found.computed) == {"color": 150, "lbp": 150}
        assert_same(found, FAMILIES, images[::-1])
        with pytest.raises(ValueError, match="readonly database"):
            store.purge()
        assert [file.name for file in folder.iterdir()] == ["features.sqlite"]
    finally:
        folder.chmod(0o700)


def test_a_scratch_store_goes_with_the_block_and_can_be_missing(path, monkeypatch):
    with scratch_store(path) as given:
        assert given == path
    with scratch_store() as made:
        assert dict(extract(FAMILIES, np.zeros((1, 5, 5, 3), dtype=np.uint8), store=made).computed) == {
            "color": 1,
            "lbp": 1,
        }
        assert Path(made).is_file()
    assert not Path(made).parent.exists()

    def refuse(**_):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with scratch_store() as missing:
        assert missing is None


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["DROP TABLE features", "CREATE TABLE features (id INTEGER PRIMARY KEY, row TEXT)"], "table 'features'"),
        (["DROP TABLE features"], "table 'features'"),
        (["ALTER TABLE features ADD COLUMN more"], "table 'features'"),
        (
            [
                "ALTER TABLE features RENAME TO kept",
                "CREATE VIEW features AS SELECT id, zeroblob(724) AS row FROM kept",
            ],
            "features'",
        ),
        (["CREATE TRIGGER t AFTER INSERT ON features BEGIN DELETE FROM images; END"], "trigger 't'"),
        (["CREATE VIEW other AS SELECT * FROM images"], "view 'other'"),
        (["CREATE INDEX more ON features (row)"], "index 'more'"),
    ],
)
def test_only_tables_of_our_own_are_a_store(store, images, monkeypatch, statements, named):
    extract(FAMILIES, images[:3], store=store)
    for statement in statements:
        sql(store.path, statement)
    in_a_new_process(monkeypatch)
    before = Path(store.path).read_bytes()
    with pytest.raises(ValueError, match=rf"expected the tables of a feature store and nothing else, got a .*{named}"):
        extract(FAMILIES, images, store=store)
    assert Path(store.path).read_bytes() == before


def test_the_statistics_of_sqlite_are_no_foreign_table(store, images):
    extract(FAMILIES, images[:3], store=store)
    sql(store.path, "ANALYZE")
    assert dict(extract(FAMILIES, images[:3], store=store).computed) == {"color": 0, "lbp": 0}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files")
def test_nothing_stays_open(store, tmp_path, images):
    def still_open():
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if str(link.readlink()).startswith(str(tmp_path))]

    extract(FAMILIES, images, store=store, n_jobs=2)
    store.summary()
    store.purge("lbp")
    with pytest.raises(RuntimeError, match="stop"), store.session():
        raise RuntimeError("stop")
    (tmp_path / "no database").write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match="file is not a database"):
        FeatureStore(tmp_path / "no database").entries()
    assert still_open() == []
    assert [path.name for path in Path(store.path).parent.iterdir()] == ["features.sqlite"]


def test_a_frame_has_what_is_stored_and_measures_nothing(store, images):
    family = ColorHistogram()
    (measured,) = extract([family], images[:3], store=store).features
    frame = store.to_frame(family, images[:5])
    assert frame.columns.tolist() == family.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame.iloc[:3], measured)
    assert set(frame.dtypes) == {np.dtype("float32")}
    assert frame.iloc[3:].isna().all(axis=None)
    assert store.to_frame(LBPHistogram(), images[:2]).isna().all(axis=None)
    assert {entry.family for entry in store.entries()} == {"color"}


def test_a_frame_is_indexed_by_the_names_of_the_images(store, cohort):
    extract([LBPHistogram()], cohort.X[:2], store=store)
    frame = store.to_frame(LBPHistogram(), cohort.X[:3])
    assert frame.index.tolist() == cohort.X[:3].tolist()
    assert frame.notna().all(axis=1).tolist() == [True, True, False]
