"""`--compile`: what the command tells the loader, so that it can say whether compiling pays, and what is recorded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from colorcli.cli.main import main
from colorcli.cli.render import network_rows
from colorcli.presets import Preset
from tests.shot.studio import FakeColorizer, draw_shot, hollow_model

WALK = ["walk", "--ref", "key.png", "--model", "./model"]


class Compiled(FakeColorizer):
    """Says that it runs compiled."""

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "compiled": "on", "decoding": "bf16"}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the loader was told in every run; the working folder has the shot `walk` of 4 frames."""
    draw_shot(tmp_path / "walk")
    hollow_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    asked: list[dict[str, Any]] = []

    def load(*_: Any, **more: Any) -> Compiled:
        asked.append(more)
        return Compiled()

    monkeypatch.setattr("colorcli.cli.render.load_engine", load)
    return asked


def test_only_frames_without_a_picture_count(told: list[dict[str, Any]]) -> None:
    assert main([*WALK, "--frames", "1-3", "--set", "sampling.steps=5"]) == 0
    assert main([*WALK, "--set", "sampling.steps=5"]) == 0
    assert main([*WALK, "--set", "sampling.steps=5", "--overwrite"]) == 0
    steps_and_branches = network_rows(Preset.model_validate({"sampling": {"steps": 5}}), 1)
    assert [one["rows"] / steps_and_branches for one in told] == [3, 1, 4]
    assert {one["compiled"] for one in told} == {"auto"}


@pytest.mark.parametrize(
    ("guidance", "branches"), [((1, 1), 1), ((2, 1), 2), ((1, 2), 2), ((2, 2), 3)]
)
def test_every_branch_of_guidance_is_a_row(guidance: tuple[float, float], branches: int) -> None:
    settings = {"reference": {"guidance": guidance[0]}, "sketch": {"guidance": guidance[1]}, "sampling": {"steps": 20}}
    assert network_rows(Preset.model_validate(settings), 7) == 7 * 20 * branches


def test_what_was_compiled_is_in_the_manifest(told: list[dict[str, Any]]) -> None:
    assert main([*WALK, "--compile", "on"]) == 0
    assert told[0]["compiled"] == "on"
    (run,) = json.loads(Path("walk_color/manifest.json").read_text())["runs"]
    assert run["compiled"] == "on" and run["decoding"] == "bf16"


def test_rows_that_a_warm_start_or_the_guidance_window_saves_are_not_waited_for():
    whole = {"sampling": {"steps": 20}, "reference": {"guidance": 4.0}}
    half = {**whole, "reference": {"guidance": 4.0, "guidance_window": (0.0, 0.5)}}
    warm = {**half, "warm_start": {"on": True, "every": 4, "level": 0.5}}
    rows = [network_rows(Preset.model_validate(settings), 4) for settings in (whole, half, warm)]
    # 20 steps of two rows; half of them one row less; and of four frames three make half of that.
    assert rows == [4 * 40, 4 * 30, 30 + 3 * 15]
