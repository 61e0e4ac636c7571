"""Networks and a background picture from the command line to files, messages and exit codes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from colorcli.cli.main import main
from colorcli.images import FORMATS, read_picture, write_picture
from tests.model.onnx_made import channel, darkness, near_ink
from tests.shot.studio import FakeColorizer, draw_shot, hollow_model

WALK = ["walk", "--ref", "key.png", "--model", "./model", "--progress", "plain"]


@pytest.fixture
def floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shot `walk` (1 and 2), `key.png`, a model folder; it is the working directory."""
    draw_shot(tmp_path / "walk", (1, 2))
    hollow_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def style(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "style.yaml").write_text(text)
    return str(folder / "style.yaml")


def test_a_network_in_a_preset_is_found_beside_the_preset(
    floor: Path, colorizer: FakeColorizer, capsys: pytest.CaptureFixture[str]
) -> None:
    near_ink(floor / "styles" / "nets" / "mine.onnx", reach=9, inputs={"picture": (1, 3, 64, 64)},
             metadata={"license": "CC0-1.0"})
    preset = style(floor / "styles", "extends: cel\nmasks:\n  source: network\n  network: nets/mine.onnx\n")
    assert main([*WALK, "--preset", preset]) == 0
    assert capsys.readouterr().err.count("masks.network: mine.onnx, license CC0-1.0") == 1
    manifest = json.loads((floor / "walk_color" / "manifest.json").read_text())
    assert [model["name"] for model in manifest["models"]] == ["mini", "mine.onnx"]
    assert manifest["settings"]["masks"]["network"] == "../styles/nets/mine.onnx"


def test_a_network_on_the_command_line_is_found_from_the_working_folder(
    floor: Path, colorizer: FakeColorizer
) -> None:
    near_ink(floor / "nets" / "mine.onnx", reach=9, inputs={"picture": (1, 3, 64, 64)})
    assert main([*WALK, "--set", "masks.source=network", "--set", "masks.network=nets/mine.onnx"]) == 0
    assert colorizer.colored == 2


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_missing_network_is_told_before_anything_is_colored(
    floor: Path, colorizer: FakeColorizer, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    assert main([*WALK, *dry, "--set", "masks.source=network", "--set", "masks.network=nets/mine.onnx"]) == 5
    err = capsys.readouterr().err
    assert "error: masks.network: there is no file nets/mine.onnx" in err and "try:" in err
    assert colorizer.colored == 0 and not (floor / "walk_color").exists()


def test_a_dry_run_shows_networks_and_background(floor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    darkness(floor / "u2net.onnx")
    write_picture(floor / "wall.png", np.ones((8, 8, 3), np.float32), None, FORMATS["png8"])
    settings = ["masks.source=network", "masks.key_network=u2net.onnx", "background.split=true",
                "background.image=wall.png"]
    assert main([*WALK, "--dry-run", *(part for one in settings for part in ("--set", one))]) == 0
    out = capsys.readouterr().out
    assert "u2net.onnx for masks.key_network, license Apache-2.0 (by its name" in out
    assert "behind  wall.png" in out


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_missing_background_is_told_before_anything_is_colored(
    floor: Path, colorizer: FakeColorizer, capsys: pytest.CaptureFixture[str], dry: list[str]
) -> None:
    assert main([*WALK, *dry, "--set", "background.split=true", "--set", "background.image=none.png"]) == 3
    err = capsys.readouterr().err
    assert "background.image: none.png is not there" in err and "try:" in err
    assert colorizer.colored == 0


def test_a_background_in_a_preset_is_found_beside_the_preset(floor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = style(floor / "styles", "background:\n  split: true\n  image: walls/{shot}.png\n")
    (floor / "styles" / "walls").mkdir()
    write_picture(floor / "styles" / "walls" / "walk.png", np.ones((8, 8, 3), np.float32), None, FORMATS["png8"])
    assert main([*WALK, "--preset", preset, "--dry-run"]) == 0
    assert f"behind  {floor}/styles/walls/walk.png" in capsys.readouterr().out


def test_prepare_shows_what_networks_and_background_give(floor: Path) -> None:
    # Blue is high in white paper and low in the red box of the key: to this network, paper is the character.
    channel(floor / "paper.onnx", 2, above=0.9, inputs={"picture": (1, 3, 96, 96)})
    wall = np.full((20, 30, 3), 0.5, np.float32)
    wall[:, 15:] = 1
    write_picture(floor / "wall.png", wall, None, FORMATS["png8"])
    settings = ["masks.source=network", "masks.key_network=paper.onnx", "masks.network_kind=isnet",
                "background.split=true", "background.image=wall.png", "background.remove_foreground=true"]
    arguments = ["prepare", "walk", "--ref", "key.png", "-o", "seen", *(x for one in settings for x in ("--set", one))]
    assert main(arguments) == 0
    mask = read_picture(floor / "seen" / "background.mask.png").color[:, :, 0]
    color = read_picture(floor / "seen" / "background.color.png").color
    # What the network calls character is the white right half, and ten pixels around it.
    assert mask.shape == (20, 30)
    np.testing.assert_array_equal(mask > 0.5, np.arange(30)[None].repeat(20, 0) >= 5)
    assert (color[:, 5:] == 1).all() and np.abs(color[:, :4] - 0.5).max() < 0.01
    note = json.loads((floor / "seen" / "prepare.json").read_text())["frames"]["key"]
    (left, top, width, height), (x, y, across, down) = note["crop"], note["window"]
    key_mask = read_picture(floor / "seen" / "key.mask.png").color[:, :, 0]
    box, paper = (
        key_mask[round(y + (row - top) / height * down), round(x + (column - left) / width * across)]
        for row, column in ((25, 25), (10, 80))
    )
    assert (box, paper) == (0, 1)


def test_lines_of_a_painted_shot_by_a_network(floor: Path) -> None:
    darkness(floor / "lines.onnx", inputs={"picture": (1, 3, 96, 96)})
    arguments = ["prepare", "walk", "--ref", "key.png", "-o", "seen", "--set", "canvas.crop=frame",
                 "--set", "lines.mode=extract", "--set", "lines.extractor=network", "--set", "lines.network=lines.onnx"]
    assert main(arguments) == 0
    lines = read_picture(floor / "seen" / "walk.0001.lines.png").color[:, :, 0]
    drawn = read_picture(floor / "walk" / "walk.0001.png").color[:, :, 0]
    shown = cv2.resize(drawn, lines.shape[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.corrcoef(lines.reshape(-1), shown.reshape(-1))[0, 1] > 0.98


def test_a_broken_network_is_one_error_and_no_traceback(
    floor: Path, colorizer: FakeColorizer, capsys: pytest.CaptureFixture[str]
) -> None:
    near_ink(floor / "mine.onnx", reach=9, inputs={"picture": (1, 64, 64, 3)})
    assert main([*WALK, "--set", "masks.source=network", "--set", "masks.network=mine.onnx"]) == 5
    err = capsys.readouterr().err
    assert "channels last" in err and "Traceback" not in err
    assert err.count("error:") == 1 and "colorcli: error[weights]" in err
