"""Published names of the SD2.1 model reach our modules with nothing missing and nothing left over."""

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.architecture_v2 import text_tower_config, vision_tower_config
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start, transformer_blocks
from tests.model.conversion import vae_state
from tests.model.conversion_v2 import (
    LEFT_OUT,
    PublishedV2,
    fill,
    modules_of,
    pyramid_sketch_encoder_state,
    region_adapters,
    shapes,
    side_encoder_state,
    side_unet_state,
    split_published_v2,
    text_tower_state,
    vision_tower_state,
)
from tests.model.test_conversion import assert_fits, manifest


@pytest.fixture(scope="module")
def published() -> PublishedV2:
    return split_published_v2(manifest("v2"))


def test_every_published_tensor_belongs_to_a_part_or_is_computed(published):
    held = sum(len(part) for part in vars(published).values())
    computed = sum(name.startswith(LEFT_OUT) for name in manifest("v2"))
    assert computed == 12
    assert held + computed == len(manifest("v2")) == 2570


def test_the_denoising_network_fits_with_its_warp_and_style_modules(published):
    with torch.device("meta"):
        unet = SideUNet()
    assert_fits(unet, side_unet_state(published.unet, unet.config))
    # The sum of the published parts, without the adapters.
    assert sum(weight.numel() for weight in unet.parameters()) == 865_910_724 + 118_060_800 + 72_583_680


def test_both_side_encoders_fit(published):
    for kind, state, count in (
        (BackgroundEncoder, published.background_encoder, 266_104_960),
        (StyleEncoder, published.style_encoder, 276_970_880),
    ):
        with torch.device("meta"):
            net = kind()
        assert_fits(net, side_encoder_state(state, net.config))
        assert sum(weight.numel() for weight in net.parameters()) == count


def test_sketch_encoder_and_autoencoder_fit(published):
    with torch.device("meta"):
        assert_fits(PyramidSketchEncoder(), pyramid_sketch_encoder_state(published.sketch_encoder))
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
    assert_fits(vae, vae_state(published.vae, vae.config))


def test_both_towers_of_clip_fit(published):
    with torch.device("meta"):
        vision = CLIPVisionModelWithProjection(vision_tower_config(shapes(published.vision_tower)))
        text = CLIPTextModelWithProjection(text_tower_config(shapes(published.text_tower)))
    assert_fits(vision, vision_tower_state(published.vision_tower))
    assert_fits(text, text_tower_state(published.text_tower))
    assert (vision.config.image_size, vision.config.patch_size, vision.config.num_hidden_layers) == (224, 14, 32)
    assert (text.config.hidden_size, text.config.num_hidden_layers, text.config.num_attention_heads) == (1024, 24, 16)


def test_every_transformer_block_of_the_decoder_has_both_adapters(published):
    with torch.device("meta"):
        unet = SideUNet()
    blocks = transformer_blocks(unet)
    adapters = region_adapters(published.adapters, decoder_start(unet)).adapters()
    assert len(adapters) == len(blocks) == 16
    assert adapters[:7] == [None] * 7
    for adapter, block in zip(adapters[7:], blocks[7:], strict=True):
        assert adapter is not None and adapter.foreground is not None and adapter.background is not None
        for side in (adapter.foreground, adapter.background):
            assert side.k.down.shape == (4, 1024)
            assert side.q.up.shape == (block.attn2.to_q.out_features, 4)


def test_the_joined_projection_of_a_tower_is_cut_into_queries_keys_and_values():
    joined = {
        "transformer.resblocks.0.attn.in_proj_weight": torch.arange(6.0)[:, None].expand(6, 2),
        "transformer.resblocks.0.attn.in_proj_bias": torch.arange(6.0),
        "proj": torch.tensor([[1.0, 2.0, 3.0]]),
    }
    state = vision_tower_state(joined)
    layer = "vision_model.encoder.layers.0.self_attn."
    assert state[layer + "q_proj.bias"].tolist() == [0, 1]
    assert state[layer + "k_proj.bias"].tolist() == [2, 3]
    assert state[layer + "v_proj.weight"].tolist() == [[4, 4], [5, 5]]
    # There it is applied from the left of its matrix, here from the right.
    assert state["visual_projection.weight"].tolist() == [[1], [2], [3]]


def test_the_sizes_of_the_published_networks_are_read_off_their_tensors(published):
    modules = modules_of(published)
    assert dict(modules["unet"].config) == dict(_meta(SideUNet).config)
    assert dict(modules["background_encoder"].config) == dict(_meta(BackgroundEncoder).config)
    assert dict(modules["style_encoder"].config) == dict(_meta(StyleEncoder).config)
    assert sorted(modules) == [
        "adapter", "background_encoder", "image_encoder", "sketch_encoder", "style_encoder", "text_encoder", "unet",
    ]


def _meta(kind):
    with torch.device("meta"):
        return kind()


def test_a_tower_made_from_a_file_reads_pictures():
    """The tensors of the file are all it needs: what a tower counts by itself is there too."""
    torch.manual_seed(0)
    made = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=160, intermediate_size=64, projection_dim=12, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, hidden_act="gelu",
    )).eval()
    published = first_names(made.state_dict())
    with torch.device("meta"):
        again = CLIPVisionModelWithProjection(vision_tower_config(shapes(published)))
    fill(again, vision_tower_state(published))
    picture = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(again(picture).image_embeds, made(picture).image_embeds)


def first_names(state):
    """Give a picture tower's state by the names of its first publication."""
    found = {}
    for name, value in state.items():
        for ours, theirs in (
            ("vision_model.", ""), ("encoder.layers.", "transformer.resblocks."), ("layer_norm", "ln_"),
            ("self_attn.", "attn."), ("fc1", "c_fc"), ("fc2", "c_proj"), ("embeddings.class", "class"),
            ("embeddings.patch_embedding", "conv1"), ("embeddings.position_embedding.weight", "positional_embedding"),
            ("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"), ("visual_projection.weight", "proj"),
        ):
            name = name.replace(ours, theirs)
        found[name] = value.mT if name == "proj" else value
    for layer in ("transformer.resblocks.0.attn.", "transformer.resblocks.1.attn."):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{layer}{part}_proj.{kind}") for part in "qkv"]
            found[f"{layer}in_proj_{kind}"] = torch.cat(parts)
    return found
