"""From Python as from the command line: the background picture and the networks that a preset names are used."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from colorcli.errors import FrameError, WeightsError
from colorcli.loading import load_pipeline
from colorcli.pipeline import ColorizePipeline
from colorcli.presets import Preset
from tests.model.onnx_made import near_ink

SAMPLES = Path(__file__).parent.parent / "samples"
KEY = PIL.Image.open(SAMPLES / "walk_key.png")
SPLIT = {"sampling": {"start": "noise", "steps": 1}, "canvas": {"area": 128 * 128}}


@pytest.fixture(scope="module")
def mini() -> ColorizePipeline:
    return load_pipeline("mini", "cpu")


def behind(image: Path) -> Preset:
    return Preset.model_validate({**SPLIT, "background": {"split": True, "image": str(image)}})


def test_the_background_of_a_preset_changes_what_the_model_reads(mini: ColorizePipeline, tmp_path: Path) -> None:
    tokens = []
    for color in ("blue", "red", "blue"):
        PIL.Image.new("RGB", (40, 30), color).save(tmp_path / "wall.png")
        background = mini.encode_reference(KEY, behind(tmp_path / "wall.png")).tokens.background
        assert background is not None
        tokens.append(background.numpy())
    np.testing.assert_array_equal(tokens[0], tokens[2])
    assert np.abs(tokens[0] - tokens[1]).max() > 0.01


def test_a_background_that_is_not_there_is_named(mini: ColorizePipeline, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"none\.png"):
        mini.encode_reference(KEY, behind(tmp_path / "none.png"))


def test_the_networks_of_a_preset_are_asked(mini: ColorizePipeline, tmp_path: Path) -> None:
    good = near_ink(tmp_path / "good.onnx", reach=9, inputs={"picture": (1, 3, 64, 64)})
    broken = near_ink(tmp_path / "broken.onnx", reach=9, inputs={"picture": (1, 64, 64, 3)})
    masks = {"source": "network", "key_network": str(good)}
    drawing = PIL.Image.open(SAMPLES / "walk" / "walk.0001.png")
    with pytest.raises(WeightsError, match=r"broken\.onnx"):
        mini(drawing, KEY, Preset.model_validate({**SPLIT, "masks": {**masks, "network": str(broken)}}))
    (layer,) = mini(drawing, KEY, Preset.model_validate({**SPLIT, "masks": {**masks, "network": str(good)}})).images
    assert layer.shape == (drawing.height, drawing.width, 3)
