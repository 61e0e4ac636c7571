"""The denoising network: diffusers' `UNet2DConditionModel`, run block by block with the sketch maps added inside.

The stock network has no way in at the four places where the maps belong, so `denoise` walks its modules itself.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from colorcli.model.attention import (
    Adapter,
    AttentionPlan,
    KeyValues,
    LayerRegion,
    LayerRegions,
    RegionAdapter,
    Source,
    beside_unseen,
    cross_attention,
    project,
    reads_nothing_of_zeros,
    region_at,
    region_of_rows,
    rows_of,
    self_attention,
    source_of_rows,
    take,
    unseen,
    with_zeros,
)
from colorcli.model.compiled import Regions
from colorcli.model.memory import EXACT_LAYERS

PLAIN = AttentionPlan()
Observer = Callable[[str, Tensor], None]


def unet_config(
    *,
    block_out_channels: Sequence[int] = (320, 640, 1280),
    depths: Sequence[int] = (0, 2, 10),
    head_dim: int = 64,
    context_dim: int = 2048,
    y_dim: int | None = 512,
    in_channels: int = 4,
    out_channels: int = 4,
    layers_per_block: int = 2,
    norm_num_groups: int = 32,
    linear: bool = True,
) -> dict[str, Any]:
    """Describe a denoising network for `UNet2DConditionModel`; the defaults are the published XL network.

    depths: transformer blocks behind each residual block of a level, 0 for a level without attention. The middle block
    has as many as the last level, but at least one. y_dim: width of the vector condition, given as class labels; None
    for a network without one. linear: the transformers' own projections act on tokens, not as 1x1 convolutions on maps.
    """
    last = len(block_out_channels) - 1
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "block_out_channels": tuple(block_out_channels),
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depths[last - i] else "UpBlock2D" for i in range(last + 1)),
        "transformer_layers_per_block": tuple(max(1, depth) for depth in depths),
        # diffusers reads this as the number of heads.
        "attention_head_dim": tuple(max(1, width // head_dim) for width in block_out_channels),
        "cross_attention_dim": context_dim,
        "use_linear_projection": linear,
        "class_embed_type": None if y_dim is None else "projection",
        "projection_class_embeddings_input_dim": y_dim,
        "layers_per_block": layers_per_block,
        "norm_num_groups": norm_num_groups,
    }


def build_unet(**sizes: Any) -> "ColorUNet":
    """Make an untrained denoising network; `sizes` are those of `unet_config`."""
    return ColorUNet(**unet_config(**sizes))


class ColorUNet(UNet2DConditionModel, ModelMixin):
    """The stock network whose call is `denoise`, so that what wraps a module's call (offload, compile, DDP) works."""

    _keep_in_fp32_modules: ClassVar = list(EXACT_LAYERS)   # diffusers reads it when weights are loaded in 16 bit
    recomputes = False   # in training, each transformer block is computed anew for the gradient instead of being kept
    regions: Regions | None = None   # what calls its blocks compiled

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        y: Tensor | None,
        context: "Context",
        sketch_maps: Sequence[Tensor] = (),
        plan: AttentionPlan = PLAIN,
        observe: Observer | None = None,
    ) -> Tensor:
        """Predict from noisy latents; see `denoise`."""
        with nullcontext() if self.regions is None else self.regions.room():
            return denoise(self, sample, timestep, y, context, sketch_maps, plan, observe)


Context = Tensor | Sequence[KeyValues]  # tokens, or the keys and values of every transformer block in order


class Sighting:
    """An observer that keeps one intermediate tensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._seen: list[Tensor] = []

    def __call__(self, name: str, features: Tensor) -> None:
        """Be told a tensor."""
        if name == self.name:
            self._seen.append(features)

    @property
    def features(self) -> Tensor:
        """The tensor that was waited for; it was told once."""
        (only,) = self._seen
        return only


class Sightings:
    """An observer that keeps some intermediate tensors, in the order of their names as they were asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._seen: dict[str, Tensor] = {}

    def __call__(self, name: str, features: Tensor) -> None:
        """Be told a tensor."""
        if name in self._names:
            self._seen[name] = features

    @property
    def all(self) -> dict[str, Tensor]:
        """All that were waited for, by name."""
        return {name: self._seen[name] for name in self._names}


def denoise(
    unet: UNet2DConditionModel,
    sample: Tensor,
    timestep: Tensor | float,
    y: Tensor | None,
    context: Context,
    sketch_maps: Sequence[Tensor] = (),
    plan: AttentionPlan = PLAIN,
    observe: Observer | None = None,
) -> Tensor:
    """Give the network's prediction for noisy latents, (B, out_channels, h, w).

    sample: (B, in_channels, h, w). timestep: a number or (B,), 0..999, may be fractional. y: (B, y_dim); None for a
    network without a vector condition.
    context: reference tokens (B or 1, M, context_dim), or their keys and values from `project_context`.
    sketch_maps: finest first, added behind the first convolution, behind every down-sampling and behind the last block
    of the encoder, before these are stored for the decoder; empty adds nothing.
    observe: is told intermediate tensors as they come: "input.n" (before a map is added), "middle", "output.n", and,
    for transformer block i from 0, "norm1.i" (its self-attention's input), "self.i" and "cross.i" (what its attentions
    add) and "block.i" (its output tokens). Before the first cross-attention, rows that the plan calls alike are told
    once.

    The blocks may be of another precision than the embeddings and the last layers (`memory.apply_precision`): inputs of
    any precision are taken, and the result has that of the last layer.
    """
    emb = embedding(unet, sample, timestep, y)
    return denoise_embedded(unet, sample, emb, context, sketch_maps, plan, observe)


def embedding(unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor | float, y: Tensor | None) -> Tensor:
    """Give what all residual blocks read of the time and the vector condition, (B, 4 * first width); see `denoise`."""
    return _Walk(unet, y, (), PLAIN, None).embed(sample, timestep)


def denoise_embedded(
    unet: UNet2DConditionModel,
    sample: Tensor,
    emb: Tensor,
    context: Context,
    sketch_maps: Sequence[Tensor] = (),
    plan: AttentionPlan = PLAIN,
    observe: Observer | None = None,
) -> Tensor:
    """Do what `denoise` does, for what `embedding` gave: the part of a call that is worth another engine."""
    walk = _Walk(unet, None, context, plan, observe)
    x, skips = walk.encoder(sample, emb, sketch_maps)
    x = walk.middle(x, emb)
    for level in range(len(unet.up_blocks)):
        x = walk.decoder_level(level, x, skips, emb)
    assert len(x) == len(sample), "rows are told apart by the first cross-attention, and there is none"
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x.to(unet.conv_out.weight.dtype))))


def transformer_blocks(unet: UNet2DConditionModel) -> list[BasicTransformerBlock]:
    """List the transformer blocks in order: encoder, middle, decoder."""
    parts = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
    return [inner for block in parts for inner in _inside(block)]


Part = Literal["encoder", "middle", "decoder"]


@dataclass(frozen=True)
class Place:
    """Where a transformer block stands."""

    part: Part
    stride: int      # how many times smaller than the latents its map is
    width: int       # channels of a token
    deepest: bool    # at the level with the smallest maps of all that have transformers, or in the middle below it


def places(unet: UNet2DConditionModel) -> list[Place]:
    """Tell where every transformer block stands, in order: encoder, middle, decoder."""
    last = len(unet.down_blocks) - 1
    deepest = max((level for level, block in enumerate(unet.down_blocks) if _inside(block)), default=last)
    levels: list[tuple[int, Part, Any]] = [(level, "encoder", block) for level, block in enumerate(unet.down_blocks)]
    levels += [(last, "middle", unet.mid_block)]
    levels += [(last - i, "decoder", block) for i, block in enumerate(unet.up_blocks)]
    return [
        Place(part, 2**level, inner.norm1.normalized_shape[0], level >= deepest)
        for level, part, block in levels for inner in _inside(block)
    ]


# Groups of transformer blocks that can have a reference strength of their own.
GROUPS: dict[str, Callable[[Place], bool]] = {
    "encoder": lambda place: place.part == "encoder",
    "decoder": lambda place: place.part == "decoder",
    "middle": lambda place: place.part == "middle",
    "low": lambda place: place.deepest and place.part != "middle",
    "high": lambda place: not place.deepest,
}


# What the published program of the SD2.1 model calls its groups.
GROUPS_V2: dict[str, Callable[[Place], bool]] = {
    "encoder": lambda place: place.part == "encoder",
    "high": lambda place: place.stride == 1,
    "middle": lambda place: place.stride == 2,
    "low": lambda place: place.stride == 4,
    "bottom": lambda place: place.part == "middle",
}


def group(unet: UNet2DConditionModel, name: str, groups: Mapping[str, Callable[[Place], bool]] = GROUPS) -> list[int]:
    """List the numbers of the transformer blocks of one of the groups."""
    return [i for i, place in enumerate(places(unet)) if groups[name](place)]


def group_strengths(unet: UNet2DConditionModel, strength: float = 1.0, **groups: float) -> list[float]:
    """Give the reference strength of every transformer block: `strength`, times that of each group it is in."""
    found = [strength] * len(places(unet))
    for name, factor in groups.items():
        for i in group(unet, name):
            found[i] *= factor
    return found


def published_strengths(
    unet: UNet2DConditionModel, scales: Mapping[str, float] | Sequence[float], *, adapter: bool
) -> list[float]:
    """Give the reference strengths that the published programs make of their settings.

    scales: a number for each group, or one for each block. The base model takes the encoder's number everywhere. The
    adapter overwrites group after group in the order given, and leaves the middle as it is.
    """
    count = len(places(unet))
    if not isinstance(scales, Mapping):
        return [float(scales[i]) if i < len(scales) else 1.0 for i in range(count)]
    if not adapter:
        return [float(scales["encoder"])] * count
    found = [1.0] * count
    for name, scale in scales.items():
        for i in group(unet, name) if name != "middle" else ():
            found[i] = float(scale)
    return found


def published_strengths_v2(unet: UNet2DConditionModel, scales: Mapping[str, float]) -> list[float]:
    """Give the reference strengths that the published program of the SD2.1 model makes of its settings.

    scales: a number for each of `GROUPS_V2`; group after group is overwritten in the order given.
    """
    found = [1.0] * len(places(unet))
    for name, scale in scales.items():
        for i in group(unet, name, GROUPS_V2):
            found[i] = float(scale)
    return found


def decoder_start(unet: UNet2DConditionModel) -> int:
    """Give the number of the decoder's first transformer block."""
    return sum(place.part != "decoder" for place in places(unet))


def project_context(
    unet: UNet2DConditionModel, context: Tensor, adapters: Sequence[Adapter | RegionAdapter | None] = ()
) -> list[KeyValues]:
    """Project reference tokens once for every transformer block; they stay the same over steps and frames."""
    blocks = transformer_blocks(unet)
    each = adapters or [None] * len(blocks)
    return [project(block.attn2, context, adapter) for block, adapter in zip(blocks, each, strict=True)]


def project_bank(unet: UNet2DConditionModel, bank: Sequence[Source]) -> list[KeyValues]:
    """Project a ReferenceNet's bank once for the decoder's transformer blocks; it stays the same over all steps."""
    readers = transformer_blocks(unet)[decoder_start(unet):]
    return [project(block.attn1, tokens) for block, tokens in zip(readers, bank, strict=True)]


def _inside(block: Any) -> list[BasicTransformerBlock]:
    return [inner for outer in getattr(block, "attentions", None) or () for inner in outer.transformer_blocks]


def self_attention_inputs(
    unet: UNet2DConditionModel,
    sample: Tensor,
    timestep: Tensor | float,
    y: Tensor | None,
    context: Context,
    sketch_maps: Sequence[Tensor] = (),
    plan: AttentionPlan = PLAIN,
) -> list[Tensor]:
    """Run the network, and give what each transformer block's self-attention read, (B, N, C)."""
    found: list[Tensor] = []

    def observe(name: str, x: Tensor) -> None:
        if name.startswith("norm1."):
            found.append(x)

    denoise(unet, sample, timestep, y, context, sketch_maps, plan, observe)
    return found


class _AllSeen(Exception):
    """Everything that was asked for has been told."""


def features_of(
    unet: UNet2DConditionModel,
    sample: Tensor,
    timestep: Tensor | float,
    y: Tensor | None,
    context: Context,
    sketch_maps: Sequence[Tensor],
    plan: AttentionPlan,
    names: Sequence[str],
) -> list[Tensor]:
    """Give what `denoise` would tell an observer under some names, and run the network no further than that."""
    found: dict[str, Tensor] = {}

    def observe(name: str, x: Tensor) -> None:
        if name in names:
            found[name] = x
            if len(found) == len(set(names)):
                raise _AllSeen

    try:
        denoise(unet, sample, timestep, y, context, sketch_maps, plan, observe)
    except _AllSeen:
        return [found[name] for name in names]
    raise AssertionError(f"the network tells nothing named {set(names) - set(found)}")


def decoder_banks(unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor | float, y: Tensor) -> list[Tensor]:
    """Give the self-attention inputs of the decoder's transformer blocks of a network without cross-attention."""
    found: list[Tensor] = []
    start = decoder_start(unet)

    def observe(name: str, x: Tensor) -> None:
        kind, _, number = name.partition(".")
        if kind == "norm1" and int(number) >= start:
            found.append(x)

    walk = _Walk(unet, y, (), PLAIN, observe)
    emb = walk.embed(sample, timestep)
    x, skips = walk.encoder(sample, emb, ())
    x = walk.middle(x, emb)
    for level in range(len(unet.up_blocks)):
        x = walk.decoder_level(level, x, skips, emb)
    return found


def encoder_features(
    unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor | float, y: Tensor, context: Context
) -> list[Tensor]:
    """Give what every block of the encoder puts out, finest first, (B, C, h, w) each."""
    walk = _Walk(unet, y, context, PLAIN, None)
    _, features = walk.encoder(sample, walk.embed(sample, timestep), ())
    return features


LayerPair = tuple[LayerRegion | None, LayerRegion | None]   # of all rows, and of those that see the context


@dataclass(frozen=True)
class BlockReads:
    """What one transformer block reads beside its own tokens; of `plan` what is the same for all blocks.

    places: where each row is among those that differ before the first cross-attention; empty: all rows are there.
    """

    context: Source | None
    strength: float
    adapter: Adapter | RegionAdapter | None
    bank: Source | None
    stored: Tensor | None
    layers: LayerPair
    places: Sequence[int]
    plan: AttentionPlan


def _unheard(name: str, features: Tensor) -> None:
    """An observer for those who have none."""


def transform(block: BasicTransformerBlock, x: Tensor, reads: BlockReads, tell: Observer = _unheard) -> Tensor:
    """Run one transformer block on tokens x (B, N, C), which may be only the rows that differ; gives all rows."""
    own = block.norm1(x)
    tell("norm1", own)
    added = self_attention(block.attn1, own, reads.plan, reads.bank, reads.stored, reads.layers[0])
    tell("self", added)
    x = x + added
    if block.attn2 is not None:
        added = _read_context(block, x, reads)
        tell("cross", added)
        x = _all_rows(x, reads.places) + added
    x = x + block.ff(block.norm3(x))
    tell("block", x)
    return x


def _read_context(block: BasicTransformerBlock, x: Tensor, reads: BlockReads) -> Tensor:
    """Give what cross-attention adds to all rows (B, N, C); x may still have only those that differ."""
    plan, attn, places, (layer, seeing) = reads.plan, block.attn2, reads.places, reads.layers
    context, strength, adapter = reads.context, reads.strength, reads.adapter
    assert context is not None, "the network reads a context"
    rows, count = plan.seeing_rows, len(places) or x.shape[0]
    if rows is not None and not reads_nothing_of_zeros(attn):
        context, rows = with_zeros(attn, context, rows, count, adapter), None
    if rows is None:
        return cross_attention(attn, block.norm2(_all_rows(x, places)), context, strength, plan, layer, adapter)
    if not rows:
        return unseen(attn, x, count)
    # The rows that see are few of those that differ, or all of them.
    tokens = block.norm2(take(x, [places[row] for row in rows] if x.shape[0] < count else rows))
    read = cross_attention(attn, tokens, rows_of(context, rows), strength, plan, seeing, adapter)
    return beside_unseen(attn, read, rows, count)


def _all_rows(x: Tensor, places: Sequence[int]) -> Tensor:
    """Give all rows of x, if it has only those that differ."""
    return take(x, places) if places and x.shape[0] < len(places) else x


def residual(resnet: ResnetBlock2D, x: Tensor, emb: Tensor) -> Tensor:
    """Run one residual block on a map x (B, C, h, w)."""
    done: Tensor = resnet(x, emb)
    return done


class _Walk:
    """One call of the network: counts its blocks, and holds what all of them share."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        y: Tensor | None,
        context: Context,
        plan: AttentionPlan,
        observe: Observer | None,
    ) -> None:
        self.unet = unet
        self.dtype = unet.conv_in.weight.dtype   # of the blocks
        self.y = y
        self.context = context.to(self.dtype) if isinstance(context, Tensor) else context
        self.plan = plan
        self.observe = observe
        self.block = 0
        self.decoder_start = decoder_start(unet)
        self.regions: LayerRegions = {} if plan.layers is None else plan.layers
        # Before the first cross-attention there are only the rows that differ: which these are, and where each row is.
        alike = range(0) if plan.alike is None else plan.alike
        self.apart = [row for row, first in enumerate(alike) if row == first]
        self.places = [self.apart.index(first) for first in alike]

    def tell(self, name: str, x: Tensor) -> None:
        if self.observe is not None:
            self.observe(name, x)

    def together(self, x: Tensor) -> Tensor:
        """Give those rows of x that differ before the first cross-attention."""
        return take(x, self.apart) if self.apart and x.shape[0] == len(self.places) else x

    def all_rows(self, x: Tensor) -> Tensor:
        """Give all rows of x, if it has only those that differ."""
        return _all_rows(x, self.places)

    def beside(self, x: Tensor, rows: Tensor) -> Tensor:
        """Give the rows of a tensor that go with x."""
        return self.together(rows) if x.shape[0] < rows.shape[0] else rows

    def embed(self, sample: Tensor, timestep: Tensor | float) -> Tensor:
        times = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).expand(sample.shape[0])
        exact = self.unet.time_embedding.linear_1.weight.dtype
        time = self.unet.time_embedding(self.unet.time_proj(times).to(exact)).to(self.dtype)
        if self.y is None:
            assert self.unet.class_embedding is None, "the network has a vector condition"
            return time
        # The time is rounded, then added to the exact vector condition: the weights were published running so.
        return (time + self.unet.class_embedding(self.y.to(exact))).to(self.dtype)

    def encoder(self, sample: Tensor, emb: Tensor, sketch_maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        unet = self.unet
        assert len(sketch_maps) in (0, len(unet.down_blocks) + 1), (len(sketch_maps), len(unet.down_blocks))
        maps = list(sketch_maps)

        def store(x: Tensor, takes_map: bool) -> Tensor:
            self.tell(f"input.{len(skips)}", x)
            x = x + self.beside(x, maps.pop(0)).to(x.dtype) if takes_map and maps else x
            skips.append(x)
            return x

        skips: list[Tensor] = []
        x = store(unet.conv_in(self.together(sample).to(self.dtype)), True)
        for level, block in enumerate(unet.down_blocks):
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True)):
                x = self.run(residual, resnet, x, self.beside(x, emb))
                if attention is not None:
                    x = self.transformer(attention, x)
                is_last = level == len(unet.down_blocks) - 1 and i == len(block.resnets) - 1
                x = store(x, is_last)
            for downsampler in block.downsamplers or ():
                x = store(downsampler(x), True)
        return x, skips

    def middle(self, x: Tensor, emb: Tensor) -> Tensor:
        first, *others = self.unet.mid_block.resnets
        x = self.run(residual, first, x, emb)
        for attention, resnet in zip(self.unet.mid_block.attentions, others, strict=True):
            x = self.run(residual, resnet, self.transformer(attention, x), emb)
        self.tell("middle", x)
        return x

    def decoder_level(self, level: int, x: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        block = self.unet.up_blocks[level]
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True)):
            number = level * len(block.resnets) + i
            x = self.run(residual, resnet, torch.cat([x, self.warped(number, skips.pop())], dim=1), emb)
            if attention is not None:
                x = self.transformer(attention, x)
            if i == len(block.resnets) - 1:
                for upsampler in block.upsamplers or ():
                    x = upsampler(x, tuple(skips[-1].shape[2:]))
            x = self.styled(number, x, emb)
            self.tell(f"output.{number}", x)
        return x

    def warped(self, number: int, skip: Tensor) -> Tensor:
        """Let a skip connection (B, C, h, w) read the background's hints where the character is not."""
        skip = self.all_rows(skip)
        if not self.plan.sides.hints:
            return skip
        height, width = skip.shape[2:]
        layer, _ = self.region(height, width)
        assert layer is not None, "hints of the background are read outside a region"
        tokens, hint = skip.flatten(2).mT, self.plan.sides.hints[number]
        warp = self.unet.warp_modules[number]
        if not layer.context.groups:
            changed = torch.where(layer.context.inside[..., None], tokens, warp(tokens, hint, self.plan.backend))
            return changed.mT.unflatten(2, (height, width))
        changed = tokens.clone()
        for group in layer.context.groups:
            rows = range(len(tokens)) if group.rows is None else group.rows
            if group.outside.numel():
                seen = source_of_rows(hint, group.rows, len(tokens))
                read = warp(take(tokens, rows)[:, group.outside], seen, self.plan.backend)
                for row, result in zip(rows, read, strict=True):
                    changed[row, group.outside] = result
        return changed.mT.unflatten(2, (height, width))

    def styled(self, number: int, x: Tensor, emb: Tensor) -> Tensor:
        """Modulate a block's output (B, C, h, w) by the style of the key."""
        if not self.plan.sides.styles:
            return x
        return self.unet.style_modules[number](x, self.plan.sides.styles[number], emb)

    def transformer(self, attention: Transformer2DModel, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        linear = attention.use_linear_projection
        inner = attention.norm(x)
        flat = inner.flatten(2).mT if linear else attention.proj_in(inner).flatten(2).mT
        tokens = attention.proj_in(flat) if linear else flat  # (B, N, C)
        for block in attention.transformer_blocks:
            tokens = self.transformer_block(block, tokens, height, width)
        x = self.all_rows(x)
        # The map first: the sum is laid out in memory as its first part is, and a convolution that gets tokens' layout
        # with weights of another copies its weights in every call.
        if linear:
            return x + attention.proj_out(tokens).mT.unflatten(2, (height, width))
        return x + attention.proj_out(tokens.mT.unflatten(2, (height, width)))

    def transformer_block(self, block: BasicTransformerBlock, x: Tensor, height: int, width: int) -> Tensor:
        i, layers = self.block, self.region(height, width)
        self.block += 1
        if not (getattr(self.unet, "recomputes", False) and torch.is_grad_enabled()):
            return self.run_block(block, i, x, layers, self.tell)
        names: list[str] = []

        def run(x: Tensor) -> tuple[Tensor, ...]:
            seen: dict[str, Tensor] = {}
            out = self.run_block(block, i, x, layers, seen.__setitem__)
            names[:] = seen
            return out, *seen.values()

        # The observer is told outside: what it keeps has to be of the first run, with its gradient.
        out, *seen = checkpoint(run, x, use_reentrant=False)
        for name, features in zip(names, seen, strict=True):
            self.tell(name, features)
        return out

    def run_block(
        self, block: BasicTransformerBlock, i: int, x: Tensor, layers: LayerPair, tell: Observer
    ) -> Tensor:
        plan = self.plan
        reads = BlockReads(
            context=None if block.attn2 is None else self.context if isinstance(self.context, Tensor)
            else self.context[i],
            strength=plan.strengths if isinstance(plan.strengths, int | float) else plan.strengths[i],
            adapter=plan.adapters[i] if plan.adapters else None,
            bank=plan.bank[i - self.decoder_start] if plan.bank and i >= self.decoder_start else None,
            stored=plan.injection.stored[i] if plan.injection is not None else None,
            layers=layers,
            places=self.places,
            plan=plan,
        )
        if self.observe is None:
            return self.run(transform, block, x, reads)
        return transform(block, x, reads, lambda name, features: tell(f"{name}.{i}", features))

    def run(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        """Call one of the functions that the network repeats, compiled if it is set up so and nobody watches."""
        compiler: Regions | None = getattr(self.unet, "regions", None)
        return function(*args) if compiler is None or self.observe is not None else compiler(function, *args)

    def region(self, height: int, width: int) -> LayerPair:
        """Give the region at the size of a map: of all rows, and of those that see the context."""
        plan, regions = self.plan, self.regions
        if plan.region is None:
            return None, None
        if (height, width, False) not in regions:
            layer = regions[height, width, False] = region_at(plan.region, height, width)
            rows = plan.seeing_rows
            seeing = regions[height, width, True] = layer if not rows else region_of_rows(layer, rows)
            if getattr(self.unet, "regions", None) is not None:
                self.unet.regions.sizes_vary([*layer.indices, *seeing.indices])
        return regions[height, width, False], regions[height, width, True]
