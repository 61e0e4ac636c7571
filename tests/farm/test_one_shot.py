"""What the tasks of a job use and people may use as well: one shot of a tree, and the place of a preset's file."""

from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.errors import PresetError, ShotError
from colorcli.presets import LoraSettings, Preset, files_of, load_preset, with_files
from colorcli.shot.plan import ShotRequest, plan_shots
from tests.farm.farmer import pictures
from tests.shot.studio import draw_key, draw_shot


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("sc01/c001", "sc01/c002", "sc02/c001"):
        draw_shot(tmp_path / "tree" / name, (1, 2))
        (tmp_path / "tree" / name).parent.joinpath("key.png").unlink()
    draw_key(tmp_path / "hero.png")
    return tmp_path / "tree"


def plans(tree: Path, *names: str) -> list[str]:
    request = ShotRequest((str(tree),), (str(tree.parent / "hero.png"),), tree.parent / "out", only=names)
    return [plan.out.relative_to(tree.parent / "out").as_posix() for plan in plan_shots(request)]


def test_one_shot_of_a_tree_goes_where_it_goes_with_all_the_others(tree):
    assert plans(tree) == ["sc01/c001", "sc01/c002", "sc02/c001"]
    assert plans(tree, "sc01/c002") == ["sc01/c002"]
    assert plans(tree, "sc02/c001", "sc01/c001", "sc02/c001") == ["sc02/c001", "sc01/c001"]


def test_a_shot_that_the_tree_lacks_is_refused_with_the_nearest(tree):
    with pytest.raises(ShotError, match="has no shot sc01/c003") as caught:
        plans(tree, "sc01/c003")
    assert caught.value.hint in ("did you mean sc01/c001?", "did you mean sc01/c002?")
    with pytest.raises(ShotError) as caught:
        plans(tree, "../../etc")
    assert caught.value.hint == "it has sc01/c001, sc01/c002, sc02/c001"


def test_finish_looks_into_a_whole_tree_and_finds_the_frame_that_is_gone(tree, capsys):
    out = tree.parent / "out"
    words = [str(tree), "--ref", str(tree.parent / "hero.png"), "-o", str(out), "--engine", "stand-in"]
    assert main([*words, "--shot", "sc01/c002"]) == 0
    assert list(pictures(out)) == ["sc01/c002/walk.0001.png", "sc01/c002/walk.0002.png"]
    assert main(words) == 0
    assert main(["farm", "finish", str(out)]) == 0
    assert capsys.readouterr().out.count("2 of 2 frames are there") == 3
    (out / "sc02" / "c001" / "walk.0002.png").unlink()
    assert main(["farm", "finish", str(out)]) == 7
    assert "walk.0002" in capsys.readouterr().err


def test_finish_misses_frames_that_have_to_be_there(tmp_path, capsys):
    shot = draw_shot(tmp_path / "walk", (1, 2, 3))
    out = str(tmp_path / "out")
    words = [str(shot), "--ref", str(tmp_path / "key.png"), "-o", out, "--engine", "stand-in"]
    assert main([*words, "--frames", "1,2"]) == 0
    assert main(["farm", "finish", out, "--frames", "openjd:1-2"]) == 0
    assert main(["farm", "finish", out, "--frames", "openjd:1-3"]) == 7
    assert "walk.0003" in capsys.readouterr().err


def test_finish_where_nothing_was_colored_is_no_success(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main(["farm", "finish", str(tmp_path / "out")]) == 3
    assert main(["farm", "finish", str(tmp_path / "nowhere")]) == 3


def test_the_files_of_a_preset_are_all_those_that_its_settings_name():
    assert files_of(Preset()) == {}
    preset = Preset(lora=(LoraSettings(file="a.safetensors"), LoraSettings(file="b.safetensors", strength=0.5)))
    assert files_of(preset) == {"lora.1.file": "a.safetensors", "lora.2.file": "b.safetensors"}
    walled = load_preset("cel", ["background.split=true", "background.image=wall.png"])
    assert list(files_of(walled)) == ["background.image"]


@pytest.mark.parametrize("path", ["/mnt/b.safetensors", "a = b", "{x}: [y] #z", "~/x", " ", "'\""])
def test_another_place_is_taken_as_it_is_typed_and_changes_nothing_else(path):
    preset = Preset(lora=(LoraSettings(file="a.safetensors"), LoraSettings(file="b.safetensors", strength=0.5)))
    moved = with_files(preset, [f"lora.2.file={path}"])
    assert [one.file for one in moved.lora] == ["a.safetensors", path]
    assert with_files(moved, ["lora.2.file=b.safetensors"]) == preset


@pytest.mark.parametrize("text", ["lora.1.file", "lora.1.file=", "lora.3.file=x", "lora.0.file=x", "model=x", "=x", ""])
def test_a_file_that_the_preset_does_not_name_is_refused(text):
    preset = Preset(lora=(LoraSettings(file="a.safetensors"), LoraSettings(file="b.safetensors")))
    with pytest.raises(PresetError, match="--set-file"):
        with_files(preset, [text])
