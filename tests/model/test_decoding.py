"""Decoding in bf16: taken where it paints the same picture, given up where it does not, and never a wrong frame."""

import logging

import pytest
import torch
from diffusers import AutoencoderKL

from colorcli.model.decoding import MOST_LEVELS, CheckedDecoding, levels_apart


class Shot:
    """What all frames of a shot have in common."""


SHOT = Shot()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    small = AutoencoderKL(
        block_out_channels=(16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    small.eval().requires_grad_(False)
    small.decoder.conv_out.weight *= 0.3   # random weights fill the range; a picture is mostly flat
    return small


def decode_with(vae: AutoencoderKL):
    def decode(latents: torch.Tensor) -> torch.Tensor:
        return vae.decode(latents).sample

    return decode


LATENTS = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_decoder_that_bf16_does_not_harm_stays_in_bf16(vae):
    decoding, exact = CheckedDecoding(fast=True), vae.decode(LATENTS).sample
    found = decoding(decode_with(vae), LATENTS, SHOT)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert levels_apart(found, exact) <= MOST_LEVELS
    assert decoding.describe() == "bf16"


def test_only_the_first_frame_of_a_shot_is_decoded_both_ways(vae):
    calls = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        calls.append(torch.is_autocast_enabled("cpu"))
        return vae.decode(latents).sample

    decoding, other = CheckedDecoding(fast=True), Shot()
    for shot in (SHOT, SHOT, SHOT, other, other):
        decoding(decode, LATENTS, shot)
    assert calls == [True, False, True, True, True, False, True]


def test_a_decoder_that_runs_over_is_run_in_float32_from_then_on(caplog):
    """As fp16 does with the published one: inside the map grows past the largest number and comes back."""
    limit = float(torch.finfo(torch.bfloat16).max)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        large = torch.nn.functional.conv2d(latents, torch.full((1, 4, 1, 1), limit / 2))
        wide = torch.where(torch.is_autocast_enabled("cpu") & (large.abs() > 0), large * 4, large)
        return (wide / limit).expand(-1, 3, -1, -1)

    decoding = CheckedDecoding(fast=True)
    ones = torch.ones(1, 4, 8, 8) / 2
    with caplog.at_level(logging.WARNING, "colorcli"):
        found = decoding(decode, ones, SHOT)
    torch.testing.assert_close(found, decode(ones))
    assert found.isfinite().all() and decoding.describe().startswith("fp32: ")
    assert len(caplog.records) == 1


def test_a_decoder_whose_weights_magnify_the_lost_digits_is_noticed(vae, caplog):
    steep = AutoencoderKL.from_config(vae.config).eval().requires_grad_(False)
    steep.load_state_dict(vae.state_dict())
    steep.decoder.conv_out.weight *= 10.0
    exact = steep.decode(LATENTS).sample
    decoding = CheckedDecoding(fast=True)
    with caplog.at_level(logging.WARNING, "colorcli"):
        for _ in range(2):
            torch.testing.assert_close(decoding(decode_with(steep), LATENTS, SHOT), exact)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "of 255 levels: pictures are decoded in float32" in warning


def test_latents_that_are_none_are_not_the_decoders_fault(vae):
    decoding = CheckedDecoding(fast=True)
    found = decoding(decode_with(vae), LATENTS * torch.nan, SHOT)
    assert found.isnan().any() and decoding.describe() == "bf16"


def test_without_being_asked_for_nothing_is_decoded_in_bf16(vae):
    found = CheckedDecoding()(decode_with(vae), LATENTS, SHOT)
    assert torch.equal(found, vae.decode(LATENTS).sample)


def test_levels_are_those_that_99_of_100_numbers_stay_below():
    one, other = torch.zeros(1, 3, 10, 100), torch.zeros(1, 3, 10, 100)
    other.flatten()[:29] = 1.0   # fewer than one of a hundred
    assert levels_apart(one, other) == 0
    other.flatten()[:200] = 2 / 255   # one level, on the way from -1 to 1
    assert levels_apart(one, other) == pytest.approx(1.0)
