"""What makes the pipeline faster without changing the picture, and what it says of it."""

from dataclasses import replace

import pytest
import torch

from colorcli.loading import load_pipeline
from colorcli.model.memory import PRECISIONS, PROFILES, MemoryProfile, arrange, decodes_in_bf16
from tests import tiny_xl

BF16 = replace(PROFILES["full"], precision=PRECISIONS["bf16"])


def channels_last(network: torch.nn.Module) -> set[bool]:
    """Whether the weights of convolutions are laid out so; those of one pixel or channel are both."""
    weights = [weight for weight in network.parameters() if weight.dim() == 4 and min(weight.shape) > 1]
    return {weight.is_contiguous(memory_format=torch.channels_last) for weight in weights}


@pytest.mark.parametrize(
    ("profile", "device", "last"), [(BF16, "cuda", True), (PROFILES["full"], "cuda", False), (BF16, "cpu", False)]
)
def test_convolutions_are_channels_last_on_a_card_in_16_bit(profile: MemoryProfile, device: str, last: bool) -> None:
    parts = tiny_xl.components(adapter=True)
    arrange(parts, profile, device)
    for name in ("unet", "reference_net", "sketch_encoder", "vae"):
        assert channels_last(parts[name]) == {last}, name


def test_the_layout_of_the_weights_does_not_change_what_they_give() -> None:
    vae, latents = tiny_xl.components()["vae"], torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = vae.decode(latents).sample
    arrange({"vae": vae}, BF16, "cuda")
    torch.testing.assert_close(vae.decode(latents).sample, plain, atol=1e-5, rtol=1e-5)


def test_pictures_are_decoded_in_bf16_only_on_a_card_that_was_asked_for_it() -> None:
    half = replace(PROFILES["full"], precision=PRECISIONS["fp16"])
    assert decodes_in_bf16(BF16, "cuda:0")
    others = (BF16, "cpu"), (half, "cuda"), (PROFILES["12g"], "cuda")
    assert not any(decodes_in_bf16(profile, device) for profile, device in others)


def test_the_manifest_is_told_what_was_on() -> None:
    pipe = tiny_xl.pipeline()
    assert {name: pipe.describe()[name] for name in ("compiled", "decoding")} == {"compiled": "off", "decoding": "fp32"}
    assert pipe.compile_network().describe()["compiled"] == "on"
    assert pipe.compile_network(False).describe()["compiled"] == "off"
    pipe.profile = replace(PROFILES["8g"], storage="fp8")   # hooks turn such weights into 16 bit
    assert pipe.compile_network().describe()["compiled"] == "off"


@pytest.mark.parametrize(("compiled", "found"), [("auto", "off"), ("off", "off"), ("on", "on")])
def test_on_the_cpu_the_network_is_compiled_only_if_that_is_asked_for(compiled: str, found: str) -> None:
    assert load_pipeline("mini", "cpu", compiled=compiled, rows=1e9).describe()["compiled"] == found
