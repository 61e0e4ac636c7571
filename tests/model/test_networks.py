"""The networks by themselves: what reads what, and that they are saved and loaded as diffusers' own are."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.preprocess import clip_pixels, tagger_pixels
from colorcli.model.reference import ClusterProjection, TaggerTower, clip_tokens
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.scalars import canvas_vector, crop_vector, embed_scalar
from colorcli.model.sketch_encoder import SketchEncoder, grid_angles, rotate
from colorcli.model.unet import ColorUNet, denoise, places
from colorcli.prepare.background import aspect_crop_fractions
from tests.model.tiny import CONTEXT_DIM, WIDTHS, normal, randomised, reference_net, unet


def sketch_encoder(**changes) -> SketchEncoder:
    encoder = SketchEncoder(block_out_channels=WIDTHS, head_dim=16, **changes)
    randomised(encoder)
    return encoder


def tower() -> TaggerTower:
    made = TaggerTower(image_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
    randomised(made)
    return made


def test_a_coarse_sketch_map_never_learns_of_a_finer_one():
    attention = sketch_encoder().attention
    summary, grids = normal(1, 64, 1, 1), [normal(1, 64, *size) for size in ((2, 3), (2, 3), (4, 6), (8, 12))]
    before = attention(summary, grids)
    for changed in range(4):
        others = [grid + (i == changed) for i, grid in enumerate(grids)]
        after = attention(summary, others)
        for i in range(4):
            assert torch.allclose(before[i], after[i]) == (i < changed)


def test_sketch_maps_fit_the_levels_of_the_network():
    maps = sketch_encoder()(normal(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 32, 8, 12), (2, 32, 4, 6), (2, 32, 2, 3), (2, 64, 2, 3)]


def test_rotated_queries_and_keys_know_only_how_far_apart_they_stand():
    angle = grid_angles(4, 5, 16, torch.device("cpu"))
    q, k = normal(16, seed=1), normal(16, seed=2)
    turned_q, turned_k = (rotate(x.expand(20, 16), angle.cos(), angle.sin()).view(4, 5, 16) for x in (q, k))
    products = torch.einsum("yxc,YXc->yxYX", turned_q, turned_k)
    torch.testing.assert_close(products[0, 0, 1, 2], products[2, 2, 3, 4])
    torch.testing.assert_close(products[3, 1, 0, 3], products[3, 0, 0, 2])


def test_rotary_angles_are_those_of_the_published_table():
    angle = grid_angles(4, 1, 128, torch.device("cpu"))[3, :3]
    expected = torch.tensor([[-0.9900, -0.6279, -0.1160], [0.1411, 0.7783, 0.9933]])
    torch.testing.assert_close(torch.stack([angle.cos(), angle.sin()]), expected, atol=1e-4, rtol=0)


def test_cosine_rope_scales_instead_of_turning():
    plain, cosine = sketch_encoder(), sketch_encoder(rope="cosine")
    cos, sin = cosine.attention._tables([normal(1, 64, 2, 3)], "cosine")
    assert not sin.any()
    x = normal(1, 1, 7, 16)
    torch.testing.assert_close(rotate(x, cos, sin), x * cos.repeat_interleave(2, dim=-1))
    assert not torch.allclose(plain(normal(1, 3, 64, 64))[0], cosine(normal(1, 3, 64, 64))[0])


def test_one_encoder_turns_or_scales_as_each_call_asks():
    plain, cosine, sketch = sketch_encoder(), sketch_encoder(rope="cosine"), normal(1, 3, 64, 64)
    turned = plain(sketch)
    for asked, made in zip(plain(sketch, rope="cosine"), cosine(sketch), strict=True):
        assert torch.equal(asked, made)
    for again, first in zip(plain(sketch), turned, strict=True):
        assert torch.equal(again, first)


def test_a_cosine_table_is_rounded_to_half_precision_as_the_published_one_was():
    cos, _ = sketch_encoder().attention._tables([normal(1, 64, 40, 3)], "cosine")
    assert torch.equal(cos, cos.half().float())
    rows = 1 + torch.arange(40) * 3  # the first token of each row, after the summary token
    exact = torch.arange(40).double().cos()  # the fastest pair turns by one radian a row
    torch.testing.assert_close(cos[rows, 0].double(), exact, atol=5e-4, rtol=0)


def test_without_sketch_maps_the_walk_equals_the_stock_network():
    net = unet()
    x, y, context = normal(2, 4, 8, 12), normal(2, 512), normal(2, 5, CONTEXT_DIM)
    stock = UNet2DConditionModel.from_config(net.config)
    stock.load_state_dict(net.state_dict())
    expected = stock(x, torch.tensor(250.0), context, class_labels=y).sample
    torch.testing.assert_close(net(x, 250.0, y, context), expected)
    torch.testing.assert_close(denoise(stock, x, 250.0, y, context), expected)


def test_a_latent_that_does_not_halve_evenly_keeps_its_size():
    net = unet()
    out = net(normal(1, 4, 9, 13), 10.0, normal(1, 512), normal(1, 5, CONTEXT_DIM))
    assert out.shape == (1, 4, 9, 13)


def test_one_row_of_y_and_context_serves_a_whole_batch():
    net = unet()
    x, y, context = normal(2, 4, 8, 12), normal(1, 512), normal(1, 5, CONTEXT_DIM)
    torch.testing.assert_close(net(x, 7.0, y, context), net(x, 7.0, y.repeat(2, 1), context.repeat(2, 1, 1)))


@pytest.mark.parametrize("make", [
    unet, reference_net, sketch_encoder, tower,
    lambda: randomised(ClusterProjection(input_dim=32, tagger_dim=16, output_dim=24, head_dim=16, token_length=4)),
], ids=["unet", "reference-net", "sketch-encoder", "tagger", "projection"])
def test_a_saved_network_is_loaded_with_the_same_weights(make, tmp_path):
    net = make()
    net.save_pretrained(tmp_path)
    again = type(net).from_pretrained(tmp_path)
    state = net.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())


def test_the_reference_net_has_one_bank_for_each_decoder_block_of_its_reader():
    net, reader = reference_net(), unet()
    assert isinstance(net, ReferenceNet) and isinstance(reader, ColorUNet)
    bank = net(normal(1, 6, 8, 12), normal(1, 1024))
    assert [x.shape[2] for x in bank] == [place.width for place in places(reader) if place.part == "decoder"]


def test_clip_tokens_begin_with_the_picture_embedding():
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, projection_dim=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    pixels = clip_pixels(normal(2, 3, 40, 70).clamp(-1, 1), 32)
    tokens = clip_tokens(model, pixels)
    assert tokens.shape == (2, 17, 16)
    torch.testing.assert_close(tokens[:, 0], model(pixels).image_embeds)


def test_the_tagger_sees_blue_first_and_gives_a_token_for_each_cell():
    red = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None].expand(1, 3, 20, 30)
    pixels = tagger_pixels(red, 32)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert tower()(pixels).shape == (1, 16, 16)


def test_a_scalar_zero_is_all_cosines():
    embedded = embed_scalar(torch.tensor([0.0]), 9)
    assert embedded.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0]]


def test_vector_conditions_equal_the_published_numbers():
    y = canvas_vector(torch.tensor([1024.0]), torch.tensor([1024.0]))[0]
    expected = {0: 0.987354, 1: -0.537617, 2: 0.683457, 127: 0.993952, 128: -0.158533, 129: -0.843189, 255: 0.109818,
                256: 0.753902, 257: 0.973479, 384: 0.656987, 385: 0.228775, 511: 0.000752}
    for i, value in expected.items():
        assert y[i] == pytest.approx(value, abs=2e-4), i
    crop = crop_vector(*(torch.tensor([number]) for number in (0.0, 0.0, 1.0, 0.5)))[0]
    for i, value in {0: 1, 128: 0, 512: 0.540302, 640: 0.841471, 768: 0.877583, 896: 0.479426, 769: 0.893693}.items():
        assert crop[i] == pytest.approx(value, abs=1e-5), i


def test_crop_fractions_of_a_wide_background_on_a_tall_canvas():
    assert aspect_crop_fractions((1024, 768), (1000, 1500)) == (1.0, 0.5)
