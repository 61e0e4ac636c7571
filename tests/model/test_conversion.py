"""Published names reach our modules with nothing missing and nothing left over."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from colorcli.model.reference import ClusterProjection, TaggerTower
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import build_unet, transformer_blocks
from tests.model.conversion import (
    Published,
    projection_state,
    read_adapters,
    reference_net_state,
    sketch_encoder_state,
    split_published,
    tagger_state,
    unet_state,
    vae_state,
)


def manifest(family: str) -> dict[str, Tensor]:
    """Give every tensor of a published file as an empty one of its shape."""
    golden = os.environ.get("COLORCLI_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden"
    path = Path(golden).parent / "spec" / "keys" / f"{family}.json"
    if not path.is_file():
        pytest.skip(f"the list of published names {path} is not there")
    return {name: torch.empty(shape, device="meta") for name, shape in json.loads(path.read_text()).items()}


def assert_fits(module: nn.Module, state: dict[str, Tensor]) -> None:
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == ours


@pytest.fixture(scope="module", params=["sdxl", "xlv2"])
def published(request) -> Published:
    return split_published(manifest(request.param))


def test_the_denoising_network_of_both_published_families_fits(published):
    with torch.device("meta"):
        unet = build_unet()
    assert_fits(unet, unet_state(published.unet, unet.config))


def test_sketch_encoder_projection_and_autoencoder_fit(published):
    with torch.device("meta"):
        assert_fits(SketchEncoder(), sketch_encoder_state(published.sketch_encoder))
        assert_fits(ClusterProjection(), projection_state(published.projection))
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
    assert_fits(vae, vae_state(published.vae, vae.config))


def test_reference_net_fits_and_every_transformer_block_has_its_adapter():
    parts = split_published(manifest("xlv2"))
    with torch.device("meta"):
        net, unet = ReferenceNet(), build_unet()
    assert_fits(net, reference_net_state(parts.reference_net, net.config))
    adapters = read_adapters(parts.adapters)
    blocks = transformer_blocks(unet)
    assert len(adapters) == len(blocks)
    assert all(a.v.up.shape[0] == b.attn2.to_v.out_features for a, b in zip(adapters, blocks, strict=True))


def test_the_base_family_has_neither_reference_net_nor_adapters():
    parts = split_published(manifest("sdxl"))
    assert not parts.reference_net
    assert not read_adapters(parts.adapters)


def test_the_published_tagger_fits():
    timm = manifest("sdxl")
    prefix = "img_embedder.model."
    found = {name.removeprefix(prefix): value for name, value in timm.items() if name.startswith(prefix)}
    with torch.device("meta"):
        tower = TaggerTower()
    assert_fits(tower, tagger_state(found))
