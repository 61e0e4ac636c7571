"""An episode from one shot list: each shot with its own keys, settings and frames, in one run."""

import json
from pathlib import Path

import pytest

from colorcli.cli import render
from colorcli.cli.main import main
from colorcli.shot.manifest import read_manifest
from tests.shot.studio import FakeColorizer, draw_key, draw_shot, hollow_model

LIST = """
ref: keys/{shot}.png
out: renders
shots:
  - {shot: sc01/c001}
  - {shot: sc01/c002, set: finish.palette=off}
  - {shot: sc01/c003, frames: 2-3, ref: [keys/c001.png, keys/c002.png]}
"""


@pytest.fixture
def episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with three shots in `ep`, a key for two of them, and the list `ep/shots.yaml`."""
    for number in (1, 2, 3):
        draw_shot(tmp_path / "ep" / "sc01" / f"c00{number}")
    for number in (1, 2):
        draw_key(tmp_path / "ep" / "keys" / f"c00{number}.png")
    (tmp_path / "ep" / "shots.yaml").write_text(LIST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def colored(folder: Path) -> dict[str, int]:
    """How many pictures lie in each folder."""
    found: dict[str, int] = {}
    for path in folder.rglob("*.png"):
        name = path.parent.relative_to(folder).as_posix()
        found[name] = found.get(name, 0) + 1
    return found


def test_every_shot_of_the_list_is_colored_with_what_is_its_own(
    episode: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ep/shots.yaml", "--engine", "stand-in", "--progress", "json"]) == 0
    renders = episode / "ep" / "renders" / "sc01"
    assert colored(renders) == {"c001": 4, "c002": 4, "c003": 2}
    assert read_manifest(renders / "c002").settings["finish"]["palette"] == "off"
    assert read_manifest(renders / "c001").settings["finish"]["palette"] == "key"
    assert [key.path for key in read_manifest(renders / "c003").keys] == [
        "../../../keys/c001.png", "../../../keys/c002.png",
    ]  # fmt: skip
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = [(line["done"], line["total"]) for line in lines if line.get("event") == "frame"]
    assert counts == [(number, 10) for number in range(1, 11)]
    assert [line["asked"] for line in lines if "asked" in line] == [10]


def test_a_model_that_every_shot_needs_is_loaded_once(
    episode: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hollow_model(episode / "model")
    loads: list[str] = []

    def load(model: str, *args: object, **options: object) -> FakeColorizer:
        loads.append(model)
        return FakeColorizer()

    monkeypatch.setattr(render, "load_engine", load)
    assert main(["ep/shots.yaml", "--model", "./model"]) == 0
    assert loads == ["./model"]
    assert main(["ep/shots.yaml", "--model", "./model"]) == 0
    assert loads == ["./model"]   # all is up to date


def test_the_command_line_fills_in_what_the_list_leaves_open(episode: Path) -> None:
    command = ["ep/shots.yaml", "--engine", "stand-in", "--frames", "1", "-o", "elsewhere", "--set", "sampling.seed=7"]
    assert main(command) == 0
    assert colored(episode / "elsewhere") == {"sc01/c001": 1, "sc01/c002": 1, "sc01/c003": 2}
    assert read_manifest(episode / "elsewhere" / "sc01" / "c002").settings["sampling"]["seed"] == 7


def test_a_shot_that_is_not_there_is_told_before_anything_is_colored(
    episode: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (episode / "ep" / "shots.yaml").write_text(LIST + "  - {shot: sc01/c009}\n")
    assert main(["ep/shots.yaml", "--engine", "stand-in"]) == 3
    assert "c009" in capsys.readouterr().err and not (episode / "ep" / "renders").exists()


def test_a_dry_run_shows_every_shot_and_all_that_is_wrong(
    episode: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ep/shots.yaml", "--engine", "stand-in", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(f"c00{number}" in out for number in (1, 2, 3)) and out.count("nothing was colored") == 1
    (episode / "ep" / "keys" / "c002.png").unlink()
    (episode / "ep" / "keys" / "c001.png").write_text("no picture")
    assert main(["ep/shots.yaml", "--engine", "stand-in", "--dry-run"]) == 3
    told = capsys.readouterr().err
    assert "c001.png" in told and "c002.png" in told


def test_two_settings_in_one_folder_are_refused(episode: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (episode / "ep" / "shots.yaml").write_text(
        "ref: keys/c001.png\n"
        "shots: [{shot: sc01/c001, frames: 1-2}, {shot: sc01/c001, frames: 3-4, set: finish.palette=off}]"
    )
    assert main(["ep/shots.yaml", "--engine", "stand-in"]) == 2
    assert "different settings" in capsys.readouterr().err


def test_a_broken_key_ends_its_shot_and_the_others_go_on(episode: Path) -> None:
    key = episode / "ep" / "keys" / "c001.png"
    key.write_bytes(key.read_bytes()[:-60])   # its header can be read
    assert main(["ep/shots.yaml", "--engine", "stand-in"]) == 3
    assert colored(episode / "ep" / "renders" / "sc01")["c002"] == 4
