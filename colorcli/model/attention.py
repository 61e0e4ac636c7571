"""Attention of the denoising network: split by region, scaled by strength, reading banks of another picture.

Plain functions over the projections of diffusers' `Attention` modules. What they read comes in as arguments, frozen,
and nothing is kept in the modules between calls, so two frames can never disturb each other.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

BANK_THRESHOLD = 0.05  # mask above this reads the frame itself, the rest the bank; the published readers know no other


@dataclass(frozen=True)
class KeyValues:
    """Projected keys and values of tokens that stay the same over steps and frames, (B or 1, N, C) each."""

    keys: Tensor
    values: Tensor


Source = Tensor | KeyValues  # tokens still to be projected, or already projected


@dataclass(frozen=True)
class LowRank:
    """A low-rank change of one linear layer: W x becomes W x + scale * up(down x). No bias, no other factor."""

    down: Tensor          # (rank, in)
    up: Tensor            # (out, rank)
    scale: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Give what is added to the layer's output for input x (..., in)."""
        return self.scale * F.linear(F.linear(x, self.down), self.up)

    @property
    def delta(self) -> Tensor:
        """The change of the weight, (out, in)."""
        return self.scale * (self.up @ self.down)


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes of one cross-attention layer."""

    q: LowRank
    k: LowRank
    v: LowRank


@dataclass(frozen=True)
class RegionAdapter:
    """Low-rank changes of one split cross-attention layer, of its own for either half of the context.

    Each goes with the queries that read its half too. None: that half is read as without an adapter.
    """

    foreground: Adapter | None
    background: Adapter | None


@dataclass(frozen=True)
class Region:
    """Where the character is, and what each side of the mask sees of a context made of two halves.

    The context's first half is the reference, its second the background. rule "hard": a token above the threshold sees
    the reference, any other the background. "soft": both results are blended by the mask as it is; the threshold plays
    no part (the adapter).
    compat: with the hard rule and merge 0 the published program ignores the two strengths; True does the same.
    """

    mask: Tensor               # (B or 1, 1, h, w) of the latents' size, 1 = character
    threshold: float | Tensor = 0.05   # for the hard rule, 0..1; or one for each row, (B,)
    merge: float = 0.0         # how much of the background's result goes into the character, 0..1
    foreground: float = 1.0    # strength of the reference half
    background: float = 1.0    # strength of the background half
    rule: Literal["hard", "soft"] = "hard"
    compat: bool = False


@dataclass(frozen=True)
class Injection:
    """Reference-only attention: every block also reads what it was given when it saw the noised key.

    stored: self-attention inputs of all transformer blocks in order, (B or 1, N, C) each.
    """

    stored: Sequence[Tensor]
    fidelity: float = 0.5              # 0..1; how much the rows below keep to themselves
    own_rows: Sequence[int] = ()       # rows of the batch without a reference


@dataclass(frozen=True)
class SideFeatures:
    """What the decoder takes from the side encoders, one entry for each of its residual blocks; empty: nothing.

    hints: background tokens that the skip connections read outside the region's mask, (B or 1, h * w, C) each.
    styles: modulations of the blocks' outputs, (B or 1, 2 * C) each.
    """

    hints: Sequence[Source] = ()
    styles: Sequence[Tensor] = ()


NO_SIDES = SideFeatures()


@dataclass(frozen=True)
class AttentionPlan:
    """Everything attention needs beside the latents and the context; the default is the plain network.

    strengths: multiplies every cross-attention, one number or one for each transformer block in order.
    bank: what the decoder reads in self-attention, one entry for each of its transformer blocks; empty: nothing.
    adapters: low-rank changes of the cross-attentions, one for each transformer block in order; empty: none.
    sides: what the decoder of a network with side encoders takes from them.
    seeing_rows: rows of the batch that see the context, ascending; the others have an all-zero one, whose attention is
    its bias exactly. None: all rows.
    alike: for each row the first one with the same latents, time, vector condition and sketch maps: what comes before
    the first cross-attention is computed once for both. None: each row by itself.
    layers: the region at the sizes of the maps, filled in by the calls; given where many calls have one region. None:
    resized in each call.

    A bank, hints and styles may have a row for each frame: they are read by the rows of all branches.
    """

    region: Region | None = None
    strengths: float | Sequence[float] = 1.0
    bank: Sequence[Source] = ()
    injection: Injection | None = None
    adapters: Sequence[Adapter | RegionAdapter | None] = ()
    sides: SideFeatures = NO_SIDES
    seeing_rows: Sequence[int] | None = None
    alike: Sequence[int] | None = None
    layers: "LayerRegions | None" = None
    backend: str = "sdpa"

    def __post_init__(self) -> None:
        assert not (self.bank and self.injection), "a bank and reference-only attention cannot be read at once"


@dataclass(frozen=True)
class Group:
    """Rows of a batch that have one mask, and which queries of them are inside it and which outside."""

    rows: Sequence[int] | None   # ascending; None: all
    inside: Tensor               # (n,) numbers of queries
    outside: Tensor              # (N - n,)


@dataclass(frozen=True)
class Selection:
    """Which queries are inside, of one map size; made once and shared by all blocks."""

    inside: Tensor              # (B or 1, N) bool
    groups: tuple[Group, ...]   # together they have every row; none on the meta device, which knows no numbers

    @staticmethod
    def of(mask: Tensor, threshold: float | Tensor) -> "Selection":
        """Select where `mask` (B or 1, N) is above the threshold, one for all rows or (B,)."""
        inside = mask > (threshold[:, None] if isinstance(threshold, Tensor) else threshold)
        return Selection(inside, _groups(inside))

    def of_rows(self, rows: Sequence[int]) -> "Selection":
        """Select the same in some of the rows."""
        return self if self.inside.shape[0] == 1 else Selection.of(take(self.inside, rows), 0)


def _groups(inside: Tensor) -> tuple[Group, ...]:
    """Put rows (B, N) bool with the same queries inside together: the branches of guidance have the masks in common."""
    if inside.is_meta:
        return ()
    there = inside.cpu()
    found: dict[bytes, list[int]] = {}
    for row, queries in enumerate(there):
        found.setdefault(queries.numpy().tobytes(), []).append(row)
    return tuple(
        Group(
            None if len(found) == 1 else rows,
            there[rows[0]].nonzero().flatten().to(inside.device),
            (~there[rows[0]]).nonzero().flatten().to(inside.device),
        )
        for rows in found.values()
    )


@dataclass(frozen=True)
class LayerRegion:
    """A Region at the size of one map."""

    region: Region
    mask: Tensor           # (B or 1, N); bicubic, so it may leave 0..1 a little
    context: Selection     # by the region's own threshold
    bank: Selection        # by BANK_THRESHOLD

    @property
    def indices(self) -> list[Tensor]:
        """The tensors whose sizes depend on the mask."""
        groups = (*self.context.groups, *self.bank.groups)
        return [index for group in groups for index in (group.inside, group.outside)]


LayerRegions = dict[tuple[int, int, bool], LayerRegion]   # by height, width, and whether of the seeing rows only


def region_at(region: Region, height: int, width: int) -> LayerRegion:
    """Resize a region to a map of (height, width) tokens."""
    mask = layer_mask(region.mask, height, width).flatten(1)  # (B or 1, N)
    return LayerRegion(region, mask, Selection.of(mask, region.threshold), Selection.of(mask, BANK_THRESHOLD))


def region_of_rows(layer: LayerRegion, rows: Sequence[int]) -> LayerRegion:
    """Give the region of some of its rows."""
    if layer.mask.shape[0] == 1:
        return layer
    return LayerRegion(layer.region, take(layer.mask, rows), layer.context.of_rows(rows), layer.bank.of_rows(rows))


def runs_of(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Join row numbers to the fewest stretches of consecutive ones, (start, end) each, in their order."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and row == found[-1][1]:
            found[-1] = found[-1][0], row + 1
        else:
            found.append((row, row + 1))
    return found


def take(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Give rows of x (B, ...), any of them any number of times; without a copy where they are consecutive."""
    # Slices, not an index: its numbers would have to be brought to the device, and be waited for.
    pieces = [x[start:end] for start, end in runs_of(rows)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces) if pieces else x[:0]


def layer_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Resize a latent mask (B, 1, h, w) to a layer's map, bicubic and not clamped."""
    if mask.shape[-2:] == (height, width):
        return mask
    return F.interpolate(mask, (height, width), mode="bicubic", align_corners=False)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Imported where it is used: it prints on import and knows no CPU.
    from xformers.ops import memory_efficient_attention  # type: ignore[import-not-found, unused-ignore]

    return memory_efficient_attention(*(x.contiguous() for x in (q, k, v)))


# Each takes and gives (B, N, heads, head_dim).
BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"sdpa": _sdpa, "xformers": _xformers}


def best_backend(device: torch.device | str) -> str:
    """Name the fastest backend that is installed for a device."""
    on_cuda = torch.device(device).type == "cuda"
    return "xformers" if on_cuda and importlib.util.find_spec("xformers") is not None else "sdpa"


def attend(q: Tensor, kv: KeyValues, heads: int, backend: str = "sdpa") -> Tensor:
    """Let queries (B, N, C) read keys and values (B, 1 or B / n, M, C); heads are contiguous channel groups.

    With B / n rows of keys, query row i reads row i % (B / n): that of its frame, if the rows go branch after branch.
    """
    rows, frames = q.shape[0], kv.keys.shape[0]
    if 1 < frames < rows:
        assert rows % frames == 0, (rows, frames)
        # The branches as further queries of one frame, so that the keys, which are more, need not be repeated.
        together = q.unflatten(0, (-1, frames)).transpose(0, 1).flatten(1, 2)  # (frames, branches * N, C)
        read = attend(together, kv, heads, backend).unflatten(1, (rows // frames, -1))
        return read.transpose(0, 1).flatten(0, 1)
    keys, values = (x.expand(rows, -1, -1).unflatten(-1, (heads, -1)) for x in (kv.keys, kv.values))
    chosen = BACKENDS[backend if q.is_cuda else "sdpa"]
    return chosen(q.unflatten(-1, (heads, -1)), keys, values).flatten(2)


def attend_selected(
    q: Tensor, inside: KeyValues, outside: KeyValues, selection: Selection, heads: int, backend: str
) -> Tensor:
    """Let the queries inside read one set of tokens and the others another: (B, N, C).

    Equal to one attention over both with a bias of 0 and minus infinity, which would be (N, 2N) numbers for each row.
    """
    if not selection.groups:
        chosen = selection.inside[..., None]  # (B, N, 1)
        return torch.where(chosen, attend(q, inside, heads, backend), attend(q, outside, heads, backend))
    out = torch.empty_like(q)
    for group in selection.groups:
        queries = q if group.rows is None else take(q, group.rows)
        for index, source in ((group.inside, inside), (group.outside, outside)):
            if not index.numel():
                continue
            seen = source_of_rows(source, group.rows, len(q))
            assert isinstance(seen, KeyValues)
            read = attend(queries[:, index], seen, heads, backend)
            if group.rows is None:
                out[:, index] = read
            else:
                for row, result in zip(group.rows, read, strict=True):
                    out[row, index] = result
    return out


def source_of_rows(source: Source, rows: Sequence[int] | None, batch: int) -> Source:
    """Give what some rows of a batch read of a source that may have one row, or one for each frame; see `attend`."""
    frames = (source.keys if isinstance(source, KeyValues) else source).shape[0]
    if rows is None or frames == 1:
        return source
    assert batch % frames == 0, (batch, frames)
    read = [row % frames for row in rows]
    each = sorted(set(read))
    # Branch after branch, as `attend` takes them, or a row for each where not every frame has all branches there.
    return rows_of(source, each if read == each * (len(read) // len(each)) else read)


def project(attn: Attention, source: Source, adapter: Adapter | RegionAdapter | None = None) -> KeyValues:
    """Give the keys and values of tokens for one attention layer."""
    if isinstance(source, KeyValues):
        return source
    if isinstance(adapter, RegionAdapter):
        reference, background = source.chunk(2, dim=1)
        return _beside(project(attn, reference, adapter.foreground), project(attn, background, adapter.background))
    keys, values = attn.to_k(source), attn.to_v(source)
    if adapter is None:
        return KeyValues(keys, values)
    return KeyValues(keys + adapter.k(source), values + adapter.v(source))


def finish(attn: Attention, x: Tensor) -> Tensor:
    """Apply a layer's output projection."""
    return attn.to_out[1](attn.to_out[0](x))


def self_attention(
    attn: Attention,
    x: Tensor,
    plan: AttentionPlan,
    bank: Source | None = None,
    stored: Tensor | None = None,
    layer: LayerRegion | None = None,
) -> Tensor:
    """Self-attention of x (B, N, C), the block's normalised input; with a bank or stored tokens it reads those too.

    With a bank and a region, a token inside the mask reads only the map itself and one outside reads only the bank.
    """
    q, own = attn.to_q(x), project(attn, x)
    if bank is not None and layer is not None:
        return finish(attn, attend_selected(q, own, project(attn, bank), layer.bank, attn.heads, plan.backend))
    if bank is not None:
        return finish(attn, attend(q, _beside(own, project(attn, bank)), attn.heads, plan.backend))
    if plan.injection is not None and stored is not None:
        read = attend(q, _beside(own, project(attn, stored)), attn.heads, plan.backend)
        return finish(attn, _keep_own(attn, q, own, read, plan))
    return finish(attn, attend(q, own, attn.heads, plan.backend))


def _keep_own(attn: Attention, q: Tensor, own: KeyValues, read: Tensor, plan: AttentionPlan) -> Tensor:
    """Blend the rows without a reference towards their own self-attention; for all others the blend changes nothing."""
    assert plan.injection is not None
    rows, fidelity = list(plan.injection.own_rows), plan.injection.fidelity
    if not rows or fidelity <= 1e-5:
        return read
    alone = attend(take(q, rows), KeyValues(take(own.keys, rows), take(own.values, rows)), attn.heads, plan.backend)
    mixed = read.clone()
    mixed[rows] = fidelity * alone + (1 - fidelity) * take(read, rows)
    return mixed


def _beside(first: KeyValues, second: KeyValues) -> KeyValues:
    rows = max(first.keys.shape[0], second.keys.shape[0])
    return KeyValues(*(
        torch.cat([x.expand(rows, -1, -1) if len(x) == 1 else x.repeat(rows // len(x), 1, 1) for x in pair], dim=1)
        for pair in ((first.keys, second.keys), (first.values, second.values))
    ))


def cross_attention(
    attn: Attention,
    x: Tensor,
    context: Source,
    strength: float,
    plan: AttentionPlan,
    layer: LayerRegion | None = None,
    adapter: Adapter | RegionAdapter | None = None,
) -> Tensor:
    """Let x (B, N, C), the block's normalised input, read the context (B or 1, M, D): all rows see it.

    The result is multiplied by `strength` before the output projection, whose bias is not scaled. With a region the
    context's first half is the reference and its second half the background.
    """
    return finish(attn, strength * _read_context(attn, x, context, plan, layer, adapter))


def reads_nothing_of_zeros(attn: Attention) -> bool:
    """Tell whether an all-zero context leaves nothing but the bias of the output projection.

    A bias of the key and value layers would be read instead.
    """
    return attn.to_k.bias is None and attn.to_v.bias is None


def unseen(attn: Attention, x: Tensor, rows: int) -> Tensor:
    """Give what an all-zero context adds, (rows, N, C), to a batch like x: (B, N, C)."""
    assert reads_nothing_of_zeros(attn), "keys and values of zeros are not zero"
    bias = attn.to_out[0].bias
    shape = rows, x.shape[1], attn.to_out[0].out_features
    return x.new_zeros(shape) if bias is None else bias.to(x.dtype).expand(shape)


def beside_unseen(attn: Attention, seen: Tensor, rows: Sequence[int], batch: int) -> Tensor:
    """Put what the seeing rows have read, (n, N, C), into a batch whose other rows see an all-zero context."""
    pieces, done = [], 0
    at = 0
    for start, end in runs_of(rows):
        if start > done:
            pieces.append(unseen(attn, seen, start - done))
        pieces.append(seen[at : at + end - start])
        at, done = at + end - start, end
    if batch > done:
        pieces.append(unseen(attn, seen, batch - done))
    return torch.cat(pieces)


def with_zeros(
    attn: Attention, context: Source, rows: Sequence[int], batch: int, adapter: Adapter | RegionAdapter | None
) -> KeyValues:
    """Give the keys and values (batch, M, C) of a context that only some rows see; that of the others is all zeros."""
    known = project(attn, context, adapter)
    nothing = project(attn, known.keys.new_zeros(1, known.keys.shape[1], attn.to_k.in_features))
    seen = [row in rows for row in range(batch)]
    return KeyValues(*(
        torch.cat([(x if len(x) == 1 else x[row : row + 1]) if sees else zeros for row, sees in enumerate(seen)])
        for x, zeros in ((known.keys, nothing.keys), (known.values, nothing.values))
    ))


def _read_context(
    attn: Attention,
    x: Tensor,
    context: Source,
    plan: AttentionPlan,
    layer: LayerRegion | None,
    adapter: Adapter | RegionAdapter | None,
) -> Tensor:
    front_q, back_q = _queries(attn, x, adapter)
    whole = project(attn, context, adapter)
    if layer is None:
        assert not isinstance(adapter, RegionAdapter), "an adapter for each region needs a region"
        return attend(front_q, whole, attn.heads, plan.backend)
    reference, background = _halves(whole)
    region = layer.region
    plain = region.merge == 0 and region.rule == "hard"
    if plain:
        q = front_q if front_q is back_q else torch.where(layer.context.inside[..., None], front_q, back_q)
        read = attend_selected(q, reference, background, layer.context, attn.heads, plan.backend)
        if region.compat or region.foreground == region.background == 1.0:
            return read
        return read * torch.where(layer.context.inside, region.foreground, region.background)[..., None].to(read.dtype)
    behind = attend(back_q, background, attn.heads, plan.backend) * region.background
    front = attend(front_q, reference, attn.heads, plan.backend) * region.foreground
    front = (1 - region.merge) * front + region.merge * behind
    if region.rule == "hard":
        return torch.where(layer.context.inside[..., None], front, behind)
    m = layer.mask[..., None].to(front.dtype)
    return m * front + (1 - m) * behind


def _queries(attn: Attention, x: Tensor, adapter: Adapter | RegionAdapter | None) -> tuple[Tensor, Tensor]:
    """Give the queries for the reference and for the background; one tensor where they do not differ."""
    q = attn.to_q(x)
    if isinstance(adapter, RegionAdapter):
        front, back = (q if side is None else q + side.q(x) for side in (adapter.foreground, adapter.background))
        return front, back
    q = q if adapter is None else q + adapter.q(x)
    return q, q


def _halves(kv: KeyValues) -> tuple[KeyValues, KeyValues]:
    (front_k, back_k), (front_v, back_v) = kv.keys.chunk(2, dim=1), kv.values.chunk(2, dim=1)
    return KeyValues(front_k, front_v), KeyValues(back_k, back_v)


def rows_of(context: Source, rows: Sequence[int]) -> Source:
    """Give the context of some rows; one row is that of all."""
    if isinstance(context, KeyValues):
        return KeyValues(*(x if x.shape[0] == 1 else take(x, rows) for x in (context.keys, context.values)))
    return context if context.shape[0] == 1 else take(context, rows)
