"""Compiled code and caches: only where this user alone can write, and without any where there is no such place."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from histofeat import make_cohort
from histofeat.features import ColorHistogram, extract
from histofeat.images import _kernels, compiled, is_own, own_folder, use_own_folder, user_cache
from histofeat.networks.pretrained._weights import import_hub

PACKAGE = Path(_kernels.__file__).parents[2]
unix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners and modes of files")


@pytest.fixture(autouse=True)
def _say_again():
    """Warnings are given once in a process: here once in a test."""
    for once in (_kernels._say_no_cache, _kernels._passing_cache):
        once.cache_clear()
    yield
    for once in (_kernels._say_no_cache, _kernels._passing_cache):
        once.cache_clear()


@pytest.fixture
def homeless(monkeypatch):
    """A user of whom the system knows no home."""
    for name in ("HOME", "XDG_CACHE_HOME", "KERAS_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)


# --- whose a folder is -----------------------------------------------------------------------------------------------


@unix
def test_a_folder_that_others_can_write_is_not_ours(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    assert is_own(tmp_path)
    assert is_own(shared / "not made yet" / "deeper")
    shared.chmod(0o777)
    assert not is_own(shared)
    assert not is_own(shared / "deeper")
    shared.chmod(0o1777)
    assert not is_own(shared), "others can put files into it"
    assert is_own(shared / "deeper"), "nobody can move what is ours in it"
    shared.chmod(0o775)
    assert is_own(shared)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_of_another_user_is_not_ours(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    assert not is_own(folder)
    assert not is_own(folder / "deeper")


def test_a_path_that_hangs_on_the_working_folder_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_own("here")
    assert not is_own(Path("~/.cache"))


@unix
def test_a_folder_that_cannot_be_looked_at_is_not_ours(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    assert not is_own(tmp_path)


# --- folders for what can be made again ------------------------------------------------------------------------------


def test_without_a_home_the_cache_goes_with_the_process(homeless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"got none\. Every process .*; set XDG_CACHE_HOME to such") as said:
        places = [user_cache() for _ in range(2)]
    cache = places[0]
    assert places == [cache, cache]
    assert len(said) == 1
    assert cache.is_dir()
    assert is_own(cache)
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(cache)


def test_a_cache_that_another_user_prepared_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "histofeat").mkdir()
    (tmp_path / "histofeat").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="this user alone"):
        assert user_cache().parent != tmp_path
    (tmp_path / "histofeat").chmod(0o700)
    assert user_cache() == tmp_path / "histofeat"


def test_without_any_place_the_cache_cannot_be_written(homeless, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.warns(RuntimeWarning, match="cache: expected a folder"), pytest.raises(OSError, match="irectory"):
        user_cache().mkdir(parents=True)


def test_the_second_place_is_taken_where_there_is_no_folder_for_temporary_files(homeless, tmp_path, monkeypatch):
    usual = tempfile.mkdtemp

    def mkdtemp(prefix, dir):
        if dir is None:
            raise FileNotFoundError("No usable temporary directory found")
        return usual(prefix=prefix, dir=tmp_path)

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.warns(RuntimeWarning, match="cache"):
        assert user_cache().parent == tmp_path
    assert tempfile.tempdir == "/dev/shm"


def test_other_packages_keep_their_folder_if_it_is_ours(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    use_own_folder("KERAS_HOME", str(tmp_path / ".keras"))
    assert "KERAS_HOME" not in os.environ
    monkeypatch.setenv("KERAS_HOME", "chosen")
    use_own_folder("KERAS_HOME", "~/.keras")
    assert os.environ["KERAS_HOME"] == "chosen"


@pytest.mark.parametrize("why", ["shared", "read-only", "no home"])
def test_other_packages_get_a_folder_where_theirs_is_not_ours(tmp_path, monkeypatch, why):
    monkeypatch.setenv("KERAS_HOME", "restored after the test")
    monkeypatch.delenv("KERAS_HOME")
    usual = "~/.keras" if why == "no home" else str(tmp_path / ".keras")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    if why == "shared":
        tmp_path.chmod(0o777)
    if why == "read-only":
        monkeypatch.setattr("os.access", lambda place, mode: False)
    with pytest.warns(RuntimeWarning, match="XDG_CACHE_HOME"):
        use_own_folder("KERAS_HOME", usual)
    assert is_own(os.environ["KERAS_HOME"])
    assert not Path(os.environ["KERAS_HOME"]).is_relative_to(tmp_path)
    tmp_path.chmod(0o700)


def test_keras_is_kept_from_a_folder_that_anybody_can_make(homeless, monkeypatch):
    with pytest.warns(RuntimeWarning, match="XDG_CACHE_HOME"), own_folder("KERAS_HOME", "~/.keras"):
        assert is_own(os.environ["KERAS_HOME"])
    # Weights that lie in the home are found all the same.
    assert "KERAS_HOME" not in os.environ
    monkeypatch.setenv("KERAS_HOME", "chosen")
    with own_folder("KERAS_HOME", "~/.keras"):
        assert os.environ["KERAS_HOME"] == "chosen"
    assert os.environ["KERAS_HOME"] == "chosen"


def test_the_hub_makes_no_folder_below_the_working_one(homeless, monkeypatch):
    monkeypatch.setenv("HF_HOME", "restored after the test")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setitem(sys.modules, "huggingface_hub", ModuleType("huggingface_hub"))
    with pytest.warns(RuntimeWarning, match="XDG_CACHE_HOME"):
        import_hub()
    assert is_own(os.environ["HF_HOME"])


# --- kernels ---------------------------------------------------------------------------------------------------------


def _plus_one(x):
    return x + 1


def test_a_kernel_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    assert compiled(_plus_one)(1) == 2
    again = compiled(error_model="numpy")(_plus_one)
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("content", [b"", b"noise", b"\x80\x05"])
def test_damaged_files_of_the_cache_cost_time(tmp_path, monkeypatch, content):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    compiled(_plus_one)(1)
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="cache: expected a folder that can be used"):
        assert compiled(_plus_one)(1) == 2


def test_a_full_disk_costs_time(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    with pytest.warns(RuntimeWarning, match="cache: expected a folder that can be used"):
        assert compiled(_plus_one)(1) == 2


def test_no_place_for_the_cache_is_one_warning(monkeypatch):
    """Numba refuses to decorate where it finds no place."""

    def refuse(self):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", refuse)
    with pytest.warns(RuntimeWarning, match="Every process compiles") as said:
        kernels = [compiled(_plus_one), compiled(error_model="numpy")(_plus_one)]
    assert len(said) == 1
    assert [kernel(1) for kernel in kernels] == [2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="Numba's folder in the home is another one")
def test_code_is_not_read_from_a_folder_that_others_can_fill(homeless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda place, mode: False)  # beside the source
    with pytest.warns(RuntimeWarning, match="this user alone"):
        assert compiled(_plus_one)(1) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_numba_a_kernel_is_the_function(monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert compiled(_plus_one) is _plus_one


# --- a container -----------------------------------------------------------------------------------------------------


def _without_rights(command, tmp_path):
    """Run a command as a user without name, home and any right to write, but in one folder."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv (Linux) to become a user without a name")
    # It may read everything, as in an image of a container that was made for all.
    rights = "-all,+dac_read_search"
    jail = ["setpriv", "--securebits", "+no_setuid_fixup", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    jail += [f"--{kind}={rights}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    env = ["env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={PACKAGE}", "PYTHONDONTWRITEBYTECODE=1"]
    folder = tmp_path / "cwd"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    found = subprocess.run(
        [*jail, *env, sys.executable, "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "setpriv:" in found.stderr:
        pytest.skip(f"this system does not let go of rights: {found.stderr}")
    assert found.returncode == 0, found.stderr
    return found


def test_a_user_without_name_and_home(tmp_path):
    store = tmp_path / "kept" / "features.sqlite"
    extract([ColorHistogram()], np.zeros((3, 9, 9, 3), dtype=np.uint8), store=store)
    command = f"""
from histofeat.cli import main
from histofeat.images import quantised_stains, user_cache
from histofeat.reporting._strict_json import own_folders
print(quantised_stains.__name__)  # its kernels are decorated, which Numba refused to do; compiling takes seconds
assert main(["store", {str(store)!r}]) == 0
print(user_cache().is_dir(), list(own_folders().values()))
"""
    found = _without_rights(command, tmp_path)
    first, *_, last = found.stdout.splitlines()
    assert first == "quantised_stains"
    assert "color: 1 images x 180 features" in found.stdout
    assert last == "True ['.']"
    assert found.stderr.count("cache: expected a folder") == 1
    assert list((tmp_path / "cwd").iterdir()) == [], "a cache below the working folder"
    assert [file.name for file in store.parent.iterdir()] == ["features.sqlite"]


@pytest.mark.long
def test_the_command_line_for_a_user_without_name_and_home(tmp_path):
    make_cohort(n_patients=6, patches_per_patient=4, root=tmp_path / "data", random_state=0)
    command = f"""
from histofeat.cli import main
data = {str(tmp_path / "data")!r}
assert main(["audit", data]) == 0
assert main(["train", data, "-o", "m.histofeat", "--features", "color", "--head", "logistic", "--folds", "2"]) == 0
assert main(["predict", "m.histofeat", data, "-o", "p"]) == 0
from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.datasets import load_idc
from histofeat.reporting import write_report
pipelines = {{"a": IDCPipeline(features="gray", head="logistic")}}
found = evaluate(load_idc(data), pipelines, PatientKFold(2), n_resamples=0)
write_report(found, "report")
"""
    found = _without_rights(command, tmp_path)
    assert found.stderr.count("cache: expected a folder") == 1
    written = ["m.histofeat", "m.run.toml", "p", "p.run.toml", "p_facts.json", "report"]
    assert sorted(file.name for file in (tmp_path / "cwd").iterdir()) == written
