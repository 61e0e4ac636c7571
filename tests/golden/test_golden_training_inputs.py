"""From a batch of pictures to what the networks read in training: the golden numbers of both XL stages."""

from typing import Any

import torch
from torch import Tensor

from colorcli.model.conditions import Encoders
from colorcli.sampling import scaled_linear
from colorcli.train.data.batch import PictureBatch
from colorcli.train.objectives.bleaching import Thresholds
from colorcli.train.objectives.denoising import add_noise
from colorcli.train.objectives.published import Draws, xl_base_inputs, xl_refine_inputs
from tests.golden import networks
from tests.golden.fixture import Fixture, load
from tests.golden.test_golden_conditions import Placeholders


def encoders(fixture: Fixture, **more: Any) -> Encoders:
    stubs = Placeholders(fixture.inputs, [])
    return Encoders(
        stubs.clip, stubs.tagger, stubs.latents, networks.projection(fixture, fixture.config["proj"]),
        networks.sketch_encoder(fixture, fixture.config["control_encoder"]), **more,
    )


def batch(given: dict[str, Tensor]) -> PictureBatch:
    return PictureBatch(
        image=given["image"], sketch=given["control"], reference=given["reference"], sketch_mask=given["smask"],
        reference_mask=given["rmask"], size=given["size"], crop=given["crop"], score=given["aesthetic_score"],
    )


def draws(fixture: Fixture, hole: Tensor | None = None, white: Tensor | None = None) -> Draws:
    """Take what the reference run drew."""
    given, config = fixture.inputs, fixture.config
    never = torch.zeros(len(given["image"]), dtype=torch.bool)
    return Draws(
        thresholds=Thresholds.of(given["draw.threshold"], config["thresh_min"], config["thresh_max"]),
        hole=never if hole is None else hole,
        white=never if white is None else white,
        level=given.get("draw.white_level", torch.zeros(len(never), 1, 1, 1)),
        sketch_keep=tuple(fixture.input_family("draw.control_keep")),
    )


def test_golden_inputs_of_the_base_stage() -> None:
    fixture = load("xl_training_inputs_base")
    given = fixture.inputs
    hole = given["draw.inpaint"] < fixture.config["inpaint_p"]
    prepared = xl_base_inputs(encoders(fixture), batch(given), draws(fixture, hole=hole))
    assert prepared.seen is not None and prepared.read.y is not None
    fixture.check("reference_after_augmentation", prepared.seen.reference)
    fixture.check("z", prepared.latents)
    fixture.check("y", prepared.read.y)
    fixture.check("context", prepared.read.context)
    for i, level in enumerate(prepared.read.sketch_maps):
        fixture.check(f"control.{i}", level)


def test_golden_inputs_of_the_refinement_and_one_call_with_them() -> None:
    fixture = load("xl_training_inputs_adapter")
    given = fixture.inputs
    made = encoders(fixture, reference_net=networks.reference_net(fixture), adapters=networks.adapters(fixture))
    white = given["draw.white_background"] < fixture.config["p_white_bg"]
    prepared = xl_refine_inputs(made, batch(given), draws(fixture, white=white))
    read, plan = prepared.read, prepared.read.plan
    assert prepared.seen is not None and prepared.behind is not None and read.y is not None
    assert plan.region is not None and isinstance(plan.region.threshold, Tensor)
    found = {
        "image_after_bleaching": prepared.seen.image, "sketch_after_bleaching": prepared.seen.sketch,
        "background_reference": prepared.behind, "z": prepared.latents, "y": read.y, "context": read.context,
        "mask": plan.region.mask, "cross_attention_mask_threshold": plan.region.threshold[:, None, None],
        **{f"control.{i}": level for i, level in enumerate(read.sketch_maps)},
        **{name: plan.bank[int(name.removeprefix("bank.block"))] for name in fixture.outputs if "bank" in name},
    }
    assert found.keys() == fixture.outputs.keys() - {"v_prediction"}
    for name, value in found.items():
        assert isinstance(value, Tensor)
        fixture.check(name, value)

    alphas = torch.as_tensor(scaled_linear().alphas_cumprod)
    noised = add_noise(prepared.latents, given["noise"], given["timesteps"], alphas)
    unet = networks.unet(fixture)
    fixture.check(
        "v_prediction", unet(noised.latents, noised.times.float(), read.y, read.context, read.sketch_maps, plan)
    )
