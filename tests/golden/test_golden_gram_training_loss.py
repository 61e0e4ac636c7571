"""One step of the two-branch objective reproduces the golden numbers, its gradients too."""

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from colorcli.model.build import Components
from colorcli.model.unet import ColorUNet, transformer_blocks
from colorcli.sampling import PUBLISHED_SCHEDULE
from colorcli.train.objectives.denoising import (
    Noised,
    Reading,
    add_noise,
    branch_losses,
    compared_features,
    dropped,
    strange_context,
)
from colorcli.train.objectives.gram import gram_blocks
from colorcli.train.recipe import StageSection
from colorcli.train.sections import GramSection
from tests.golden import networks
from tests.golden.fixture import Fixture, load

OPTIONS = StageSection(name="xl-base", steps=1, batch=3, rate=1e-5, gram=GramSection(weight=1.0))


def components(unet: ColorUNet) -> Components:
    """Take the denoiser and its schedule: everything it reads is given."""
    absent: Any = nn.Identity()
    return Components(absent, absent, absent, unet, DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False))


def step(fixture: Fixture, alphas_cumprod: Tensor) -> tuple[Noised, Reading]:
    given = fixture.inputs
    noise = given["noise"] + fixture.config["offset_noise_level"] * given["offset_noise_draw"][..., None, None]
    noised = add_noise(given["z"], noise, given["timesteps"], alphas_cumprod)
    context = dropped(given["context"], given["context_keep"])
    maps = tuple(fixture.input_family("control"))
    return noised, Reading(context, maps, given["y"], mask=given["sketch_mask"])


def weight_of(unet: ColorUNet, published: str) -> Tensor:
    """Find the weight that a gradient of the fixture is of."""
    blocks = transformer_blocks(unet)
    found: dict[str, Tensor] = {
        "input_blocks.7.1.transformer_blocks.3.attn2.to_v.weight": blocks[4 + 3].attn2.to_v.weight,
        "output_blocks.2.1.transformer_blocks.5.norm2.weight": blocks[34 + 20 + 5].norm2.weight,
        "out.2.weight": unet.conv_out.weight,
    }
    return found[published.removeprefix("model.diffusion_model.")]


def test_golden_losses_and_gradients_of_both_branches() -> None:
    fixture = load("gram_training_loss")
    unet = networks.unet(fixture)
    parts, learned = components(unet), {name: weight_of(unet, name) for name in fixture.config["gradients_of"]}
    for weight in learned.values():
        weight.requires_grad_(True)
    noised, read = step(fixture, parts.alphas_cumprod)
    fixture.check("x_noisy", noised.latents)
    fixture.check("v_target", noised.target)
    fixture.check("context.first_pass", read.context)
    fixture.check("context.second_pass", strange_context(read.context, OPTIONS.gram))
    assert compared_features(parts, OPTIONS.gram, 3) == gram_blocks(unet, OPTIONS.gram)
    assert fixture.config["gram_ids"] == [23, 63]

    losses = branch_losses(parts, noised, read, OPTIONS, weight=1.0)
    losses["loss"].backward()

    for ours, output in (("diffusion", "diffusion_loss"), ("gram", "gram_loss"), ("loss", "total_loss")):
        fixture.check(output, torch.atleast_1d(losses[ours]))
    (allowed,) = fixture.config["tolerance_relative_to_largest_for"].values()
    for published, weight in learned.items():
        expected, found = fixture.outputs[f"grad.{published}"], weight.grad
        assert found is not None
        assert (found - expected).abs().max() <= allowed * expected.abs().max(), published
