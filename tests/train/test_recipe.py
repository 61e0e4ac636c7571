"""Recipes are read and checked before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from colorcli.errors import PresetError, UsageError
from colorcli.train.recipe import read_recipe
from colorcli.train.stages import STAGES

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
RECIPE = """\
name: tiny
seed: 3
ema: {decay: 0.998}
drawings: {characters: 8}
stages:
  - {name: autoencoder, steps: 4, batch: 2, rate: 1.0e-3}
  - {name: tagger, steps: 2, batch: 4, rate: 1.0e-3}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_shipped_recipe_can_be_read_and_has_the_name_of_its_file(path):
    read = read_recipe(path)
    assert read.name == path.stem
    assert all(stage.name in STAGES for stage in read.stages)


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message", "hint"),
    [
        ("rate: 1.0e-3}\n  - {name: t", "rat: 1.0e-3}\n  - {name: t", 6, "stages.autoencoder.rat", "rate"),
        ("seed: 3", "sead: 3", 2, "sead is no setting", "did you mean seed"),
        ("steps: 2", "steps: soon", 7, 'stages.tagger.steps is "soon".*whole number', "steps"),
        ("name: tagger", "name: taggr", 7, 'stages.taggr.name is "taggr"', "did you mean tagger"),
        ("decay: 0.998", "decay: 2", 3, "ema.decay is 2.*below 1", "decay"),
        ("seed: 3", "model: xl", 1, "stage autoencoder is one of mini, but model is xl", ""),
        ("batch: 4, ", "", 7, "stages.tagger.batch is missing", "batch: drawings"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(recipe, right, wrong, line, message, hint):
    assert right in RECIPE
    recipe.write_text(RECIPE.replace(right, wrong))
    with pytest.raises(PresetError, match=message) as failure:
        read_recipe(recipe)
    assert failure.value.message.startswith(f"{recipe}:{line}:" if "one of mini" not in message else f"{recipe}:")
    assert hint in (failure.value.hint or "")


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2", "name: x\nstages: 3\n", "name: x\nstages: [3]\n"])
def test_what_is_no_recipe_at_all_is_refused_by_its_name(recipe, text):
    recipe.write_text(text)
    with pytest.raises(PresetError, match=r"tiny\.yaml"):
        read_recipe(recipe)


def test_a_recipe_runs_nothing(recipe, tmp_path):
    recipe.write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(PresetError, match="tag"):
        read_recipe(recipe)
    assert not (tmp_path / "ran").exists()


def test_changes_are_laid_over_the_file(recipe):
    changes = ["seed=9", "stages.tagger.steps=7", "stages.tagger.gram.weight=0.5", "previews.every=10"]
    read = read_recipe(recipe, changes)
    assert (read.seed, read.stages[1].steps, read.stages[1].gram.weight, read.previews.every) == (9, 7, 0.5, 10)
    assert read.stages[0].steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "key=value"),
        ("stages.sketch.steps=1", "no stages.sketch"),
        ("stages.steps=1", "is a list"),
    ],
)
def test_a_change_that_is_none_says_why(recipe, change, message):
    with pytest.raises(UsageError, match=message):
        read_recipe(recipe, [change])


def test_paths_in_a_recipe_are_seen_from_its_folder_and_in_changes_from_here(recipe, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe.write_text(RECIPE + "start_from: weights\npictures: {folder: ../data}\n")
    read = read_recipe(recipe)
    assert (read.start_from, read.pictures.folder) == (tmp_path / "weights", tmp_path.parent / "data")
    assert read_recipe(recipe, ["start_from=mine"]).start_from == elsewhere / "mine"


def test_the_name_of_a_model_is_no_path(tmp_path):
    path = tmp_path / "base.yaml"
    for model, wanted in {"xl": "xl", "./xl": str(tmp_path / "xl")}.items():
        path.write_text(f"name: base\nmodel: {model}\nstages: [{{name: xl-base, steps: 1, batch: 5, rate: 1.0e-5}}]\n")
        assert read_recipe(path).model == wanted


def test_reading_a_recipe_loads_no_torch():
    code = "import sys, colorcli.train.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False"
