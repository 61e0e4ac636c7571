"""The engine without a model: it needs nothing, its pictures make sense, and nobody takes them for a model's."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colorcli.cli.main import main
from colorcli.images import read_picture, write_picture
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.shot.manifest import read_manifest, read_records
from colorcli.shot.stand_in import KeyColors, StandIn, stand_in_entry
from colorcli.variants import VARIANTS
from tests.shot.studio import PNG8, FakeColorizer, Float

MINI = VARIANTS["mini"]
BLUE, ORANGE = (0.1, 0.2, 0.8), (0.9, 0.5, 0.1)


def doll(shift: int = 0, head: int = 0) -> Float:
    """A small box on a large one, in ink on white; `shift` moves both, `head` the small one, to the right."""
    paper = np.ones((128, 128, 3), np.float32)
    for top, left, height, width in ((20, 50 + shift + head, 24, 24), (44, 36 + shift, 60, 52)):
        paper[top : top + height + 3, left : left + width + 3] = 0
        paper[top + 3 : top + height, left + 3 : left + width] = 1
    return paper


def painted(lines: Float) -> Float:
    """A doll in color: the head blue, the body orange."""
    color = lines.copy()
    color[23:44, 53:74] = BLUE
    color[47:104, 39:88] = ORANGE
    return color


def dolls(folder: Path, shifts: list[int]) -> Path:
    folder.mkdir()
    for number, shift in enumerate(shifts, 1):
        write_picture(folder / f"doll.{number:04d}.png", doll(shift), None, PNG8)
    write_picture(folder.parent / "key.png", painted(doll()), None, PNG8)
    return folder


def command(shot: Path, *more: str) -> list[str]:
    return [str(shot), "--ref", str(shot.parent / "key.png"), "--engine", "stand-in", "-q", *more]


def test_each_region_gets_the_color_that_the_key_has_there(tmp_path: Path) -> None:
    shot = dolls(tmp_path / "doll", [0, 12, -9])
    assert main(command(shot)) == 0
    for number, shift in ((1, 0), (2, 12), (3, -9)):
        color = read_picture(tmp_path / "doll_color" / f"doll.{number:04d}.png").color
        np.testing.assert_allclose(color[32, 60 + shift], BLUE, atol=1 / 255)
        np.testing.assert_allclose(color[80, 60 + shift], ORANGE, atol=1 / 255)
        np.testing.assert_allclose(color[5, 5], 1)


@pytest.mark.parametrize("model", ["mini", "xl", "/nowhere/ours.safetensors", "a-model-of-ours"])
def test_it_colors_in_the_place_of_any_model_there_or_not(tmp_path: Path, model: str) -> None:
    shot = dolls(tmp_path / "doll", [0])
    assert main(command(shot, "--model", model, "--device", "cuda:3", "--precision", "fp16", "--batch", "auto")) == 0
    assert read_manifest(tmp_path / "doll_color").settings["model"].endswith(Path(model).name)


def test_its_frames_never_count_as_those_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = dolls(tmp_path / "doll", [0, 5])
    assert main(command(shot)) == 0
    manifest = read_manifest(tmp_path / "doll_color")
    assert [(entry.name, entry.used_for) for entry in manifest.models] == [("stand-in", "color")]
    assert manifest.runs[-1].engine == "stand-in"
    model = FakeColorizer()
    monkeypatch.setattr("colorcli.cli.render.load_engine", lambda *_, **__: model)
    arguments = [each for each in command(shot) if each not in ("--engine", "stand-in")]
    assert main(arguments) == 0
    assert model.colored == 2, "the model colors what the stand-in had done"
    assert {record.status for record in read_records(tmp_path / "doll_color")} == {"written"}


def test_another_canvas_is_another_stand_in() -> None:
    assert stand_in_entry("mini").sha256 != stand_in_entry("xl").sha256
    assert stand_in_entry("a-model-of-ours") == stand_in_entry("mini")


def test_a_second_run_finds_all_of_it_up_to_date(tmp_path: Path) -> None:
    shot = dolls(tmp_path / "doll", [0, 5])
    assert main(command(shot)) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "doll_color").glob("*.png")}
    assert main(command(shot)) == 0
    assert {record.status for record in read_records(tmp_path / "doll_color")} == {"skipped"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "doll_color").glob("*.png")} == before


def test_it_says_on_the_screen_that_no_model_colors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = dolls(tmp_path / "doll", [0])
    told = [each for each in command(shot) if each != "-q"]
    assert main(told) == 0
    assert "no model colors them" in capsys.readouterr().err
    assert main([*told, "--model", "/nowhere", "-n"]) == 0
    assert "none: the stand-in colors in the place of /nowhere" in capsys.readouterr().out


def test_a_process_with_it_imports_no_torch_and_reads_no_weights(tmp_path: Path) -> None:
    shot = dolls(tmp_path / "doll", [0])
    code = (
        "import sys\nfrom colorcli.cli.main import main\n"
        f"code = main({command(shot)!r})\n"
        "large = [name for name in ('torch', 'diffusers', 'transformers', 'safetensors') if name in sys.modules]\n"
        "sys.exit(code or (99 if large else 0))"
    )
    empty = {**os.environ, "COLORCLI_MODELS": str(tmp_path / "none"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=empty)
    assert done.returncode == 0, done.stderr


def test_two_drawings_around_outvote_one_and_one_does_not(tmp_path: Path) -> None:
    shot, engine, preset = dolls(tmp_path / "doll", [0]), StandIn(), Preset()
    frame = prepare_frame(read_picture(shot / "doll.0001.png"), preset, MINI)
    key = engine.encode_reference(prepare_key(read_picture(tmp_path / "key.png"), preset, MINI), preset)
    own = engine.ballot(frame, key, preset)
    other = replace(own, choice=own.choice[::-1])  # head and body the other way round
    alone, outvoted, kept = (
        engine.color([frame], key, preset, [engine.decide(ballots, 0, {})])[0]
        for ballots in ([own], [own, other, other], [own, None, other])
    )
    np.testing.assert_array_equal(alone, engine.color([frame], key, preset)[0])
    np.testing.assert_array_equal(kept, alone)
    inside = (frame.mask_canvas > 0.5) & (frame.ink_canvas < 0.1)
    assert (np.abs(outvoted - alone)[inside].max(axis=-1) > 0.3).all(), "every region changed its color"


def test_a_frame_that_follows_another_keeps_its_colors_where_nothing_moved(tmp_path: Path) -> None:
    shot, engine, preset = dolls(tmp_path / "doll", [0]), StandIn(), Preset()
    frame = prepare_frame(read_picture(shot / "doll.0001.png"), preset, MINI)
    key = engine.encode_reference(prepare_key(read_picture(tmp_path / "key.png"), preset, MINI), preset)
    first, ballot = engine.color_next(frame, None, key, preset)
    np.testing.assert_array_equal(first, engine.color([frame], key, preset)[0])
    other = replace(ballot, choice=ballot.choice[::-1])
    after, kept = engine.color_next(frame, other, key, preset)
    np.testing.assert_array_equal(kept.choice, other.choice)
    assert np.abs(after - first).max() > 0.3


@pytest.mark.parametrize("settings", [["steady.on=true"], ["warm_start.on=true", "sampling.start=noise",
                                                          "canvas.crop=frame"]])
def test_frames_that_depend_on_others_do_not_depend_on_the_chunk(tmp_path: Path, settings: list[str]) -> None:
    shot = dolls(tmp_path / "doll", [0, 6, 12, 18, 24])
    asked = [part for setting in settings for part in ("--set", setting)]
    assert main(command(shot, *asked, "-o", str(tmp_path / "whole"))) == 0
    for index in (3, 1, 2):
        assert main(command(shot, *asked, "-o", str(tmp_path / "parts"), "--chunk", f"{index}/3")) == 0
    whole, parts = ({path.name: path.read_bytes() for path in (tmp_path / out).glob("*.png")}
                    for out in ("whole", "parts"))
    assert whole == parts and len(whole) == 5


def test_a_key_without_lines_gives_its_main_color(tmp_path: Path) -> None:
    shot = dolls(tmp_path / "doll", [0])
    flat = np.ones((128, 128, 3), np.float32)
    flat[8:120, 8:120] = ORANGE
    write_picture(tmp_path / "key.png", flat, None, PNG8)
    assert main(command(shot)) == 0
    color = read_picture(tmp_path / "doll_color" / "doll.0001.png").color
    np.testing.assert_allclose(color[[32, 80], [60, 60]], [ORANGE, ORANGE], atol=1 / 255)


def test_a_blank_frame_stays_paper(tmp_path: Path) -> None:
    shot = dolls(tmp_path / "doll", [0])
    write_picture(shot / "doll.0002.png", np.ones((128, 128, 3), np.float32), None, PNG8)
    assert main(command(shot)) == 0
    assert read_picture(tmp_path / "doll_color" / "doll.0002.png").color.min() == 1


def test_a_picture_of_nothing_but_dust_takes_little_memory(tmp_path: Path) -> None:
    """Ten thousand regions in the frame, and thousands in the key: a table of all distances would not fit."""
    shot, engine, preset = dolls(tmp_path / "doll", [0]), StandIn(), Preset()
    grid = np.zeros((500, 500), np.float32)
    grid[::5], grid[:, ::5] = 1, 1
    frame = prepare_frame(read_picture(shot / "doll.0001.png"), preset, MINI)
    dusty = replace(frame, ink_canvas=grid, mask_canvas=np.ones_like(grid))
    random = np.random.default_rng(7)
    key = KeyColors(random.random((3_000, 3), np.float32), random.random((3_000, 3)))
    tracemalloc.start()
    try:
        assert len(engine.ballot(dusty, key, preset).choice) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()
