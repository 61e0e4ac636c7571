import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from colorcli.errors import WeightsError
from colorcli.images import read_picture
from colorcli.loading import load_pipeline
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset, WarmStartSettings
from colorcli.variants import VARIANTS
from tests.shot.studio import color

SAMPLES = Path(__file__).parent.parent / "samples"
QUICK = Preset.model_validate({"sampling": {"steps": 2}})
MINI = VARIANTS["mini"]


@pytest.fixture(scope="module")
def mini() -> ColorizePipeline:
    return load_pipeline("mini", "cpu")


@pytest.fixture(scope="module")
def frames():
    paths = sorted((SAMPLES / "walk").glob("*.png"))[:2]
    return [prepare_frame(read_picture(path), QUICK, MINI) for path in paths]


@pytest.fixture(scope="module")
def reference(mini):
    return mini.encode_reference(prepare_key(read_picture(SAMPLES / "walk_key.png"), QUICK, MINI), QUICK)


def test_a_layer_has_the_size_of_its_canvas(mini, frames, reference):
    layer = mini.color(frames[:1], reference, QUICK)[0]
    assert layer.shape[:2] == frames[0].ink_canvas.shape
    assert layer.min() >= 0 and layer.max() <= 1


def test_a_frame_does_not_depend_on_the_others(mini, frames, reference):
    alone = mini.color([frames[1]], reference, QUICK)[0]
    together = mini.color(frames[::-1], reference, QUICK)[0]
    assert np.array_equal(alone, together)


def test_the_key_decides_the_colors(mini, frames):
    key = read_picture(SAMPLES / "walk_key.png")
    red = type(key)(key.color * np.array([1.0, 0.3, 0.3], np.float32), key.alpha, key.format, key.channels)
    plain, reddened = (
        mini.color(frames[:1], mini.encode_reference(prepare_key(picture, QUICK, MINI), QUICK), QUICK)[0]
        for picture in (key, red)
    )
    inside = frames[0].mask_canvas > 0.9
    redness = [layer[inside][:, 0].mean() - layer[inside][:, 1:].mean() for layer in (plain, reddened)]
    assert redness[1] > redness[0] + 0.05


def test_a_saved_model_colors_as_before(mini, frames, reference, tmp_path):
    mini.save_pretrained(tmp_path)
    again = ColorizePipeline.from_pretrained(tmp_path)
    assert torch.equal(again.unet.conv_in.weight, mini.unet.conv_in.weight)
    # Where the weights lie in memory may change the last bit of a sum.
    before, after = (pipe.color(frames[:1], reference, QUICK)[0] for pipe in (mini, again))
    assert np.abs(before - after).max() < 1e-5


def test_pictures_of_pillow_are_taken_as_they_are(mini):
    key = PIL.Image.open(SAMPLES / "walk_key.png")
    lines = PIL.Image.open(SAMPLES / "walk" / "walk.0001.png")
    output = mini(lines, reference=mini.encode_reference(key, QUICK), preset=QUICK)
    assert output.images[0].shape == (lines.height, lines.width, 3)


def test_guidance_changes_the_picture(mini, frames, reference):
    guided = Preset.model_validate({"sampling": {"steps": 2}, "reference": {"guidance": 3.0}})
    assert not np.array_equal(mini.color(frames[:1], reference, guided)[0], mini.color(frames[:1], reference, QUICK)[0])


def test_the_chosen_attention_reaches_every_call_of_the_network(frames, reference):
    pipeline = load_pipeline("mini", "cpu")
    pipeline.attention = "xformers"   # on the CPU it is named, but SDPA does the work
    plans = []
    pipeline.unet.register_forward_pre_hook(lambda module, given: plans.append(given[5]))
    pipeline.color(frames[:1], reference, QUICK)
    assert len(plans) == 1 + QUICK.sampling.steps  # one for the parts of the frame
    assert {plan.backend for plan in plans} == {"xformers"}


def test_a_model_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(WeightsError) as refused:
        load_pipeline("mimi")
    assert "mini" in (refused.value.hint or "")


def test_without_a_step_the_layer_is_the_color_match(mini, frames, reference):
    none = Preset.model_validate({"sampling": {"steps": 0}})
    rows: list[int] = []
    hook = mini.vae.decoder.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    layer = mini.color(frames[:1], reference, none)[0]
    hook.remove()
    assert np.array_equal(layer, mini.match(frames[0], reference, none))
    assert not rows   # nothing was in latents that had to be decoded


def test_a_warm_start_is_refused_where_a_run_begins_from_the_match(mini, frames, reference):
    with pytest.raises(AssertionError, match="match"):
        mini.color_next(frames[0], None, reference, QUICK)


def test_a_frame_that_begins_from_others_has_the_same_bits_when_it_is_asked_for_alone(mini, tmp_path):
    (tmp_path / "walk").mkdir()
    for path in sorted((SAMPLES / "walk").glob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "walk")
    warm = Preset.model_validate({
        "canvas": {"crop": "frame", "area": 128 * 128}, "sampling": {"start": "noise", "steps": 2},
        "finish": {"fill": "model", "palette": "off"}, "warm_start": {"on": True},
    })
    given = {"ref": SAMPLES / "walk_key.png", "preset": warm, "colorizer": mini}
    whole = color(tmp_path / "walk", out=tmp_path / "whole", **given).pictures()
    alone = color(tmp_path / "walk", out=tmp_path / "alone", frames="3", **given).pictures()
    cold = color(tmp_path / "walk", out=tmp_path / "cold", frames="3", **given | {
        "preset": warm.model_copy(update={"warm_start": WarmStartSettings()})}).pictures()
    assert len(whole) == 3
    assert alone == {name: whole[name] for name in alone} != cold
