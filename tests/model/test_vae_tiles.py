"""Strips give what one piece gives, where tiles with statistics of their own do not."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from colorcli.model.vae_tiles import Moments, decode_in_strips, encode_in_strips
from tests.model import full_size
from tests.model.counting import peak_bytes

SMALL_STRIPS = 2**12   # numbers: two rows at a time of the widest maps below
STEP = 2 / 255         # one step of 8 bit in -1..1


def autoencoder(layers: int = 2) -> AutoencoderKL:
    torch.manual_seed(3)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32, 32), layers_per_block=layers, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=128,
    )
    return vae.eval().requires_grad_(False)


def random_latents() -> Tensor:
    return 3 * torch.randn(2, 4, 37, 20, generator=torch.Generator().manual_seed(1))


def flat_latents() -> Tensor:
    """Two flat fields of color with one straight edge, as of a cel on a plain sheet."""
    latents = torch.full((1, 4, 40, 32), 0.4)
    latents[:, :, 12:, 9:] = torch.tensor([1.2, -0.8, 0.3, -1.5])[:, None, None]
    return latents


@pytest.mark.parametrize("latents", [random_latents(), flat_latents()], ids=["random", "flat"])
@pytest.mark.parametrize("strip_numbers", [1, SMALL_STRIPS, 2**15, 2**24])
def test_strips_decode_to_the_picture_of_one_piece(latents, strip_numbers):
    vae = autoencoder()
    whole = vae.decode(latents).sample
    assert (decode_in_strips(vae, latents, strip_numbers) - whole).abs().max() < 0.01 * STEP


def test_tiles_with_statistics_of_their_own_would_show():
    """What strips are for: the library's tiles are off by whole steps of 8 bit, on flat color too."""
    vae = autoencoder()
    vae.tile_latent_min_size, vae.tile_sample_min_size = 16, 128
    for latents in (random_latents(), flat_latents()):
        apart = (vae.tiled_decode(latents).sample - vae.decode(latents).sample).abs()
        assert apart.quantile(0.9) > STEP


@pytest.mark.parametrize("strip_numbers", [1, SMALL_STRIPS, 2**24])
def test_strips_encode_to_the_latents_of_one_piece(strip_numbers):
    vae = autoencoder(layers=1)
    pictures = torch.rand(2, 3, 104, 72, generator=torch.Generator().manual_seed(2)) * 2 - 1
    given = pictures.clone()
    whole = vae.encode(pictures).latent_dist.mode()
    assert (encode_in_strips(vae, pictures, strip_numbers).mode() - whole).abs().max() < 1e-5
    assert torch.equal(pictures, given)


def test_moments_of_parts_join_to_those_of_the_whole():
    x = torch.randn(1, 8, 30, 7, generator=torch.Generator().manual_seed(4)) * 5 + 100
    joined = Moments.of(x[:, :, :4], 2) + Moments.of(x[:, :, 4:23], 2) + Moments.of(x[:, :, 23:], 2)
    wide = x.double().view(2, -1)
    assert joined.count == wide.shape[1]
    assert torch.allclose(joined.mean, wide.mean(1), rtol=1e-7)
    assert torch.allclose(joined.spread / joined.count, wide.var(1, correction=0), rtol=1e-5)


@pytest.mark.parametrize("side", [1024, 1536])
def test_strips_need_a_third_of_the_memory_at_full_size(side):
    with torch.device("meta"):
        vae = full_size.vae()
        latents, picture = torch.empty(1, 4, side // 8, side // 8), torch.empty(1, 3, side, side)
    assert peak_bytes(lambda: decode_in_strips(vae, latents)) < peak_bytes(lambda: vae.decode(latents)) / 3
    assert peak_bytes(lambda: encode_in_strips(vae, picture)) < peak_bytes(lambda: vae.encode(picture)) / 3
