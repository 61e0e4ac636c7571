"""Progress in the language of whoever reads it, and words for people."""

import json

import pytest

from colorcli import console
from colorcli.console import FrameNews, dialect_named


def told(capsys: pytest.CaptureFixture[str], name: str) -> list[str]:
    """What a run of four frames prints in one dialect: two colored, one held, one failed."""
    dialect = dialect_named(name)
    dialect.begin(4)
    dialect.stage("loading mini")
    dialect.frame(FrameNews("walk", "walk.0001", "written", 1, 4, seconds=1.5))
    dialect.frame(FrameNews("walk", "walk.0002", "held", 2, 4))
    dialect.frame(FrameNews("walk", "walk.0003", "failed", 3, 4, error="walk.0003.png is empty"))
    dialect.frame(FrameNews("walk", "walk.0004", "written", 4, 4, seconds=61.0))
    dialect.end()
    words = "4 frames in 62.5 s: 2 colored, 1 repeated, 1 failed"
    dialect.summary(words, ["walk_color"], {"written": 2, "exit_code": 7})
    dialect.failed("1 of 4 frames failed")
    return capsys.readouterr().out.splitlines()


def test_plain_is_a_line_for_each_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "plain") == [
        "loading mini",
        "[1/4] walk.0001 colored in 1.5 s",
        "[2/4] walk.0002 repeats a drawing",
        "[3/4] walk.0003 FAILED: walk.0003.png is empty",
        "[4/4] walk.0004 colored in 1 min 01 s",
        "4 frames in 62.5 s: 2 colored, 1 repeated, 1 failed",
        "  walk_color",
    ]


def test_deadline_reads_its_percentages(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in told(capsys, "deadline") if line.startswith("Progress: ")]
    assert lines == ["Progress: 25%", "Progress: 50%", "Progress: 75%", "Progress: 100%"]


def test_tractor_reads_three_digits(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in told(capsys, "tractor") if line.startswith("TR_PROGRESS")]
    assert lines == ["TR_PROGRESS 025%", "TR_PROGRESS 050%", "TR_PROGRESS 075%", "TR_PROGRESS 100%"]


def test_every_line_of_openjd_begins_with_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "openjd")
    assert all(line.startswith(("openjd_progress: ", "openjd_status: ", "openjd_fail: ")) for line in lines)
    assert lines[-1] == "openjd_fail: 1 of 4 frames failed"
    assert [line for line in lines if "progress" in line][-1] == "openjd_progress: 100"


def test_json_is_an_object_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    events = [json.loads(line) for line in told(capsys, "json")]
    assert [event["event"] for event in events] == ["begin", "stage", *["frame"] * 4, "end", "failed"]
    assert events[4] == {
        "event": "frame",
        "shot": "walk",
        "frame": "walk.0003",
        "status": "failed",
        "done": 3,
        "total": 4,
        "seconds": None,
        "error": "walk.0003.png is empty",
    }


def test_none_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "none") == []


def test_the_bar_leaves_the_failures_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert any("walk.0003.png is empty" in line for line in told(capsys, "rich"))


def test_a_hundred_percent_is_told_only_after_the_last_frame() -> None:
    assert FrameNews("s", "f", "written", 999, 1000).percent == 99


def test_auto_is_a_line_a_frame_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENJD_SESSION_WORKING_DIR", raising=False)
    assert isinstance(dialect_named("auto"), console.Plain)


def test_auto_speaks_openjd_inside_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENJD_SESSION_WORKING_DIR", "/sessions/1")
    assert isinstance(dialect_named("auto"), console.OpenJD)
    assert isinstance(dialect_named("auto", quiet=True), console.OpenJD)


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (38_200_000, "38.2 MB"), (6_820_000_000, "6.8 GB")]
)
def test_sizes_are_told_in_decimal_units(count: int, words: str) -> None:
    assert console.size_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (59.99, "1 min 00 s"), (7500, "2 h 05 min")]
)
def test_times_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert console.time_in_words(seconds) == words


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    console.say_table([("a", "1"), ("long", "2")], heading=("name", "value"))
    assert capsys.readouterr().out.splitlines() == ["name  value", "a     1", "long  2"]
