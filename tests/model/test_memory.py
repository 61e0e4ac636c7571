"""Profiles promise what the networks, counted at full width without computing them, really need."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from colorcli.errors import DeviceError
from colorcli.model.attention import AttentionPlan, KeyValues, Region, SideFeatures
from colorcli.model.build import build_components
from colorcli.model.memory import (
    GIB,
    PRECISIONS,
    PROFILES,
    SIZES,
    activations,
    apply_precision,
    choose_precision,
    choose_profile,
    estimate,
    fits,
    part_bytes,
)
from colorcli.model.reference import clip_tokens
from colorcli.model.residency import split_parts
from colorcli.model.side_encoders import project_hints
from colorcli.model.unet import places, project_bank
from colorcli.model.vae_tiles import decode_in_strips, encode_in_strips
from colorcli.variants import MINI, VARIANTS
from tests import tiny_xl
from tests.golden import networks
from tests.golden.fixture import load
from tests.model import full_size
from tests.model.counting import peak_bytes

HALF, FULL = PRECISIONS["fp16"], PRECISIONS["fp32"]
XL_CANVASES = ((1024, 1024), (1536, 640), (1536, 1536))


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """All parts of xlv2 without any content."""
    with torch.device("meta"):
        return full_size.modules()


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


# --- what the table says


@pytest.mark.parametrize("model", ["xl", "xlv2", "v2"])
@pytest.mark.parametrize("storage", ["compute", "fp8"])
def test_the_table_knows_the_bytes_of_every_part(model, storage):
    profile = replace(PROFILES["8g"], precision=HALF, storage=storage)
    builders = full_size.BUILDERS_V2 if model == "v2" else full_size.BUILDERS
    with torch.device("meta"):
        parts = {name: build() for name, build in builders.items() if name in SIZES[model].parameters}
    apply_precision(parts, profile)
    told = part_bytes(profile, model)
    counted = {
        name: sum(tensor.nbytes for tensor in tensors if isinstance(tensor, nn.Parameter))
        for name, tensors in split_parts(parts).items()
    }
    assert counted.keys() == told.keys()
    for name, size in counted.items():
        assert told[name] == pytest.approx(size, rel=0.01), name


def test_the_table_knows_mini():
    with torch.device("meta"):
        parts = dict(build_components(MINI, 33, 37).modules())
    told = part_bytes(PROFILES["full"], "mini")
    counted = {name: 4 * sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert {name: told[name] + (told.get("context", 0) if name == "unet" else 0) for name in counted} == counted


@pytest.mark.parametrize("canvas", XL_CANVASES)
def test_removing_noise_needs_what_is_promised_for_it(published, canvas):
    unet = published["unet"].half()
    width, height = canvas[0] // 8, canvas[1] // 8
    for model in ("xl", "xlv2"):
        for frames in (1, 2):
            rows = 3 * frames
            maps = [
                empty(rows, c, height // s, width // s, dtype=torch.half)
                for c, s in zip((320, 320, 640, 1280), (1, 2, 4, 4), strict=True)
            ]
            bank = [
                empty(frames, height * width // p.stride**2, p.width, dtype=torch.half)
                for p in places(unet) if p.part == "decoder" and model == "xlv2"
            ]
            context = [
                KeyValues(*(empty(1, 392, p.width, dtype=torch.half) for _ in range(2))) for p in places(unet)
            ]
            seen = project_bank(unet, bank) if bank else []
            given = sum(t.nbytes for t in (*maps, *(() if seen else bank)))
            given += sum(kv.keys.nbytes + kv.values.nbytes for kv in (*context, *seen))
            latents, y = empty(rows, 4, height, width), empty(1, 512)
            counted = given + peak_bytes(
                lambda: unet(latents, 0.0, y, context, maps, AttentionPlan(bank=seen or bank))  # noqa: B023
            )
            promised = activations(replace(PROFILES["full"], precision=HALF), model, "denoise", canvas, frames)
            assert counted <= promised <= 1.6 * counted, (model, frames)


@pytest.fixture(scope="module")
def published_v2() -> dict[str, Any]:
    """The networks of v2 that compute in 16 bit, without any content."""
    names = ("unet", "background_encoder", "style_encoder", "sketch_encoder")
    with torch.device("meta"):
        return {name: full_size.BUILDERS_V2[name]().half() for name in names}


@pytest.mark.parametrize("canvas", [(768, 768), (1536, 640)])
def test_v2_needs_what_is_promised_for_a_frame(published_v2, canvas):
    unet, half = published_v2["unet"], torch.half
    width, height = canvas[0] // 8, canvas[1] // 8
    profile = replace(PROFILES["full"], precision=HALF)
    seen = empty(1, 4, height, width, dtype=half), empty(1, 512, dtype=half), empty(1, 256, 1024, dtype=half)
    with torch.inference_mode():
        hints, styles = published_v2["background_encoder"](*seen), published_v2["style_encoder"](*seen)
        sides = SideFeatures(project_hints(unet, hints), styles)
        maps = published_v2["sketch_encoder"](empty(3, 3, *canvas[::-1], dtype=half))
    projected = [tensor for hint in sides.hints for tensor in (hint.keys, hint.values)]
    context = [KeyValues(*(empty(1, 512, p.width, dtype=half) for _ in range(2))) for p in places(unet)]
    given = sum(t.nbytes for t in (*hints, *styles, *projected, *maps))
    given += sum(kv.keys.nbytes + kv.values.nbytes for kv in context)
    plan = AttentionPlan(sides=sides, region=Region(empty(3, 1, height, width), 0.05))
    counted = given + peak_bytes(lambda: unet(empty(3, 4, height, width), 0.0, None, context, maps, plan))
    assert counted <= activations(profile, "v2", "denoise", canvas) <= 1.3 * counted
    counted = sum(t.nbytes for t in (*hints, *maps)) + max(
        *(peak_bytes(lambda: published_v2[name](*seen)) for name in ("background_encoder", "style_encoder")),  # noqa: B023
        4 * SIZES["v2"].encode[0] * canvas[0] * canvas[1],
    )
    assert counted <= activations(profile, "v2", "read frame", canvas) <= 1.3 * counted


@pytest.mark.parametrize("canvas", XL_CANVASES)
def test_reading_a_frame_needs_what_is_promised_for_it(published, canvas):
    width, height = canvas
    sketch = peak_bytes(lambda: published["sketch_encoder"].half()(empty(1, 3, height, width, dtype=torch.half)))
    behind = peak_bytes(
        lambda: published["reference_net"].half()(empty(1, 6, height // 8, width // 8), empty(1, 1024))
    )
    for strips in (False, True):
        encode = encode_in_strips if strips else lambda vae, picture: vae.encode(picture)
        counted = max(sketch, behind, peak_bytes(lambda: encode(published["vae"], empty(1, 3, height, width))))  # noqa: B023
        promised = activations(replace(PROFILES["full"], precision=HALF, strips=strips), "xlv2", "read frame", canvas)
        assert counted <= promised <= 1.8 * counted, strips


@pytest.mark.parametrize("canvas", XL_CANVASES)
def test_decoding_needs_what_is_promised_for_it(published, canvas):
    latents = empty(1, 4, canvas[1] // 8, canvas[0] // 8)
    for strips in (False, True):
        decode = decode_in_strips if strips else lambda vae, z: vae.decode(z)
        counted = peak_bytes(lambda: decode(published["vae"], latents))  # noqa: B023
        promised = activations(replace(PROFILES["full"], precision=HALF, strips=strips), "xl", "decode", canvas)
        assert counted <= promised <= 1.5 * counted, strips


def test_reading_a_key_needs_what_is_promised_for_it(published):
    clip = peak_bytes(lambda: clip_tokens(published["image_encoder"], empty(1, 3, 224, 224)))
    tagger = peak_bytes(lambda: published["tagger"](empty(1, 3, 448, 448)))
    assert max(clip, tagger) <= SIZES["xl"].encoders <= 1.5 * max(clip, tagger)


# --- which profile is chosen


@pytest.mark.parametrize("model", ["xl", "xlv2"])
@pytest.mark.parametrize(("name", "card"), [("24g", 24), ("12g", 12), ("8g", 8)])
def test_a_profile_keeps_its_promise_for_the_models_own_canvas(name, card, model):
    profile = choose_profile(name, "cuda", None, model, (1024, 1024), HALF)
    assert estimate(profile, model, (1024, 1024), profile.frames) < 0.95 * card * GIB
    assert profile.storage == "compute"   # fp8 is for larger canvases, or smaller cards


def test_a_smaller_card_never_gets_a_larger_profile():
    order = list(PROFILES)
    for model in ("xl", "xlv2"):
        found = [choose_profile("auto", "cuda", int(free * GIB), model, (1024, 1024), HALF) for free in range(3, 60)]
        places_ = [order.index(profile.name) for profile in found]
        assert places_ == sorted(places_, reverse=True)
        assert found[-1].name == "full" and found[0].describe() == "8g fp8"
        for free, profile in zip(range(3, 60), found, strict=True):
            fitting = fits(profile, free * GIB, model, (1024, 1024), profile.frames)
            assert fitting or free <= 4, (model, free, profile)


def test_the_cpu_has_nowhere_to_move_to():
    for name in ("auto", *PROFILES):
        assert not choose_profile(name, "cpu", None, "xl", (1024, 1024), FULL).moves


def test_what_is_free_on_a_computer_does_not_decide_on_the_last_bits_of_a_picture():
    for name in ("auto", "8g", "full"):
        found = {choose_profile(name, "cpu", free * GIB, "xl", (1024, 1024), FULL) for free in (8, 20, 64)}
        assert {profile.strips for profile in found} == {name != "full"}


def test_precision_is_half_on_a_gpu_and_full_on_a_cpu_and_for_mini():
    assert choose_precision("auto", "cuda:1", "xl").name == "fp16"
    assert choose_precision("auto", "cpu", "xl").name == "fp32"
    assert choose_precision("auto", "cuda", "mini").name == "fp32"
    assert choose_precision("bf16", "cpu", "xl").compute == torch.bfloat16
    with pytest.raises(DeviceError, match="fp16"):
        choose_precision("fp16", "cpu", "xl")


def test_every_model_that_is_estimated_is_one():
    assert set(SIZES) <= set(VARIANTS)


# --- precision


def test_only_the_published_parts_compute_in_half_precision():
    parts = tiny_xl.components(adapter=True)
    apply_precision(parts, replace(PROFILES["full"], precision=HALF))
    for name in ("vae", "tagger", "image_encoder", "projection"):
        assert {p.dtype for p in parts[name].parameters()} == {torch.float32}, name
    for name in ("sketch_encoder", "adapter"):
        assert {p.dtype for p in parts[name].parameters()} == {torch.float16}, name
    exact = ("time_embedding", "class_embedding", "conv_norm_out", "conv_out")
    for path, tensor in parts["unet"].named_parameters():
        assert tensor.dtype == (torch.float32 if path.split(".")[0] in exact else torch.float16), path
    behind = parts["reference_net"].named_parameters()
    kept = {path.split(".")[0] for path, tensor in behind if tensor.dtype == torch.float32}
    assert kept == {"time_embedding", "class_embedding"}


def decibels(found: Tensor, wanted: Tensor) -> float:
    """How far above the error the signal lies."""
    return float(10 * torch.log10(wanted.double().pow(2).mean() / (found.double() - wanted.double()).pow(2).mean()))


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    fixture = load("xl_unet_forward")
    yield fixture


# A number of 8 bits is off by 2^-9 of itself at most, 2^-9 / sqrt(3) in the mean: 59 dB. Some 24 roundings in a row on
# the way through the network add up like a random walk, to 24 times the square of the first: 59 - 14 = 45 dB. 6 dB (a
# factor of 2) are left for what is amplified on the way. fp16 has 11 bits: 18 dB more. fp8 has 4: 24 dB less.
@pytest.mark.parametrize(("name", "least"), [("fp16", 57.0), ("bf16", 39.0), ("fp8", 15.0)])
def test_the_golden_denoiser_stays_near_its_numbers_in_fewer_bits(golden, name, least):
    unet = networks.unet(golden)
    storage = "fp8" if name == "fp8" else "compute"
    precision = PRECISIONS["bf16" if name == "fp8" else name]
    apply_precision({"unet": unet}, replace(PROFILES["full"], precision=precision, storage=storage))
    given = golden.inputs
    out = unet(given["x"], given["timesteps"], given["y"], given["context"], golden.input_family("control"))
    assert out.dtype == torch.float32
    assert decibels(out, golden.outputs["out"]) > least


def test_fp8_layers_lie_in_one_byte_a_number_between_calls(golden):
    unet = networks.unet(golden)
    apply_precision({"unet": unet}, replace(PROFILES["8g"], precision=PRECISIONS["bf16"], storage="fp8"))
    given = golden.inputs
    layer = unet.mid_block.attentions[0].transformer_blocks[0].ff.net[2].weight
    for _ in range(2):
        assert layer.dtype == torch.float8_e4m3fn
        unet(given["x"], given["timesteps"], given["y"], given["context"], golden.input_family("control"))
    small = sum(p.numel() for p in unet.parameters() if p.dtype == torch.float8_e4m3fn)
    assert small > 0.9 * sum(p.numel() for p in unet.parameters())
