"""`--dry-run`: everything that would happen and everything that is wrong, with nothing written and nothing loaded."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from colorcli.cli.main import main
from tests.shot.studio import hollow_model

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shot of four frames (3 is missing), its key beside the folder, and weights that nobody could load."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for number in (1, 2, 4, 5):
        sheet = np.full((96, 128), 255, np.uint8)
        cv2.circle(sheet, (64, 48), 20 + number, (0,), 2)
        cv2.imwrite(str(folder / f"walk.{number:04d}.png"), sheet)
    cv2.imwrite(str(tmp_path / "key.png"), np.full((96, 128, 3), 128, np.uint8))
    hollow_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return folder


def files_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_the_plan_is_told_and_nothing_is_written(capsys: pytest.CaptureFixture[str], shot: Path) -> None:
    before = files_below(shot.parent)
    assert main(["walk", "--ref", "key.png", "--model", "./model", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "frames  4: walk_color/walk.0001.png to walk_color/walk.0005.png" in out
    assert "license Apache-2.0" in out
    assert "1 frame is missing: walk.3" in err
    assert files_below(shot.parent) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk", "--ref", "key.png", "-o", "out", "--model", "./model", "-n"],
        ["-n", "--model", "./model", "-o", "out", "--ref", "key.png", "walk"],
        ["--ref=key.png", "walk", "--out=out", "--dry-run", "--model=./model"],
    ],
)
def test_options_come_in_any_order(capsys: pytest.CaptureFixture[str], shot: Path, arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert "out/walk.0001.png to out/walk.0005.png" in capsys.readouterr().out


def test_a_broken_frame_is_told_before_the_render(capsys: pytest.CaptureFixture[str], shot: Path) -> None:
    (shot / "walk.0002.png").write_bytes(b"")
    assert main(["walk", "--ref", "key.png", "--model", "./model", "-n"]) == 0
    assert "walk.0002.png is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["nowhere", "--ref", "key.png"], 3, "shot"),
        (["walk", "--ref", "nokey.png"], 3, "key"),
        (["walk", "--ref", "key.png", "--frames", "100-200"], 3, "shot"),
        (["walk", "--ref", "key.png", "--frames", "1-9:2"], 2, "usage"),
        (["walk", "--ref", "key.png", "--chunk", "4/3"], 2, "usage"),
        (["walk", "--ref", "key.png", "-o", "walk"], 2, "usage"),
        (["walk", "--ref", "key.png", "--preset", "none"], 4, "preset"),
        (["walk", "--ref", "key.png", "--model", "mnii"], 5, "weights"),
    ],
)
def test_what_is_unusable_has_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], shot: Path, arguments: list[str], code: int, kind: str
) -> None:
    model = [] if "--model" in arguments else ["--model", "./model"]
    assert main([*arguments, *model, "--dry-run"]) == code
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith(f"colorcli: error[{kind}]: ")
    assert err[-2].startswith("try:   ")


def test_two_wrong_shots_are_both_told(capsys: pytest.CaptureFixture[str], shot: Path) -> None:
    assert main(["nowhere", "neverland", "walk", "--ref", "key.png", "--model", "./model", "-n"]) == 3
    out, err = capsys.readouterr()
    assert "nowhere" in err
    assert "neverland" in err
    assert "walk.0001.png" in out


def test_a_dry_run_loads_no_torch(shot: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from colorcli.cli.main import main\n"
        "assert main(['walk', '--ref', 'key.png', '--model', './model', '-n']) == 0\n"
        "assert 'torch' not in sys.modules, 'torch is loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=shot.parent)
