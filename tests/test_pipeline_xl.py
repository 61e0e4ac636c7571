"""The pipeline on an xl and an xlv2 of tiny width and random weights: every option reaches the picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from colorcli.errors import PresetError
from colorcli.images import read_picture
from colorcli.model.conditions import ConditionSettings, KeyPictures, frame_conditions, read_key
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset, load_preset
from colorcli.sampling import Guidance, frame_noise, guided, sample
from colorcli.variants import VARIANTS
from tests import tiny_xl

SAMPLES = Path(__file__).parent.parent / "samples"
QUICK: dict[str, Any] = {
    "canvas": {"area": 128 * 128, "crop": "drawing"},
    "sampling": {"sampler": "euler", "steps": 2, "start": "noise"},
}


def preset(**groups: dict[str, Any]) -> Preset:
    merged = {name: {**QUICK.get(name, {}), **groups.get(name, {})} for name in {*QUICK, *groups}}
    return Preset.model_validate(merged)


SMALL = replace(VARIANTS["xlv2"], min_side=64)


@pytest.fixture(scope="module")
def xl() -> ColorizePipeline:
    return tiny_xl.pipeline()


@pytest.fixture(scope="module")
def xlv2() -> ColorizePipeline:
    return tiny_xl.pipeline(adapter=True)


@pytest.fixture(scope="module")
def frames() -> list[PreparedFrame]:
    paths = sorted((SAMPLES / "walk").glob("*.png"))[:2]
    whole = preset(canvas={"crop": "frame"})
    return [prepare_frame(read_picture(path), whole, SMALL) for path in paths]


def key(settings: Preset) -> PreparedKey:
    return prepare_key(read_picture(SAMPLES / "walk_key.png"), settings, SMALL)


def layer(pipe: ColorizePipeline, frame: PreparedFrame, settings: Preset) -> np.ndarray:
    return pipe.color([frame], pipe.encode_reference(key(settings), settings), settings)[0]


@contextmanager
def calls_of(module: torch.nn.Module) -> Iterator[list[tuple[Any, ...]]]:
    """Write down the arguments of every call of a network."""
    calls: list[tuple[Any, ...]] = []
    hook = module.register_forward_pre_hook(lambda _, given: calls.append(given))
    yield calls
    hook.remove()


def test_the_parts_tell_which_model_it_is(xl, xlv2):
    assert (xl.variant.name, xlv2.variant.name) == ("xl", "xlv2")


def test_a_layer_is_what_the_published_steps_give_one_after_the_other(xl, frames):
    settings = preset(reference={"guidance": 3.0})
    found = layer(xl, frames[0], settings)

    shown = torch.from_numpy(key(settings).picture.color).permute(2, 0, 1)[None] * 2 - 1
    sketch = (torch.from_numpy(frames[0].ink_canvas) * 2 - 1).expand(1, 3, -1, -1)
    plain = ConditionSettings(blank=False)
    encoders = xl._encoders(settings)
    with torch.inference_mode():
        tokens = read_key(encoders, KeyPictures(shown), plain)
        predict = guided(xl.unet, frame_conditions(encoders, tokens, sketch, None, plain), Guidance(3.0))
        noise = frame_noise([settings.sampling.seed], (4, sketch.shape[2] // 8, sketch.shape[3] // 8))
        latents = sample(predict, noise, sampler="euler", count=2, schedule=xl.scheduler.config)
        picture = xl.vae.decode(latents / 0.13025).sample[0].permute(1, 2, 0)
    assert np.abs(found - ((picture.clamp(-1, 1) + 1) / 2).numpy()).max() < 1e-5


def test_frames_colored_together_come_out_as_alone(xlv2, frames):
    settings = preset(background={"split": True}, reference={"guidance": 2.0}, sketch={"guidance": 2.0})
    reference = xlv2.encode_reference(key(settings), settings)
    with torch.inference_mode():
        together = xlv2._color(frames, reference, settings).layers
    for one, frame in zip(together, frames, strict=True):
        assert np.abs(one - xlv2.color([frame], reference, settings)[0]).max() < 1e-4


CHANGES: dict[str, dict[str, Any]] = {
    "reference.strength": {"reference": {"strength": 0.3}},
    "reference.encoder": {"reference": {"encoder": 0.0}},
    "reference.middle": {"reference": {"middle": 0.0}},
    "reference.low": {"reference": {"low": 0.0}},
    "reference.high": {"reference": {"high": 0.0}},
    "reference.guidance": {"reference": {"guidance": 5.0}},
    "sketch.strength": {"sketch": {"strength": 0.2}},
    "sketch.levels": {"sketch": {"levels": (1.0, 1.0, 0.0, 1.0)}},
    "sketch.guidance": {"sketch": {"guidance": 3.0}},
    "sampling.window": {"sampling": {"window": (0.5, 1.0)}},
    "sampling.off_window": {"sampling": {"off_window": (0.0, 0.2)}},
    "sampling.schedule": {"sampling": {"schedule": "sgm-uniform"}},
    "sampling.seed": {"sampling": {"seed": 8}},
    "injection.on": {"injection": {"on": True}, "background": {"reference_net": False}},
    "background.split": {"background": {"split": True}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_picture(xlv2, frames, name):
    changed = layer(xlv2, frames[0], preset(**CHANGES[name]))
    assert np.abs(changed - layer(xlv2, frames[0], preset())).max() > 1e-4


SPLIT_CHANGES: dict[str, dict[str, Any]] = {
    "reference.foreground_strength": {"reference": {"foreground_strength": 0.2}},
    "reference.background_strength": {"reference": {"background_strength": 0.2}},
    "reference.merge": {"reference": {"merge": 0.7}},
    "background.reference_net": {"background": {"reference_net": False}},
    "background.adapter": {"background": {"adapter": 0.0}},
}


@pytest.mark.parametrize("name", SPLIT_CHANGES)
def test_every_option_of_a_split_changes_the_picture(xlv2, frames, name):
    change = {group: dict(values) for group, values in SPLIT_CHANGES[name].items()}
    change["background"] = {"split": True, **change.get("background", {})}
    changed = layer(xlv2, frames[0], preset(**change))
    assert np.abs(changed - layer(xlv2, frames[0], preset(background={"split": True}))).max() > 1e-4


def test_without_a_split_an_xlv2_is_an_xl(frames):
    base, plugged = tiny_xl.pipeline(), tiny_xl.pipeline(adapter=True)
    plugged.unet.load_state_dict(base.unet.state_dict())
    for name in ("vae", "tagger", "image_encoder", "projection", "sketch_encoder"):
        getattr(plugged, name).load_state_dict(getattr(base, name).state_dict())
    assert np.array_equal(layer(base, frames[0], preset()), layer(plugged, frames[0], preset()))


def outside(frame: PreparedFrame) -> np.ndarray:
    """Where a latent and its neighbors lie wholly outside the character, (h, w) bool."""
    return cv2.dilate(frame.mask_canvas, np.ones((33, 33), np.uint8)) < 0.01


def test_a_background_picture_takes_the_place_of_the_bleached_key(xlv2, frames):
    settings = preset(background={"split": True})
    beach = read_picture(SAMPLES / "walk_key.png")
    beach = replace(beach, color=1 - beach.color)
    layers = []
    for behind in (None, beach):
        prepared = prepare_key(read_picture(SAMPLES / "walk_key.png"), settings, SMALL, background=behind)
        layers.append(xlv2.color(frames[:1], xlv2.encode_reference(prepared, settings), settings)[0])
    assert np.abs(layers[0] - layers[1])[outside(frames[0])].max() > 1e-3


def test_latent_copy_leaves_the_background_picture_behind_the_character(xlv2, frames):
    """The last step removes what noise is left, so the copied latents come through but for that one step."""
    steps = {"sampler": "ddim", "steps": 40}
    settings = preset(background={"split": True, "latent_copy": True, "image": "sky.png"}, sampling=steps)
    sky = read_picture(SAMPLES / "walk_key.png")
    sky = replace(sky, color=np.full_like(sky.color, 0.2), alpha=None)
    prepared = prepare_key(read_picture(SAMPLES / "walk_key.png"), settings, SMALL, background=sky)
    with calls_of(xlv2.reference_net) as calls:
        found = xlv2.color(frames[:1], xlv2.encode_reference(prepared, settings), settings)[0]
    with torch.inference_mode():
        shown = torch.full((1, 3, *frames[0].ink_canvas.shape), 0.2 * 2 - 1)
        decoded = xlv2.vae.decode(xlv2.vae.encode(shown).latent_dist.mode()).sample[0].permute(1, 2, 0)
    far = np.abs(found - ((decoded.clamp(-1, 1) + 1) / 2).numpy()).mean(2)
    assert not calls  # what is copied need not be read
    assert np.median(far[outside(frames[0])]) < 0.25 * np.median(far[frames[0].mask_canvas > 0.5])


def test_reference_only_attention_doubles_the_calls_of_the_network(xl, frames):
    counts = []
    for injection in ({"on": False}, {"on": True}, {"on": True, "start": 1.0}):
        settings = preset(injection=injection)
        reference = xl.encode_reference(key(settings), settings)
        with calls_of(xl.unet.conv_in) as calls:
            xl.color(frames[:1], reference, settings)
        counts.append(len(calls))
    assert counts == [2, 4, 3]  # progress 1 is the last of two steps


def test_a_shot_projects_its_key_only_once(xl, frames):
    settings = preset()
    reference = xl.encode_reference(key(settings), settings)
    block = xl.unet.mid_block.attentions[0].transformer_blocks[0]
    with calls_of(block.attn2.to_k) as calls:
        for frame in frames:
            xl.color([frame], reference, settings)
    assert not calls


def test_a_frame_projects_what_lies_behind_once_for_all_steps(xlv2, frames):
    settings = preset(background={"split": True}, sampling={"steps": 3})
    reference = xlv2.encode_reference(key(settings), settings)
    block = xlv2.unet.up_blocks[0].attentions[0].transformer_blocks[0]
    with calls_of(block.attn1.to_k) as calls:
        xlv2.color(frames[:1], reference, settings)
    assert len(calls) == 3 + 1   # the frame's own tokens in every step


def test_a_saved_adapter_model_colors_as_before(xlv2, frames, tmp_path):
    settings = preset(background={"split": True})
    xlv2.save_pretrained(tmp_path)
    again = ColorizePipeline.from_pretrained(tmp_path)
    assert again.variant.name == "xlv2" and again.feature_head is None
    assert np.abs(layer(again, frames[0], settings) - layer(xlv2, frames[0], settings)).max() < 1e-5


def test_a_color_match_is_refused_by_a_model_without_one(xl):
    with pytest.raises(PresetError, match="mini"):
        xl.encode_reference(key(preset()), preset(sampling={"start": "match"}))


WARM: dict[str, Any] = {"canvas": {"crop": "frame"}, "sampling": {"steps": 8}, "warm_start": {"on": True, "level": 0.5}}


def test_a_first_frame_is_colored_as_ever_and_the_next_makes_half_the_steps_of_where_it_ended(xl, frames):
    settings = preset(**WARM)
    reference = xl.encode_reference(key(settings), settings)
    with calls_of(xl.unet.conv_in) as calls:
        first, end = xl.color_next(frames[0], None, reference, settings)
        cold = len(calls)
        second, _ = xl.color_next(frames[1], end, reference, settings)
    assert (cold, len(calls) - cold) == (8, 4)
    assert np.array_equal(first, xl.color(frames[:1], reference, settings)[0])
    # What comes before shines through, the more the fewer steps are made.
    other = xl.color_next(frames[1], -end, reference, settings)[0]
    weaker = preset(**{**WARM, "warm_start": {"on": True, "level": 0.9}})
    late, early = (np.abs(xl.color_next(frames[1], end, reference, each)[0]
                          - xl.color_next(frames[1], -end, reference, each)[0]).mean() for each in (settings, weaker))
    assert not np.array_equal(second, other)
    assert late > early


@pytest.mark.parametrize(("name", "cold", "warm"), [("xl", 40, None), ("xl-fast", 18, None), ("xl-turbo", 16, 8)])
def test_the_fast_presets_compute_as_few_rows_as_they_say(xl, frames, name, cold, warm):
    settings = load_preset(name, ["canvas.size=[128, 128]"])
    reference = xl.encode_reference(key(settings), settings)
    with calls_of(xl.unet) as calls:
        _, end = xl.color_next(frames[0], None, reference, settings)
    assert sum(len(given[0]) for given in calls) == cold
    if warm is not None:
        with calls_of(xl.unet) as calls:
            xl.color_next(frames[1], end, reference, settings)
        assert sum(len(given[0]) for given in calls) == warm
