"""Fixtures that several test modules share: patches made here, and real data where it is at hand."""

import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def _loaded_script(name):
    """Give a script of benchmarks/, such as "protocols/leakage.py", as a module; afterwards nothing of it is left.

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
