import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from colorcli.errors import PresetError
from colorcli.train.loop import train
from colorcli.train.recipe import read_recipe

RECIPE = """
name: tiny
seed: 3
drawings: {characters: 8, poses: 2, validation_characters: 8}
stages:
  - {name: autoencoder, steps: 4, batch: 2, rate: 1.0e-3, warmup: 1}
  - {name: tagger, steps: 2, batch: 4, rate: 1.0e-3, warmup: 1}
  - {name: sketch, steps: 2, batch: 2, rate: 1.0e-3, warmup: 1}
  - {name: colorizer, steps: 2, batch: 2, rate: 1.0e-3, warmup: 1}
checkpoint_every: 2
"""


class KilledError(Exception):
    """Stands for a power cut."""


def run_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch, kill_after: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("COLORCLI_RUNS", str(folder))
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)

    def tell(line: str) -> None:
        if kill_after is not None and line.startswith(kill_after):
            raise KilledError

    train(recipe, tell)


@pytest.fixture(scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path, monkeypatch, one_thread):
    run_tiny(tmp_path / "whole", monkeypatch)
    for moment in ("autoencoder: step 2", "sketch: step 2"):
        with pytest.raises(KilledError):
            run_tiny(tmp_path / "broken", monkeypatch, kill_after=moment)
    run_tiny(tmp_path / "broken", monkeypatch)
    for name in ("vae", "tagger", "sketch_encoder", "unet"):
        whole = load_file(tmp_path / "whole" / "tiny" / "model" / name / "diffusion_pytorch_model.safetensors")
        broken = load_file(tmp_path / "broken" / "tiny" / "model" / name / "diffusion_pytorch_model.safetensors")
        assert whole.keys() == broken.keys()
        for key, value in whole.items():
            assert torch.equal(value, broken[key]), (name, key)


def test_each_stage_notes_its_curve_with_a_validation(tmp_path, monkeypatch, one_thread):
    run_tiny(tmp_path, monkeypatch)
    notes = [json.loads(line) for line in (tmp_path / "tiny" / "2-tagger" / "curve.jsonl").read_text().splitlines()]
    assert notes[-1]["step"] == 2
    assert 0 <= notes[-1]["check_on_line"] <= 1


def test_a_recipe_with_an_unknown_key_names_the_file_and_the_key(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(RECIPE.replace("warmup: 1", "warmpu: 1", 1))
    with pytest.raises(PresetError, match=r"bad\.yaml.*warmpu"):
        read_recipe(path)
