"""Builds our modules from the constructor numbers and published names of a fixture."""

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from colorcli.model.attention import Adapter, Region
from colorcli.model.reference import ClusterProjection
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import ColorUNet, build_unet
from tests.golden.fixture import Fixture
from tests.model.conversion import (
    PROJECTION,
    REFERENCE_NET,
    SKETCH_ENCODER,
    UNET,
    projection_state,
    read_adapters,
    reference_net_state,
    sketch_encoder_state,
    unet_state,
)

Module = TypeVar("Module", bound=nn.Module)


def sizes(published: dict[str, Any]) -> dict[str, Any]:
    """Translate the published constructor numbers of a network."""
    factors = [2**level for level in range(len(published["channel_mult"]))]
    return {
        "block_out_channels": tuple(published["model_channels"] * mult for mult in published["channel_mult"]),
        "depths": tuple(
            depth if factor in published["attention_resolutions"] else 0
            for depth, factor in zip(published["transformer_depth"], factors, strict=True)
        ),
        "head_dim": published["num_head_channels"],
        "y_dim": published["adm_in_channels"],
        "in_channels": published["in_channels"],
        "layers_per_block": published["num_res_blocks"],
    }


def filled(module: Module, state: dict[str, Tensor]) -> Module:
    """Load weights strictly and switch to evaluation."""
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)


def unet(fixture: Fixture) -> ColorUNet:
    """Build the denoising network, without adapters."""
    numbers = fixture.config["unet"]
    with torch.device("meta"):
        net = build_unet(**sizes(numbers), context_dim=numbers["context_dim"], out_channels=numbers["out_channels"])
    weights = fixture.weights_under(UNET)
    state = {name: value for name, value in weights.items() if "lora_" not in name and "conv_fg" not in name}
    net.load_state_dict(unet_state(state, net.config), strict=True, assign=True)
    return net.eval().requires_grad_(False)


def reference_net(fixture: Fixture) -> ReferenceNet:
    """Build the ReferenceNet."""
    with torch.device("meta"):
        net = ReferenceNet(**sizes(fixture.config["reference_net"]))
    net.load_state_dict(reference_net_state(fixture.weights_under(REFERENCE_NET), net.config), strict=True, assign=True)
    return net.eval().requires_grad_(False)


def adapters(fixture: Fixture) -> list[Adapter]:
    """Read the only adapter of a fixture."""
    (lora,) = fixture.config["lora"]
    return read_adapters(fixture.weights_under(UNET), lora["label"])


def region(case: dict[str, Any], mask: Tensor, rule: Literal["hard", "soft"] = "hard") -> Region:
    """Read how a case splits the cross-attention, the published way."""
    return Region(
        mask, case.get("mask_threshold", 0.05), case.get("merge_scale", 0.0), case.get("fg_scale", 1.0),
        case.get("bg_scale", 1.0), rule, compat=True,
    )


def sketch_encoder(fixture: Fixture, numbers: dict[str, Any]) -> SketchEncoder:
    """Build the sketch encoder."""
    widths = tuple(numbers["model_channels"] * mult for mult in numbers["ch_mults"])
    encoder = SketchEncoder(in_channels=numbers["in_ch"], block_out_channels=widths, head_dim=numbers["dim_head"])
    return filled(encoder, sketch_encoder_state(fixture.weights_under(SKETCH_ENCODER)))


def projection(fixture: Fixture, numbers: dict[str, Any]) -> ClusterProjection:
    """Build the token projection."""
    sizes_of = {"c_dim": "tagger_dim", "dim_head": "head_dim"}
    ours = ClusterProjection(**{sizes_of.get(name, name): value for name, value in numbers.items()})
    return filled(ours, projection_state(fixture.weights_under(PROJECTION)))
