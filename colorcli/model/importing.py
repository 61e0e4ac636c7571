"""Published single files become model folders in the diffusers layout, or networks in memory.

A file is read tensor by tensor and written the same way, so a model of any size needs the memory of one tensor. All of
it is checked before anything is written: each of our tensors has its own in the file with the shape it must have, and
each tensor of the file is used, or is known and left out for a reason.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from diffusers import DDIMScheduler
from diffusers import __version__ as diffusers_version
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTokenizer

from colorcli.errors import OutputError, WeightsError
from colorcli.model.architecture import (
    Origin,
    OriginOf,
    Shapes,
    adapter_from,
    adapter_origin,
    image_encoder_from,
    open_clip_origin,
    projection_from,
    projection_origin,
    reference_net_from,
    same_name,
    sketch_encoder_from,
    sketch_encoder_origin,
    tagger_from,
    tagger_origin,
    unet_from,
    unet_origin,
    vae_from,
    vae_origin,
)
from colorcli.model.architecture_v2 import LATENT_SCALE as V2_LATENT_SCALE
from colorcli.model.architecture_v2 import (
    background_encoder_from,
    pyramid_sketch_encoder_from,
    pyramid_sketch_encoder_origin,
    region_adapters_from,
    region_adapters_origin,
    side_encoder_origin,
    side_unet_from,
    side_unet_origin,
    style_encoder_from,
    text_tower_from,
    text_tower_origin,
    vision_tower_from,
)
from colorcli.model.single_file import (
    KIND_IN_WORDS,
    SUFFIX,
    Header,
    TensorEntry,
    family_of_file,
    kind_of,
    read_header,
)
from colorcli.model.weights import (
    DIFFUSERS_INDEX,
    LIST_NAME,
    TAGGER,
    TOWERS,
    VIT_H,
    Tower,
    WeightsFile,
    has_tower,
    installed_models,
    models_folder,
    write_list,
)
from colorcli.variants import VARIANTS

SHARD_BYTES = 2_000_000_000        # a loader holds one shard at a time; below the 4 GB that some disks allow a file
COPY_BYTES = 16 * 1024 * 1024
SPARE_BYTES = 20_000_000           # for headers, configurations, and what a file system keeps for itself
NAMES_SHOWN = 4
# What the published models were trained with.
NOISE_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1, "timestep_spacing": "leading", "clip_sample": False,
}
PREDICTIONS = {"v": "v_prediction", "eps": "epsilon"}
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}

V2_SIDE = 768   # pixels of a side that v2 was trained on
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")   # CLIP's words, in the one or the other form

UNET = "model.diffusion_model."

Prediction = Literal["v", "eps"]
Make = Callable[[Shapes], nn.Module]
OnProgress = Callable[[str, int, int], None]   # what is being done, bytes done, bytes in all
Advance = Callable[[str, int], None]           # what is being done, bytes more
Create = Callable[[Path], BinaryIO]            # opens a new file for writing

# Tensors that are known and have no place in a model of ours, each kind with the reason. First match counts.
_SCHEDULE = (r"(betas|alphas_cumprod|alphas_cumprod_prev|(sqrt|log)_(one_minus_|recip_|recipm1_)?alphas_cumprod"
             r"|posterior_(variance|log_variance_clipped|mean_coef[12]))$")
LEFT_OUT: Sequence[tuple[str, str]] = (
    (_SCHEDULE, "tables of the noise schedule, which are computed"),
    (r"model_ema\.", "moving averages of training"),
    (r"(scalar|txt)_embedder\.", "embedders without a place in a released model"),
)
XL_LEFT_OUT: Sequence[tuple[str, str]] = (
    (r"model\.diffusion_model\.conv_fg\.", "an input for foregrounds that no released model uses"),
    (r"bg_encoder\.output_blocks\.(5\.2|6\.)", "ReferenceNet behind the last block that is read"),
)
CLIP_LEFT_OUT = (
    r"(text_model\.|text_projection|logit_scale|.*position_ids$|transformer\.|token_embedding\.|positional_embedding$"
    r"|ln_final\.|attn_mask$)"
)
TAGGER_LEFT_OUT = r"(head\.|.*(relative_position_index|relative_coords_table|k_bias|attn_mask)$)"
# Of CLIP ViT-H/14, whose text side is kept too.
VIT_H_LEFT_OUT = r"(logit_scale$|.*position_ids$|attn_mask$)"
VIT_H_LAYERS, TEXT_LAYERS = 32, 24
TOWER_PARTS = ("image_encoder", "tagger", "text_encoder")
CLIP_WHAT = "CLIP ViT-bigG/14 (model.safetensors of laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)"
VIT_H_WHAT = "CLIP ViT-H/14 (model.safetensors of laion/CLIP-ViT-H-14-laion2B-s32B-b79K)"
TAGGER_WHAT = "the WD v1.4 SwinV2 tagger (model.safetensors of SmilingWolf/wd-v1-4-swinv2-tagger-v2)"
_OPTIONS = {"image_encoder": ("--clip", CLIP_WHAT), "tagger": ("--tagger", TAGGER_WHAT)}
# What a v2 file calls both sides of CLIP ViT-H/14, and how open_clip does.
_VIT_H_WRAPPED = (("visual.model.", "visual."), ("transformer.model.", ""))
TAGS = 9083   # classes of that release of the tagger; its successors have the same backbone with other weights


@dataclass(frozen=True)
class Part:
    """One component of a model: an empty network, and where each of its tensors is."""

    folder: str                          # of the component in the diffusers layout
    kind: tuple[str, str]                # module and class, as the index of diffusers names it
    network: nn.Module                   # with the sizes of the file and no memory behind its weights
    origins: Mapping[str, Origin]        # our names -> theirs
    entries: Header                      # their names -> places in a file
    prefix: str = ""                     # of their names, for messages

    @property
    def file_stem(self) -> str:
        return "model" if self.kind[0] == "transformers" else "diffusion_pytorch_model"


@dataclass(frozen=True)
class Imported:
    """What an import made, and what it did with the file."""

    folder: Path
    model: str
    license: str                              # SPDX id
    prediction: Prediction
    bytes: int                                # of the new folder
    used: int                                 # tensors of the file that are in the model
    ignored: Mapping[str, Sequence[str]]      # reason -> names of tensors that are not
    towers: Mapping[str, str]                 # component -> where it comes from
    notes: Sequence[str] = ()                 # what a person may want to know


@dataclass(frozen=True)
class _Plan:
    """A file understood."""

    family: str
    parts: Sequence[Part]
    linked: Mapping[str, Path]                # component -> folder of an installed model that already holds it
    towers: Mapping[str, str]
    used: int
    ignored: Mapping[str, Sequence[str]]
    notes: list[str] = field(default_factory=list)
    tokenizer: Any = None                     # CLIP's, for the text encoder


@dataclass(frozen=True)
class _Found:
    """A tower found, and what came with it."""

    parts: Sequence[Part]
    left: Mapping[str, Sequence[str]]         # reason -> tensors of its file that are not used
    origin: str                               # where it is from, for people
    links: Mapping[str, Path] = field(default_factory=dict)   # part -> folder of a model to link it from
    tokenizer: Any = None
    notes: Sequence[str] = ()


def _create(path: Path) -> BinaryIO:
    return path.open("wb")


def import_model(
    file: Path,
    *,
    clip: Path | None = None,
    tagger: Path | None = None,
    tokenizer: Path | None = None,
    vae: Path | None = None,
    to: Path | None = None,
    name: str | None = None,
    dtype: str | None = None,
    prediction: Prediction | None = None,
    source: Mapping[str, Any] | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
    shard_bytes: int = SHARD_BYTES,
    create: Create = _create,
) -> Imported:
    """Turn a published file into the model folder `to`/`name`.

    clip, tagger, vae: files or folders of the networks that the published files may lack; without them the towers are
    those inside the file, else those of an installed model. tokenizer: folder with that of v2's CLIP, if it is not
    beside `clip`. to: the models folder if None. name: the family if None.
    dtype: "fp32", "fp16" or "bf16"; None keeps that of the file. prediction: None reads it off the file's name ("eps").
    source: more to record about where the file comes from. on_progress: told of both reading and writing together.
    create: opens each file of weights that is written.
    Raises WeightsError if anything in the files is missing, unknown or of a wrong shape or type; OutputError if the
    folder is there already (`force` replaces it) or the disk is full. A failure leaves nothing behind.
    """
    family = family_of_file(file)
    parent = to if to is not None else models_folder()
    target = parent / (name or family)
    _refuse_existing(target, force)
    plan = _understand(file, family, clip, tagger, vae, dtype, tokenizer)
    chosen: Prediction = prediction or ("eps" if "eps" in file.name.lower() else "v")
    size = file.stat().st_size
    total = size + _written_bytes(plan, dtype)
    done = 0

    def advance(stage: str, count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(stage, done, total)

    license = VARIANTS[family].license
    with _new_folder(target, force) as folder:
        _require_space(parent, plan, dtype)
        made_of = {"file": file.name, "sha256": _hash(file, advance), "bytes": size, **plan.towers, **(source or {})}
        hashed = _write_parts(folder, plan, dtype, shard_bytes, advance, create)
        _write_index(folder, plan, chosen)
        listed = write_list(folder, family, license, source=made_of, hashed=hashed)
    return Imported(target, family, license, chosen, listed.total_bytes, plan.used, plan.ignored, plan.towers,
                    tuple(plan.notes))


def read_published(
    file: Path,
    *,
    towers: Path | None = None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    prediction: Prediction | None = None,
) -> dict[str, Any]:
    """Read a published file into the components of a pipeline, with nothing written.

    towers: folder of an installed model, or of any with the towers of the family inside; needed where the file has none
    (see `weights.towers_for`). dtype: of all networks, or of each by its name with "default" for the others; None
    keeps that of the file.
    Raises WeightsError like `import_model`.
    """
    family = family_of_file(file)
    plan = _understand(file, family, towers, towers if TAGGER in TOWERS[family] else None, None, None)
    names = {value: name for name, value in DTYPES.items()}
    components: dict[str, Any] = {}
    for part in plan.parts:
        wanted = dtype.get(part.folder, dtype.get("default")) if isinstance(dtype, Mapping) else dtype
        found = {ours: _read(part, ours, names[wanted] if wanted else None) for ours in part.origins}
        part.network.load_state_dict(found, assign=True)
        # Tables that are computed, not read, take part in the same sums.
        widest = max({value.dtype for value in found.values()}, key=lambda kind: (kind.itemsize, str(kind)))
        components[part.folder] = part.network.to(widest).eval().requires_grad_(False)
    chosen = prediction or ("eps" if "eps" in file.name.lower() else "v")
    components["scheduler"] = DDIMScheduler(**NOISE_SCHEDULE, prediction_type=PREDICTIONS[chosen])
    if plan.tokenizer is not None:
        components["tokenizer"] = plan.tokenizer
    return components


# --- understanding ------------------------------------------------------------------------------------------------


def _understand(
    file: Path, family: str, clip: Path | None, tagger: Path | None, vae: Path | None, dtype: str | None,
    tokenizer: Path | None = None,
) -> _Plan:
    """Find the place of every tensor. Raises WeightsError with all that does not fit."""
    if tagger is not None and TAGGER not in TOWERS[family]:
        raise WeightsError(f"{file.name} is {KIND_IN_WORDS['v2']}, which reads no tagger", hint="leave --tagger out")
    left_out = LEFT_OUT if family == "v2" else (*LEFT_OUT, *XL_LEFT_OUT)
    header = read_header(file)
    ignored: dict[str, list[str]] = {}
    rest: dict[str, TensorEntry] = {}
    for name, entry in header.items():
        reason = next((reason for pattern, reason in left_out if re.match(pattern, name)), None)
        if reason is not None:
            ignored.setdefault(reason, []).append(name)
        else:
            rest[name] = entry
    notes = _family_notes(file, family)
    parts: list[Part] = []
    linked, lenders, words = {}, {}, None
    for tower in TOWERS[family]:
        given = tagger if tower is TAGGER else clip
        inside = {name: rest.pop(name) for name in list(rest) if name.startswith(tower.prefix)}
        if given is not None and inside:
            ignored.setdefault(f"the {tower.folder} comes from {given}", []).extend(inside)
        found = _tower(tower, given, inside, file, tokenizer)
        notes += found.notes
        words = found.tokenizer or words
        for part in found.parts:
            parts.append(part)
            lenders[part.folder] = found.origin
            if part.folder in found.links and dtype in (None, _name_of(part)):
                linked[part.folder] = found.links[part.folder]
        if given is None and inside:
            back = {_bare_name(tower, name): name for name in inside}
            for reason, names in found.left.items():
                ignored.setdefault(reason, []).extend(back.get(name, name) for name in names)
    parts += _networks_v2(rest, vae) if family == "v2" else _networks(rest, family, vae)
    if vae is not None:
        lenders["vae"] = str(vae)
    problems = _problems(parts, rest, vae is not None)
    if problems:
        raise WeightsError(f"{file.name} does not fit {family}: {'; '.join(problems)}",
                           hint="download it again, or see in its name and description which model it is")
    _require_matching_towers(parts)
    outside = sum(len(names) for names in ignored.values())
    return _Plan(family, parts, linked, lenders, len(header) - outside, ignored, notes, words)


def _family_notes(file: Path, family: str) -> list[str]:
    """Say where a file's name promises another family than its content."""
    prefixes = {"sdxl": "xl", "xlv2": "xlv2", "v2": "v2"}
    promised = next((kind for prefix, kind in prefixes.items() if file.name.lower().startswith(prefix)), None)
    if promised is None or promised == family:
        return []
    return [f"the name of {file.name} says {promised}, what is in it is {family}"]


def _networks(rest: Header, family: str, vae: Path | None) -> list[Part]:
    """Describe the networks of an xl file that were trained together; each takes its tensors by prefix."""
    plain, lora = _without_adapter(rest)

    def part(folder: str, kind: tuple[str, str], prefix: str, make: Make, origin: OriginOf) -> Part:
        own = _under(plain, prefix)
        return _part(folder, kind, make(_shapes(own)), origin, own, prefix)

    found = [
        _vae(plain, vae, vae_from),
        part("sketch_encoder", ("colorcli.model.sketch_encoder", "SketchEncoder"), "control_encoder.",
             sketch_encoder_from, sketch_encoder_origin),
        part("projection", ("colorcli.model.reference", "ClusterProjection"), "proj.", projection_from,
             projection_origin),
        part("unet", ("colorcli.model.unet", "ColorUNet"), UNET, unet_from, unet_origin),
    ]
    if family == "xlv2":
        network = found[-1].network
        found += [
            part("reference_net", ("colorcli.model.reference_net", "ReferenceNet"), "bg_encoder.", reference_net_from,
                 unet_origin),
            _part("adapter", ("colorcli.model.lora", "BackgroundAdapter"), adapter_from(network),
                  adapter_origin(network), lora, UNET),
        ]
    return found


def _networks_v2(rest: Header, vae: Path | None) -> list[Part]:
    """Describe the networks of a v2 file that were trained together."""
    plain, lora = _without_adapter(rest)
    side, sketch = "colorcli.model.side_encoders", "colorcli.model.sketch_encoder"

    def part(folder: str, kind: tuple[str, str], prefix: str, make: Make, origin: OriginOf) -> Part:
        own = _under(plain, prefix)
        try:
            network = make(_shapes(own))
        except (ArithmeticError, ValueError, TypeError, IndexError, KeyError) as failure:
            raise WeightsError(f"no {folder} of v2 has the sizes of {prefix}*: {failure}",
                               hint="download the file again, or see in its description which model it is") from None
        return _part(folder, kind, network, origin, own, prefix)

    unet = part("unet", (side, "SideUNet"), UNET, side_unet_from, side_unet_origin)
    return [
        _vae(plain, vae, lambda shapes: vae_from(shapes, V2_LATENT_SCALE, V2_SIDE)),
        part("sketch_encoder", (sketch, "PyramidSketchEncoder"), "control_encoder.", pyramid_sketch_encoder_from,
             pyramid_sketch_encoder_origin),
        unet,
        part("background_encoder", (side, "BackgroundEncoder"), "bg_encoder.", background_encoder_from,
             side_encoder_origin),
        part("style_encoder", (side, "StyleEncoder"), "style_encoder.", style_encoder_from, side_encoder_origin),
        _part("adapter", ("colorcli.model.lora", "RegionAdapters"), region_adapters_from(unet.network),
              region_adapters_origin(unet.network), lora, UNET),
    ]


def _vae(rest: Header, given: Path | None, make: Make) -> Part:
    """Describe the autoencoder, in the file or given by itself."""
    prefix = "first_stage_model."
    own = _under(rest, prefix) if given is None else _vae_header(given)
    by_diffusers = given is not None and "decoder.conv_norm_out.weight" in own
    shapes = _ldm_shapes(_shapes(own)) if by_diffusers else _shapes(own)
    return _part("vae", ("diffusers", "AutoencoderKL"), make(shapes), same_name if by_diffusers else vae_origin, own,
                 prefix)


def _without_adapter(rest: Header) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """Part the low-rank changes from all else; they are among the tensors of the denoising network."""
    lora = {name.removeprefix(UNET): entry for name, entry in rest.items() if ".lora_" in name}
    return {name: entry for name, entry in rest.items() if ".lora_" not in name}, lora


def _shapes(header: Header) -> Shapes:
    return {name: entry.shape for name, entry in header.items()}


def _part(
    folder: str, kind: tuple[str, str], network: nn.Module, origin: OriginOf, entries: Header, prefix: str = ""
) -> Part:
    return Part(folder, kind, network, {name: origin(name) for name in network.state_dict()}, entries, prefix)


def _under(header: Header, prefix: str) -> dict[str, TensorEntry]:
    return {name.removeprefix(prefix): entry for name, entry in header.items() if name.startswith(prefix)}


def _vae_header(path: Path) -> Header:
    """List the tensors of an autoencoder given by its own file or folder, by the names of LDM or of diffusers."""
    header = _header_at(path / "vae" if (path / "vae").is_dir() else path)
    return _under(header, "first_stage_model.") or header


def _ldm_shapes(shapes: Shapes) -> Shapes:
    return {vae_origin(name).name: shape for name, shape in shapes.items()}


def _problems(parts: Sequence[Part], rest: Header, other_vae: bool) -> list[str]:
    """Say in words all that does not fit of the networks in the main file; the towers were checked by themselves."""
    faults, used = _Faults(), set()
    for part in parts:
        if part.folder not in TOWER_PARTS:
            _compare(part, faults)
            used |= {part.prefix + origin.name for origin in part.origins.values()}
    faults.unknown += [name for name in rest
                       if name not in used and not (other_vae and name.startswith("first_stage_model."))]
    texts = faults.in_words()
    if not next(part for part in parts if part.folder == "vae").entries:
        texts.append("it has no autoencoder at all (--vae FILE gives one)")
    return texts


@dataclass
class _Faults:
    """What does not fit, by names."""

    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def in_words(self) -> list[str]:
        """Tell each kind by its first few and the count."""
        texts = []
        for names, one, many in (
            (self.missing, "tensor is missing", "tensors are missing"),
            (self.wrong, "has a wrong shape", "have a wrong shape"),
            (self.types, "is not F32, F16 or BF16", "are not F32, F16 or BF16"),
            (self.unknown, "is unknown", "are unknown"),
        ):
            distinct = list(dict.fromkeys(names))
            if distinct:
                shown = ", ".join(distinct[:NAMES_SHOWN]) + (", ..." if distinct[NAMES_SHOWN:] else "")
                texts.append(f"{len(distinct)} {many if distinct[1:] else one} ({shown})")
        return texts


def _compare(part: Part, faults: _Faults) -> None:
    """Compare the shape and type of every tensor of a part with that of the file."""
    expected = {name: tuple(value.shape) for name, value in part.network.state_dict().items()}
    for ours, origin in part.origins.items():
        entry, full = part.entries.get(origin.name), part.prefix + origin.name
        if entry is None:
            faults.missing.append(full)
            continue
        wanted = _published_shape(expected[ours], origin)
        if not _fits(entry.shape, wanted, part.folder):
            faults.wrong.append(f"{full} is {list(entry.shape)} and should be {list(wanted)}")
        if entry.dtype not in DTYPES:
            faults.types.append(f"{full} is {entry.dtype}")


def _published_shape(ours: tuple[int, ...], origin: Origin) -> tuple[int, ...]:
    if origin.transposed:
        return ours[::-1]
    return (ours[0] * origin.piece[1], *ours[1:]) if origin.piece else ours


def _fits(found: tuple[int, ...], expected: tuple[int, ...], folder: str) -> bool:
    # The attention of the autoencoder is kept as 1x1 convolutions.
    return found == expected or (folder == "vae" and len(expected) == 2 and found == (*expected, 1, 1))


def _require_matching_towers(parts: Sequence[Part]) -> None:
    """Check that the towers are those that the model was trained with, by the widths of their tokens."""
    by_folder: dict[str, Any] = {part.folder: part.network for part in parts}
    clip = by_folder["image_encoder"].config.projection_dim
    if "projection" in by_folder:
        projection, tagger = by_folder["projection"].config, by_folder["tagger"].config
        width = tagger["embed_dim"] * 2 ** (len(tagger["depths"]) - 1)
        pairs = [(clip, projection["input_dim"], f"the CLIP tower; it wants {CLIP_WHAT}"),
                 (width, projection["tagger_dim"], f"the tagger; it wants {TAGGER_WHAT}")]
    else:
        context = by_folder["unet"].config["cross_attention_dim"]
        pairs = [(clip, context, f"the CLIP tower; it wants {VIT_H_WHAT}")]
        if "text_encoder" in by_folder:
            text = by_folder["text_encoder"].config.projection_dim
            pairs.append((text, context, f"CLIP's text side; it wants {VIT_H_WHAT}"))
    for found, wanted, what in pairs:
        if found != wanted:
            raise WeightsError(f"the model reads tokens {wanted} wide, and {found} is the width of {what}",
                               hint="download that one")


# --- towers -------------------------------------------------------------------------------------------------------


def _tower(tower: Tower, given: Path | None, inside: Header, file: Path, tokenizer: Path | None) -> _Found:
    """Describe a tower: the one that is given, else the one inside the file, else that of an installed model."""
    option, what = _OPTIONS[tower.folder][0], _what(tower)
    links: dict[str, Path] = {}
    if given is not None:
        if (given / tower.folder).is_dir():
            links = _links(given, tower)
        header, origin = _headers_at(links.values() or (given,)), str(given)
    elif inside:
        header, origin = dict(inside), file.name
    else:
        lender = next((path for path in installed_models().values() if has_tower(path, tower)), None)
        if lender is None:
            raise WeightsError(f"{file.name} comes without {what}, and no installed model has it",
                               hint=f"download that file and add {option} FILE; `colorcli models pull` fetches all "
                                    "that a model needs")
        links, origin = _links(lender, tower), str(lender)
        header = _headers_at(links.values())
    bare = {_bare_name(tower, name): entry for name, entry in header.items()}
    kind = kind_of(bare)
    if tower is TAGGER:
        part, left = _tagger_part(bare, option, what, origin, kind)
        return _Found([part], left, origin, links)
    if kind != "clip":
        words = KIND_IN_WORDS.get(kind, kind)
        raise WeightsError(f"{origin} is {words}, not a CLIP tower", hint=f"{option} takes {what}")
    _require_layers(bare, tower, option, what, origin)
    if tower is not VIT_H:
        part, left = _clip_part(bare, option, what, origin)
        return _Found([part], left, origin, links)
    parts, left = _vit_h_parts(bare, option, what, origin)
    if len(parts) == 1:
        return _Found(parts, left, origin, links)
    beside = tokenizer
    if beside is None and (links or given is not None):
        near = links["image_encoder"].parent / "tokenizer" if links else given
        assert near is not None
        beside = near if near.is_dir() else near.parent
    known, notes = _tokenizer(beside, parts[1].network)
    return _Found(parts, left, origin, links, known, notes)


def _what(tower: Tower) -> str:
    return VIT_H_WHAT if tower is VIT_H else _OPTIONS[tower.folder][1]


def _links(model: Path, tower: Tower) -> dict[str, Path]:
    """Find the networks in a model's folder that are a tower, or come from the same place."""
    return {name: model / name for name in (tower.folder, *tower.goes_with)
            if name in TOWER_PARTS and (model / name).is_dir()}


def _headers_at(places: Iterable[Path]) -> dict[str, TensorEntry]:
    return {name: entry for place in places for name, entry in _header_at(place).items()}


def _require_layers(bare: Header, tower: Tower, option: str, what: str, origin: str) -> None:
    """Tell one CLIP from another by the count of the layers of its picture side. Raises WeightsError."""
    named = r"(?:vision_model\.encoder\.layers|visual\.transformer\.resblocks)\.(\d+)\."
    layers = len({found[1] for name in bare if (found := re.match(named, name))})
    if layers != tower.mark[1]:
        raise WeightsError(f"{origin} is a CLIP with {layers} layers, and the model was trained with one that has "
                           f"{tower.mark[1]}", hint=f"{option} takes {what}")


def _tokenizer(folder: Path | None, text_encoder: Any) -> tuple[Any, list[str]]:
    """Read CLIP's tokenizer from a folder: with a remark None, if there is none or it is of another model."""
    if folder is None or not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None, ["there is no tokenizer beside CLIP, so words cannot change pictures (manipulate) until "
                      "vocab.json and merges.txt of a CLIP model lie in the folder tokenizer of the new model"]
    try:
        found = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        words = len(found)
    except Exception as failure:  # the library has a kind of its own for every file that it reads
        return None, [f"the tokenizer in {folder} cannot be read, so words cannot change pictures: {failure}"]
    if words != text_encoder.config.vocab_size:
        return None, [f"the tokenizer in {folder} knows {words} words and the text encoder "
                      f"{text_encoder.config.vocab_size}, so it is left out, and words cannot change pictures"]
    return found, []


def _clip_part(bare: Header, option: str, what: str, origin: str) -> tuple[Part, Mapping[str, Sequence[str]]]:
    theirs = any(name.startswith("visual.") for name in bare)
    own = {name: entry for name, entry in bare.items() if not re.match(CLIP_LEFT_OUT, name)}
    left = {"CLIP's text side and buffers; the model reads no text": [name for name in bare if name not in own]}
    as_ours: dict[str, tuple[int, ...]] = {name: entry.shape for name, entry in own.items()}
    if theirs:
        as_ours = {"vision_model.embeddings.class_embedding": _shape(own, "visual.class_embedding"),
                   "vision_model.encoder.layers.0.mlp.fc1.weight":
                       _shape(own, "visual.transformer.resblocks.0.mlp.c_fc.weight"),
                   "visual_projection.weight": _shape(own, "visual.proj")[::-1]}
    network = image_encoder_from(as_ours)
    part = _part("image_encoder", ("transformers", "CLIPVisionModelWithProjection"), network,
                 open_clip_origin if theirs else same_name, own)
    _require_complete(part, origin, what, option)
    return part, left


def _vit_h_parts(
    bare: Header, option: str, what: str, origin: str
) -> tuple[list[Part], Mapping[str, Sequence[str]]]:
    """Describe both sides of CLIP ViT-H/14; the text side is not there in every file."""
    theirs = any(name.startswith("visual.") for name in bare)
    left = {"CLIP's buffers": [name for name in bare if re.match(VIT_H_LEFT_OUT, name)]}
    picture: dict[str, TensorEntry] = {}
    text: dict[str, TensorEntry] = {}
    for name, entry in bare.items():
        if name not in left["CLIP's buffers"]:
            (picture if re.match(r"visual|vision_model\.", name) else text)[name] = entry
    words = ("token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    if text and not any(name in text for name in words):
        left["CLIP's text side, which is not whole"] = list(text)
        text = {}
    sides: list[tuple[str, str, Header, Make, OriginOf]] = [
        ("image_encoder", "CLIPVisionModelWithProjection", picture, vision_tower_from, open_clip_origin)
    ]
    if text:
        sides.append(("text_encoder", "CLIPTextModelWithProjection", text, text_tower_from, text_tower_origin))
    parts = []
    for folder, kind, own, make, name_of in sides:
        shapes = _shapes(own) if theirs else _open_clip_shapes(own, name_of)
        try:
            network = make({name.removeprefix("visual."): shape for name, shape in shapes.items()})
        except (ArithmeticError, KeyError, ValueError, IndexError, TypeError) as lost:
            raise WeightsError(f"{origin} does not fit: the sizes of its {folder} cannot be read ({lost})",
                               hint=f"{option} takes {what}") from None
        part = _part(folder, ("transformers", kind), network, name_of if theirs else same_name, own)
        _require_complete(part, origin, what, option)
        parts.append(part)
    return parts, left


def _open_clip_shapes(own: Header, name_of: OriginOf) -> Shapes:
    """Give the shapes of a tower in the names of transformers by those of open_clip."""
    origins = {name: name_of(name) for name in own}
    return {origin.name: _published_shape(own[name].shape, origin) for name, origin in origins.items()}


def _tagger_part(
    bare: Header, option: str, what: str, origin: str, kind: str
) -> tuple[Part, Mapping[str, Sequence[str]]]:
    ours = any(name.startswith("backbone.") for name in bare)
    if kind != "tagger" and not ours:
        words = KIND_IN_WORDS.get(kind, kind)  # type: ignore[call-overload]
        raise WeightsError(f"{origin} is {words}, not a tagger", hint=f"{option} takes {what}")
    for name, entry in bare.items():
        if re.match(r"head\.(fc\.)?weight$", name) and entry.shape[0] != TAGS:
            raise WeightsError(f"{origin} is a tagger with {entry.shape[0]} tags, and the model was trained with the "
                               f"one that has {TAGS}", hint=f"{option} takes {what}")
    own = {name: entry for name, entry in bare.items() if not re.match(TAGGER_LEFT_OUT, name)}
    left = {"the tagger's classifier and buffers; only its features are read":
            [name for name in bare if name not in own]}
    shapes = {tagger_origin(name).name if ours else name: entry.shape for name, entry in own.items()}
    part = _part("tagger", ("colorcli.model.reference", "TaggerTower"), tagger_from(shapes),
                 same_name if ours else tagger_origin, own)
    _require_complete(part, origin, what, option)
    return part, left


def _require_complete(part: Part, origin: str, what: str, option: str) -> None:
    """Check a tower on its own, so that the message names its file and option. Raises WeightsError."""
    used = {origin.name for origin in part.origins.values()}
    faults = _Faults(unknown=[name for name in part.entries if name not in used])
    _compare(part, faults)
    if texts := faults.in_words():
        raise WeightsError(f"{origin} does not fit: {'; '.join(texts)}", hint=f"{option} takes {what}")


def _shape(header: Header, name: str) -> tuple[int, ...]:
    return header[name].shape if name in header else ()


def _bare_name(tower: Tower, name: str) -> str:
    """Take off what wraps a tower's names in a whole model."""
    name = name.removeprefix(tower.prefix)
    for wrapped, bare in _VIT_H_WRAPPED if tower is VIT_H else ():
        if name.startswith(wrapped):
            return bare + name.removeprefix(wrapped)
    return name.removeprefix("model.") if not name.startswith("model.diffusion_model.") else name


def _header_at(path: Path) -> dict[str, TensorEntry]:
    """List the tensors of a file, of all shards of an index, or of the one model in a folder.

    Raises WeightsError if there is none, or several to choose from.
    """
    if not path.exists():
        raise WeightsError(f"there is no {path}", hint="check the path")
    if path.is_dir():
        indexes = sorted(path.glob(f"*{SUFFIX}.index.json"))
        files = sorted(path.glob(f"*{SUFFIX}"))
        known = [file for file in files if file.stem in ("model", "diffusion_pytorch_model")]
        choice = known[:1] or indexes[:1] or (files if len(files) == 1 else [])
        if not choice:
            pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in (".bin", ".pt", ".pth")]
            message = f"{path} holds {len(files)} {SUFFIX} files" + (f", and {pickles[0]}" if pickles else "")
            raise WeightsError(message, hint=f"give the {SUFFIX} file itself")
        path = choice[0]
    elif match := re.match(r"(.*)-\d{5}-of-\d{5}$", path.stem):
        index = path.with_name(f"{match[1]}{SUFFIX}.index.json")
        if not index.is_file():
            raise WeightsError(f"{path.name} is one of several pieces, and {index.name} is not beside it",
                               hint="give the folder that holds all pieces and the index")
        path = index
    if path.name.endswith(".index.json"):
        try:
            pieces = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError):
            raise WeightsError(f"{path} is damaged", hint="copy it again") from None
        return {name: entry for piece in pieces for name, entry in read_header(path.parent / Path(piece).name).items()}
    return read_header(path)


# --- reading and writing ------------------------------------------------------------------------------------------


def _read(part: Part, ours: str, dtype: str | None) -> Tensor:
    """Read one of our tensors from where it is. Raises WeightsError if it holds what is no number."""
    origin = part.origins[ours]
    entry = part.entries[origin.name]
    start, length = entry.start, entry.bytes
    if origin.piece is not None:
        length //= origin.piece[1]
        start += origin.piece[0] * length
    buffer = bytearray(length)
    try:
        with entry.file.open("rb") as opened:
            opened.seek(start)
            read = opened.readinto(buffer)
    except OSError as failure:
        raise WeightsError(f"{entry.file} cannot be read: {failure.strerror}", hint="copy it again") from None
    if read != length:
        raise WeightsError(f"{entry.file.name} is cut off in {origin.name}", hint="download or copy it again")
    tensor = torch.frombuffer(buffer, dtype=DTYPES[entry.dtype])
    shape = tuple(part.network.get_parameter(ours).shape)
    tensor = tensor.view(shape[::-1]).mT.contiguous() if origin.transposed else tensor.view(shape)
    if dtype is not None and dtype != entry.dtype:
        tensor = tensor.to(DTYPES[dtype])
    if not torch.isfinite(tensor).all():
        told = "does not fit into " + _word_of(dtype) if dtype not in (None, entry.dtype) else "holds infinity or NaN"
        raise WeightsError(f"{part.prefix}{origin.name} of {entry.file.name} {told}",
                           hint="--dtype bf16 has the range of fp32" if dtype == "F16" else "download it again")
    return tensor


def _word_of(dtype: str | None) -> str:
    return next((word for word, name in DTYPE_NAMES.items() if name == dtype), str(dtype))


def _name_of(part: Part) -> str | None:
    """Give the type of a part as users write it, if all its tensors share one."""
    kinds = {part.entries[origin.name].dtype for origin in part.origins.values()}
    return _word_of(kinds.pop()) if len(kinds) == 1 else None


def _out_bytes(part: Part, ours: str, dtype: str | None) -> int:
    kept = part.entries[part.origins[ours].name].dtype
    return math.prod(part.network.get_parameter(ours).shape) * DTYPES[dtype or kept].itemsize


def _written_bytes(plan: _Plan, dtype: str | None) -> int:
    kept = DTYPE_NAMES[dtype] if dtype else None
    return sum(_out_bytes(part, name, kept) for part in plan.parts for name in part.origins
               if part.folder not in plan.linked)


def _hash(file: Path, advance: Advance) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(COPY_BYTES):
            digest.update(block)
            advance("reading", len(block))
    return digest.hexdigest()


def _write_parts(
    folder: Path, plan: _Plan, dtype: str | None, shard_bytes: int, advance: Advance, create: Create
) -> dict[str, WeightsFile]:
    """Write every part into its folder; give the hashes of what was written, by path inside the model."""
    kept = DTYPE_NAMES[dtype] if dtype else None
    hashed: dict[str, WeightsFile] = {}
    for part in plan.parts:
        inside = folder / part.folder
        inside.mkdir()
        _save_config(part, inside)
        if part.folder in plan.linked:
            _link_weights(plan.linked[part.folder], inside)
            continue
        shards = _shards(part, kept, shard_bytes)
        stem = part.file_stem
        names = [f"{stem}-{i:05d}-of-{len(shards):05d}{SUFFIX}" for i in range(1, len(shards) + 1)]
        if len(shards) == 1:
            names = [stem + SUFFIX]
        for name, tensors in zip(names, shards, strict=True):
            for step in _write_shard(inside / name, part, tensors, kept, hashed, f"{part.folder}/{name}", create):
                advance(f"writing {part.folder}", step)
        if len(shards) > 1:
            index = {"metadata": {"total_size": sum(_out_bytes(part, t, kept) for t in part.origins)},
                     "weight_map": {t: name for name, tensors in zip(names, shards, strict=True) for t in tensors}}
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            (inside / f"{stem}{SUFFIX}.index.json").write_text(text, encoding="utf-8")
    return hashed


def _shards(part: Part, dtype: str | None, limit: int) -> list[list[str]]:
    """Divide the tensors of a part, in their order, into files of at most `limit` bytes."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in part.origins:
        more = _out_bytes(part, name, dtype)
        if shards[-1] and size + more > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def _write_shard(
    path: Path, part: Part, tensors: Sequence[str], dtype: str | None, hashed: dict[str, WeightsFile], listed: str,
    create: Create = _create,
) -> Iterator[int]:
    """Write one .safetensors file tensor by tensor; give the bytes of each as it is done, and record the hash.

    The library's own writer wants the whole file in memory, and then copies it.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wide types first, so that every tensor begins at a multiple of its own size.
    ordered = sorted(tensors, key=lambda name: -DTYPES[dtype or part.entries[part.origins[name].name].dtype].itemsize)
    place = 0
    for name in ordered:
        size = _out_bytes(part, name, dtype)
        header[name] = {"dtype": dtype or part.entries[part.origins[name].name].dtype,
                        "shape": list(part.network.get_parameter(name).shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with create(path) as opened:
        for block in (len(text).to_bytes(8, "little"), text):
            opened.write(block)
            digest.update(block)
        for name in ordered:
            data = _read(part, name, dtype).flatten().view(torch.uint8).numpy().data
            opened.write(data)
            digest.update(data)
            yield len(data)
        opened.flush()
        os.fsync(opened.fileno())
    with contextlib.suppress(SafetensorError), safe_open(path, "pt") as check:
        assert set(check.keys()) == set(tensors), path
        hashed[listed] = WeightsFile(digest.hexdigest(), path.stat().st_size)
    assert listed in hashed, f"the library does not read {path}"


def _link_weights(source: Path, folder: Path) -> None:
    """Put the weights of an installed tower into a new folder: the same files where the disk allows, else copies."""
    for file in sorted(source.iterdir()):
        if file.name.endswith((SUFFIX, ".index.json")):
            try:
                os.link(file.resolve(), folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)


def _save_config(part: Part, folder: Path) -> None:
    network: Any = part.network
    if part.kind[0] == "transformers":
        network.config.save_pretrained(folder)
    else:
        network.save_config(folder)


def _write_index(folder: Path, plan: _Plan, prediction: Prediction) -> None:
    """Write the scheduler and the tokenizer, and the index by which diffusers finds all parts."""
    DDIMScheduler(**NOISE_SCHEDULE, prediction_type=PREDICTIONS[prediction]).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {part.folder: list(part.kind) for part in plan.parts}
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if plan.tokenizer is not None:
        plan.tokenizer.save_pretrained(folder / "tokenizer")
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    content = {"_class_name": "ColorizePipeline", "_diffusers_version": diffusers_version}
    content |= dict(sorted(index.items()))
    (folder / DIFFUSERS_INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- the new folder -----------------------------------------------------------------------------------------------


def _refuse_existing(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if not force:
        raise OutputError(f"{target} is there already", hint="--name gives another name, --force replaces it")
    if not (target / LIST_NAME).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target} is no model folder, so it is not replaced", hint="--name gives another name")


def _require_space(parent: Path, plan: _Plan, dtype: str | None) -> None:
    copied = sum(file.stat().st_size for folder in plan.linked.values() for file in folder.iterdir()
                 if folder.stat().st_dev != parent.stat().st_dev)
    needed = _written_bytes(plan, dtype) + copied + SPARE_BYTES
    free = shutil.disk_usage(parent).free
    if needed > free:
        halved = dtype is None and any(_name_of(part) == "fp32" for part in plan.parts)
        hint = "make room, or choose another disk with --to" + (", or halve it with --dtype fp16" if halved else "")
        raise OutputError(f"the model needs {needed / 1e9:.2f} GB, and {parent} has {free / 1e9:.2f} GB free",
                          hint=hint)


@contextlib.contextmanager
def _new_folder(target: Path, force: bool) -> Iterator[Path]:
    """Give a folder beside the target that becomes it when all is well, and is removed when not."""
    parent, here = target.parent, socket.gethostname()
    fresh = parent / f".{target.name}.{here}-{os.getpid()}.partial"
    old = parent / f".{target.name}.{here}-{os.getpid()}.old"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent, target.name, here)
        fresh.mkdir()
        yield fresh
        if force and target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk of {parent} is full", hint="make room, or choose another disk with --to"
                              ) from None
        raise OutputError(f"{failure.filename or target} cannot be written: {failure.strerror or failure}",
                          hint="check its permissions, or choose another folder with --to") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(parent: Path, name: str, host: str) -> None:
    """Remove what an import that was killed on this machine left behind."""
    for path in parent.glob(f".{name}.{host}-*.partial"):
        process = path.name.removesuffix(".partial").rpartition("-")[2]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
