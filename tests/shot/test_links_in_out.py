"""A result that came from elsewhere may hold links: nothing outside of it is written, whatever they lead to."""

import os
import shutil
from pathlib import Path

import pytest

from colorcli.errors import OutputError
from colorcli.presets import LayerSettings, Preset
from colorcli.shot.layer_files import copy_layers
from colorcli.shot.leases import LeaseTimes
from colorcli.shot.merge import merge
from tests.shot.studio import Outcome, color, draw, draw_shot

NAMES = ("walk.0001.png", "manifest.json", "frames.jsonl", ".walk.0001.png.1.tmp", ".leases")
FLAT = Preset(layers=LayerSettings(names=("flat",)))
FOLDERS = {"layers": "../elsewhere", "layers/flat": "../../elsewhere"}   # that are links, and where they lead


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("goal", ["../victim", "../folder", "../key.png", "../nowhere"])
def test_a_link_in_out_is_taken_away_or_refused_and_never_written_through(walk, name, goal):
    around = walk.parent
    (around / "victim").write_text("mine\n")
    (around / "folder").mkdir()
    out = around / "walk_color"
    out.mkdir()
    (out / name).symlink_to(goal)
    key = (around / "key.png").read_bytes()
    outcome = color(walk)
    assert (around / "victim").read_text() == "mine\n"
    assert (around / "key.png").read_bytes() == key
    assert list((around / "folder").iterdir()) == []
    assert sorted(path.name for path in around.iterdir()) == ["folder", "key.png", "victim", "walk", "walk_color"]
    if outcome.result.exit_code == 0:
        assert not (out / "walk.0001.png").is_symlink()
    else:
        assert outcome.result.error is not None and outcome.result.error.hint


def test_a_journal_that_is_a_link_is_told(walk):
    out = walk.parent / "walk_color"
    out.mkdir()
    (out / "frames.jsonl").symlink_to("../key.png")
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert outcome.result.error is not None
    assert "frames.jsonl cannot be written: it is a link" in outcome.result.error.message


@pytest.fixture
def elsewhere(walk: Path) -> Path:
    folder = walk.parent / "elsewhere"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lead_away(out: Path, name: str) -> None:
    """Put a link in the place of a folder of layers; what was in it lies where the link leads."""
    link = out / name
    if link.exists():
        shutil.copytree(link, link.parent / FOLDERS[name], dirs_exist_ok=True)
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(FOLDERS[name])


def refused(outcome: Outcome) -> str:
    """Why a run has ended early."""
    assert outcome.result.exit_code == 9
    assert outcome.result.error is not None and outcome.result.error.hint
    return outcome.result.error.message


@pytest.mark.parametrize("name", FOLDERS)
def test_layers_are_not_written_behind_a_link(walk, elsewhere, name):
    out = walk.parent / "walk_color"
    lead_away(out, name)
    for place in (elsewhere, elsewhere / "flat"):
        draw(place / "walk.0001.png", 5)
    before = contents(elsewhere)
    assert refused(color(walk, preset=FLAT)).startswith(f"{out / name} cannot be written: it is a link")
    assert contents(elsewhere) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_earlier_layers_behind_a_link_are_not_taken_away(walk, elsewhere, name):
    out = color(walk, preset=FLAT).plans[0].out
    lead_away(out, name)
    before = contents(elsewhere)
    draw(walk / "walk.0001.png", 7)
    assert refused(color(walk)).startswith(f"{out / name} cannot be written: it is a link")
    assert contents(elsewhere) == before != {}


@pytest.mark.parametrize("name", FOLDERS)
def test_layers_of_a_held_drawing_are_not_copied_behind_a_link(walk, elsewhere, name):
    out = color(walk, preset=FLAT).plans[0].out
    lead_away(out, name)
    before = contents(elsewhere)
    shutil.copyfile(walk / "walk.0001.png", walk / "walk.0003.png")
    assert refused(color(walk, preset=FLAT)).startswith(f"{out / name} cannot be written: it is a link")
    assert contents(elsewhere) == before != {}


@pytest.mark.parametrize("name", FOLDERS)
def test_layers_are_not_merged_behind_a_link(walk, elsewhere, name):
    node = color(walk, preset=FLAT, out=walk.parent / "node").plans[0].out
    out = color(walk, frames="1").plans[0].out
    lead_away(out, name)
    with pytest.raises(OutputError, match="it is a link") as caught:
        merge(out, [node])
    assert caught.value.message.startswith(str(out / name))
    assert contents(elsewhere) == {}


def test_a_pipe_in_the_place_of_a_layer_is_not_waited_for(tmp_path):
    (tmp_path / "layers" / "flat").mkdir(parents=True)
    os.mkfifo(tmp_path / "layers" / "flat" / "walk.0001.png")
    with pytest.raises(OutputError, match="it is a pipe, not a file"):
        copy_layers(tmp_path, "walk.0001.png", "walk.0002.png", FLAT)


PIPES = (
    ".leases/drawing-00.0.lease",
    ".leases/0123456789ab-4711-1-00000000.alive",
    ".leases/journal-frames.x.jsonl.0.lease",
    "frames.x.jsonl",
)


@pytest.mark.parametrize("names", [*[(name,) for name in PIPES], PIPES], ids=lambda names: " ".join(names)[-30:])
def test_pipes_among_the_leases_and_journals_are_not_waited_for(walk, names):
    out = walk.parent / "walk_color"
    (out / ".leases").mkdir(parents=True)
    (out / ".leases" / "journal-frames.x.jsonl.0.lease").write_bytes(b"0123456789ab-4711-1-00000000.alive host 1")
    for name in names:
        (out / name).unlink(missing_ok=True)
        os.mkfifo(out / name)
    times = LeaseTimes(beat_seconds=0.05, silent_seconds=0.3, poll_seconds=0.02)
    assert color(walk, lease_times=times).result.exit_code == 0


def test_nothing_is_swept_behind_a_link(walk, elsewhere):
    lead_away(walk.parent / "walk_color", "layers")
    of_another_program = elsewhere / ".walk.0001.png.4711-0123abcd.tmp"
    of_another_program.touch()
    os.utime(of_another_program, (0, 0))
    assert color(walk).result.exit_code == 0
    assert of_another_program.exists()
