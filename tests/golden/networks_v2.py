"""Builds the modules of the SD2.1 model from the constructor numbers and published names of a fixture."""

from typing import Any, TypeVar

import torch
from torch import nn

from colorcli.model.attention import RegionAdapter
from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start
from tests.golden.fixture import Fixture
from tests.golden.networks import filled
from tests.model import conversion_v2
from tests.model.conversion import SKETCH_ENCODER, UNET
from tests.model.conversion_v2 import (
    BACKGROUND_ENCODER,
    STYLE_ENCODER,
    pyramid_sketch_encoder_state,
    side_encoder_state,
    side_unet_state,
)

Side = TypeVar("Side", bound=SideEncoder)


def sizes(published: dict[str, Any]) -> dict[str, Any]:
    """Translate the published constructor numbers of a network."""
    factors = [2**level for level in range(len(published["channel_mult"]))]
    depth = published["transformer_depth"]
    return {
        "block_out_channels": tuple(published["model_channels"] * mult for mult in published["channel_mult"]),
        "depths": tuple(depth if factor in published["attention_resolutions"] else 0 for factor in factors),
        "head_dim": published["num_head_channels"],
        "context_dim": published["context_dim"],
        "layers_per_block": published["num_res_blocks"],
    }


def unet(fixture: Fixture) -> SideUNet:
    """Build the denoising network, without adapters."""
    with torch.device("meta"):
        net = SideUNet(**sizes(fixture.config["unet"]))
    weights = fixture.weights_under(UNET)
    state = {name: value for name, value in weights.items() if "lora_" not in name}
    net.load_state_dict(side_unet_state(state, net.config), strict=True, assign=True)
    return net.eval().requires_grad_(False)


def region_adapters(fixture: Fixture) -> RegionAdapters:
    """Read both adapters of a fixture's decoder."""
    published = {name: value for name, value in fixture.weights_under(UNET).items() if "lora_" in name}
    with torch.device("meta"):
        net = SideUNet(**sizes(fixture.config["unet"]))
    found = conversion_v2.region_adapters(published, decoder_start(net))
    assert len(found.state_dict()) == len(published), "some adapters were not read"
    return found


def adapters(fixture: Fixture, *, foreground: bool = True, background: bool = True) -> list[RegionAdapter | None]:
    """Give both adapters of a fixture, or one."""
    return [
        found and RegionAdapter(found.foreground if foreground else None, found.background if background else None)
        for found in region_adapters(fixture).adapters()
    ]


def background_encoder(fixture: Fixture) -> BackgroundEncoder:
    """Build the background encoder."""
    return _side(BackgroundEncoder, fixture, fixture.config["bg_encoder"], BACKGROUND_ENCODER)


def style_encoder(fixture: Fixture) -> StyleEncoder:
    """Build the style encoder."""
    return _side(StyleEncoder, fixture, fixture.config["style_encoder"], STYLE_ENCODER)


def _side(kind: type[Side], fixture: Fixture, numbers: dict[str, Any], prefix: str) -> Side:
    with torch.device("meta"):
        net = kind(**sizes(numbers), y_dim=numbers["adm_in_channels"])
    net.load_state_dict(side_encoder_state(fixture.weights_under(prefix), net.config), strict=True, assign=True)
    return net.eval().requires_grad_(False)


def sketch_encoder(fixture: Fixture, numbers: dict[str, Any]) -> PyramidSketchEncoder:
    """Build the sketch encoder."""
    widths = tuple(numbers["model_channels"] * mult for mult in numbers["ch_mults"])
    encoder: nn.Module = PyramidSketchEncoder(in_channels=numbers["in_ch"], block_out_channels=widths)
    return filled(encoder, pyramid_sketch_encoder_state(fixture.weights_under(SKETCH_ENCODER)))
