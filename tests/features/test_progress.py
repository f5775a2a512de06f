"""Progress on stderr: in a terminal, in a log, for readers that go away."""

import os
import pickle
import sys

import pytest

from histofeat.features import Progress, Runtime, _progress as progress_module


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress_module.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr, as it is when this is called, a terminal."""
    return lambda: monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)


def test_progress_is_one_line_in_a_terminal_and_few_in_a_log(capsys, monkeypatch):
    log = Progress()
    for done in range(1, 101):
        log("read", done, 100)
    assert capsys.readouterr().err.splitlines() == ["read: 1 of 100, 0 s", "read: 100 of 100, 0 s"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    terminal = Progress()
    terminal("read", 1, 2)
    terminal.say("a sentence")
    terminal("read", 2, 2)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 3
    assert printed.startswith("\r\033[Kread: 1 of 2")
    Progress(quiet=True).say("nothing")
    Progress(quiet=True)("read", 1, 1)
    assert capsys.readouterr().err == ""


def test_the_time_left_is_said_after_two_seconds(clock, terminal, capsys):
    terminal()
    progress = Progress()
    progress("extract", 100, 1100)  # an earlier run left 100: they say nothing about the speed of this one
    clock.now += 1
    progress("extract", 200, 1100)
    assert "left" not in capsys.readouterr().err
    clock.now += 1
    progress("extract", 300, 1100)
    assert capsys.readouterr().err.endswith("extract: 300 of 1,100, 2 s, about 8 s left")
    clock.now += 600
    progress("extract", 301, 1100)
    assert capsys.readouterr().err.endswith("602 s, about 40 min left")
    clock.now += 6000
    progress("extract", 302, 1100)
    assert capsys.readouterr().err.endswith("6602 s, about 7.2 h left")
    progress("extract", 1100, 1100)
    assert capsys.readouterr().err.endswith("extract: 1,100 of 1,100, 6602 s\n")
    progress("extract", 0, 10)  # a stage that comes again begins again
    clock.now += 2
    progress("extract", 1, 10)
    assert capsys.readouterr().err.endswith("extract: 1 of 10, 2 s, about 18 s left")


def test_in_python_a_terminal_shows_stages_of_over_two_seconds(clock, terminal, capsys):
    terminal()
    runtime = Runtime()
    runtime.report("fit", 1, 2)
    runtime.report("fit", 2, 2)
    assert capsys.readouterr().err == ""
    runtime.report("fit", 1, 3)
    clock.now += 3
    runtime.report("fit", 2, 3)
    assert capsys.readouterr().err.endswith("fit: 2 of 3, 3 s, about 3 s left")
    pickle.dumps(runtime)
    for silent in (Runtime(progress=False), Runtime(progress=lambda *_: None)):
        silent.report("fit", 1, 3)
        clock.now += 3
        silent.report("fit", 2, 3)
    assert capsys.readouterr().err == ""


def test_in_python_a_log_shows_nothing(clock, capsys, monkeypatch):
    runtime = Runtime()
    runtime.report("fit", 1, 3)
    clock.now += 60
    runtime.report("fit", 2, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console
    Runtime().report("fit", 1, 3)


def test_progress_without_a_reader_does_not_end_the_work(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    progress = Progress()
    with open(writer, "w") as unread:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", unread)
        progress("extract", 1, 1)
        progress.say("all is well")
        assert progress.quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
