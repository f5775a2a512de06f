"""Single hostile files stay within bounds of memory and time, each in a process of its own."""

from pathlib import Path

import memory
import pytest

#: Those that are read in the suite, too; all are by `make long`.
QUICK = ("header of 100,000 x 100,000.png",)


def check(rows):
    for row in rows:
        assert row["outcome"] != "hangs", row
        assert ": expected " in row["outcome"] or row["outcome"] == "read", row
        assert 0 < row["peak_mib"] <= memory.MOST_MIB, row
        assert row["seconds"] <= memory.MOST_S, row


@pytest.mark.long
def test_hostile_files_are_refused_or_read_within_bounds():
    rows = memory.hostile_rows()
    assert len(rows) == len(memory.HOSTILE) > 15
    check(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_one(name):
    check(memory.hostile_rows([name]))


@pytest.mark.long
def test_memory_of_an_extraction_grows_by_its_features_alone():
    few, many = (memory.in_a_process(["patches", n], None) for n in (2000, 22_000))
    # 180 features of 4 bytes, the path, and what lists and dicts take; nothing of the pixels.
    assert many["peak_mib"] - few["peak_mib"] < 20_000 * 4096 / 2**20, (few, many)


def test_a_process_that_ends_or_hangs_is_said(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    assert memory.in_a_process(["nothing"])["outcome"].startswith("the process ended (")
    assert memory.in_a_process(["one", tmp_path / "x.png"], patience_s=0.01)["outcome"] == "hangs"


def test_made_up_patches_differ(tmp_path):
    paths = memory.make_patches(tmp_path, 7)
    assert len({Path(path).read_bytes() for path in paths}) == 7
