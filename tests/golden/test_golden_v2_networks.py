"""The single networks of the SD2.1 model give the golden numbers."""

import pytest
import torch

from colorcli.model.attention import AttentionPlan, Region, SideFeatures
from colorcli.model.scalars import size_vector
from colorcli.model.side_encoders import SideUNet, project_hints
from colorcli.model.unet import GROUPS_V2, group, places, project_context
from tests.golden import networks_v2
from tests.golden.fixture import Fixture, count, load
from tests.golden.networks_v2 import sizes


def test_golden_sketch_encoder_gives_five_maps_finest_first():
    fixture = load("v2_sketch_encoder")
    maps = networks_v2.sketch_encoder(fixture, fixture.config["constructor"])(fixture.inputs["sketch"])
    assert len(maps) == len(fixture.outputs)
    for i, control in enumerate(maps):
        fixture.check(f"control.{i}", control)


@pytest.mark.parametrize("name", ["bg_encoder", "style_encoder"])
def test_golden_side_encoder_reads_every_level_coarsest_first(name):
    fixture = load("v2_feature_encoders")
    given = fixture.inputs
    assert not given["timesteps"].any()
    make = {"bg_encoder": networks_v2.background_encoder, "style_encoder": networks_v2.style_encoder}[name]
    features = make(fixture)(given["latent"], given["y"], given["context"])
    assert len(features) == sum(output.startswith(name) for output in fixture.outputs)
    for i, feature in enumerate(features):
        fixture.check(f"{name}.{i}", feature)


def test_golden_size_of_a_picture_as_a_vector():
    fixture = load("v2_size_embedding")
    for i, (rows, columns, height, width) in enumerate(fixture.config["cases_picture_hw_canvas_hw"]):
        fixture.check(f"y.case{i}", size_vector((rows, columns), (height, width), fixture.config["embed_dim"]))


def test_golden_order_and_groups_of_the_transformer_blocks():
    fixture = load("v2_attention_tables")
    with torch.device("meta"):
        unet = SideUNet(**sizes(fixture.config["unet"]))
    strides = [place.stride for place in places(unet)]
    assert len(strides) == len(fixture.config["transformer_blocks_in_order"])
    fixture.check("scale_factor", 1 / torch.tensor(strides))
    names = [name.removeprefix("group.") for name in fixture.outputs if name.startswith("group.")]
    assert sorted(names) == sorted(GROUPS_V2)
    for name in names:
        fixture.check(f"group.{name}", torch.tensor(group(unet, name, GROUPS_V2)))


def plan_of(fixture: Fixture, case: dict, **more: object) -> AttentionPlan:
    """Read the plan of a case."""
    given = fixture.inputs
    region = None
    if case.get("mask"):
        region = Region(
            given["mask"], case["mask_threshold"], case.get("merge_scale", 0.0), case.get("fg_scale", 1.0),
            case.get("bg_scale", 1.0),
        )
    sides = SideFeatures(
        fixture.input_family("hs_bg") if case.get("warp") else (),
        fixture.input_family("style_modulations") if case.get("style") else (),
    )
    return AttentionPlan(region, case.get("reference_scale", 1.0), sides=sides, **more)


def call(unet: SideUNet, fixture: Fixture, plan: AttentionPlan, context: object = None) -> torch.Tensor:
    """Run the network on a fixture's inputs."""
    given = fixture.inputs
    seen = given["context"] if context is None else context
    return unet(given["x"], given["timesteps"], None, seen, fixture.input_family("control"), plan)


@pytest.mark.parametrize("i", range(count("v2_unet_injection", "cases")))
def test_golden_denoiser_reads_hints_and_styles(i):
    fixture = load("v2_unet_injection")
    case, unet = fixture.config["cases"][i], networks_v2.unet(fixture)
    plan = plan_of(fixture, case)
    fixture.check(f"out.case{i}", call(unet, fixture, plan))
    hints = project_hints(unet, plan.sides.hints) if plan.sides.hints else ()
    cached = AttentionPlan(plan.region, plan.strengths, sides=SideFeatures(hints, plan.sides.styles))
    fixture.check(f"out.case{i}", call(unet, fixture, cached, project_context(unet, fixture.inputs["context"])))


@pytest.mark.parametrize("i", range(count("v2_unet_lora", "cases")))
def test_golden_denoiser_with_an_adapter_for_each_side_of_the_mask(i):
    fixture = load("v2_unet_lora")
    case, unet = fixture.config["cases"][i], networks_v2.unet(fixture)
    adapters = networks_v2.adapters(fixture, foreground=case["use_fg"], background=case["use_bg"])
    plan = plan_of(fixture, case, adapters=adapters)
    fixture.check(f"out.case{i}", call(unet, fixture, plan))
    context = project_context(unet, fixture.inputs["context"], adapters)
    fixture.check(f"out.case{i}", call(unet, fixture, plan, context))
