"""Published files at a width that a test can run: every name of the real ones, each side shrunk by one rule."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.reference import ClusterProjection, TaggerTower
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import build_unet
from colorcli.sampling import PUBLISHED_SCHEDULE
from tests.model.conversion import (
    background_adapter,
    projection_state,
    reference_net_state,
    sketch_encoder_state,
    split_published,
    tagger_state,
    unet_state,
    vae_state,
)
from tests.model.conversion_v2 import modules_of, split_published_v2

Family = Literal["sdxl", "xlv2"]
Published = Literal["sdxl", "xlv2", "v2"]

CLIP, TAGGER = "cond_stage_model.", "img_embedder."
CLIP_V2 = "cond_stage_model.visual.model.", "cond_stage_model.transformer.model."
# Widths of the real model -> of the small one; any other number (kernels, tokens, tags, counts) stays as it is.
_TENTH = {320: 32, 640: 64, 960: 96, 1280: 128, 1920: 192, 2560: 256, 5120: 512, 10240: 1024}
_SHRUNK: Mapping[str, Mapping[int, int]] = {
    "model.diffusion_model.": {**_TENTH, 2048: 48},
    "bg_encoder.": _TENTH,
    "control_encoder.": {16: 4, 32: 8, 96: 12, 256: 16, **_TENTH},
    "proj.": {1280: 128, 2048: 48, 2304: 128 + 128},
    "first_stage_model.": {128: 32, 256: 64, 512: 128},
    CLIP: {1664: 208, 8192: 128, 1280: 128},
    TAGGER: {width: width // 8 for width in (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)},
}
# Of v2 a fifth, because a head of its attention has 64 channels, and of CLIP a head 80.
_FIFTH = {width: width // 5 for width in (320, 640, 960, 1280, 1920, 2560, 5120, 10240)} | {1024: 64}
_SHRUNK_V2: Mapping[str, Mapping[int, int]] = {
    **dict.fromkeys(("model.diffusion_model.", "bg_encoder.", "style_encoder.", "control_encoder."), _FIFTH),
    "first_stage_model.": _SHRUNK["first_stage_model."],
    CLIP_V2[0]: {1280: 160, 3840: 480, 5120: 96, 1024: 64},
    CLIP_V2[1]: {1024: 64, 3072: 192, 4096: 96, 49408: 20},
}


def manifest(family: str) -> dict[str, list[int]]:
    """Give the shape of every tensor of a published file; the test is skipped where the list is not there."""
    golden = os.environ.get("COLORCLI_GOLDEN") or Path(__file__).resolve().parents[2].parent / "shared" / "golden"
    path = Path(golden).parent / "spec" / "keys" / f"{family}.json"
    if not path.is_file():
        pytest.skip(f"the list of published names {path} is not there")
    found: dict[str, list[int]] = json.loads(path.read_text())
    return found


def small_shape(name: str, shape: list[int], family: Published = "sdxl") -> list[int]:
    """Shrink the shape of a tensor by the rule of its part; the tagger's bias of positions keeps its 512."""
    rules = _SHRUNK_V2 if family == "v2" else _SHRUNK
    rule = next((rule for prefix, rule in rules.items() if name.startswith(prefix)), {})
    if ".cpb_mlp." in name:
        rule = {}
    return [rule.get(side, side) for side in shape]


def published_tensors(family: Published, seed: int = 0) -> dict[str, Tensor]:
    """Make every tensor of a small published file: half precision, random, of sizes that keep pictures finite."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in manifest(family).items():
        small = small_shape(name, shape, family)
        spread = 0.5 / max(1, torch.Size(small[1:]).numel()) ** 0.5 if len(small) > 1 else 0.1
        tensor = torch.randn(small, generator=generator) * spread
        if name.endswith("weight") and len(small) == 1:
            tensor += 1.0   # norms
        if name.endswith("logit_scale"):
            tensor += 2.0
        found[name] = tensor.half()
    return found


def write_published(
    path: Path, family: Published, *, seed: int = 0, towers: bool = False,
    change: Mapping[str, Tensor | None] | None = None,
) -> Path:
    """Write a small published file.

    towers: with those of the family inside, of v2 both sides of CLIP. change: tensors put in place of others, None
    takes one out.
    """
    tensors = {name: value for name, value in published_tensors(family, seed).items()
               if towers or not name.startswith((CLIP, TAGGER))}
    for name, value in (change or {}).items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, path)
    return path


def write_towers(folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Write the files of both towers that go with a published file, named as their authors do: CLIP, tagger."""
    tensors = published_tensors("sdxl", seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "clip.safetensors", folder / "tagger.safetensors"
    for path, prefix in zip(paths, (CLIP + "model.", TAGGER + "model."), strict=True):
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if prefix.startswith(CLIP):
            # As in the official file, which has the text side too.
            own |= {"text_model.final_layer_norm.weight": torch.ones(8), "logit_scale": torch.ones(1)}
        save_file(own, path)
    return paths


def write_vit_h(folder: Path, *, seed: int = 0) -> Path:
    """Write the file of CLIP that goes with a published v2 file, named as open_clip does, with both its sides."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, text = CLIP_V2
    found = {}
    for name, value in published_tensors("v2", seed).items():
        if name.startswith(picture):
            found["visual." + name.removeprefix(picture)] = value
        elif name.startswith(text):
            found[name.removeprefix(text)] = value
    save_file(found | {"logit_scale": torch.ones(())}, folder / "open_clip_model.safetensors")
    return folder / "open_clip_model.safetensors"


def write_tokenizer(folder: Path, words: int = 20) -> Path:
    """Write a tokenizer of so many words, as CLIP's lies beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = ("<|startoftext|>", "<|endoftext|>")
    letters = [f"{letter}{end}" for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz"][: words - 2]
    vocabulary = {word: i for i, word in enumerate([*letters, *ends])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def build_v2_directly(path: Path) -> dict[str, Any]:
    """Build the components of a small v2 file that has its towers, by diffusers' converters."""
    parts = split_published_v2(load_file(path))
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
        sample_size=768, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).half()
    vae.load_state_dict(vae_state(parts.vae, vae.config))
    scheduler = DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False)
    return {**modules_of(parts), "vae": vae.eval().requires_grad_(False), "scheduler": scheduler}


def build_directly(path: Path, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Build the components of a small file that has its towers, by diffusers' converters and sizes written here.

    dtype: of every network. Tables that are computed, such as positions, are in no file and have it from the start.
    """
    state = load_file(path)
    parts = split_published(state)
    has_adapter = bool(parts.reference_net)
    widths = (32, 64, 128)
    unet = build_unet(block_out_channels=widths, context_dim=48)
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), layers_per_block=2, latent_channels=4, scaling_factor=0.13025,
        sample_size=1024, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=208, intermediate_size=128, projection_dim=128, num_hidden_layers=48, num_attention_heads=2,
        image_size=224, patch_size=14, hidden_act="gelu",
    ))
    filled: dict[str, tuple[nn.Module, Mapping[str, Tensor]]] = {
        "vae": (vae, vae_state(parts.vae, vae.config)),
        "tagger": (TaggerTower(embed_dim=16, mlp_ratio=4.0), tagger_state(_under(state, TAGGER + "model."))),
        "image_encoder": (clip, _under(state, CLIP + "model.")),
        "projection": (ClusterProjection(128, 128, 48), projection_state(parts.projection)),
        "sketch_encoder": (SketchEncoder(block_out_channels=widths, stem_channels=(4, 4, 8, 8, 12, 12, 16)),
                           sketch_encoder_state(parts.sketch_encoder)),
        "unet": (unet, unet_state(parts.unet, unet.config)),
    }
    if has_adapter:
        net = ReferenceNet(block_out_channels=widths)
        filled["reference_net"] = (net, reference_net_state(parts.reference_net, net.config))
    components: dict[str, Any] = {}
    for name, (module, values) in filled.items():
        module.to(dtype).load_state_dict(dict(values))
        components[name] = module
    if has_adapter:
        components["adapter"] = background_adapter(parts.adapters).to(dtype)
    for module in components.values():
        module.eval().requires_grad_(False)
    components["scheduler"] = DDIMScheduler(**PUBLISHED_SCHEDULE, clip_sample=False)
    return components


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def write_hollow(path: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Write a file of zeros that takes no room on the disk, for what looks at names and shapes only."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)
    return path
