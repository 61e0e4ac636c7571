"""From pictures and settings to conditions, guided calls and complete generations: the golden numbers."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from colorcli.model.conditions import (
    Conditions,
    ConditionSettings,
    Encoders,
    KeyPictures,
    frame_conditions,
    read_key,
)
from colorcli.model.unet import ColorUNet, published_strengths
from colorcli.sampling import (
    PUBLISHED_SCHEDULE,
    Guidance,
    guided,
    sample,
)
from tests.golden import networks
from tests.golden.fixture import Fixture, count, load
from tests.golden.published_names import PUBLISHED_SAMPLERS
from tests.golden.runs import predict_branches

BRANCHES = ("cond", "uncond_reference", "uncond_sketch")
FIXTURES = ("xl_conditions_base", "xl_conditions_adapter")


@dataclass
class Placeholders:
    """The stand-ins for the large encoders, which write down the pictures they are given."""

    inputs: dict[str, Tensor]
    seen: list[tuple[str, Tensor]]

    def linear(self, name: str, tokens: Tensor) -> Tensor:
        return tokens @ self.inputs[f"stub.{name}.weight"].mT + self.inputs[f"stub.{name}.bias"]

    def grid(self, picture: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(picture, 4).flatten(2).mT  # (B, 16, 3)

    def clip(self, picture: Tensor) -> Tensor:
        self.seen.append(("clip", picture))
        cells = self.grid(picture)
        return self.linear("clip", torch.cat([cells.mean(1, keepdim=True), cells], dim=1)).tanh()

    def tagger(self, picture: Tensor) -> Tensor:
        self.seen.append(("tagger", picture))
        return self.linear("tagger", self.grid(picture)).tanh()

    def latents(self, picture: Tensor) -> Tensor:
        self.seen.append(("vae", picture))
        return self.linear("vae", F.avg_pool2d(picture, 8).movedim(1, -1)).movedim(-1, 1)


@dataclass(frozen=True)
class Model:
    """The networks of one fixture."""

    unet: ColorUNet
    encoders: Encoders
    seen: list[tuple[str, Tensor]]
    is_adapter: bool


def model(fixture: Fixture) -> Model:
    numbers = fixture.config
    stubs = Placeholders(fixture.inputs, [])
    is_adapter = "reference_net" in numbers
    encoders = Encoders(
        stubs.clip, stubs.tagger, stubs.latents,
        networks.projection(fixture, numbers["proj"]),
        networks.sketch_encoder(fixture, numbers["control_encoder"]),
        networks.reference_net(fixture) if is_adapter else None,
        networks.adapters(fixture) if is_adapter else (),
    )
    return Model(networks.unet(fixture), encoders, stubs.seen, is_adapter)


def prepare(fixture: Fixture, made: Model, case: dict[str, Any]) -> Conditions:
    given = fixture.inputs
    settings = ConditionSettings(
        sketch_levels=tuple(case["control_scale"]),
        split=case.get("bg_enhance", False),
        merge=case["merge_scale"],
        foreground=case["fg_strength"],
        background=case["bg_strength"],
        reference_threshold=case["mask_threshold_ref"],
        sketch_threshold=case["mask_threshold_sketch"],
        strengths=published_strengths(made.unet, case["strength"]["scales"], adapter=made.is_adapter),
        latent_copy=case.get("latent_inpaint", False),
        compat=True,
    )
    has_masks, has_background = case.get("masks", False), case.get("background", False)
    key = KeyPictures(
        given["reference"] if case.get("reference", True) else None,
        given["reference_mask"] if has_masks else None,
        given["background"] if has_background else None,
        given["background_mask"] if has_background else None,
    )
    tokens = read_key(made.encoders, key, settings)
    mask = given["sketch_mask"] if has_masks else None
    return frame_conditions(made.encoders, tokens, given["sketch"], mask, settings)


def parts(conditions: Conditions, branch: str, batch: int) -> dict[str, Tensor]:
    """Name what a branch reads as the fixtures do, repeated to the batch."""
    assert isinstance(conditions.context, Tensor)
    maps = conditions.blank_maps if branch == "uncond_sketch" else conditions.sketch_maps
    found = {f"control.{i}": x for i, x in enumerate(maps)}
    found["context.0"] = conditions.context * (branch != "uncond_reference")
    found["y.0"] = conditions.y
    if conditions.region is not None:
        found["mask"] = conditions.region.mask
    if conditions.background_latents is not None:
        found["inpaint_bg"] = conditions.background_latents
    repeated = {name: x.expand(batch, *x.shape[1:]) for name, x in found.items()}
    if conditions.region is not None:
        repeated["threshold"] = torch.tensor(conditions.region.threshold)
    return repeated


def numbered(part: str) -> list[tuple[str, int]]:
    """List the cases of both fixtures; one test for each."""
    return [(name, i) for name in FIXTURES for i in range(count(name, part))]


@pytest.mark.parametrize(("name", "i"), numbered("cases"))
def test_golden_conditions_of_every_branch_and_one_guided_call(name, i):
    fixture = load(name)
    case, made = fixture.config["cases"][i], model(fixture)
    conditions = prepare(fixture, made, case)
    for output in fixture.outputs:
        label, _, rest = output.partition(".")
        if label != f"case{i}":
            continue
        branch, _, part = rest.partition(".")
        if branch == "encoder_picture":
            kind = part.split(".")[1]
            recorded = [name for name in sorted(fixture.outputs) if name.startswith(f"{label}.{branch}.")]
            alike = [name for name in recorded if name.endswith("." + kind)]
            pictures = [x for seen, x in made.seen if seen == kind and not given(fixture, x)]
            fixture.check(output, pictures[alike.index(output)])
        elif branch.startswith("prediction_"):
            x = fixture.inputs["x"][: case["batch"]]
            fixture.check(output, predict_branches(made.unet, conditions, x, case["t"], BRANCHES))
        else:
            fixture.check(output, parts(conditions, branch, case["batch"])[part])


def given(fixture: Fixture, picture: Tensor) -> bool:
    return any(x.shape == picture.shape and x.equal(picture) for x in fixture.inputs.values())


@pytest.mark.parametrize(("name", "i"), numbered("generate"))
def test_golden_generations_from_pictures(name, i):
    fixture = load(name)
    case, made = fixture.config["generate"][i], model(fixture)
    predict = guided(made.unet, prepare(fixture, made, case), Guidance(*case["guidance_reference_sketch"]))
    noise = fixture.inputs["x_T"][: case["batch"]]
    latent = sample(
        predict, noise, sampler=PUBLISHED_SAMPLERS[case["sampler"]], count=case["steps"], schedule=PUBLISHED_SCHEDULE,
        seeds=range(len(noise)),
    )
    fixture.check(f"generate{i}.latent", latent)
