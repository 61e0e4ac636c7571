"""From a folder of pictures to a model that colors a shot, with a shrunk xl."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from colorcli.cli.main import main
from colorcli.errors import DataError, PresetError, WeightsError
from colorcli.loading import load_pipeline
from colorcli.model.weights import family_of, read_list, verify, write_list
from colorcli.train.recipe import read_recipe
from colorcli.train.run.loop import train
from colorcli.train.run.plan import plan_run
from tests import tiny_xl

LICENSE = "LicenseRef-studio"
RECIPE = """\
name: small
model: {model}
pictures: {{folder: {pictures}, side: 64, reference_side: 64, min_side: 64, readers: 1}}
stages:
  - {{name: {stage}, steps: 2, batch: 2, rate: 1.0e-3, gram: {{weight: {gram}}}}}
checkpoint_every: 1
validate_every: 0
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four colored discs with their outlines and masks, as plain folders."""
    root = tmp_path_factory.mktemp("pictures")
    for kind in ("color", "sketch", "mask"):
        (root / kind / "discs").mkdir(parents=True)
    for number in range(4):
        image, sketch = (np.full((80, 72, 3), 255, np.uint8) for _ in range(2))
        mask = np.zeros((80, 72), np.uint8)
        for canvas, color, thickness in ((image, (40 * number, 90, 200), -1), (sketch, (0, 0, 0), 2), (mask, 255, -1)):
            cv2.circle(canvas, (36, 30 + 5 * number), 20, color, thickness)
        for kind, picture in (("color", image), ("sketch", sketch), ("mask", mask)):
            cv2.imwrite(str(root / kind / "discs" / f"{number}.png"), picture)
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A shrunk xl, stored in half precision."""
    folder = tmp_path_factory.mktemp("base") / "xl"
    tiny_xl.pipeline().to(torch.float16).save_pretrained(folder)
    write_list(folder, "xl", LICENSE)
    return folder


def recipe_in(folder: Path, **values: object) -> Path:
    path = folder / "small.yaml"
    path.write_text(RECIPE.format(**{"stage": "xl-base", "gram": 0, **values}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures, base):
    """The base trained for two steps with the second branch."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORCLI_RUNS", str(folder))
        run = train(recipe_in(folder, model=base, pictures=pictures, gram=1), print, device="cpu")
    return run / "model"


def parts_of(model: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.parent.name: load_file(path) for path in sorted(model.glob("*/*.safetensors"))}


def test_what_the_stage_trains_has_moved_and_all_else_is_bit_for_bit_the_same(base, trained):
    before, after = parts_of(base), parts_of(trained)
    assert before.keys() == after.keys()
    moved = {name for name, part in before.items()
             if any(not torch.equal(after[name][key], value) for key, value in part.items())}
    assert moved == {"unet", "sketch_encoder", "projection"}
    assert {value.dtype for value in after["unet"].values()} == {torch.float16}   # as it was stored


def test_the_exported_model_is_whole_and_stays_under_its_license(trained):
    listed = read_list(trained)
    assert (listed.model, listed.license, family_of(str(trained))) == ("xl", LICENSE, "xl")
    assert {check.state for check in verify(trained)} == {"ok"}
    assert json.loads((trained / "weights.json").read_text())["source"]["stages"] == ["xl-base"]


def test_the_exported_model_colors_a_shot(trained, tmp_path):
    frame = np.full((96, 96, 3), 255, np.uint8)
    cv2.circle(frame, (48, 48), 30, (0, 0, 0), 2)
    (tmp_path / "disc").mkdir()
    cv2.imwrite(str(tmp_path / "disc" / "disc.0001.png"), frame)
    cv2.imwrite(str(tmp_path / "key.png"), frame)
    settings = ["canvas.size=[64, 64]", "sampling.steps=1", "sampling.sampler=euler"]
    command = [str(tmp_path / "disc"), "--ref", str(tmp_path / "key.png"), "--model", str(trained), "--device", "cpu",
               "-o", str(tmp_path / "out"), *[word for setting in settings for word in ("--set", setting)]]
    assert main(command) == 0
    assert cv2.imread(str(tmp_path / "out" / "disc.0001.png")).shape == (96, 96, 3)


def test_the_refinement_makes_an_xlv2_of_an_xl(base, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("COLORCLI_RUNS", str(tmp_path))
    recipe = recipe_in(tmp_path, model=base, pictures=pictures, stage="xl-refine")
    (planned,) = plan_run(read_recipe(recipe)).stages
    model = train(recipe, print, device="cpu") / "model"
    pipeline = load_pipeline(str(model), "cpu")
    assert family_of(str(model)) == "xlv2"
    assert planned.trained == {
        name: sum(weight.numel() for weight in getattr(pipeline, name).parameters())
        for name in ("reference_net", "adapter")
    }
    before, after = parts_of(base), parts_of(model)
    assert all(torch.equal(after[name][key], value) for name, part in before.items() for key, value in part.items())
    ups = [value for name, value in after["adapter"].items() if name.endswith("up")]
    assert ups and all(up.abs().max() > 0 for up in ups)   # they begin at zero


@pytest.mark.parametrize(
    ("text", "failure", "message"),
    [
        ("license: MIT\n", PresetError, f"are under {LICENSE}, and the recipe makes MIT"),
        ("start_from: nowhere\n", WeightsError, "nowhere"),
        ("sheets: {folder: gone}\n", DataError, r"sheets\.folder: there is no folder .*gone"),
    ],
)
def test_what_cannot_be_begun_with_is_said_before_training(base, pictures, tmp_path, text, failure, message):
    recipe = recipe_in(tmp_path, model=base, pictures=pictures)
    recipe.write_text(recipe.read_text() + text)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(failure, match=message):
        patch.setenv("COLORCLI_RUNS", str(tmp_path))
        train(recipe, print, device="cpu")
