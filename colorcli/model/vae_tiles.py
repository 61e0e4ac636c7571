"""Encoding and decoding of large pictures in strips, without seams.

Strips of an autoencoder that are run on their own disagree: each GroupNorm takes its mean and variance from the strip
instead of from the picture, so a flat color comes out in steps. Here every strip is normalised with the statistics of
the whole picture. For a group g of a map x, with n numbers in it,

    mean_g = sum(x) / n        var_g = sum((x - mean_g)^2) / n

and both can be summed strip by strip: two parts with (n, mean, M2), M2 = n var, join as (Chan, Golub, LeVeque 1979)

    n = n_a + n_b    d = mean_b - mean_a    mean = mean_a + d n_b / n    M2 = M2_a + M2_b + d^2 n_a n_b / n

The statistics of a layer need those of every layer before it, so the maps between the blocks are kept, and a block with
k norms is run k times over the strips to learn them, each time one norm further, and once more for its result, which
takes the place of its input where it has the same shape. A strip brings along as many rows of its neighbors (`halo`) as
its convolutions reach, so it sees what it would see in the whole picture: the result is the same up to rounding.
The price is that convolutions in front of a norm are computed more than once: 1.5 to 2 times the time of one piece.

The middle of the network, with its attention over the whole picture, runs at 1/8 of the size and is not cut.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

STRIP_NUMBERS = 2**23   # numbers of a strip in one map: 32 MiB in float32, and some five such maps are alive at once

Normalize = Callable[[nn.GroupNorm, Tensor], Tensor]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances of every group of channels, float64, (groups,) each."""

    count: int
    mean: Tensor
    spread: Tensor

    @staticmethod
    def of(x: Tensor, groups: int) -> "Moments":
        """Take the moments of a map (1, C, h, w)."""
        grouped = x[0].float().unflatten(0, (groups, -1)).flatten(1)  # (groups, C / groups * h * w)
        variance, mean = torch.var_mean(grouped, dim=1, correction=0)
        # A sum over several million numbers wants more digits than a card's float32, but MPS has no float64.
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        return Moments(grouped.shape[1], mean.to(wide), variance.to(wide) * grouped.shape[1])

    def __add__(self, other: "Moments") -> "Moments":
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.spread + other.spread + apart**2 * (self.count * other.count / count))


@dataclass(frozen=True)
class _Block:
    """A piece of the network that works on rows near each other.

    run: takes rows of a map (1, C, h, w) and what normalises, gives the rows of the result. norms: as `run` comes to
    them. halo: rows of the input that a row of the result reaches to each side.
    """

    run: Callable[[Tensor, Normalize], Tensor]
    channels: int                            # of the result
    norms: Sequence[nn.GroupNorm] = ()
    halo: int = 0
    factor: Fraction = Fraction(1)           # rows of the result for each row of the input


class _Reached(Exception):
    """A run came to the norm whose statistics are asked for."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def decode_in_strips(vae: AutoencoderKL, latents: Tensor, strip_numbers: int = STRIP_NUMBERS) -> Tensor:
    """Decode latents (B, C, h, w), not scaled, to pictures (B, 3, 8h, 8w), one after the other and each in strips.

    The same as `vae.decode` up to rounding. strip_numbers: how large a strip's map may be.
    """
    return torch.cat([_decode_one(vae, one, strip_numbers) for one in latents.split(1)])


def encode_in_strips(
    vae: AutoencoderKL, pictures: Tensor, strip_numbers: int = STRIP_NUMBERS
) -> DiagonalGaussianDistribution:
    """Give the distribution of the latents (B, C, H/8, W/8), not scaled, of pictures (B, 3, H, W), each in strips.

    The same as `vae.encode` up to rounding.
    """
    return DiagonalGaussianDistribution(
        torch.cat([_encode_one(vae, one, strip_numbers) for one in pictures.split(1)])
    )


def _decode_one(vae: AutoencoderKL, z: Tensor, strip_numbers: int) -> Tensor:
    decoder = vae.decoder
    if vae.post_quant_conv is not None:
        z = vae.post_quant_conv(z)
    x = decoder.mid_block(decoder.conv_in(z))  # (1, C, h, w)
    waiting: nn.Module | None = None
    for up in decoder.up_blocks:
        for i, resnet in enumerate(up.resnets):
            # What doubles the size is run together with the block behind it: the large map between them never exists.
            x = _run(_residual(resnet, waiting if i == 0 else None), x, strip_numbers)
        (waiting,) = up.upsamplers or (None,)
    return _run(_head(decoder.conv_norm_out, decoder.conv_out, waiting), x, strip_numbers)


def _encode_one(vae: AutoencoderKL, picture: Tensor, strip_numbers: int) -> Tensor:
    encoder = vae.encoder
    x = _run(_convolution(encoder.conv_in), picture, strip_numbers)
    for down in encoder.down_blocks:
        for resnet in down.resnets:
            x = _run(_residual(resnet), x, strip_numbers)
        for downsampler in down.downsamplers or ():
            x = _run(_halving(downsampler), x, strip_numbers)
    x = encoder.conv_out(F.silu(encoder.conv_norm_out(encoder.mid_block(x))))
    return x if vae.quant_conv is None else vae.quant_conv(x)


def _residual(resnet: Any, before: nn.Module | None = None) -> _Block:
    """A residual block, and what doubles the size in front of it."""
    def run(x: Tensor, normalize: Normalize) -> Tensor:
        x = x if before is None else before(x)
        inner = resnet.conv1(F.silu(normalize(resnet.norm1, x), inplace=True))
        inner = resnet.conv2(F.silu(normalize(resnet.norm2, inner), inplace=True))
        return inner.add_(x if resnet.conv_shortcut is None else resnet.conv_shortcut(x))

    # Two convolutions; in front of them, one at twice the size: three rows there are two of the input.
    return _Block(run, resnet.conv2.out_channels, (resnet.norm1, resnet.norm2), 2, _doubled(before))


def _head(norm: nn.GroupNorm, convolution: nn.Conv2d, before: nn.Module | None) -> _Block:
    def run(x: Tensor, normalize: Normalize) -> Tensor:
        return convolution(F.silu(normalize(norm, x if before is None else before(x)), inplace=True))

    return _Block(run, convolution.out_channels, (norm,), 1, _doubled(before))


def _convolution(convolution: nn.Conv2d) -> _Block:
    return _Block(lambda x, _: convolution(x), convolution.out_channels, halo=1)


def _halving(downsampler: Any) -> _Block:
    """Half the size: a row of the result reads three of the input, beginning with the one at its place."""
    return _Block(lambda x, _: downsampler(x), downsampler.conv.out_channels, halo=2, factor=Fraction(1, 2))


def _doubled(before: nn.Module | None) -> Fraction:
    return Fraction(1 if before is None else 2)


def _run(block: _Block, x: Tensor, strip_numbers: int) -> Tensor:
    """Run a block over a whole map (1, C, h, w); x is used up."""
    rows, width = x.shape[2:]
    widest = max(x.shape[1], block.channels) * width * max(block.factor, Fraction(1)) ** 2
    step = max(2, int(strip_numbers / widest) // 2 * 2)
    known: dict[nn.GroupNorm, Moments] = {}
    for norm in block.norms:
        known[norm] = _moments(block, norm, known, x, step)
    in_place = block.channels == x.shape[1] and block.factor == 1
    out = x if in_place else x.new_empty(1, block.channels, int(rows * block.factor), int(width * block.factor))
    # Rows that a later strip still reads are kept before its neighbor's result takes their place.
    above = x[:, :, :0]
    for start in range(0, rows, step):
        end = min(start + step, rows)
        strip = torch.cat([above, x[:, :, start : min(end + block.halo, rows)]], dim=2)
        skipped = above.shape[2]
        above = x[:, :, max(0, end - block.halo) : end].clone()
        result = block.run(strip, _by(known))
        first, last = int(skipped * block.factor), int((skipped + end - start) * block.factor)
        out[:, :, int(start * block.factor) : int(end * block.factor)] = result[:, :, first:last]
    return out


def _moments(block: _Block, norm: nn.GroupNorm, known: dict[nn.GroupNorm, Moments], x: Tensor, step: int) -> Moments:
    """Take the moments of what a block gives to one of its norms, over the whole map."""
    total: Moments | None = None
    for strip, own in _strips(x, step, block.halo):
        try:
            block.run(strip, _by(known, stop_at=norm))
        except _Reached as reached:
            scale = reached.x.shape[3] // x.shape[3]  # 2 behind what doubles the size
            inside = reached.x[:, :, own.start * scale : own.stop * scale]
            part = Moments.of(inside, norm.num_groups)
            total = part if total is None else total + part
    assert total is not None, "the block never came to its norm"
    return total


def _strips(x: Tensor, step: int, halo: int) -> Iterator[tuple[Tensor, slice]]:
    """Give strips of rows with their halo, and which rows of each are its own."""
    rows = x.shape[2]
    for start in range(0, rows, step):
        end = min(start + step, rows)
        top = max(0, start - halo)
        yield x[:, :, top : min(end + halo, rows)], slice(start - top, end - top)


def _by(known: dict[nn.GroupNorm, Moments], stop_at: nn.GroupNorm | None = None) -> Normalize:
    """Normalise by known statistics; raise `_Reached` at the norm whose statistics are asked for."""
    def normalize(norm: nn.GroupNorm, x: Tensor) -> Tensor:
        if norm is stop_at:
            raise _Reached(x)
        moments = known[norm]
        each = norm.num_channels // norm.num_groups
        scale = (moments.spread / moments.count + norm.eps).rsqrt().repeat_interleave(each) * norm.weight
        shift = norm.bias - moments.mean.repeat_interleave(each) * scale
        return torch.addcmul(shift.to(x)[:, None, None], x, scale.to(x)[:, None, None])

    return normalize
