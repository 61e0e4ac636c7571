"""Large models of random numbers: as large as the real ones, in the precision of their profile, and not all alike."""

from dataclasses import replace

import pytest
import torch
from accelerate import init_empty_weights

from colorcli.model.memory import EXACT_LAYERS, PRECISIONS, PROFILES, SIZES
from colorcli.speed import random_model
from colorcli.speed.random_model import random_pipeline, xl_networks
from tests import tiny_xl


def test_the_networks_have_the_published_size_and_take_no_memory_yet() -> None:
    networks, published = xl_networks(), SIZES["xl"].parameters
    found = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert found.pop("unet") == published["unet"] + published["context"]
    assert found == {name: count for name, count in published.items() if name in found}
    assert {weight.device.type for network in networks.values() for weight in network.parameters()} == {"meta"}


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def hollow() -> dict[str, torch.nn.Module]:
        with init_empty_weights(include_buffers=False):
            parts = tiny_xl.components(adapter=True)
        return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}

    monkeypatch.setitem(random_model.NETWORKS, "xlv2", hollow)


@pytest.mark.parametrize("moves", [False, True])
def test_they_are_filled_in_the_numbers_of_their_profile(shrunk: None, moves: bool) -> None:
    profile = replace(PROFILES["8g" if moves else "full"], precision=PRECISIONS["bf16"])
    pipeline = random_pipeline("xlv2", profile, "cpu")
    weights = dict(pipeline.unet.named_parameters())
    assert all((weight.dtype == torch.float32) == name.startswith(EXACT_LAYERS) for name, weight in weights.items())
    wide = weights["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"].float()
    assert wide.std() == pytest.approx(wide.shape[1] ** -0.5, rel=0.1)
    assert pipeline.profile.moves == moves and pipeline.vae.dtype == torch.float32
