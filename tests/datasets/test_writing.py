"""`write_whole`: a file or folder is there complete, or what was there before is there unchanged."""

import csv
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import check_place, csv_text, printable, read_csv_rows, table_bytes, write_whole

#: Writes a folder over that of the first argument, and is killed where the second one says.
KILLED = """
import os, signal, sys
from pathlib import Path
from histofeat.datasets import write_whole

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def move(self, to, rename=Path.rename):
    return die() if self.parent.name == "new" else rename(self, to)

with write_whole(sys.argv[1], folder=True, replaced=["old"]) as part:
    (part / "file").write_text("new")
    if sys.argv[2] == "writing":
        die()
    Path.rename = move
"""


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_parents_that_were_made_go_when_the_block_fails(tmp_path):
    (tmp_path / "kept").mkdir()
    for folder in (False, True):
        with pytest.raises(KeyError), write_whole(tmp_path / "kept" / "a" / "b" / "c", folder=folder, parents=True):
            raise KeyError
    assert [*tmp_path.rglob("*")] == [tmp_path / "kept"]


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path):
    target = tmp_path / "new" / "scores.csv"
    with write_whole(target, parents=True) as part:
        part.write_text("a")
        assert part.name == target.name
        assert not target.exists()
    assert target.read_text() == "a"
    assert [path.name for path in target.parent.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_in_the_block_leaves_nothing(tmp_path, folder):
    def fail():
        with write_whole(tmp_path / "out", folder=folder) as part:
            (part / "a" if folder else part).write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_with_overwrite(tmp_path):
    target = tmp_path / "model"
    target.write_text("old")
    with pytest.raises(FileExistsError, match="model"), write_whole(target) as part:
        part.write_text("new")
    assert target.read_text() == "old"
    with write_whole(target, overwrite=True) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_without_links_gets_a_move(tmp_path, monkeypatch, there):
    def refuse(self, other):
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = tmp_path / "file"
    if there:
        target.write_text("old")
        with pytest.raises(FileExistsError, match="file"), write_whole(target) as part:
            part.write_text("new")
    else:
        with write_whole(target) as part:
            part.write_text("new")
    assert target.read_text() == ("old" if there else "new")


def test_a_folder_takes_the_place_of_none_or_of_an_empty_one(tmp_path):
    for name in ("new", "empty"):
        target = tmp_path / name
        if name == "empty":
            target.mkdir()
        with write_whole(target, folder=True) as part:
            (part / "inner").mkdir()
            (part / "inner" / "file").write_text("x")
        assert (target / "inner" / "file").read_text() == "x"


def test_a_folder_that_holds_files_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="full"), write_whole(tmp_path / "full", folder=True) as part:
        (part / "other").write_text("y")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_folder_takes_the_place_of_another_which_keeps_its_other_files(tmp_path):
    target = tmp_path / "report"
    (target / "inner").mkdir(parents=True)
    (target / "empty").mkdir()
    for name in ("done.json", "inner/figure", "inner/mine", "notes"):
        (target / name).write_text("old")
    (target / "link").symlink_to("notes")
    with write_whole(target, folder=True, replaced=["done.json", "inner/figure", "z"]) as part:
        (part / "done.json").write_text("new")
        assert (target / "done.json").read_text() == "old"
    assert content(target) == {"done.json": "new", "inner/mine": "old", "notes": "old", "link": "old"}
    assert (target / "link").is_symlink()
    assert (target / "empty").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_without_links_other_files_are_copied(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with write_whole(tmp_path / "out", folder=True, replaced=[]) as part:
        (part / "other").write_text("y")
    assert content(tmp_path / "out") == {"mine": "x", "other": "y"}


def test_an_error_between_the_two_moves_puts_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("old")
    rename = Path.rename

    def move(self, to):
        if self.parent.name == "new":
            raise KeyboardInterrupt
        return rename(self, to)

    def stop():
        with write_whole(tmp_path / "out", folder=True, replaced=["file"]) as part:
            (part / "file").write_text("new")
            monkeypatch.setattr(Path, "rename", move)

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert content(tmp_path) == {"out/file": "old"}


@pytest.mark.parametrize("moment", ["writing", "between the moves"])
def test_what_a_killed_process_left_is_removed_and_the_old_folder_put_back(tmp_path, moment):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    others = (".out.mine.partial", ".other.00000000.partial")
    for name in others:
        (tmp_path / name).mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, target, moment], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == (4 if moment == "writing" else 3)
    check_place(target, folder=True)
    assert content(tmp_path) == {"out/old": "old"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", *others}


def test_what_a_running_process_writes_is_left_alone(tmp_path):
    with write_whole(tmp_path / "out") as part:
        part.write_text("first")
        with write_whole(tmp_path / "out") as other:
            other.write_text("second")
        with pytest.raises(FileExistsError, match="out: expected a new file, got one that exists"):
            check_and_write(tmp_path / "out")
        assert part.read_text() == "first"
        (tmp_path / "out").unlink()
    assert content(tmp_path) == {"out": "first"}


def check_and_write(path):
    check_place(path)
    with write_whole(path) as part:
        part.write_text("third")


def test_a_link_is_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "folder").mkdir()
    for name in ("file.txt", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "far" / name)
    with write_whole(tmp_path / "file.txt") as part:  # a link to nothing yet
        part.write_text("a")
    with write_whole(tmp_path / "file.txt", overwrite=True) as part:
        assert part.suffix == ".txt"
        part.write_text("b")
    with write_whole(tmp_path / "folder", folder=True) as part:
        (part / "c").write_text("c")
    assert content(tmp_path / "far") == {"file.txt": "b", "folder/c": "c"}
    assert (tmp_path / "file.txt").is_symlink()
    assert (tmp_path / "folder").is_symlink()


@pytest.mark.parametrize("inside", ["", "inner"])
def test_the_current_folder_is_refused(tmp_path, monkeypatch, inside):
    (tmp_path / "out" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out" / inside)
    with pytest.raises(FileExistsError, match=r"out: expected a folder that can be replaced, got the current one or"):
        check_place(tmp_path / "out", folder=True)


@pytest.mark.parametrize(
    ("name", "got"),
    [("a" * 300, "File name too long"), ("file/inner", "Not a directory"), ("b" * 300 + "/inner", "File name too")],
)
def test_a_place_that_cannot_be_written_gets_a_sentence_before_and_after(tmp_path, name, got):
    (tmp_path / "file").touch()
    pattern = rf"{name[:9]}.*: expected a place that can be written, got {got}.*. Give another name or folder\.$"
    with pytest.raises(OSError, match=pattern):
        check_place(tmp_path / name)
    with pytest.raises(OSError, match=pattern):
        check_place(tmp_path / name, folder=True)
    with pytest.raises(OSError, match=pattern.replace(got, "(File exists|Not a|File name)")):  # noqa: SIM117
        with write_whole(tmp_path / name, parents=True) as part:
            part.write_text("a")
    assert content(tmp_path) == {"file": ""}


@pytest.mark.parametrize(("number", "whose"), [(errno.ENOSPC, "out: expected a place"), (errno.ENOENT, "Errno 2")])
def test_a_full_disk_names_what_was_written_and_other_errors_stay(tmp_path, number, whose):
    def write():
        with write_whole(tmp_path / "out") as part:
            part.write_text("half")
            raise OSError(number, os.strerror(number), "elsewhere")

    with pytest.raises(OSError, match=whose) as caught:
        write()
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limits")
def test_a_full_disk_is_found_before_the_work(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"table\.csv: expected a place that can be written, got File too large"):
            check_place(tmp_path / "table.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    check_place(tmp_path / "table.csv")


def test_a_folder_without_rights_gets_a_sentence(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"out: expected a place that can be written, got Permission denied\."):
        check_place(tmp_path / "out")


def test_a_disk_without_locks_is_written_and_never_swept(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".out.00000000.partial").mkdir()
    with write_whole(tmp_path / "out") as part:
        part.write_text("a")
    assert len(list(tmp_path.iterdir())) == 2


HOSTILE = (
    *(
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        "'=1",
        "''=1",
        "'",
        "'a",
        "-",
        "a-b",
        "a\rb",
        "a\nb",
    ),
    *("良性", 'a"b', "a,b", "<b>&"),
)


def test_cells_are_no_formulas_and_are_read_back(tmp_path):
    table = pd.DataFrame({"path": HOSTILE, "=name": pd.Categorical(HOSTILE), "n": range(len(HOSTILE))})
    file = tmp_path / "table.csv"
    file.write_text(csv_text(table), encoding="utf-8", newline="")
    with file.open(encoding="utf-8", newline="") as opened:
        for line in csv.reader(opened):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in line)
    found = read_csv_rows(file, ["path"], owner="t")
    assert found.columns == ("path", "=name", "n")
    assert [row["path"] for row in found.rows] == list(HOSTILE)
    assert [row["=name"] for row in found.rows] == [text.strip() for text in HOSTILE]


def test_numbers_are_left_alone():
    table = pd.DataFrame(
        {"a": [-1.5, np.nan], "b": [-1, 2], "c": ["-1e-3", "+2"], "d": pd.Series([-3, None], dtype=object)}
    )
    assert csv_text(table, float_format="%.2f") == "a,b,c,d\n-1.50,-1,-1e-3,-3\n,2,+2,\n"
    assert csv_text(table[["c"]], header=False) == "-1e-3\n+2\n"


def test_only_what_no_file_can_hold_is_written_as_an_escape():
    table = pd.DataFrame({"image": ["良性 caf\udce9"]}, dtype=object)
    assert csv_text(table) == "image\n良性 caf\\udce9\n"
    assert printable("良性 é \udce9") == "良性 é \\udce9"


def test_every_table_is_written_by_the_one_function_that_guards_it():
    """Found in the source: all other ways to write CSV."""
    root = Path(__file__).resolve().parents[2]
    found = [
        f"{path.name}: {line.strip()}"
        for folder in ("histofeat", "benchmarks")
        for path in (root / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\.to_csv\(|csv\.(Dict)?[wW]riter\(", line) and ">>>" not in line and path.name != "_csv_rows.py"
    ]
    # The results of a study and the key to pseudonyms turn themselves into CSV, through that function.
    assert sorted(line.split(":")[0] for line in found) == ["_report.py", "_studies.py"]


def test_a_device_is_never_replaced(tmp_path):
    (tmp_path / "out").symlink_to(os.devnull)
    with (
        pytest.raises(FileExistsError, match="expected a file or a new name, got a folder or a device"),
        write_whole(tmp_path / "out", overwrite=True) as part,
    ):
        part.write_text("x")
    assert Path(os.devnull).is_char_device()


def test_a_table_in_csv_keeps_all_digits():
    values = np.array([0.1 + 0.2, 1 - 2**-53, 1e-12, 0.25])
    text = table_bytes(pd.DataFrame({"p": values}), "csv").decode()
    assert [float(line) for line in text.splitlines()[1:]] == values.tolist()
