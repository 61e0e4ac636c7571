"""What a model needs on the device and how it is made to fit: phases of a shot, precision of the parts, profiles.

A shot goes through phases: its key is read and projected once; then, for every frame, the drawing is read, noise is
removed, and the picture is decoded. `residency` brings to the device what the running one needs.

Weights of the published sizes, in GB (10^9 bytes). fp8 is a way to store; the arithmetic is in 16 bit.

    part                     phase                 parameters   fp32   16 bit    fp8
    CLIP bigG                read key              1844907264   7.38     3.69
    tagger                   read key                86893816   0.35     0.17
    projection               read key                15478528   0.06     0.03
    key and value layers     project                340787200   1.36     0.68   0.34
    the rest of the U-Net    denoise               2223727364   8.89     4.45   2.25
    sketch encoder           read frame              25984720   0.10     0.05
    ReferenceNet (xlv2)      read frame            2004467840   8.02     4.01   2.03
    adapter (xlv2)           project, denoise         2478080   0.01     0.00
    VAE                      read frame, decode      83653863   0.33   (overflows in fp16, bands of color in bf16)

v2, of SD2.1 (it has the same VAE):

    CLIP ViT-H, and its text read key             986109440   3.94     1.97
    key and value layers     project                25559040   0.10     0.05
    the rest of the U-Net    denoise              1030996164   4.12     2.06   1.06
    both side encoders       read frame            543075840   2.17     1.09
    sketch encoder           read frame             63970960   0.26     0.13

Once a key is projected, the key and value layers of the cross-attention are not needed for the rest of the shot.

What a phase needs beside weights, in bytes for each pixel of the canvas, counted call by call over the live tensors:

    denoise                          158 a row in 16 bit; a frame has 2 rows with one guidance, 3 with both
    - sketch maps                     16 a row
    - bank of the ReferenceNet       105 a row
    sketch encoder                   583 a frame in 16 bit
    ReferenceNet                     250 a frame in 16 bit
    v2: denoise                      262 a row in 16 bit; its sketch maps 15, and hints of the background 152 for all
    v2: a side encoder               244 in 16 bit
    VAE decode, whole / in strips   3072 / 900 in fp32
    VAE encode, whole / in strips   2572 / 740 in fp32

    profile   card      the VAE runs   encoders   frames at once   what moves
    full      any       whole          fp32       up to 16         nothing
    24g       24 GB     whole          fp32       up to 8          what must, within 22.0 GiB
    12g       12 GB     in strips      fp32       up to 4          what must, within 10.9 GiB
    8g         8 GB     in strips      16 bit     1                what must, within 7.1 GiB; fp8 if that fails
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from colorcli.errors import DeviceError
from colorcli.model.machine import memory_bytes

GIB = 2**30
RUNTIME = 600_000_000   # bytes that a CUDA context, its libraries and the allocator's gaps take before any tensor

# Layers that stay in float32 whatever the rest computes in: they are small, and what they give is added to every block,
# or is the result.
EXACT_LAYERS = ("time_embedding", "class_embedding", "conv_norm_out", "conv_out")
# Components that compute in the precision that was asked for. All others stay in float32, as published.
COMPUTE_PARTS = ("unet", "sketch_encoder", "reference_net", "adapter", "background_encoder", "style_encoder")
ENCODERS = ("image_encoder", "text_encoder", "tagger", "projection")
CONVOLUTION_PARTS = (
    "unet", "sketch_encoder", "reference_net", "background_encoder", "style_encoder", "vae",
)  # fmt: skip
# Layers that are not stored in fp8: the first and last ones, what scales, and what every block adds.
FP8_KEPT = ("norm", "conv_in", "conv_out", "time_embedding", "class_embedding", "time_emb_proj")
FP8_PARTS = ("unet", "reference_net")

Phase = Literal["read key", "project", "read frame", "match", "denoise", "decode"]
Canvas = tuple[int, int]   # (width, height) in pixels

# What each phase needs. The key and value layers of the U-Net's cross-attention are a part of their own: "context". The
# match needs every part; a part that no phase names is needed by all of them.
PHASES: dict[Phase, tuple[str, ...]] = {
    "read key": ("image_encoder", "text_encoder", "tagger", "projection"),
    "project": ("context", "adapter"),
    "read frame": ("sketch_encoder", "vae", "reference_net", "background_encoder", "style_encoder"),
    "match": (),
    "denoise": ("unet", "adapter"),
    "decode": ("vae",),
}
NAMED_PARTS = frozenset(part for parts in PHASES.values() for part in parts)
FRAME_PHASES: tuple[Phase, ...] = ("read frame", "denoise", "decode")   # these come again for every frame


def parts_of(phase: Phase, parts: Iterable[str]) -> list[str]:
    """List those of a model's parts that a phase needs."""
    return [part for part in parts if phase == "match" or part in PHASES[phase] or part not in NAMED_PARTS]


@dataclass(frozen=True)
class Precision:
    """In which numbers the denoising network, the sketch encoder, the ReferenceNet and the adapter compute."""

    name: str
    compute: torch.dtype


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32),
    "fp16": Precision("fp16", torch.float16),
    "bf16": Precision("bf16", torch.bfloat16),
}


@dataclass(frozen=True)
class MemoryProfile:
    """How a model is kept so that it runs in the memory of a card."""

    name: str
    budget: int | None = None                        # bytes on the device at most; None: no promise, nothing moves
    precision: Precision = PRECISIONS["fp32"]
    storage: Literal["compute", "fp8"] = "compute"   # how the weights of the large networks are kept
    exact_encoders: bool = True                      # CLIP, tagger and projection in float32
    keep_projected: bool = True                      # keys and values of the key are kept for the shot
    strips: bool = False                             # the VAE runs strip by strip
    most_frames: int = 1                             # colored together
    frames: int = 1                                  # colored together if the batch is "auto"

    @property
    def moves(self) -> bool:
        """Whether parts leave the device when their phase is over."""
        return self.budget is not None

    def describe(self) -> str:
        """Name the profile for the manifest: "12g", "8g fp8"."""
        return self.name if self.storage == "compute" else f"{self.name} {self.storage}"


# Budgets leave what a desktop and its browser hold on the card that also shows the picture.
PROFILES = {
    "full": MemoryProfile("full", most_frames=16),
    "24g": MemoryProfile("24g", int(22.0 * GIB), most_frames=8),
    "12g": MemoryProfile("12g", int(10.9 * GIB), strips=True, most_frames=4),
    "8g": MemoryProfile("8g", int(7.1 * GIB), exact_encoders=False, strips=True),
}


@dataclass(frozen=True)
class Sizes:
    """Parameters of a model's parts, and what its calls need for each pixel of the canvas."""

    parameters: Mapping[str, int]
    fp8_kept: Mapping[str, int]        # parameters of a part that fp8 does not touch
    row: float                         # numbers for each pixel and row of a call of the denoising network
    maps: float                        # sketch maps of a row
    bank: float                        # what a row reads of the ReferenceNet
    sketch: float                      # numbers in the sketch encoder
    reference_net: float               # numbers in the ReferenceNet, or in a side encoder
    decode: tuple[float, float]        # numbers in the decoder: whole, in strips
    encode: tuple[float, float]
    encoders: int                      # bytes for reading a key, of any size
    context: int                       # numbers that the projected tokens of a key are
    hints: float = 0.0                 # what all rows together read of the background encoder
    exact: Mapping[str, int] = field(default_factory=dict)   # parameters of `EXACT_LAYERS`, where a part is small


_XL: Mapping[str, int] = {
    "unet": 2_223_727_364, "context": 340_787_200, "sketch_encoder": 25_984_720, "projection": 15_478_528,
    "vae": 83_653_863, "image_encoder": 1_844_907_264, "tagger": 86_893_816,
}
_XL_SIZES = Sizes(
    _XL, {"unet": 22_584_964}, row=79.0, maps=8.2, bank=0.0, sketch=292.0, reference_net=0.0,
    decode=(768.0, 250.0), encode=(643.0, 200.0), encoders=160_000_000, context=2 * 83_200 * 392,
)
SIZES = {
    "mini": Sizes(
        {
            "unet": 10_730_116, "vae": 214_656, "tagger": 1_714_893, "token_head": 29_141, "image_encoder": 328_704,
            "projection": 97_216, "sketch_encoder": 520_032, "map_head": 11_748, "feature_head": 2_273,
        },
        {}, row=12.4, maps=1.5, bank=0.0, sketch=28.0, reference_net=0.0, decode=(11.1, 11.1), encode=(11.1, 11.1),
        encoders=15_000_000, context=1_000_000,
    ),
    "xl": _XL_SIZES,
    "xlv2": replace(
        _XL_SIZES, parameters={**_XL, "reference_net": 2_004_467_840, "adapter": 2_478_080},
        fp8_kept={"unet": 22_584_964, "reference_net": 21_831_360}, bank=52.6, reference_net=125.2,
    ),
    "v2": Sizes(
        {
            "unet": 1_030_996_164, "context": 25_559_040, "background_encoder": 266_104_960,
            "style_encoder": 276_970_880, "sketch_encoder": 63_970_960, "adapter": 362_496, "vae": 83_653_863,
            "image_encoder": 632_076_800, "text_encoder": 354_032_640,
        },
        {"unet": 28_179_844}, row=131.0, maps=7.6, bank=0.0, sketch=35.1, reference_net=122.0,
        decode=_XL_SIZES.decode, encode=_XL_SIZES.encode, encoders=20_000_000, context=2 * 12_480 * 512, hints=25.4,
        exact={"unet": 2_062_724, "background_encoder": 4_346_880, "style_encoder": 4_346_880},
    ),
}


def choose_precision(name: str, device: torch.device | str, model: str) -> Precision:
    """Give what `--precision` asks for; "auto": fp16 on a GPU for the published models, else fp32.

    Mini stays in float32: it is small, and its color match decides by comparing numbers that half precision would move.
    Raises DeviceError where a device cannot compute in it.
    """
    kind = torch.device(device).type
    if name == "auto":
        return PRECISIONS["fp32" if kind == "cpu" or model == "mini" else "fp16"]
    if name == "fp16" and kind == "cpu":
        raise DeviceError("--precision fp16 does not run on the cpu", hint="--precision bf16 takes as little memory")
    return PRECISIONS[name]


def choose_profile(
    name: str,
    device: torch.device | str,
    free: int | None,
    model: str,
    canvas: Canvas,
    precision: Precision = PRECISIONS["fp32"],
) -> MemoryProfile:
    """Give what `--memory` asks for, with what it leaves open filled in for a model and the largest canvas expected.

    free: bytes that are free on the device; None: not known. "auto" is the first profile, in the order of the table,
    under which nothing has to move between one frame and the next; else the first that runs the VAE in strips (so that
    less has to make room for it) and fits at all; else the smallest, and the first frame will tell.
    On the CPU there is nowhere to move to: it is "full", with the VAE in strips unless "full" was asked for, and with
    the encoders in 16 bit too if that was asked for. Strips move the last bits, so what is free must not decide on it:
    every machine of a farm has to give one and the same frame.
    """
    if torch.device(device).type == "cpu":
        exact = precision.compute == torch.float32
        whole = PROFILES["full"]
        return replace(whole, precision=precision, exact_encoders=exact, most_frames=1, strips=name != "full")
    if name != "auto":
        return _filled_in(PROFILES[name], free, model, canvas, precision)
    candidates = [_filled_in(profile, free, model, canvas, precision) for profile in PROFILES.values()]
    settled = (profile for profile in candidates if fits(profile, free, model, canvas, settled=True))
    fitting = (profile for profile in candidates if profile.strips and fits(profile, free, model, canvas))
    return next(settled, None) or next(fitting, candidates[-1])


def fits(
    profile: MemoryProfile, free: int | None, model: str, canvas: Canvas, frames: int = 1, *, settled: bool = False
) -> bool:
    """Whether a model colors a canvas within the profile's budget and what is free; True where nothing is known.

    settled: nothing may have to move between one frame and the next.
    """
    known = [value for value in (profile.budget, free) if value is not None]
    return not known or model not in SIZES or estimate(profile, model, canvas, frames, settled=settled) <= min(known)


def estimate(profile: MemoryProfile, model: str, canvas: Canvas, frames: int = 1, *, settled: bool = False) -> int:
    """Give the bytes that a profile needs on the device for a model and a canvas, both guidances on.

    With a profile that moves: those of the hungriest phase, when all else was taken away. settled: those at which
    nothing has to move between one frame and the next.
    """
    weights = part_bytes(profile, model)
    phases = [phase for phase in PHASES if phase != "match" or "feature_head" in weights]
    needs = {phase: activations(profile, model, phase, canvas, frames) for phase in phases}
    here = {phase: set(parts_of(phase, weights)) for phase in phases}
    if not profile.moves:
        here = {phase: set(weights) for phase in phases}
    elif settled:
        together = set().union(*(here[phase] for phase in FRAME_PHASES))
        here |= {phase: here[phase] | together for phase in FRAME_PHASES}
    return RUNTIME + max(needs[phase] + sum(weights[part] for part in here[phase]) for phase in phases)


def part_bytes(profile: MemoryProfile, model: str) -> dict[str, int]:
    """Give the bytes of the weights of every part of a model."""
    sizes, wide = SIZES[model], profile.precision.compute.itemsize
    found = {}
    for part, count in sizes.parameters.items():
        if part in ("context", *COMPUTE_PARTS):
            kept = sizes.fp8_kept.get(part, 0)
            stored_small = profile.storage == "fp8" and (part == "context" or part in FP8_PARTS)
            found[part] = (count - kept) + kept * wide if stored_small else count * wide
            found[part] += sizes.exact.get(part, 0) * (4 - wide)
        else:
            found[part] = count * (wide if part in ENCODERS and not profile.exact_encoders else 4)
    return found


def activations(profile: MemoryProfile, model: str, phase: Phase, canvas: Canvas, frames: int = 1) -> int:
    """Give the bytes that a phase needs on the device beside weights, for frames colored together."""
    sizes, wide = SIZES[model], profile.precision.compute.itemsize
    pixels, rows = canvas[0] * canvas[1], 3 * frames
    context = sizes.context * wide if profile.keep_projected else 0
    # What was made of the key for this canvas stays from frame to frame: the maps of an empty sheet, and the hints.
    # Keys and values are two numbers for one.
    kept = pixels * wide * (sizes.maps + sizes.hints * (3 if profile.keep_projected else 1))
    # What a frame's drawing was read as stays until its noise is removed.
    read = kept + pixels * wide * frames * (sizes.maps + sizes.bank)
    projected = pixels * wide * frames * sizes.bank if profile.keep_projected else 0
    needs: dict[Phase, float] = {
        "read key": sizes.encoders,
        "project": 2 * context,
        "read frame": read + pixels * max(
            sizes.sketch * wide * frames, sizes.reference_net * wide * frames, 4 * sizes.encode[profile.strips]
        ),
        "match": kept + pixels * 4 * max(sizes.sketch, sizes.row) * frames,
        "denoise": read + projected + pixels * wide * rows * (sizes.row + sizes.maps),
        "decode": kept + pixels * 4 * (sizes.decode[profile.strips] + 3 * frames),
    }
    return int(context + needs[phase])


def _filled_in(
    profile: MemoryProfile, free: int | None, model: str, canvas: Canvas, precision: Precision
) -> MemoryProfile:
    """Set precision, storage and frames at once of a profile for a model."""
    profile = replace(profile, precision=precision)
    if profile.budget is not None and free is not None:
        profile = replace(profile, budget=min(profile.budget, free))
    # fp8 halves the speed, and the weights lose digits: only where it makes the difference.
    if profile.name == "8g" and not fits(profile, free, model, canvas):
        profile = replace(profile, storage="fp8")
    # More frames at once are no gain if parts have to make room for them.
    settled = fits(profile, free, model, canvas, settled=True)
    counts = range(profile.most_frames, 1, -1)
    return replace(
        profile, frames=next((n for n in counts if fits(profile, free, model, canvas, n, settled=settled)), 1)
    )


def stored_as(profile: MemoryProfile) -> dict[str, torch.dtype]:
    """Say as what to read each component's weights, for diffusers: "default" are all that are not named."""
    parts = COMPUTE_PARTS if profile.exact_encoders else (*COMPUTE_PARTS, *ENCODERS)
    return {"default": torch.float32, **dict.fromkeys(parts, profile.precision.compute)}


def apply_precision(components: Mapping[str, Any], profile: MemoryProfile) -> None:
    """Turn the networks of a model into the numbers of a profile, layer by layer, so that there are never two copies.

    components: name -> network; what is no network is passed over.
    """
    for name, module in components.items():
        if not isinstance(module, nn.Module):
            continue
        if name in COMPUTE_PARTS:
            _convert(module, profile.precision.compute, EXACT_LAYERS)
        else:
            _convert(module, profile.precision.compute if name in ENCODERS and not profile.exact_encoders
                     else torch.float32)
        if profile.storage == "fp8" and name in FP8_PARTS:
            # Sets hooks on the layers, which turn a layer's weights into 16 bit while it is called.
            network: Any = module
            network.enable_layerwise_casting(
                storage_dtype=torch.float8_e4m3fn, compute_dtype=profile.precision.compute,
                skip_modules_pattern=FP8_KEPT,
            )


def arrange(components: Mapping[str, Any], profile: MemoryProfile, device: torch.device | str) -> None:
    """Lay the weights of convolutions out channels last where the device computes faster so: a card, in 16 bit.

    The numbers stay what they are. On a CPU mini's network gained 2 to 4 %, its decoder 11 to 15 %, and its last bits
    were others than those of a pipeline built by hand: not worth it.
    """
    if torch.device(device).type != "cuda" or profile.precision.compute == torch.float32:
        return
    for name in CONVOLUTION_PARTS:
        network: Any = components.get(name)
        if network is not None:
            network.to(memory_format=torch.channels_last)


def decodes_in_bf16(profile: MemoryProfile, device: torch.device | str) -> bool:
    """Whether pictures are decoded in bf16, as long as a look at them agrees: on a card that was asked for bf16."""
    return torch.device(device).type == "cuda" and profile.precision.compute == torch.bfloat16


def _convert(module: nn.Module, dtype: torch.dtype, exact: Sequence[str] = ()) -> None:
    for name, child in module.named_children():
        _convert(child, torch.float32 if name in exact else dtype, ())
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def free_bytes(device: torch.device | str) -> int | None:
    """Give what is free on a device; None where it does not tell."""
    kind = torch.device(device).type
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory_bytes()[0] if kind == "cpu" else None
