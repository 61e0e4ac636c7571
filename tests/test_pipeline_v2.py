"""The pipeline on a v2 of tiny width and random weights: every option reaches the picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colorcli.errors import PresetError
from colorcli.images import read_picture
from colorcli.model.memory import PRECISIONS, PROFILES
from colorcli.pipeline import ColorizePipeline, picture_of
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset, check_for_variant
from colorcli.variants import VARIANTS
from tests import tiny_v2

SAMPLES = Path(__file__).parent.parent / "samples"
QUICK: dict[str, Any] = {
    "canvas": {"area": 128 * 128, "crop": "frame"},
    "reference": {"guidance": 2.0},
    "sampling": {"sampler": "diffusers-dpm", "steps": 2, "start": "noise"},
}
SMALL = replace(VARIANTS["v2"], min_side=64)
SPLIT = {"background": {"split": True}}


def preset(**groups: dict[str, Any]) -> Preset:
    merged = {name: {**QUICK.get(name, {}), **groups.get(name, {})} for name in {*QUICK, *groups}}
    return Preset.model_validate(merged)


@pytest.fixture(scope="module")
def v2() -> ColorizePipeline:
    return tiny_v2.pipeline()


@pytest.fixture(scope="module")
def frame() -> PreparedFrame:
    return prepare_frame(read_picture(SAMPLES / "walk" / "walk.0001.png"), preset(), SMALL)


def key(settings: Preset) -> PreparedKey:
    sky = None
    if settings.background.image is not None:
        sky = picture_of(np.linspace(0, 1, 40 * 60 * 3, dtype=np.float32).reshape(40, 60, 3))
    return prepare_key(read_picture(SAMPLES / "walk_key.png"), settings, SMALL, background=sky)


def layer(pipe: ColorizePipeline, frame: PreparedFrame, **groups: dict[str, Any]) -> Any:
    settings = preset(**groups)
    return pipe.color([frame], pipe.encode_reference(key(settings), settings), settings)[0]


def test_it_is_told_from_its_parts(v2):
    assert v2.variant.name == "v2"


def test_a_layer_has_the_size_of_its_canvas(v2, frame):
    found = layer(v2, frame)
    assert found.shape[:2] == frame.ink_canvas.shape
    assert all(side % 64 == 0 for side in found.shape[:2])
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("groups", [
    SPLIT,
    {"style": {"enhance": True}},
    {"reference": {"strength": 0.5}},
    {"reference": {"low": 0.2}},
    {"sketch": {"strength": 0.5}},
    {"sketch": {"guidance": 2.0}},
    {"injection": {"on": True}},
], ids=["split", "style", "strength", "low", "sketch", "sketch-guidance", "injection"])
def test_an_option_changes_the_picture(v2, frame, groups):
    assert np.abs(layer(v2, frame, **groups) - layer(v2, frame)).max() > 1e-4


@pytest.mark.parametrize("background", [
    {"hints": 0.0}, {"adapter": 0.0}, {"image": "sky.png"}, {"image": "sky.png", "latent_copy": True},
], ids=["hints", "adapter", "image", "latent-copy"])
def test_with_a_split_an_option_of_the_background_changes_the_picture(v2, frame, background):
    plain = layer(v2, frame, **SPLIT)
    assert np.abs(layer(v2, frame, background={"split": True, **background}) - plain).max() > 1e-4


def test_a_saved_model_colors_as_before(v2, frame, tmp_path):
    v2.save_pretrained(tmp_path)
    again = ColorizePipeline.from_pretrained(tmp_path)
    both = {"background": {"split": True}, "style": {"enhance": True}}
    assert np.abs(layer(again, frame, **both) - layer(v2, frame, **both)).max() < 1e-4


def test_in_16_bit_the_picture_is_nearly_the_same(v2, frame):
    both = {"background": {"split": True}, "style": {"enhance": True}}
    half = tiny_v2.pipeline().keep_within(replace(PROFILES["full"], precision=PRECISIONS["bf16"]), "cpu")
    assert half.style_encoder.dtype == half.background_encoder.dtype == torch.bfloat16
    difference = np.abs(layer(half, frame, **both) - layer(v2, frame, **both))
    assert 0 < difference.mean() < 0.02


def test_a_style_is_refused_where_no_model_part_reads_it():
    with pytest.raises(PresetError, match=r"style\.enhance .* xl has no style encoder .*v2"):
        check_for_variant(preset(style={"enhance": True}), VARIANTS["xl"])
