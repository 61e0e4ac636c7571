"""`compat: published` brings the quirks of the published program back, each where it belongs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colorcli.images import read_picture
from colorcli.model.preprocess import stretch
from colorcli.model.unet import group, places
from colorcli.pipeline import ColorizePipeline, Reference
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset, SamplerName, get_args
from colorcli.variants import VARIANTS
from tests import tiny_xl

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL = replace(VARIANTS["xlv2"], canvas_area=128 * 128, min_side=64)
FRAME = read_picture(SAMPLES / "walk_key.png")


@pytest.fixture(scope="module")
def xl() -> ColorizePipeline:
    return tiny_xl.pipeline()


@pytest.fixture(scope="module")
def xlv2() -> ColorizePipeline:
    return tiny_xl.pipeline(adapter=True)


def preset(compat: str, **groups: dict[str, Any]) -> Preset:
    quick = {"sampler": "euler", "steps": 1, "start": "noise", **groups.pop("sampling", {})}
    return Preset.model_validate({"compat": compat, "sampling": quick, **groups})


def frame(settings: Preset) -> PreparedFrame:
    return prepare_frame(FRAME, settings, SMALL)


def layer(pipe: ColorizePipeline, settings: Preset) -> np.ndarray:
    key = prepare_key(FRAME, settings, SMALL, background=FRAME if settings.background.image else None)
    return pipe.color([frame(settings)], pipe.encode_reference(key, settings), settings)[0]


def test_the_picture_is_one_of_256_steps_with_fractions_cut_off(xl):
    layers = torch.tensor([[[[-1.2, -1.0, -0.0040, 0.9999, 1.0]]]]).expand(1, 3, 1, 5)
    decoded = replace_decode(xl, layers)
    cut = layer(decoded, preset("published"))[0, :, 0] * 255
    assert np.abs(cut - [0, 0, 126, 254, 255]).max() < 1e-4
    exact = layer(decoded, preset("none"))[0, :, 0] * 255
    assert np.abs(exact - [0, 0, 126.99, 254.98725, 255]).max() < 1e-3


def replace_decode(pipe: ColorizePipeline, layers: Tensor) -> ColorizePipeline:
    class Painted(ColorizePipeline):
        """A pipeline whose autoencoder always paints the same."""

        def _decode(self, latents: Tensor, reference: Reference) -> Tensor:
            return layers

    return Painted(**pipe.components)


def test_positions_of_the_drawing_only_scale(xl):
    sketch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (xl._encoders(preset(compat)).sketch(sketch) for compat in ("none", "published"))
    assert same(ours, xl.sketch_encoder(sketch, rope="rotate"))
    assert same(theirs, xl.sketch_encoder(sketch, rope="cosine"))
    assert not same(ours, theirs)


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_latents_of_a_picture_are_drawn_from_the_distribution_and_the_same_each_time(xlv2):
    picture = torch.zeros(1, 3, 256, 256)
    distribution = xlv2.vae.encode(picture).latent_dist
    ours, theirs, again = (xlv2._encoders(preset(compat)).latents(picture) for compat in ("none", *["published"] * 2))
    assert torch.equal(theirs, again)
    torch.testing.assert_close(ours, distribution.mean)
    drawn = (theirs - distribution.mean) / distribution.std
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05)
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)


def test_strengths_of_groups_reach_the_blocks_that_the_published_programs_reach(xl, xlv2):
    reference = {"strength": 0.5, "encoder": 0.8, "low": 0.4, "middle": 0.2, "high": 0.1}
    base, adapter = (pipe._settings(preset("published", reference=reference)).strengths for pipe in (xl, xlv2))
    unet = xlv2.unet
    assert base == [0.4] * len(base)  # 0.5 * 0.8 everywhere
    encoder, low = set(group(unet, "encoder")), set(group(unet, "low"))
    expected = [0.2 if i in low else 0.4 if i in encoder else 1.0 for i in range(len(adapter))]
    assert adapter == pytest.approx(expected)
    mine = xl._settings(preset("none", reference=reference)).strengths
    assert mine[min(encoder - low)] == pytest.approx(0.5 * 0.8 * 0.1)


def test_a_number_for_each_block_multiplies_the_groups_it_is_in(xl):
    blocks = tuple(i / 100 for i in range(len(places(xl.unet))))
    settings = preset("none", reference={"strength": 0.5, "middle": 0.2, "blocks": blocks})
    middle = set(group(xl.unet, "middle"))
    expected = [0.5 * block * (0.2 if i in middle else 1) for i, block in enumerate(blocks)]
    assert xl._settings(settings).strengths == pytest.approx(expected)


@pytest.mark.parametrize("compat", ["none", "published"])
def test_strengths_inside_and_outside_are_ignored_by_the_published_base_model_without_merging(xl, compat):
    weak = {"foreground_strength": 0.3, "background_strength": 0.6}
    split = {"background": {"split": True}}
    plain, weakened = (layer(xl, preset(compat, reference=given, **split)) for given in ({}, weak))
    assert np.array_equal(plain, weakened) == (compat == "published")
    merged = [layer(xl, preset(compat, reference={"merge": 0.5, **given}, **split)) for given in ({}, weak)]
    assert not np.array_equal(*merged)


def test_a_canvas_has_the_published_automatic_size():
    wide = replace(FRAME, color=np.ones((1080, 1920, 3), np.float32), alpha=None)
    large = replace(VARIANTS["xl"])
    theirs, ours = (
        prepare_frame(wide, preset(compat, canvas={"crop": "frame"}), large).canvas.size
        for compat in ("published", "none")
    )
    assert theirs == (1376, 768)  # the published example
    assert ours[0] / ours[1] == pytest.approx(1920 / 1080, rel=0.03)


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_that_a_preset_may_name_colors_a_frame(xl, sampler):
    settings = preset("none", sampling={"sampler": sampler, "steps": 4}, canvas={"size": (64, 64)})
    key = prepare_key(FRAME, settings, SMALL)
    (found,) = xl.color([frame(settings)], xl.encode_reference(key, settings), settings)
    assert found.shape == (64, 64, 3)
    assert np.isfinite(found).all()


def test_the_keys_mask_reaches_the_reference_net_beside_an_unrelated_background(xlv2):
    """Four latents, the frame's mask, the key's: each mask stretched to the canvas, every eighth pixel taken."""
    behind = {"background": {"split": True, "image": "sky.png"}}
    masks = {}
    for compat in ("none", "published"):
        settings = preset(compat, **behind)
        key = prepare_key(FRAME, settings, SMALL, background=replace(FRAME, color=FRAME.color[:, :200], alpha=None))
        given: list[Tensor] = []
        hook = xlv2.reference_net.register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        xlv2.color([frame(settings)], xlv2.encode_reference(key, settings), settings)
        hook.remove()
        masks[compat] = given[0][:, 5:]
    height, width = (8 * side for side in masks["published"].shape[2:])
    stretched = stretch(torch.from_numpy(key.mask)[None, None], (height, width))
    torch.testing.assert_close(masks["published"], stretched[:, :, ::8, ::8])
    assert not masks["none"].any()  # a background of its own has no character unless somebody says so
