"""The pretrained networks that published files are used with: found in them, beside them or in an installed model.

Each is checked by itself, so that a message can name its own file and option.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from colorcli.errors import WeightsError
from colorcli.model.architecture import (
    OriginOf,
    Shapes,
    image_encoder_from,
    open_clip_origin,
    same_name,
    tagger_from,
    tagger_origin,
)
from colorcli.model.architecture_v2 import text_tower_from, text_tower_origin, vision_tower_from
from colorcli.model.file_parts import Faults, Make, Part, make_part, published_shape, shapes_of
from colorcli.model.single_file import KIND_IN_WORDS, Header, TensorEntry, header_at, kind_of
from colorcli.model.weights import TAGGER, VIT_H, Tower, has_tower, installed_models

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")   # CLIP's words, in the one or the other form
CLIP_LEFT_OUT = (
    r"(text_model\.|text_projection|logit_scale|.*position_ids$|transformer\.|token_embedding\.|positional_embedding$"
    r"|ln_final\.|attn_mask$)"
)
TAGGER_LEFT_OUT = r"(head\.|.*(relative_position_index|relative_coords_table|k_bias|attn_mask)$)"
# Of CLIP ViT-H/14, whose text side is kept too.
VIT_H_LEFT_OUT = r"(logit_scale$|.*position_ids$|attn_mask$)"
TOWER_PARTS = ("image_encoder", "tagger", "text_encoder")
CLIP_WHAT = "CLIP ViT-bigG/14 (model.safetensors of laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)"
VIT_H_WHAT = "CLIP ViT-H/14 (model.safetensors of laion/CLIP-ViT-H-14-laion2B-s32B-b79K)"
TAGGER_WHAT = "the WD v1.4 SwinV2 tagger (model.safetensors of SmilingWolf/wd-v1-4-swinv2-tagger-v2)"
_OPTIONS = {"image_encoder": ("--clip", CLIP_WHAT), "tagger": ("--tagger", TAGGER_WHAT)}
# What a v2 file calls both sides of CLIP ViT-H/14, and how open_clip does.
_VIT_H_WRAPPED = (("visual.model.", "visual."), ("transformer.model.", ""))
TAGS = 9083   # classes of that release of the tagger; its successors have the same backbone with other weights


@dataclass(frozen=True)
class FoundTower:
    """A tower found, and what came with it."""

    parts: Sequence[Part]
    left: Mapping[str, Sequence[str]]         # reason -> tensors of its file that are not used
    origin: str                               # where it is from, for people
    links: Mapping[str, Path] = field(default_factory=dict)   # part -> folder of a model to link it from
    tokenizer: Any = None
    notes: Sequence[str] = ()


def find_tower(tower: Tower, given: Path | None, inside: Header, file: Path, tokenizer: Path | None) -> FoundTower:
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
    bare = {bare_name(tower, name): entry for name, entry in header.items()}
    kind = kind_of(bare)
    if tower is TAGGER:
        part, left = _tagger_part(bare, option, what, origin, kind)
        return FoundTower([part], left, origin, links)
    if kind != "clip":
        words = KIND_IN_WORDS.get(kind, kind)
        raise WeightsError(f"{origin} is {words}, not a CLIP tower", hint=f"{option} takes {what}")
    _require_layers(bare, tower, option, what, origin)
    if tower is not VIT_H:
        part, left = _clip_part(bare, option, what, origin)
        return FoundTower([part], left, origin, links)
    parts, left = _vit_h_parts(bare, option, what, origin)
    if len(parts) == 1:
        return FoundTower(parts, left, origin, links)
    beside = tokenizer
    if beside is None and (links or given is not None):
        near = links["image_encoder"].parent / "tokenizer" if links else given
        assert near is not None
        beside = near if near.is_dir() else near.parent
    known, notes = _tokenizer(beside, parts[1].network)
    return FoundTower(parts, left, origin, links, known, notes)


def _what(tower: Tower) -> str:
    return VIT_H_WHAT if tower is VIT_H else _OPTIONS[tower.folder][1]


def _links(model: Path, tower: Tower) -> dict[str, Path]:
    """Find the networks in a model's folder that are a tower, or come from the same place."""
    return {name: model / name for name in (tower.folder, *tower.goes_with)
            if name in TOWER_PARTS and (model / name).is_dir()}


def _headers_at(places: Iterable[Path]) -> dict[str, TensorEntry]:
    return {name: entry for place in places for name, entry in header_at(place).items()}


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
    part = make_part("image_encoder", ("transformers", "CLIPVisionModelWithProjection"), network,
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
        shapes = shapes_of(own) if theirs else _open_clip_shapes(own, name_of)
        try:
            network = make({name.removeprefix("visual."): shape for name, shape in shapes.items()})
        except (ArithmeticError, KeyError, ValueError, IndexError, TypeError) as lost:
            raise WeightsError(f"{origin} does not fit: the sizes of its {folder} cannot be read ({lost})",
                               hint=f"{option} takes {what}") from None
        part = make_part(folder, ("transformers", kind), network, name_of if theirs else same_name, own)
        _require_complete(part, origin, what, option)
        parts.append(part)
    return parts, left


def _open_clip_shapes(own: Header, name_of: OriginOf) -> Shapes:
    """Give the shapes of a tower in the names of transformers by those of open_clip."""
    origins = {name: name_of(name) for name in own}
    return {origin.name: published_shape(own[name].shape, origin) for name, origin in origins.items()}


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
    part = make_part("tagger", ("colorcli.model.reference", "TaggerTower"), tagger_from(shapes),
                 same_name if ours else tagger_origin, own)
    _require_complete(part, origin, what, option)
    return part, left


def _require_complete(part: Part, origin: str, what: str, option: str) -> None:
    """Check a tower on its own, so that the message names its file and option. Raises WeightsError."""
    used = {origin.name for origin in part.origins.values()}
    faults = Faults(unknown=[name for name in part.entries if name not in used])
    faults.check(part)
    if texts := faults.in_words():
        raise WeightsError(f"{origin} does not fit: {'; '.join(texts)}", hint=f"{option} takes {what}")


def _shape(header: Header, name: str) -> tuple[int, ...]:
    return header[name].shape if name in header else ()


def bare_name(tower: Tower, name: str) -> str:
    """Take off what wraps a tower's names in a whole model."""
    name = name.removeprefix(tower.prefix)
    for wrapped, bare in _VIT_H_WRAPPED if tower is VIT_H else ():
        if name.startswith(wrapped):
            return bare + name.removeprefix(wrapped)
    return name.removeprefix("model.") if not name.startswith("model.diffusion_model.") else name


def require_matching_towers(parts: Sequence[Part]) -> None:
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
