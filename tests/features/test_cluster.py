"""`Runtime(cluster=...)`: work on the processes of a Dask cluster gives the same bits, warnings and sentences."""

import os
import signal
import sys
import warnings
from concurrent.futures import CancelledError

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer

from histofeat import IDCPipeline, evaluate, make_cohort
from histofeat.exceptions import ClusterError, MissingExtraError, PatchError
from histofeat.features import ColorHistogram, LBPHistogram, Runtime, _runtime, extract
from histofeat.model_selection import PatientKFold

distributed = pytest.importorskip("distributed")
LOCAL = "local:2"
#: A worker in a thread: that is quick.
IN_A_THREAD = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(n_patients=8, patches_per_patient=40, root=tmp_path_factory.mktemp("cohort") / "cohort")


@pytest.fixture(scope="module")
def runtime():
    """Two processes for all long tests of this module: to start them takes seconds."""
    yield Runtime.of(Runtime(cluster=LOCAL, progress=False))
    _runtime._opened[LOCAL].close()


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler that somebody else has started, with a worker in a thread: that is quick."""
    with distributed.LocalCluster(protocol="tcp", **IN_A_THREAD) as cluster:
        yield cluster.scheduler_address
        if cluster.scheduler_address in _runtime._opened:
            _runtime._opened[cluster.scheduler_address].close()


def square(number, marker=None):
    """A call that kills its worker, once for each missing file of `marker`."""
    if marker is not None and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def warn(number):
    warnings.warn(f"careful with {number}", UserWarning, stacklevel=1)
    return number


def leave(code):
    raise SystemExit(code)


def full(path):
    raise OSError(28, "No space left on device", path)


def same_memory(array, other):
    """Whether two arguments are one object; and the kind of memory that they are in."""
    return array is other, type(array).__name__, float(array.sum())


def test_calls_go_to_a_scheduler_that_runs(scheduler, cohort):
    runtime, families = Runtime.of(Runtime(cluster=scheduler)), [ColorHistogram(), LBPHistogram()]
    assert list(runtime.each(lambda number: runtime.call(square, number), range(7))) == [0, 1, 4, 9, 16, 25, 36]
    with pytest.warns(UserWarning, match="careful with 4"):
        assert runtime.call(warn, 4) == 4
    with pytest.raises(SystemExit, match="3"):
        runtime.call(leave, 3)
    large = np.arange(400_000.0)
    assert runtime.call(same_memory, large, large) == (True, "ndarray", large.sum())
    here, away = (extract(families, cohort.X, cluster=each) for each in (None, scheduler))
    assert all(map(np.array_equal, here.features, away.features))


def test_workers_of_other_versions_are_refused(scheduler, monkeypatch):
    monkeypatch.setattr("histofeat.features._runtime._opened", {})
    of_here, others = distributed.versions.get_versions, {"packages": {"numpy": "1.0", "scipy": "1.0"}}
    # Those of the client alone: the worker has the function by another name.
    monkeypatch.setattr("distributed.versions.get_versions", lambda packages=(): others if packages else of_here())
    with pytest.raises(ClusterError, match=r"workers with numpy 1\.0, got \d.* at tcp.*Install the same versions"):
        Runtime.of(Runtime(cluster=scheduler))


@pytest.mark.long
def test_calls_are_made_by_processes_in_order(runtime):
    assert list(runtime.each(lambda number: runtime.call(square, number), range(7))) == [0, 1, 4, 9, 16, 25, 36]
    assert runtime.call(os.getpid) != os.getpid()
    assert Runtime().call(os.getpid) == os.getpid()


@pytest.mark.long
def test_a_large_array_is_mapped_and_not_sent(runtime):
    large = np.arange(400_000.0)
    assert runtime.call(same_memory, large, large) == (True, "memmap", large.sum())
    assert runtime.call(same_memory, large[:10], large[:10])[1:] == ("ndarray", 45.0)


@pytest.mark.long
def test_a_killed_worker_costs_its_call_only(runtime, tmp_path):
    marker = tmp_path / "killed"
    found = list(runtime.each(lambda number: runtime.call(square, number, marker), range(6)))
    assert found == [0, 1, 4, 9, 16, 25]
    assert marker.exists()


@pytest.mark.long
def test_a_call_that_kills_each_worker_ends(runtime):
    with pytest.raises(ClusterError, match=r"expected workers that survive die, got 4 that died of it\. Give them"):
        runtime.call(die, 1)
    assert runtime.call(square, 3) == 9


@pytest.mark.long
def test_warnings_and_errors_come_back(runtime):
    with pytest.warns(UserWarning, match="careful with 4"):
        assert runtime.call(warn, 4) == 4
    with pytest.raises(SystemExit, match="3"):
        runtime.call(leave, 3)
    with pytest.raises(OSError, match="No space left on device: 'here'"):
        runtime.call(full, "here")


@pytest.mark.long
def test_extraction_is_the_same_to_the_bit(runtime, cohort, tmp_path):
    families = [ColorHistogram(), LBPHistogram(), *IDCPipeline([FunctionTransformer(np.sign)]).families()][:2]
    here, store = extract(families, cohort.X), tmp_path / "features.sqlite"
    for X in (cohort.X, [*map(str, cohort.X)]):
        away = extract(families, X, cluster=LOCAL, store=store)
        assert all(map(np.array_equal, here.features, away.features))
        assert (away.conversions, away.failures) == (here.conversions, {})
    assert away.computed == {"color": 0, "lbp": 0}  # the second time they are in the store
    pixels = np.random.default_rng(0).integers(0, 256, (300, 50, 50, 3), dtype=np.uint8)
    assert np.array_equal(extract(families, pixels, cluster=LOCAL).features[1], extract(families, pixels).features[1])


@pytest.mark.long
def test_an_unreadable_image_is_named_as_here(runtime, cohort, tmp_path):
    paths = [*cohort.X[:20]]
    paths[7] = str(tmp_path / "damaged.png")
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    with pytest.raises(PatchError) as here:
        extract([ColorHistogram()], paths)
    with pytest.raises(PatchError) as away:
        extract([ColorHistogram()], paths, cluster=LOCAL)
    assert str(here.value) == str(away.value)
    skipped = [extract([ColorHistogram()], paths, on_error="skip", cluster=each) for each in (None, LOCAL)]
    assert skipped[0].failures == skipped[1].failures
    assert [*skipped[1].failures] == [7]
    assert np.array_equal(skipped[0].features[0], skipped[1].features[0], equal_nan=True)


def evaluated(cohort, pipelines, **settings):
    folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}
    return evaluate(cohort, pipelines, **folds, runtime=Runtime(progress=False, **settings))


@pytest.mark.long
def test_an_evaluation_is_the_same_to_the_bit(runtime, cohort):
    pipelines = {
        "color": IDCPipeline(features="color", head="xgboost"),
        "normalised": IDCPipeline(features="gray", head="svm", normalizer="reinhard"),
        "own": IDCPipeline([FunctionTransformer(lambda images: images.mean(axis=(1, 2)))], head="logistic"),
    }
    here, away = evaluated(cohort, pipelines), evaluated(cohort, pipelines, cluster=LOCAL)
    for one, other in zip(here.models, away.models, strict=True):
        assert np.array_equal(one.proba, other.proba)
        assert np.array_equal(one.calibrated, other.calibrated)
        assert (one.thresholds, one.notes, one.scores) == (other.thresholds, other.notes, other.scores)


class Broken(FunctionTransformer):
    """A classifier of a user, which fails."""

    def predict(self, X):
        return X

    predict_proba = predict

    def fit(self, X, y):
        raise RuntimeError("out of luck")


@pytest.mark.long
def test_a_model_that_cannot_run_has_the_same_reason(runtime, cohort):
    pipelines = {"color": IDCPipeline(features="color", head="logistic"), "broken": Broken()}
    found = []
    for cluster in (None, LOCAL):
        with pytest.warns(UserWarning, match="not run: broken"):
            found.append(evaluated(cohort, pipelines, cluster=cluster).not_run)
    assert found[0] == found[1]
    assert "out of luck" in found[0][0].reason


@pytest.mark.parametrize("address", ["local:0", "local", "myhost", 3])
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match=r"Runtime\.cluster: expected 'local:N' or the address of a scheduler, got"):
        Runtime(cluster=address)


def test_a_dead_scheduler(monkeypatch):
    monkeypatch.setattr("histofeat.features._runtime._PATIENCE_S", 1)
    with pytest.raises(ClusterError, match=r"scheduler that answers, got none in 1 seconds at tcp://127\.0\.0\.1:9\."):
        Runtime.of(Runtime(cluster="tcp://127.0.0.1:9"))


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"expected the package distributed .*histofeat\[cluster\]"):
        Runtime.of(Runtime(cluster="local:1"))


class Lost:
    """What a call becomes when the connection to the scheduler breaks."""

    def result(self, timeout):
        raise CancelledError


def test_a_scheduler_that_is_lost(scheduler, monkeypatch):
    runtime, connection = Runtime.of(Runtime(cluster=scheduler)), _runtime._opened[scheduler]
    monkeypatch.setattr(connection.client, "submit", lambda *args, **settings: Lost())
    monkeypatch.setattr(connection, "_stopped", True)
    with pytest.raises(ClusterError, match=r"scheduler that stays, got a lost connection to tcp.*Start it again"):
        runtime.call(square, 3)
    assert connection.client.status == "closed"
