"""From pictures and settings to conditions, guided calls and a generation of the SD2.1 model: the golden numbers."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from colorcli.model.conditions import Conditions, KeyPictures
from colorcli.model.conditions_v2 import SideEncoders, SideSettings, frame_conditions, read_key, side_features
from colorcli.model.side_encoders import SideUNet
from colorcli.sampling import PUBLISHED_SCHEDULE, Guidance, guided, sample
from tests.golden import networks_v2
from tests.golden.fixture import Fixture, count, load
from tests.golden.published_names import PUBLISHED_SAMPLERS
from tests.golden.runs import predict_branches
from tests.golden.test_golden_conditions import BRANCHES, Placeholders
from tests.golden.test_golden_text_manipulation import edits

NAME = "v2_conditions"


@dataclass(frozen=True)
class Model:
    """The networks of the fixture."""

    unet: SideUNet
    encoders: SideEncoders


def model(fixture: Fixture) -> Model:
    stubs = Placeholders(fixture.inputs, [])
    encoders = SideEncoders(
        stubs.clip, stubs.latents, networks_v2.sketch_encoder(fixture, fixture.config["control_encoder"]),
        networks_v2.background_encoder(fixture), networks_v2.style_encoder(fixture), networks_v2.adapters(fixture),
        fixture.config["latent_scale"],
    )
    return Model(networks_v2.unet(fixture), encoders)


def settings_of(fixture: Fixture, case: dict[str, Any]) -> SideSettings:
    """Read the settings of a case."""
    return SideSettings(
        sketch_levels=(case["control_scale"],) * 5,
        split=case.get("bg_enhance", False),
        foreground_alone=case.get("fg_enhance", False),
        style=case.get("style_enhance", False),
        hints=case["mask_scale"],
        merge=case["merge_scale"],
        foreground=case["fg_strength"],
        background=case["bg_strength"],
        reference_threshold=case["mask_threshold_ref"],
        sketch_threshold=case["mask_threshold_sketch"],
        strengths=case["strength"],
        edits=tuple(edits(fixture, case["manipulation"])) if "manipulation" in case else (),
    )


def prepare(fixture: Fixture, made: Model, case: dict[str, Any], *, sides_before: bool = False) -> Conditions:
    """Put a case's conditions together; `sides_before` lets the side encoders read before the frame comes."""
    given = fixture.inputs
    settings = settings_of(fixture, case)
    has_masks, has_background = case.get("masks", False), case.get("background", False)
    key = read_key(made.encoders, KeyPictures(
        given["reference"],
        given["reference_mask"] if has_masks else None,
        given["background"] if has_background else None,
        given["background_mask"] if has_background else None,
    ), settings)
    # The fixture has the mask at the latents' size; of blocks of 8 pixels, the eighth is those blocks again.
    mask = F.interpolate(given["sketch_mask_latent"], scale_factor=8, mode="nearest") if has_masks else None
    sides = None
    if sides_before:
        sides = side_features(made.encoders, key, settings, tuple(given["sketch"].shape[2:]))
    return frame_conditions(made.encoders, key, given["sketch"], mask, settings, sides)


def parts(conditions: Conditions, branch: str, batch: int) -> dict[str, Tensor]:
    """Name what a branch reads as the fixtures do, repeated to the batch."""
    assert isinstance(conditions.context, Tensor)
    assert conditions.y is None
    maps = conditions.blank_maps if branch == "uncond_sketch" else conditions.sketch_maps
    found = {f"control.{i}": x for i, x in enumerate(maps)}
    found["context.0"] = conditions.context * (branch != "uncond_reference")
    found |= {f"hs_bg.{i}": x for i, x in enumerate(conditions.sides.hints) if isinstance(x, Tensor)}
    found |= {f"style_modulations.{i}": x for i, x in enumerate(conditions.sides.styles)}
    if conditions.region is not None:
        found["mask"] = conditions.region.mask
    repeated = {name: x.expand(batch, *x.shape[1:]) for name, x in found.items()}
    if conditions.region is not None:
        repeated["threshold"] = torch.tensor(conditions.region.threshold)
    return repeated


@pytest.mark.parametrize("sides_before", [False, True], ids=["sides-with-the-frame", "sides-before"])
@pytest.mark.parametrize("i", range(count(NAME, "cases")))
def test_golden_conditions_of_every_branch_and_one_guided_call(i, sides_before):
    fixture = load(NAME)
    case, made = fixture.config["cases"][i], model(fixture)
    conditions = prepare(fixture, made, case, sides_before=sides_before)
    assert bool(conditions.sides.hints) == case.get("bg_enhance", False)
    assert bool(conditions.sides.styles) == case.get("style_enhance", False)
    for output in fixture.outputs:
        label, _, rest = output.partition(".")
        if label != f"case{i}":
            continue
        branch, _, part = rest.partition(".")
        if branch.startswith("prediction_"):
            x = fixture.inputs["x"][: case["batch"]]
            fixture.check(output, predict_branches(made.unet, conditions, x, case["t"], BRANCHES))
        else:
            fixture.check(output, parts(conditions, branch, case["batch"])[part])


@pytest.mark.parametrize("i", range(count(NAME, "generate")))
def test_golden_generation_from_pictures(i):
    fixture = load(NAME)
    case, made = fixture.config["generate"][i], model(fixture)
    predict = guided(made.unet, prepare(fixture, made, case), Guidance(*case["guidance_reference_sketch"]))
    noise = fixture.inputs["x_T"][: case["batch"]]
    latent = sample(
        predict, noise, sampler=PUBLISHED_SAMPLERS[case["sampler"]], count=case["steps"], schedule=PUBLISHED_SCHEDULE,
        seeds=range(len(noise)),
    )
    fixture.check(f"generate{i}.latent", latent)
