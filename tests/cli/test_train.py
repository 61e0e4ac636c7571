"""`colorcli train`: what is said before and while it trains."""

import sys
from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.console import TrainingBar, training_progress
from colorcli.train.run.progress import Lines, StageNews, StepNews

RECIPE = """\
name: two
license: MIT
drawings: {characters: 4, poses: 2, validation_characters: 2}
stages:
  - {name: tagger, steps: 30, batch: 4, rate: 1.0e-3}
  - {name: matcher, steps: 10, batch: 4, rate: 1.0e-3}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORCLI_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "two.yaml"
    path.write_text(RECIPE)
    return path


def test_a_dry_run_tells_what_learns_on_what_and_writes_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe), "--dry-run", "--set", "stages.tagger.steps=70"]) == 0
    told = capsys.readouterr().out
    assert f"two in {tmp_path / 'runs' / 'two'}, fp32, weights under MIT" in told
    assert "4 generated characters in 2 drawings each, and 2 to validate on" in told
    tagger, matcher = told.partition("tagger: ")[2].split("matcher: ", 1)
    assert tagger.startswith("0 of 70 steps") and "trains 1.7 M parameters: tagger" in tagger
    assert "unet 10.7 M" in tagger.partition("frozen: ")[2].splitlines()[0]
    assert "unet 10.7 M" in matcher.partition("frozen: ")[2].splitlines()[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--only", "sketch"], 2, "two.yaml has no such stage"),
        (["--set", "stages.tagger.steps=0"], 4, "stages.tagger.steps is 0"),
        (["--device", "cuda:7"], 6, "no device cuda:7"),
        (["--device", "tpu"], 6, "not on tpu"),
        (["--set", "model=nowhere", "--set", "stages=[{name: xl-base, steps: 1, batch: 2, rate: 1}]"], 5, "nowhere"),
    ],
)
def test_what_cannot_be_trained_is_said_with_its_exit_code(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert main(["train", str(recipe), *words]) == code
    assert message in capsys.readouterr().err


def test_a_terminal_shows_stage_loss_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar = training_progress()
    assert isinstance(bar, TrainingBar)
    bar.stage(StageNews("two", "tagger", 1, 2, 5, 70))
    bar.step(StepNews(6, {"loss": 1.25}, 0.5, 3725.0))
    bar.line("tagger", {"step": 6, "loss": 1.25, "check_parts": 0.75}, 3725.0)
    bar.warn("the disk is full")
    bar.end()
    told = capsys.readouterr().out
    for words in ("two: stage 1 of 2, tagger", "6/70", "loss 1.25", "0.50 s/step", "1 h 02 min left",
                  "tagger at step 6, validated: parts 0.75", "note: the disk is full"):
        assert words in told, words


def test_elsewhere_each_line_of_the_curve_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = training_progress()
    assert isinstance(progress, Lines)
    progress.stage(StageNews("two", "tagger", 1, 2, 5, 70))
    progress.step(StepNews(6, {"loss": 1.25}, 0.5, 3725.0))
    progress.line("tagger", {"step": 6, "loss": 1.25}, 3725.0)
    progress.end()
    assert capsys.readouterr().out.splitlines() == [
        "stage 1 of 2, tagger: step 5 of 70",
        "tagger: step 6 loss 1.25 minutes_left 62",
    ]
