"""A shot from the command line to files and exit code, with a colorizer that is simple enough to check by hand."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.errors import DeviceError
from colorcli.images import read_picture
from tests.shot.studio import FakeColorizer, cannot_color, draw_shot, hollow_model

WALK = ["walk", "--ref", "key.png", "--model", "./model"]


@pytest.fixture
def floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shot `walk` (1 to 4), `key.png` and a model folder; it is the working directory."""
    draw_shot(tmp_path / "walk")
    hollow_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_every_frame_of_the_shot_is_colored_beside_it(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    assert main([*WALK, "--progress", "plain"]) == 0
    assert outputs(floor / "walk_color") == [f"walk.{number:04d}.png" for number in range(1, 5)]
    out = capsys.readouterr().out
    assert "[4/4] walk.0004 colored" in out
    assert "4 colored\n  walk_color\n" in out


def test_a_second_run_colors_nothing_and_loads_no_model(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    assert main(WALK) == 0
    assert main(WALK) == 0
    assert colorizer.colored == 4
    assert "4 up to date" in capsys.readouterr().out


def test_another_setting_colors_again(floor: Path, colorizer: FakeColorizer) -> None:
    assert main(WALK) == 0
    assert main([*WALK, "--set", "sampling.seed=8"]) == 0
    assert colorizer.colored == 8


def test_overwrite_colors_again(floor: Path, colorizer: FakeColorizer) -> None:
    assert main(WALK) == 0
    assert main(["--overwrite", *WALK]) == 0
    assert colorizer.colored == 8


def test_frames_and_out_are_what_was_asked_for(floor: Path, colorizer: FakeColorizer) -> None:
    assert main(["-o", "done", "--frames", "2-3", *WALK]) == 0
    assert outputs(floor / "done") == ["walk.0002.png", "walk.0003.png"]


def test_format_chooses_the_kind_of_file(floor: Path, colorizer: FakeColorizer) -> None:
    assert main([*WALK, "--format", "exr-half"]) == 0
    assert read_picture(floor / "walk_color" / "walk.0001.exr").format.depth == "half"


def test_the_manifest_tells_preset_settings_and_model(floor: Path, colorizer: FakeColorizer) -> None:
    assert main([*WALK, "--preset", "soft", "--set", "sampling.steps=3"]) == 0
    manifest = json.loads((floor / "walk_color" / "manifest.json").read_text())
    assert manifest["request"]["preset"] == "soft"
    assert manifest["settings"]["sampling"]["steps"] == 3
    assert manifest["models"][0]["license"] == "Apache-2.0"


def test_a_frame_that_cannot_be_read_stops_no_other(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    (floor / "walk" / "walk.0002.png").write_text("no picture")
    assert main(WALK) == 7
    assert outputs(floor / "walk_color") == ["walk.0001.png", "walk.0003.png", "walk.0004.png"]
    err = capsys.readouterr().err.splitlines()
    assert any("walk.0002.png" in line for line in err if line.startswith("note:"))
    assert err[-1] == "colorcli: error[frame]: 1 of 4 frames failed: walk.0002"


def test_a_frame_that_cannot_be_colored_is_told_like_one_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    colorizer.before_color = cannot_color(1)
    assert main(WALK) == 7
    assert "1 of 4 frames failed" in capsys.readouterr().err


def test_a_device_without_memory_ends_the_run_with_6(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    def no_memory(count: int) -> None:
        raise DeviceError("one frame does not fit in the memory of the device", hint="--set canvas.area=65536")

    colorizer.before_color = no_memory
    assert main([*WALK, "--progress", "openjd"]) == 6
    out, err = capsys.readouterr()
    assert "openjd_fail: one frame does not fit in the memory of the device" in out
    assert err.splitlines()[-1].startswith("colorcli: error[device]: ")


def send(number: int) -> Callable[[int], None]:
    """Sends a signal to this process when the third frame is to be colored."""

    def before_color(count: int) -> None:
        if count == 2:
            os.kill(os.getpid(), number)

    return before_color


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_run_keeps_what_is_finished_and_the_next_goes_on(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer, number: int, code: int, kind: str
) -> None:
    colorizer.before_color = send(number)
    assert main(WALK) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"colorcli: error[{kind}]: ")
    finished = outputs(floor / "walk_color")
    assert 0 < len(finished) < 4
    colorizer.before_color = lambda count: None
    assert main(WALK) == 0
    assert outputs(floor / "walk_color") == [f"walk.{number:04d}.png" for number in range(1, 5)]


def test_quiet_says_nothing_when_all_is_well(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    assert main([*WALK, "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_all_that_stdout_holds(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    (floor / "walk" / "walk.0002.png").write_text("no picture")
    assert main([*WALK, "--progress", "json"]) == 7
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["begin", "stage", *["frame"] * 4, "end", "failed"]
    assert {event["frame"]: event["status"] for event in events if event["event"] == "frame"}["walk.0002"] == "failed"
    assert events[-2]["exit_code"] == 7


def test_prepare_writes_what_the_model_will_see(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    assert main(["prepare", *WALK, "-o", "look"]) == 0
    names = {path.name for path in (floor / "look").iterdir()}
    assert {"overview.png", "key.bleached.png", "walk.0001.lines.png", "walk.0001.mask.png"} <= names
    assert colorizer.encoded == 0


def test_prepare_tells_the_frames_it_could_not_read(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    (floor / "walk" / "walk.0002.png").write_bytes(b"")
    assert main(["prepare", *WALK, "-o", "look"]) == 7
    assert "1 of 4 frames cannot be prepared: walk.0002" in capsys.readouterr().err


def test_manifest_shows_and_verifies_what_was_written(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    main(WALK)
    capsys.readouterr()
    assert main(["manifest", "show", "walk_color"]) == 0
    assert "4 written" in capsys.readouterr().out
    assert main(["manifest", "verify", "walk_color"]) == 0
    (floor / "walk_color" / "walk.0003.png").write_bytes(b"painted over")
    assert main(["manifest", "verify", "walk_color"]) == 7
    assert "walk.0003.png is not the file that was written" in capsys.readouterr().out


def test_chunks_of_two_machines_are_merged(
    capsys: pytest.CaptureFixture[str], floor: Path, colorizer: FakeColorizer
) -> None:
    for chunk in ("1/2", "2/2"):
        assert main([*WALK, "--chunk", chunk]) == 0
    assert main(["manifest", "merge", "walk_color"]) == 0
    assert "4 of 4 frames are there" in capsys.readouterr().out
