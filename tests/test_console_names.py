"""A name says nothing to a terminal and nothing to a farm manager, whatever stands in it."""

import io
import json
import logging
import re
import sys

import pytest

from colorcli import console
from colorcli.console import DIALECTS, FrameNews, dialect_named, one_line
from colorcli.errors import FrameError
from colorcli.train.run.progress import StageNews

# What managers look for. OpenJD: at the begin of a line. Deadline and Tractor: anywhere in it.
FORGED = (
    "openjd_fail: all is lost", "openjd_progress: 100", "openjd_env: LD_PRELOAD=/tmp/x.so", "openjd_unset_env: HOME",
    "TR_PROGRESS 100%", "TR_EXIT_STATUS 0", "Progress: 100%", "\x1b[2J", "\x1b]0;title\x07", "\u202egnp.",
    "colorcli: error[internal]: lies", '{"event": "end"}',
)
BREAKS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")


@pytest.mark.parametrize("mark", FORGED)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_name_forges_no_line_and_no_mark(capsys: pytest.CaptureFixture[str], dialect: str, mark: str) -> None:
    for cut in BREAKS:
        name = f"walk{cut}{mark}{cut}.0001"
        told = dialect_named(dialect)
        told.begin(2)
        told.stage(f"{name}: 2 frames")
        told.frame(FrameNews(name, name, "failed", 1, 2, error=f"{name}.png is empty"))
        told.frame(FrameNews(name, name, "written", 2, 2, 1.0))
        told.end()
        told.summary("2 frames", [f"/out/{name}"], {"written": 1})
        told.failed(f"{name} failed")
        console.warn(f"{name} failed", f"look at {name}")
        console.complain("frame", f"{name} failed", f"look at {name}")
        printed = capsys.readouterr()
        for line in (printed.out + printed.err).splitlines():
            assert not re.match(r"openjd_(env|unset_env)|TR_EXIT", line), line
            if re.search(r"Progress: |TR_PROGRESS", line):
                assert re.fullmatch(r"Progress: (50|100)%|TR_PROGRESS (050|100)%", line), line
            if line.startswith("openjd_progress"):
                assert line in ("openjd_progress: 50", "openjd_progress: 100")
            if line.startswith("openjd_fail"):
                assert "failed" in line
            if line.startswith("colorcli: error"):
                assert line.startswith("colorcli: error[frame]: walk")
            if dialect != "rich":   # whose own colors these are
                assert line.isprintable(), line
            if dialect == "json" and line.startswith("{"):
                said = json.loads(line)
                assert said["event"] != "end" or said["out"] == [f"/out/{name}"]


# How rich moves the cursor, hides it, clears a line and colors a text.
OF_THE_BAR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("cut", BREAKS)
def test_a_name_forges_nothing_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cut: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    name = f"walk{cut}openjd_fail: lost{cut}\x1b]0;title\x07\u202eProgress: 100%{cut}.0001"
    transfers = console.Transfers(2)
    transfers.update(name, 1, 2, 1)
    transfers.close()
    training = console.training_progress()
    training.stage(StageNews(name, name, 1, 1, 0, 2))
    training.say(f"{name} is saved")
    training.warn(f"{name} cannot be read")
    training.end()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert console.ask(f"Take {name} away?")
    lines = [OF_THE_BAR.sub("", line) for line in re.split("[\r\n]", capsys.readouterr().out)]
    assert len([line for line in lines if "walk" in line]) >= 5
    for line in lines:
        assert line.isprintable(), line
        assert "Progress: " not in line
        assert not line.startswith(("openjd", ".0001")), line


def test_a_name_comes_whole_out_of_the_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    artist = "\U0001f469\u200d\U0001f3a8"
    for name in ("動画\n\x7f\x85\u2028\u202e", "openjd_fail: Progress: TR_PROGRESS", 'a"b\\c', "é", artist):
        dialect_named("json").frame(FrameNews("s", name, "written", 1, 1))
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["frame"] for line in lines] == [name]


@pytest.mark.parametrize("name", ["walk.0001", "動画\u3000あ", "a b'c\"d$(ls)", "\U0001f469\u200d\U0001f3a8", "a\\nb"])
def test_ordinary_names_are_told_as_they_are(name: str) -> None:
    assert one_line(name) == name


def test_what_is_hidden_is_told_by_its_number() -> None:
    assert one_line("a\nb\x1b[1m") == "a\\u000ab\\u001b[1m"
    assert one_line("\udcff") == "\\udcff"   # a byte of a name that is no text


def test_a_text_keeps_its_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_text("a: 1\nb: \x1b[31m2")
    assert capsys.readouterr().out == "a: 1\nb: \\u001b[31m2\n"


def test_lines_of_a_log_and_of_a_traceback_begin_with_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    handler = console.NoteHandler()
    try:
        raise ValueError("walk\nopenjd_fail: no")
    except ValueError as error:
        failure = error
        console.show_traceback(error)
    info = (type(failure), failure, failure.__traceback__)
    handler.handle(logging.LogRecord("x", logging.ERROR, "", 0, "%s failed", ("a\nopenjd_fail: b",), info))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith(" ") for line in lines if not line.startswith("a"))
    assert not [line for line in lines if line.startswith("openjd")]


def test_a_log_that_knows_one_language_only_gets_the_letters_of_others_as_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", log)
    console.say("動画 is colored")
    log.flush()
    assert log.buffer.getvalue() == b"\\u52d5\\u753b is colored\n"   # type: ignore[attr-defined]


def test_the_last_line_of_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    failure = FrameError("a\nb.png is empty")
    console.complain(failure.kind, failure.message, failure.hint)
    told, last = capsys.readouterr().err.splitlines()
    assert (told, last) == ("error: a\\u000ab.png is empty", "colorcli: error[frame]: a b.png is empty")
