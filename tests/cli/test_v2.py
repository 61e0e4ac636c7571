"""The sample shot, colored by a v2 of tiny width through the command line: the same plan, manifest and finishing."""

import json
from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.images import read_picture
from colorcli.model.weights import write_list
from colorcli.variants import VARIANTS
from tests import tiny_v2

SAMPLES = Path(__file__).parent.parent.parent / "samples"
FRAMES = sorted((SAMPLES / "walk").glob("*.png"))

STYLE = """\
extends: cel
canvas:
  size: [128, 64]
sampling:
  steps: 2
background:
  split: true
  rule: model
style:
  enhance: true
manipulate:
  - target: red hair
    scale: 8
    anchor: hair
    control: hair
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    tiny_v2.pipeline(words=True).save_pretrained(folder)
    write_list(folder, "v2", VARIANTS["v2"].license)
    return folder


@pytest.fixture
def shot(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of the command that colors the sample shot into `out`; the working directory holds `style.yaml`."""
    (tmp_path / "style.yaml").write_text(STYLE)
    monkeypatch.chdir(tmp_path)
    given = [str(SAMPLES / "walk"), "--ref", str(SAMPLES / "walk_key.png"), "--model", str(model)]
    return [*given, "--preset", "style.yaml", "-o", "out"]


def manifest() -> dict[str, object]:
    found: dict[str, object] = json.loads(Path("out/manifest.json").read_text())
    return found


def test_v2_colors_the_sample_shot_and_picks_up_where_it_was(
    capsys: pytest.CaptureFixture[str], shot: list[str], model: Path
) -> None:
    assert main(shot) == 0
    assert sorted(path.name for path in Path("out").glob("*.png")) == [path.name for path in FRAMES]
    for path in FRAMES:
        assert read_picture(Path("out") / path.name).size == read_picture(path).size
    written = manifest()
    assert written["models"][0]["name"] == "v2"                     # type: ignore[index]
    assert written["models"][0]["license"] == "CC-BY-NC-SA-4.0"     # type: ignore[index]
    assert written["settings"]["manipulate"][0]["target"] == "red hair"   # type: ignore[index]
    assert written["settings"]["sampling"]["sampler"] == "diffusers-dpm"  # type: ignore[index]

    capsys.readouterr()
    Path("out", FRAMES[1].name).unlink()
    assert main(shot) == 0
    out = capsys.readouterr().out
    assert f"1 colored, {len(FRAMES) - 1} up to date" in out

    assert main([*shot, "--frames", "1", "--set", "manipulate=[{target: blue hair, scale: 8}]"]) == 0
    assert "1 colored" in capsys.readouterr().out


def test_prepare_shows_which_parts_of_the_key_the_words_reach(
    capsys: pytest.CaptureFixture[str], shot: list[str]
) -> None:
    assert main(["prepare", *shot, "--frames", "1"]) == 0
    shown = read_picture(Path("out/key.manipulate.1.png"))
    assert shown.size == read_picture(SAMPLES / "walk_key.png").size
    assert main(["prepare", *shot, "--frames", "1", "--set", "manipulate=[]", "-o", "plain"]) == 0
    assert not list(Path("plain").glob("key.manipulate*"))


def test_a_model_without_a_text_tower_says_what_to_do(
    capsys: pytest.CaptureFixture[str], shot: list[str], tmp_path: Path
) -> None:
    tiny_v2.pipeline().save_pretrained(tmp_path / "wordless")
    write_list(tmp_path / "wordless", "v2", VARIANTS["v2"].license)
    assert main([*shot, "--model", str(tmp_path / "wordless"), "--frames", "1"]) == 5
    err = capsys.readouterr().err
    assert "wordless has no text_encoder/" in err
    assert "colorcli models import" in err
