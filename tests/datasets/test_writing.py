"""`write_whole`: a file or folder is there complete, or what was there before is there unchanged."""

from pathlib import Path

import pytest

from histofeat.datasets import write_whole


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


def test_with_last_files_join_those_that_are_there(tmp_path, monkeypatch):
    target = tmp_path / "report"
    target.mkdir()
    (target / "mine").write_text("x")
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (moved.append(self.name), replace(self, to))[1])
    with write_whole(target, folder=True, last="done.json") as part:
        for name in ("done.json", "inner/figure", "z"):
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_text("new")
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == {
        "mine",
        "done.json",
        "inner/figure",
        "z",
    }
    assert moved[-1] == "done.json"
